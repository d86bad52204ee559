"""The names of ``statsmodels.genmod.api``; Bayesian mixed models are jaxglmm's."""

from jaxglmm.compat.statsmodels._theirs import falling_through
from jaxglmm.compat.statsmodels.bayes.model import (
    BinomialBayesMixedGLM as BinomialBayesMixedGLM,
)
from jaxglmm.compat.statsmodels.bayes.model import (
    PoissonBayesMixedGLM as PoissonBayesMixedGLM,
)

__all__ = ["BinomialBayesMixedGLM", "PoissonBayesMixedGLM"]

__getattr__ = falling_through(__name__, "statsmodels.genmod.api")
