"""The place of ``statsmodels.tools``."""

from jaxglmm.compat.statsmodels._theirs import falling_through
from jaxglmm.compat.statsmodels.tools import sm_exceptions as sm_exceptions
from jaxglmm.compat.statsmodels.tools import tools as tools
from jaxglmm.compat.statsmodels.tools.tools import add_constant as add_constant

__getattr__ = falling_through(__name__, "statsmodels.tools")
