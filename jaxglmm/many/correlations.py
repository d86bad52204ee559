"""Correlations of random effects, of all data sets at once, from their thetas.

A term's theta is its relative factor Lambda, column by column of the lower triangle
(its diagonal alone for uncorrelated columns); correlations are those of Lambda Lambda'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxglmm.formula.design import RandomTerm

Terms = tuple[tuple[str, tuple[str, ...], str], ...]  # label, columns, covariance


def terms_of(terms: Sequence[RandomTerm]) -> Terms:
    """What is needed of the terms of a design."""
    return tuple((t.label, tuple(t.names), t.covariance) for t in terms)


def _pairs(q: int) -> list[tuple[int, int]]:
    """(later, earlier) columns, in the order of ``components.parameters``."""
    return [(i, j) for j in range(q) for i in range(j + 1, q)]


def names(terms: Terms) -> tuple[str, ...]:
    """``cor_Days.(Intercept)|Subject``, term by term."""
    return tuple(
        f"cor_{columns[i]}.{columns[j]}|{label}"
        for label, columns, covariance in terms
        if covariance != "diag"
        for i, j in _pairs(len(columns))
    )


def values(terms: Terms, theta: np.ndarray) -> np.ndarray:
    """(D, c) correlations; NaN beside a variance of zero, or where a fit failed.

    Args:
        terms: the random terms.
        theta: (D, m).
    """
    out, start = [np.zeros((len(theta), 0))], 0
    for _, columns, covariance in terms:
        q = len(columns)
        if covariance == "diag":
            start += q
            continue
        lam = np.zeros((len(theta), q, q))
        for j in range(q):
            lam[:, j:, j] = theta[:, start : start + q - j]
            start += q - j
        size = np.sqrt(np.sum(lam**2, axis=2, keepdims=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = lam / size
        found = [np.sum(unit[:, i] * unit[:, j], axis=1) for i, j in _pairs(q)]
        out.append(np.clip(np.array(found).reshape(-1, len(theta)).T, -1.0, 1.0))
    return np.concatenate(out, axis=1)
