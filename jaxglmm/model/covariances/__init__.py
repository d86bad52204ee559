"""Covariances of random effects, one file each, and the table that names them.

To add one: a file beside these with a subclass of ``AbstractCovariance``, a row in
``REGISTRY`` and one for its word in ``formula.parse.WRAPPERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from jaxglmm.model.covariances.base import AbstractCovariance as AbstractCovariance
from jaxglmm.model.covariances.diagonal import Diagonal as Diagonal
from jaxglmm.model.covariances.unstructured import Unstructured as Unstructured

if TYPE_CHECKING:
    from jaxglmm.formula.design import RandomTerm

REGISTRY: dict[str, Callable[[int], AbstractCovariance]] = {
    "us": Unstructured,
    "diag": Diagonal,
}


def named(name: str, q: int) -> AbstractCovariance:
    """The covariance of q columns; one column has a variance, whatever the name."""
    return _made(REGISTRY[name] if q > 1 else Diagonal, q)


@cache
def _made(kind: Callable[[int], AbstractCovariance], q: int) -> AbstractCovariance:
    return kind(q)


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


def names_by_term(terms: Sequence[RandomTerm]) -> tuple[str, ...]:
    """Of each term its standard deviations, then its correlations row by row."""
    out: list[str] = []
    for term in terms:
        own = of(term)
        out += own.sd_names(term.names, term.label)
        out += own.correlation_names(term.names, term.label, by_row=True)
    return tuple(out)
