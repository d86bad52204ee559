"""The names of ``statsmodels.regression.mixed_linear_model``."""

from jaxglmm.compat.statsmodels._theirs import falling_through
from jaxglmm.compat.statsmodels.mixedlm.model import MixedLM as MixedLM
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams as MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.results import MixedLMResults as MixedLMResults
from jaxglmm.compat.statsmodels.mixedlm.structure import VCSpec as VCSpec
from jaxglmm.compat.statsmodels.tools.sm_exceptions import (
    ConvergenceWarning as ConvergenceWarning,
)

MixedLMResultsWrapper = MixedLMResults  # what ``fit`` returns, under either name

__all__ = [
    "ConvergenceWarning",
    "MixedLM",
    "MixedLMParams",
    "MixedLMResults",
    "MixedLMResultsWrapper",
    "VCSpec",
]

__getattr__ = falling_through(__name__, "statsmodels.regression.mixed_linear_model")
