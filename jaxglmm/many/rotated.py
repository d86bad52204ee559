"""Many responses of one design whose levels have a known covariance: rotated once.

y ~ N(X beta, sigma^2 (I + theta^2 R R')), R the rows of the known root. With R R' =
Q S^2 Q' the rows of Q'y are independent, of variances sigma^2 (1 + theta^2 s_i^2): one
random intercept a row, of size s_i, with which the lanes of one grouping factor deal
(Kang et al. 2008, Genetics 178, 1709; Lippert et al. 2011, Nature Methods 8, 833).
Likelihoods, restricted ones too, are the same, for Q is orthogonal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.many.responses import Responses

MOST = 8000  # rows of a matrix Q in full
ZERO = 1e-13  # of the largest size, below which an effect is none


def rotates(design: Design, *given: object) -> bool:
    """Whether a rotation makes the rows independent.

    given: weights, and offsets that differ between responses, which it does not take.
    """
    terms = design.terms
    alone = len(terms) == 1 and terms[0].known is not None and design.residual is None
    free = all(x is None for x in given) and design.weights is None
    return alone and free and design.n <= MOST


class RotatedResponses:
    """Q'Y, a chunk of columns at a time."""

    def __init__(self, responses: Responses, Q: np.ndarray):
        self.responses, self.Q = responses, Q
        self.n = len(Q)

    def __len__(self) -> int:
        return len(self.responses)

    def take(self, which: np.ndarray) -> np.ndarray:
        """Columns ``which`` (n, L); one with a value that is missing is all missing."""
        Y = self.responses.take(which)
        finite = np.isfinite(Y).all(axis=0)
        if finite.all():
            return self.Q.T @ Y
        out = self.Q.T @ np.where(finite, Y, 0.0)
        infinite = np.isinf(Y).any(axis=0)
        out[:, ~finite] = np.where(infinite, np.inf, np.nan)[~finite]
        return out


def rotated(design: Design, responses: Responses) -> tuple[Design, RotatedResponses]:
    """The design and the responses with independent rows."""
    (term,) = design.terms
    Q, sizes = decomposed(term.values)
    own = sizes > ZERO * sizes.max(initial=0.0)
    n, k = len(Q), int(own.sum())
    codes = np.full(n, k, np.int32)  # one level has the rows without an effect
    codes[own] = np.arange(k)
    offset = None if design.offset is None else Q.T @ design.offset
    made = RandomTerm(
        term.label,
        term.factor,
        (str(term.levels[0]),),
        codes,
        np.where(own, sizes, 0.0)[:, None],
        np.arange(k + (k < n)),
    )
    turned = replace(
        design, X=Q.T @ design.X, y=Q.T @ design.y, offset=offset, terms=(made,)
    )
    return turned, RotatedResponses(responses, Q)


def decomposed(R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q (n, n) orthogonal and sizes (n,) with R R' = Q diag(sizes^2) Q'."""
    n, J = R.shape
    if n <= J:
        values, Q = np.linalg.eigh(R @ R.T)
        return Q, np.sqrt(np.maximum(values, 0.0))
    Q, upper = np.linalg.qr(R, mode="complete")
    U, s, _ = np.linalg.svd(upper[:J])
    Q[:, :J] = Q[:, :J] @ U
    return Q, np.concatenate([s, np.zeros(n - J)])
