"""The name of ``statsmodels.formula.api`` that is served.

>>> import jaxglmm.compat.statsmodels.formula.api as smf
>>> smf.mixedlm.__name__
'mixedlm'
"""

from jaxglmm.compat.statsmodels.mixedlm import mixedlm as mixedlm
