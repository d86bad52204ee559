"""Greven and Kneib's degrees of freedom by dense matrices and refits of their own.

Nothing of the package is used for what is expected: V is written out, the estimating
equations are solved by Newton's method, and fitted values are differenced row by row.
"""

import numpy as np
import pytest
from scipy import optimize

import jaxglmm as jg


class Dense:
    """A model with one factor: V = I + Z L L' Z' of scaled parameters, all n x n."""

    def __init__(self, y, X, Z, codes, reml):
        self.y, self.X, self.reml = y, X, reml
        self.Z, self.same = Z, codes[:, None] == codes[None]
        q = Z.shape[1]
        self.at = np.tril_indices(q)
        self.q, self.start = q, np.diag([1.0, 0.2][:q])[self.at]

    def root(self, theta):
        L = np.zeros((self.q, self.q))
        L[self.at] = theta
        return L

    def spread(self, S):
        return self.same * (self.Z @ S @ self.Z.T)

    def inverse(self, theta):
        L = self.root(theta)
        Vi = np.linalg.inv(np.eye(len(self.y)) + self.spread(L @ L.T))
        VX = Vi @ self.X
        return Vi, Vi - VX @ np.linalg.solve(self.X.T @ VX, VX.T)

    def score(self, theta, y):
        """Of the profiled deviance: tr(P V_j) - (n - p) y'P V_j P y / y'P y."""
        Vi, P = self.inverse(theta)
        n = len(y) - self.reml * self.X.shape[1]
        Py, L, out = P @ y, self.root(theta), []
        for i, j in zip(*self.at, strict=True):
            E = np.zeros_like(L)
            E[i, j] = 1.0
            D = self.spread(E @ L.T + L @ E.T)
            out.append(
                np.sum((P if self.reml else Vi) * D) - n * (Py @ D @ Py) / (y @ Py)
            )
        return np.array(out)

    def estimated(self):
        start = optimize.root(self.score, self.start, args=(self.y,)).x
        found = optimize.root(self.score, start, args=(self.y,), tol=1e-13).x
        assert np.abs(self.score(found, self.y)).max() < 1e-6
        return found

    def df(self):
        theta, step = self.estimated(), 1e-5
        J = np.column_stack(
            [
                (self.score(theta + e, self.y) - self.score(theta - e, self.y))
                / (2 * step)
                for e in step * np.eye(len(theta))
            ]
        )

        def fitted(y):
            at = theta
            for _ in range(20):
                change = np.linalg.solve(J, self.score(at, y))
                at = at - change
                if np.abs(change).max() < 1e-8:
                    break
            return y - self.inverse(at)[1] @ y

        total, h = 0.0, 2e-3 * np.std(self.y)
        for i in range(len(self.y)):
            e = np.zeros(len(self.y))
            e[i] = h
            total += (fitted(self.y + e)[i] - fitted(self.y - e)[i]) / (2 * h)
        return total + 1


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("effects", ["Days", "1"])
def test_df_are_those_of_refits_by_dense_matrices(effects, reml):
    data = jg.datasets.load("sleepstudy")
    data = data[data["Subject"].isin(data["Subject"].unique()[8:])]
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    codes = np.unique(data["Subject"], return_inverse=True)[1]
    Z = X if effects == "Days" else X[:, :1]
    y = data["Reaction"].to_numpy(float)
    fit = jg.lmm(f"Reaction ~ Days + ({effects} | Subject)", data, reml=reml)
    found = fit.conditional_aic()
    assert found.df == pytest.approx(Dense(y, X, Z, codes, reml).df(), abs=1e-5)
    assert found.df > found.trace + 1
