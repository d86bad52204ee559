"""Covariances of the fixed effects from the residuals of clusters, and their tests.

With A = Cov(beta) by the model, V the covariance of the response and, of cluster i,
e the residuals, H = X A X'V^-1 and S = (I - H) V:

    CR0, empirical          A (sum X'V^-1 e e'V^-1 X) A
    CR1                     the same times m / (m - 1), of m clusters
    CR1p                    ... m / (m - p)
    CR1S                    ... m (n - 1) / ((m - 1)(n - p)), what Stata has
    CR2                     e replaced by B e, B symmetric and B S B = V
    empirical-bias-reduced  e replaced by V^(1/2) (I - H~)^(-1/2) V^(-1/2) e,
                            H~ = V^(-1/2) H V^(1/2)
    CR3, empirical-jackknife  e replaced by (I - H)^-1 e

(Liang and Zeger 1986; Bell and McCaffrey 2002; Mancl and DeRouen 2001; Pustejovsky and
Tipton 2018). The two of bias reduction have the same expectation under the model and
differ in the root. Degrees of freedom are Satterthwaite's of such a covariance under
the model's, by Bell and McCaffrey; of several contrasts at once they are Hotelling's
T-squared of a Wishart matrix with as much variance (Zhang 2012; Tipton and
Pustejovsky 2015).

Except for CR2's root all of it is a function of two sums a cluster, X'V^-1 e and
X'V^-1 X: no matrix is as large as a cluster.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.estimate.hessian import slope
from jaxglmm.fitting.clusters import Clusters, Rows
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at

POWERS = {  # of I - H in the coordinates of V^(-1/2)
    "empirical": 0.0,
    "CR0": 0.0,
    "CR1": 0.0,
    "CR1p": 0.0,
    "CR1S": 0.0,
    "empirical-bias-reduced": -0.5,
    "empirical-jackknife": -1.0,
    "CR3": -1.0,
}
KINDS = (*POWERS, "CR2")
LOST = 1e-10  # eigenvalues of I - H that a cluster alone determines
MOST_ROWS = 4_000  # of one cluster, whose covariance has an eigendecomposition


class Empirical:
    """Sums of the clusters, in coordinates in which A = I.

    back: (p, p) from these coordinates to the user's; score: (m, p) X'V^-1 B e, B what
    the kind puts before the residuals; square: (m, p, p) X'V^-1 B V B'V^-1 X; own:
    (m, p, p) X'V^-1 B X of each of the m clusters.
    """

    def __init__(self, fit: Any, kind: str, clusters: Clusters):
        A = np.asarray(fit.estimates.vcov)
        self.back = np.linalg.cholesky(A) if len(A) else A
        rows = Rows(fit, clusters, self.back)
        self.factor = _factor(kind, rows.m, fit.nobs, len(A))
        if kind == "CR2":
            self.score, self.square, self.own = _with_symmetric_root(rows)
            return
        score, own = rows.sums()
        power = _powered(own, POWERS[kind])
        self.score = np.einsum("mji,mj->mi", power, score)
        self.own = own @ power
        self.square = np.swapaxes(power, 1, 2) @ self.own

    @cached_property
    def covariance(self) -> np.ndarray:
        """(p, p) in the user's coordinates."""
        return self.factor * (self.back @ (self.score.T @ self.score) @ self.back.T)

    def df(self, rows: np.ndarray) -> np.ndarray:
        """Of each contrast, a row of ``rows`` (r, p): tr(G)^2 / tr(G^2).

        l'Cov l is a quadratic form with the matrix G = diag(u'u) - s s' in the scores
        of the clusters, u'u = l'(square)l and s = (own) l of each.
        """
        return np.array([self._df(self.back.T @ row) for row in rows])

    def _df(self, direction: np.ndarray) -> float:
        square = np.einsum("i,mij,j->m", direction, self.square, direction)
        s = self.own @ direction
        own = np.sum(s * s, axis=1)
        S = s.T @ s
        total = np.sum(square * square) - 2 * np.sum(square * own) + np.sum(S * S)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.sum(square - own) ** 2 / total)

    def test(self, L: np.ndarray, distance: np.ndarray) -> dict[str, float]:
        """F-test that ``distance``, (q,) of the contrasts L (q, p), is zero.

        L Cov L' is taken for Wishart's with eta degrees of freedom, of the mean and the
        total variance that it has under the model; (eta - q + 1) / (eta q) times the
        quadratic form then is F with eta - q + 1. NaN where that is not positive.
        """
        q = len(L)
        rows = L @ self.back
        square = np.einsum("sj,mjk,tk->mst", rows, self.square, rows)
        own = np.einsum("mjk,sk->msj", self.own, rows)
        # the mean under the model, and all in coordinates in which that is I
        mean = square.sum(axis=0) - np.einsum("msj,mtj->st", own, own)
        values, vectors = np.linalg.eigh(mean)
        if not values[0] > LOST * values[-1]:  # a contrast that has no residuals
            return {name: np.nan for name in ("F", "F_unscaled", "den_df")} | {
                "num_df": q
            }
        root = (vectors / np.sqrt(values)) @ vectors.T
        square, own = root @ square @ root, root @ own
        eta = q * (q + 1) / _total_variance(square, own)
        F = float(distance @ np.linalg.solve(L @ self.covariance @ L.T, distance) / q)
        found = {"F_unscaled": F, "num_df": q, "den_df": eta - q + 1}
        if eta - q + 1 <= 0:
            return found | {"F": np.nan, "den_df": np.nan}
        return found | {"F": F * (eta - q + 1) / eta}

    def of_coefficients(self) -> np.ndarray:
        """(p,) of every coefficient."""
        return self.df(np.eye(len(self.back)))


def _total_variance(square: np.ndarray, own: np.ndarray) -> float:
    """Sum of the variances of the entries of sum_i h_i h_i', h = (m, q) the scores.

    cov(h_si, h_tj) = square_ist (i = j) - own_is own_jt', square (m, q, q) and
    own (m, q, p); for normal scores the variance of an entry is the sum over pairs of
    clusters of c_ss c_tt + c_st c_ts.
    """
    gram = np.einsum("msj,mtj->mst", own, own)
    cross = np.einsum("msj,mtk->stjk", own, own)
    diagonal = np.einsum("mss->ms", square), np.einsum("mss->ms", gram)
    same = np.einsum("ms,mt->", diagonal[0], diagonal[0])
    same += np.sum(square * square)
    # both of the others, of which one stands on either side
    mixed = np.einsum("ms,mt->", *diagonal) + np.sum(square * gram)
    apart = np.sum(cross * cross) + np.einsum("stjk,tsjk->", cross, cross)
    return float(same - 2 * mixed + apart)


def _factor(kind: str, m: int, n: int, p: int) -> float:
    if kind == "CR1":
        return m / (m - 1)
    if kind == "CR1S":
        return m * (n - 1) / ((m - 1) * (n - p))
    if kind == "CR1p":
        if m <= p:
            raise NotApplicableError(
                f"vcov='CR1p' divides by the number of clusters less that of "
                f"coefficients, {m} - {p}: use 'CR2'"
            )
        return m / (m - p)
    return 1.0


@double_precision
def root_by_scores(
    fit: Any, root: np.ndarray, kind: str, clusters: Clusters
) -> np.ndarray:
    """(k, m) root of a robust covariance of (beta, theta, phi) of a generalised model.

    C G'G C with C = root root', (k, k), by the model, and in G (m, k) the score of each
    cluster's marginal likelihood: a pass over the rows for each, all others without
    weight (White 1982; Liang and Zeger 1986).
    """
    engine, codes = fit.engine, clusters.codes
    psi, u = fit.internal()
    w = fit.design.weights
    w = np.ones(fit.design.n) if w is None else np.asarray(w, float)
    found = np.unique(codes[w > 0])
    scores = np.empty((len(found), len(psi)))
    for k, code in enumerate(found):
        weights = engine.data.place(np.where(codes == code, w, 0.0))
        own = tree_at(lambda p: p.weights, engine.base, weights)
        scores[k] = np.asarray(slope(engine.marginal, own, psi, u)) / -2
    return np.sqrt(_factor(kind, len(found), fit.nobs, fit.design.p)) * (
        root @ (root.T @ scores.T)
    )


def _powered(own: np.ndarray, power: float) -> np.ndarray:
    """(I - X'V^-1 X)^power of every cluster, (m, p, p)."""
    eye = np.broadcast_to(np.eye(own.shape[1]), own.shape)
    if not power:
        return eye
    values, vectors = np.linalg.eigh(eye - own)
    safe = np.where(values > LOST, values, np.inf) ** power
    return (vectors * safe[:, None]) @ np.swapaxes(vectors, 1, 2)


def _with_symmetric_root(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, squares and own sums of all clusters by the symmetric B.

    With V = L L', X~ = L^-1 X and K = L'L it is B = L C L' with
    C = (K (I - X~X~') K)^(-1/2), so that the score is X~'C K e~ in whitened residuals
    e~ = L^-1 e.
    """
    m, p = rows.m, len(rows.half)
    score, square, own = np.zeros((m, p)), np.zeros((m, p, p)), np.zeros((m, p, p))
    for here, V, X, e in rows.dense(MOST_ROWS):
        L = np.linalg.cholesky(V)
        X, e = np.linalg.solve(L, X), np.linalg.solve(L, e[..., None])[..., 0]
        K = np.swapaxes(L, 1, 2) @ L
        KX = K @ X
        values, vectors = np.linalg.eigh(K @ K - KX @ np.swapaxes(KX, 1, 2))
        least = LOST * values.max(axis=1, keepdims=True)
        safe = np.where(values > least, values, np.inf) ** -0.5
        C = (vectors * safe[:, None]) @ np.swapaxes(vectors, 1, 2)
        M = K @ (C @ X)
        score[here] = np.einsum("mtc,mt->mc", M, e)
        square[here] = np.swapaxes(M, 1, 2) @ M
        own[here] = np.swapaxes(X, 1, 2) @ M
    return score, square, own
