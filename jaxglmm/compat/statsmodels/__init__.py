"""statsmodels' mixed models by their own names.

>>> from jaxglmm.compat.statsmodels import BinomialBayesMixedGLM

Evaluations (``logposterior``, ``vb_elbo``, their gradients) return statsmodels'
numbers, constants and all. Fits return the right answer by default and statsmodels'
own where that one is well defined, on request. Every name is imported when it is first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxglmm.compat.statsmodels.bayes.model import BayesMixedGLM as BayesMixedGLM
    from jaxglmm.compat.statsmodels.bayes.model import (
        BayesMixedGLMResults as BayesMixedGLMResults,
    )
    from jaxglmm.compat.statsmodels.bayes.model import (
        BinomialBayesMixedGLM as BinomialBayesMixedGLM,
    )
    from jaxglmm.compat.statsmodels.bayes.model import (
        MixedGLMResults as MixedGLMResults,
    )
    from jaxglmm.compat.statsmodels.bayes.model import (
        PoissonBayesMixedGLM as PoissonBayesMixedGLM,
    )
    from jaxglmm.compat.statsmodels.mixedlm.model import MixedLM as MixedLM
    from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams as MixedLMParams
    from jaxglmm.compat.statsmodels.mixedlm.results import (
        MixedLMResults as MixedLMResults,
    )
    from jaxglmm.compat.statsmodels.mixedlm.results import load as load
    from jaxglmm.compat.statsmodels.mixedlm.structure import VCSpec as VCSpec

_BAYES = "jaxglmm.compat.statsmodels.bayes.model"

_WHERE = {  # public name -> module that holds it
    "BayesMixedGLM": _BAYES,
    "BayesMixedGLMResults": _BAYES,
    "BinomialBayesMixedGLM": _BAYES,
    "MixedGLMResults": _BAYES,
    "PoissonBayesMixedGLM": _BAYES,
    "MixedLM": "jaxglmm.compat.statsmodels.mixedlm.model",
    "MixedLMParams": "jaxglmm.compat.statsmodels.mixedlm.params",
    "MixedLMResults": "jaxglmm.compat.statsmodels.mixedlm.results",
    "VCSpec": "jaxglmm.compat.statsmodels.mixedlm.structure",
    "load": "jaxglmm.compat.statsmodels.mixedlm.results",
}

__all__ = [
    "BayesMixedGLM",
    "BayesMixedGLMResults",
    "BinomialBayesMixedGLM",
    "MixedGLMResults",
    "MixedLM",
    "MixedLMParams",
    "MixedLMResults",
    "PoissonBayesMixedGLM",
    "VCSpec",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value  # found once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
