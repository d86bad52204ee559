"""The names of ``statsmodels.regression.mixed_linear_model``."""

from jaxglmm.compat.statsmodels.mixedlm import MixedLM as MixedLM
from jaxglmm.compat.statsmodels.mixedlm_params import MixedLMParams as MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm_results import MixedLMResults as MixedLMResults
from jaxglmm.compat.statsmodels.mixedlm_structure import VCSpec as VCSpec
