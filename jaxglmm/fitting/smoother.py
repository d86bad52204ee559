"""Products with P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1 of a linear mixed model.

V = W^-1 + Z Lambda Lambda'Z', in units of sigma^2: by the sparse factor of
M = Lambda'Z'WZ Lambda + I, so that no n x n matrix is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from jaxglmm.model.covariances.host import host_lambdas


class Smoother:
    """P of a fit, at its parameters; rows of weight zero are left out.

    rows: (n,) the places in the design of the rows that count
    """

    def __init__(self, fit: Any):
        design = fit.design
        self.rows = np.arange(design.n)[design.counted]
        w = design.weights
        self.w = np.ones(len(self.rows)) if w is None else w[self.rows]
        self.X = design.X[self.rows]
        problem, self.theta = fit.working()
        self.covariances = problem.covariances
        self.Z = [self._columns(design, factor) for factor in fit.engine.factors]
        blocks = [
            Z @ sparse.block_diag([lam] * levels, format="csc")
            for (Z, levels), lam in zip(self.Z, self._lambdas(self.theta), strict=True)
        ]
        self.ZL = sparse.hstack(blocks, format="csc")
        M = self.ZL.T @ self.ZL.multiply(self.w[:, None])
        self.factor = splu(sparse.csc_matrix(M + sparse.eye(M.shape[0])))
        self.VX = self._inverse(self.X)
        self.half = np.linalg.cholesky(self.X.T @ self.VX) if self.X.shape[1] else None

    def _columns(self, design: Any, factor: Any) -> tuple[Any, int]:
        """Internal Z of a factor, (n, J q), a level after the other."""
        terms = [design.terms[k] for k, _, _ in factor.spans]
        values = np.concatenate([t.values for t in terms], axis=1) @ factor.T_inverse
        values, codes = values[self.rows], terms[0].codes[self.rows]
        n, q = values.shape
        at = (codes[:, None] * q + np.arange(q)).ravel()
        begin = np.arange(0, n * q + 1, q)
        shape = (n, factor.n_levels * q)
        return sparse.csr_matrix((values.ravel(), at, begin), shape), factor.n_levels

    def _lambdas(self, theta: np.ndarray) -> list[np.ndarray]:
        return host_lambdas(np.asarray(theta), self.covariances)

    def _inverse(self, v: np.ndarray) -> np.ndarray:
        """V^-1 v, (n,) or (n, k)."""
        Wv = (self.w * v.T).T
        inner = self.factor.solve(np.ascontiguousarray(self.ZL.T @ Wv))
        return Wv - (self.w * (self.ZL @ inner).T).T

    def times(self, v: np.ndarray) -> np.ndarray:
        """P v, (n,) or (n, k)."""
        found = self._inverse(v)
        if self.half is None:
            return found
        inner = np.linalg.solve(self.half, self.X.T @ found)
        return found - self.VX @ np.linalg.solve(self.half.T, inner)

    def moved(self, v: np.ndarray) -> np.ndarray:
        """V_j v (n, m), V_j the derivative of V in the thetas."""
        m, step = len(self.theta), 1e-4
        out = np.zeros((len(v), m))
        for j in range(m):
            e = np.zeros(m)
            e[j] = step * max(1.0, abs(self.theta[j]))
            above, below = self._lambdas(self.theta + e), self._lambdas(self.theta - e)
            for (Z, levels), a, b in zip(self.Z, above, below, strict=True):
                # a quadratic function of free entries: the difference is exact there
                slope = (a @ a.T - b @ b.T) / (2 * e[j])
                if slope.any():
                    effects = (Z.T @ v).reshape(levels, -1) @ slope
                    out[:, j] += Z @ effects.ravel()
        return out
