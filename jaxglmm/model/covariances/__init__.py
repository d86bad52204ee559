"""Covariances of random effects, one file each, and the table that names them.

To add one: a file beside these with a subclass of ``AbstractCovariance``, a row in
``REGISTRY`` and one for its word in ``formula.structures.WORDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm.model.correlations import (
    Autoregressive,
    Exchangeable,
    ExponentialKernel,
    GaussianKernel,
    MaternKernel,
    Toeplitz,
)
from jaxglmm.model.covariances.base import AbstractCovariance as AbstractCovariance
from jaxglmm.model.covariances.diagonal import Diagonal as Diagonal
from jaxglmm.model.covariances.factor_analytic import FactorAnalytic as FactorAnalytic
from jaxglmm.model.covariances.homogeneous import Homogeneous as Homogeneous
from jaxglmm.model.covariances.homogeneous import KnownBetweenLevels
from jaxglmm.model.covariances.structured import Structured as Structured
from jaxglmm.model.covariances.tensor import Tensor as Tensor
from jaxglmm.model.covariances.unstructured import Unstructured as Unstructured

if TYPE_CHECKING:
    from jaxglmm.formula.design import RandomTerm

Made = Callable[[int, str], AbstractCovariance]


def _steps(kind: str, correlation: Callable[[int], Any], one: bool) -> Made:
    return lambda q, _: Structured(kind, correlation(q), one)


def _kernel(kind: str, correlation: Callable[[Any], Any]) -> Made:
    return lambda q, inside: Structured(kind, correlation(_places(inside, q)), True)


# Word -> the covariance of q columns and of what stands in brackets behind the word.
REGISTRY: dict[str, Made] = {
    "us": lambda q, _: Unstructured(q),
    "diag": lambda q, _: Diagonal(q),
    "homdiag": lambda q, _: Homogeneous(q),
    "cs": _steps("cs", Exchangeable, one=False),
    "homcs": _steps("homcs", Exchangeable, one=True),
    "ar1": _steps("ar1", Autoregressive, one=True),
    "hetar1": _steps("hetar1", Autoregressive, one=False),
    "toep": _steps("toep", Toeplitz, one=False),
    "homtoep": _steps("homtoep", Toeplitz, one=True),
    "ou": _kernel("ou", ExponentialKernel),
    "exp": _kernel("exp", ExponentialKernel),
    "gau": _kernel("gau", GaussianKernel),
    "mat": _kernel("mat", MaternKernel),
    "rr": lambda q, inside: FactorAnalytic(q, min(int(inside or 2), q)),
    "te": lambda q, inside: Tensor(_places(inside, q)),
    "known": lambda q, inside: KnownBetweenLevels(q, inside or "(Intercept)"),
}


def _places(inside: str, q: int) -> tuple[tuple[float, ...], ...]:
    """Coordinates, ``0 1.5;2 0``; without any q whole steps."""
    if not inside:
        return tuple((float(i),) for i in range(q))
    return tuple(tuple(map(float, x.split())) for x in inside.split(";"))


def named(name: str, q: int) -> AbstractCovariance:
    """The covariance of q columns; one column has a variance, whatever the name.

    name: as ``RandomTerm.covariance`` has it, ``ar1``, ``rr(2)``, ``ou(0;1.5;3)``.
    """
    return _made(name if q > 1 or name.startswith(("known", "te(")) else "diag", q)


@cache
def _made(name: str, q: int) -> AbstractCovariance:
    kind, _, inside = name.partition("(")
    return REGISTRY[kind](q, inside.removesuffix(")"))


def of(term: RandomTerm) -> AbstractCovariance:
    """That of a term."""
    return named(term.covariance, len(term.names))


def of_terms(terms: Sequence[RandomTerm]) -> tuple[AbstractCovariance, ...]:
    """Those of terms."""
    return tuple(of(term) for term in terms)


def sd_names(terms: Sequence[RandomTerm]) -> tuple[str, ...]:
    """Names of all standard deviations, term by term."""
    return tuple(
        name for term in terms for name in of(term).sd_names(term.names, term.label)
    )


def standard_deviations(
    terms: Sequence[RandomTerm], lams: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """(..., s) of each term, named as ``sd_names`` has them, from its Lambda."""
    found = []
    for term, lam in zip(terms, lams, strict=True):
        own = of(term)
        found.append(
            own.natural(lam @ np.swapaxes(lam, -1, -2))[0]
            if own.has_own
            else np.sqrt(np.sum(lam**2, axis=-1))
        )
    return found


def names_by_term(terms: Sequence[RandomTerm]) -> tuple[str, ...]:
    """Of each term its standard deviations, then its correlations row by row."""
    out: list[str] = []
    for term in terms:
        own = of(term)
        out += own.sd_names(term.names, term.label)
        out += own.correlation_names(term.names, term.label, by_row=True)
    return tuple(out)
