"""The place of ``statsmodels.regression``."""

from jaxglmm.compat.statsmodels._theirs import falling_through
from jaxglmm.compat.statsmodels.regression import (
    mixed_linear_model as mixed_linear_model,
)

__getattr__ = falling_through(__name__, "statsmodels.regression")
