"""Covariances of the fixed effects from the residuals of subjects, and their tests.

With A = Cov(beta) by the model and, of subject i, e the residuals and H = X A X'V^-1,

    empirical               A (sum X'V^-1 e e'V^-1 X) A                     (CR0)
    empirical-bias-reduced  e replaced by (I - H)^(-1/2) e                  (CR2)
    empirical-jackknife     e replaced by (I - H)^-1 e                      (CR3)

(Liang and Zeger 1986; Bell and McCaffrey 2002; Mancl and DeRouen 2001), the root that
is the symmetric one of V^(-1/2)(I - H)V^(1/2). Degrees of freedom are Satterthwaite's
of such a covariance under the model's, by Bell and McCaffrey.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm.integrate import exact_blocks
from jaxglmm.runtime.host import on_host

POWERS = {"empirical": 0.0, "empirical-bias-reduced": -0.5, "empirical-jackknife": -1.0}
LOST = 1e-10  # eigenvalues of I - H that a subject alone determines


class Empirical:
    """Whitened rows of the subjects (blocks), in coordinates in which A = I.

    back: (p, p) from these coordinates to the user's; adjusted: per stack of blocks the
    (N, T, p) rows M X, M the power of I - H, and e (N, T) the whitened residuals.
    """

    def __init__(self, fit: Any, kind: str):
        engine, at = fit.engine, fit.curvature.at
        problem, theta = engine.problem, engine.theta(fit.estimates)
        p = problem.p
        half = np.linalg.solve(np.asarray(at.LQ), np.eye(p))
        self.back = engine.fixed.scale * engine.fixed.R_inverse @ half.T
        self.adjusted, self.rows, self.residuals = [], [], []
        for a, stack in zip(engine.arrangements, problem.stacks, strict=True):
            with on_host():
                P, _ = exact_blocks.precision(stack, problem.tables(theta, stack)[0])
            whitened = _root(np.asarray(P))[a.pattern] @ a.padded(engine.rows)
            X = whitened[..., :p] @ half.T
            e = whitened[..., p] - whitened[..., :p] @ np.asarray(at.beta)
            self.adjusted.append(_powered(X, POWERS[kind]) @ X)
            self.rows.append(X)
            self.residuals.append(e)

    @cached_property
    def covariance(self) -> np.ndarray:
        """(p, p) in the user's coordinates."""
        middle = 0.0
        for X, e in zip(self.adjusted, self.residuals, strict=True):
            score = np.einsum("ntc,nt->nc", X, e)
            middle = middle + score.T @ score
        return self.back @ middle @ self.back.T

    def df(self, rows: np.ndarray) -> np.ndarray:
        """Of each contrast, a row of ``rows`` (r, p): tr(G)^2 / tr(G^2).

        l'Cov l is a quadratic form with the matrix G = diag(u'u) - s s' in the scores
        of the subjects, u = M X l and s = X'u of each.
        """
        return np.array([self._df(self.back.T @ row) for row in rows])

    def _df(self, direction: np.ndarray) -> float:
        squares, s = [], []
        for X, M in zip(self.rows, self.adjusted, strict=True):
            u = M @ direction
            squares.append(np.sum(u * u, axis=1))
            s.append(np.einsum("ntc,nt->nc", X, u))
        square, s_all = np.concatenate(squares), np.concatenate(s)
        own = np.sum(s_all * s_all, axis=1)
        S = s_all.T @ s_all
        total = np.sum(square * square) - 2 * np.sum(square * own) + np.sum(S * S)
        return float(np.sum(square - own) ** 2 / total)

    def of_coefficients(self) -> np.ndarray:
        """(p,) of every coefficient."""
        return self.df(np.eye(len(self.back)))


def _powered(X: np.ndarray, power: float) -> np.ndarray:
    """(I - X X')^power of every block, (N, T, T)."""
    eye = np.broadcast_to(np.eye(X.shape[1]), (len(X), X.shape[1], X.shape[1]))
    if not power:
        return eye
    values, vectors = np.linalg.eigh(eye - X @ np.swapaxes(X, 1, 2))
    safe = np.where(values > LOST, values, np.inf) ** power
    return (vectors * safe[:, None]) @ np.swapaxes(vectors, 1, 2)


def _root(P: np.ndarray) -> np.ndarray:
    """Symmetric roots of many matrices."""
    values, vectors = np.linalg.eigh(P)
    values = np.sqrt(np.maximum(values, 0.0))
    return (vectors * values[:, None]) @ np.swapaxes(vectors, 1, 2)
