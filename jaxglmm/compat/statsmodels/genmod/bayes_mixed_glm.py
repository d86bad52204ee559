"""The names of ``statsmodels.genmod.bayes_mixed_glm``."""

from jaxglmm.compat.statsmodels._theirs import falling_through
from jaxglmm.compat.statsmodels.bayes.model import BayesMixedGLM as _BayesMixedGLM
from jaxglmm.compat.statsmodels.bayes.model import (
    BayesMixedGLMResults as BayesMixedGLMResults,
)
from jaxglmm.compat.statsmodels.bayes.model import (
    BinomialBayesMixedGLM as BinomialBayesMixedGLM,
)
from jaxglmm.compat.statsmodels.bayes.model import (
    PoissonBayesMixedGLM as PoissonBayesMixedGLM,
)

__all__ = [
    "BayesMixedGLMResults",
    "BinomialBayesMixedGLM",
    "PoissonBayesMixedGLM",
    "_BayesMixedGLM",
]

__getattr__ = falling_through(__name__, "statsmodels.genmod.bayes_mixed_glm")
