"""The place of ``statsmodels.regression``."""

from jaxglmm.compat.statsmodels.regression import (
    mixed_linear_model as mixed_linear_model,
)
