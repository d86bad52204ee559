"""The names of ``statsmodels.formula.api``: ``mixedlm`` is jaxglmm's.

All others (``ols``, ``glm``, ...) are statsmodels' own, where it is installed.

>>> import jaxglmm.compat.statsmodels.formula.api as smf
>>> smf.mixedlm.__name__
'mixedlm'
"""

from jaxglmm.compat.statsmodels._theirs import falling_through
from jaxglmm.compat.statsmodels.mixedlm.model import mixedlm as mixedlm

__all__ = ["mixedlm"]

__getattr__ = falling_through(__name__, "statsmodels.formula.api")
