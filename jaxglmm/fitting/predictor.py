"""The linear predictor, in the user's coordinates and without a matrix for Z.

``eta = X beta + offset + sum over terms of values[i] . b[codes[i]]``. A code of -1 is a
level that the fit has not seen; its random effect is zero, the mean of its
distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from jaxglmm.formula.design import RandomTerm


def fixed_part(X: np.ndarray, beta: np.ndarray, offset: np.ndarray | None):
    """X beta + offset, (n,)."""
    eta = X @ beta
    return eta if offset is None else eta + offset


def random_part(
    terms: Sequence[RandomTerm], b: Sequence[np.ndarray]
) -> np.ndarray | float:
    """Z b as a sum over the terms, (n,); 0.0 without terms."""
    return sum(
        (_one_term(term, effects) for term, effects in zip(terms, b, strict=True)), 0.0
    )


def _one_term(term: RandomTerm, effects: np.ndarray) -> np.ndarray:
    rows = np.einsum("iq,iq->i", term.values, effects[term.codes])
    return np.where(term.codes >= 0, rows, 0.0)


def fixed_parts(
    X: np.ndarray,
    beta: np.ndarray,
    offset: np.ndarray | None,
    columns: Sequence[int],
) -> np.ndarray:
    """X_k beta_k + offset_k, (K, n); columns: of X, predictor by predictor."""
    ends = np.cumsum([0, *columns])
    eta = np.stack([X[:, a:b] @ beta[a:b] for a, b in pairwise(ends)])
    return eta if offset is None else eta + offset


def random_parts(
    terms: Sequence[RandomTerm], b: Sequence[np.ndarray], K: int
) -> np.ndarray:
    """Z_k b, (K, n) or (K, 1) of zeros."""
    out = [np.zeros(1)] * K
    for term, effects in zip(terms, b, strict=True):
        k = term.predictor
        if isinstance(k, int):
            out[k] = out[k] + _one_term(term, effects)
            continue
        for j, own in enumerate(k):  # a column each
            row = term.values[:, j] * effects[term.codes, j]
            out[own] = out[own] + np.where(term.codes >= 0, row, 0.0)
    return np.stack(np.broadcast_arrays(*out))


def random_variance(
    terms: Sequence[RandomTerm], covariances: Sequence[np.ndarray]
) -> np.ndarray | float:
    """z' Sigma z of every row, summed over the terms, (n,): prior variance of Z b."""
    return sum(
        (
            np.einsum("ij,jk,ik->i", term.values, cov, term.values)
            + (0.0 if term.beyond is None else term.beyond * cov[0, 0])
            for term, cov in zip(terms, covariances, strict=True)
        ),
        0.0,
    )


def residual_sd(sigma: float, weights: np.ndarray | None) -> np.ndarray | float:
    """sd of a row's error, sigma / sqrt(w): (n,), or a number without weights."""
    if weights is None:
        return sigma
    with np.errstate(divide="ignore"):
        return sigma / np.sqrt(weights)
