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
    from jaxglmm.compat.statsmodels.bayes import BayesMixedGLM as BayesMixedGLM
    from jaxglmm.compat.statsmodels.bayes import (
        BayesMixedGLMResults as BayesMixedGLMResults,
    )
    from jaxglmm.compat.statsmodels.bayes import (
        BinomialBayesMixedGLM as BinomialBayesMixedGLM,
    )
    from jaxglmm.compat.statsmodels.bayes import MixedGLMResults as MixedGLMResults
    from jaxglmm.compat.statsmodels.bayes import (
        PoissonBayesMixedGLM as PoissonBayesMixedGLM,
    )
    from jaxglmm.compat.statsmodels.mixedlm import MixedLM as MixedLM
    from jaxglmm.compat.statsmodels.mixedlm_params import MixedLMParams as MixedLMParams
    from jaxglmm.compat.statsmodels.mixedlm_results import (
        MixedLMResults as MixedLMResults,
    )
    from jaxglmm.compat.statsmodels.mixedlm_results import load as load
    from jaxglmm.compat.statsmodels.mixedlm_structure import VCSpec as VCSpec

_BAYES = "jaxglmm.compat.statsmodels.bayes"

_WHERE = {  # public name -> module that holds it
    "BayesMixedGLM": _BAYES,
    "BayesMixedGLMResults": _BAYES,
    "BinomialBayesMixedGLM": _BAYES,
    "MixedGLMResults": _BAYES,
    "PoissonBayesMixedGLM": _BAYES,
    "MixedLM": "jaxglmm.compat.statsmodels.mixedlm",
    "MixedLMParams": "jaxglmm.compat.statsmodels.mixedlm_params",
    "MixedLMResults": "jaxglmm.compat.statsmodels.mixedlm_results",
    "VCSpec": "jaxglmm.compat.statsmodels.mixedlm_structure",
    "load": "jaxglmm.compat.statsmodels.mixedlm_results",
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
