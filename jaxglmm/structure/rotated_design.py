"""One design whose rows are independent, of variances sigma^2 (1 + t s_i).

This is what a known covariance between levels leaves after a rotation by its
eigenvectors: one random effect a row, of relative variance t = theta^2 times its
eigenvalue s_i. All that depends on the design is a function of t alone, so it is
tabulated once, for the many responses that start from the same places.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.runtime.trees import Module
from jaxglmm.structure.moments_of_design import Moments

PLACES = 24  # where the criterion of all responses is known before the search
LOW, HIGH = 1e-2, 1e2  # times a row's own effect over the residual, at the two ends
FEW = 0.05  # share of the rows that may have less than the end says


class RotatedDesign(Module):
    """A design, and what is known of it at some places t.

    X: (p, n) orthonormal rows; XX: (K, n) products of two of them, lower triangle by
    rows; s: (n,) sizes, zero where a row has no effect.

    At the places t: (G,) there are W: (G, n) reciprocal variances; WX: (G p, n); root:
    (G, p, p) L^-1 with L L' = X'WX; log_det: (G,) of the variances; log_det_Q: (G,).
    """

    X: Float[Array, "p n"]
    XX: Float[Array, "k n"]
    s: Float[Array, " n"]
    t: Float[Array, " G"]
    W: Float[Array, "G n"]
    WX: Float[Array, "k n"]
    root: Float[Array, "G p p"]
    log_det: Float[Array, " G"]
    log_det_Q: Float[Array, " G"]


def rotated_design(m: Moments) -> RotatedDesign:
    """From a design of one random intercept a row; NumPy inside."""
    (factor,) = m.factors
    values = factor.values
    s = np.ones(m.n) if values is None else values[:, 0] ** 2
    X = np.ascontiguousarray(m.basis.whole.T)
    p, n = X.shape
    pairs = [X[a] * X[b] for a in range(p) for b in range(a + 1)]
    t = _places(s)
    W = 1 / (1 + t[:, None] * s)
    WX = W[:, None] * X
    L = np.linalg.cholesky(WX @ X.T)
    diagonal = np.diagonal(L, axis1=1, axis2=2)
    return RotatedDesign(
        X,
        np.stack(pairs) if pairs else np.zeros((0, n)),
        s,
        t,
        W,
        WX.reshape(-1, n),
        np.linalg.inv(L),
        -np.sum(np.log(W), axis=1),
        2 * np.sum(np.log(diagonal), axis=1),
    )


def _places(s: np.ndarray) -> np.ndarray:
    """(G,) t from next to no effects to next to no residuals, in equal ratios."""
    some = s[s > 0]
    if not len(some):
        return np.geomspace(LOW, HIGH, PLACES)
    return np.geomspace(LOW / some.max(), HIGH / np.quantile(some, FEW), PLACES)
