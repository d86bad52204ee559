"""Formulas as statsmodels reads them: patsy's language, names and order of columns.

statsmodels' users address coefficients by name and by position, so that both are
part of a model. patsy's manual states the rules (formulas, contrasts, the order of
terms); they are followed here without patsy, which need not be installed. Beyond
patsy, names in backticks and the transforms of ``jg.lmm`` are understood.
"""

from jaxglmm.compat.statsmodels.patsy.matrix import Matrix as Matrix
from jaxglmm.compat.statsmodels.patsy.matrix import learn as learn
from jaxglmm.compat.statsmodels.patsy.response import response as response
from jaxglmm.compat.statsmodels.patsy.text import Sides as Sides
from jaxglmm.compat.statsmodels.patsy.text import parse as parse
from jaxglmm.compat.statsmodels.patsy.text import variables as variables
