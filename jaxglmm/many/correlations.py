"""Correlations of random effects, of all data sets at once, from their thetas.

A term's theta gives its relative factor Lambda; correlations are those of Lambda
Lambda'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxglmm.formula.design import RandomTerm
from jaxglmm.model.covariances import named
from jaxglmm.model.covariances.host import host_lambdas

Terms = tuple[tuple[str, tuple[str, ...], str], ...]  # label, columns, covariance


def terms_of(terms: Sequence[RandomTerm]) -> Terms:
    """What is needed of the terms of a design."""
    return tuple((t.label, tuple(t.names), t.covariance) for t in terms)


def names(terms: Terms) -> tuple[str, ...]:
    """``cor_Days.(Intercept)|Subject``, term by term."""
    return tuple(
        name
        for label, columns, covariance in terms
        for name in named(covariance, len(columns)).correlation_names(columns, label)
    )


def values(terms: Terms, theta: np.ndarray) -> np.ndarray:
    """(D, c) correlations; NaN beside a variance of zero, or where a fit failed.

    Args:
        terms: the random terms.
        theta: (D, m).
    """
    own = [named(covariance, len(columns)) for _, columns, covariance in terms]
    out = [np.zeros((len(theta), 0))]
    for c, lam in zip(own, host_lambdas(theta, own), strict=True):
        if c.has_own:
            out.append(c.natural(lam @ np.swapaxes(lam, 1, 2))[1])
            continue
        size = np.sqrt(np.sum(lam**2, axis=2, keepdims=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = lam / size
        found = [np.sum(unit[:, i] * unit[:, j], axis=1) for i, j in c.pairs]
        out.append(np.clip(np.array(found).reshape(-1, len(theta)).T, -1.0, 1.0))
    return np.concatenate(out, axis=1)
