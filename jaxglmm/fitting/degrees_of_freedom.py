"""Degrees of freedom of the fixed effects, and what they are made of.

Satterthwaite's method as in Kuznetsova, Brockhoff and Christensen (2017), with exact
derivatives; Kenward and Roger (1997) with the F-statistic of their section 3.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.estimate import information
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.linear import Engine
from jaxglmm.model.covariances.host import host_curves
from jaxglmm.runtime.precision import double_precision

FLAT = 1e-9  # eigenvalues of the Hessian, relative to the largest, that count as zero


# Satterthwaite -----------------------------------------------------------------------


class Satterthwaite:
    """Covariance of the variance parameters, and derivatives of that of beta.

    A: (k, k) covariance of (theta, log sigma^2); dvcov: (p, p, k).
    """

    def __init__(self, A: np.ndarray, vcov: np.ndarray, dvcov: np.ndarray):
        self.A, self.vcov, self.dvcov = A, vcov, dvcov

    def df(self, rows: np.ndarray) -> np.ndarray:
        """2 (l'Cl)^2 / Var(l'Cl) of each contrast l, a row of ``rows`` (r, p)."""
        value = np.sum(rows @ self.vcov * rows, axis=1)
        moved = [np.sum(rows @ D * rows, axis=1) for D in np.moveaxis(self.dvcov, 2, 0)]
        return self._from_moments(value, np.stack(moved, axis=1))

    def of_coefficients(self) -> np.ndarray:
        """The same for every coefficient: diagonals of what is there, (p,)."""
        moved = np.diagonal(self.dvcov).T
        return self._from_moments(np.diagonal(self.vcov), moved)

    def _from_moments(self, value: np.ndarray, g: np.ndarray) -> np.ndarray:
        spread = np.sum(g @ self.A * g, axis=1)
        safe = np.where(spread > 0, spread, 1.0)
        df = np.where(spread > 0, 2 * value**2 / safe, np.inf)
        return np.where(np.isfinite(spread), df, np.nan)


@double_precision
def satterthwaite_parts(engine: Engine, estimates: Estimates) -> Satterthwaite:
    """Computed once a fit; directions in which the criterion is flat are left out."""
    vcov = estimates.vcov
    assert vcov is not None
    theta = engine.theta(estimates)
    fixed = engine.moments.fixed
    sigma2 = np.float64((float(estimates.sigma) / fixed.scale) ** 2)
    found = information.curvature(engine.problem, theta, sigma2, bool(estimates.reml))
    hessian = np.asarray(found.hessian)
    if not np.isfinite(hessian).all():
        nothing = np.full(hessian.shape, np.nan)
        return Satterthwaite(nothing, vcov, np.asarray(found.dvcov))
    values, vectors = np.linalg.eigh(hessian)
    keep = values > FLAT * np.abs(values).max()
    half = vectors[:, keep] / np.sqrt(values[keep])
    back = fixed.scale * fixed.R_inverse
    inner = np.moveaxis(np.asarray(found.dvcov), 2, 0)
    dvcov = np.moveaxis(back @ inner @ back.T, 0, 2)
    return Satterthwaite(2 * half @ half.T, vcov, dvcov)


# Kenward and Roger -------------------------------------------------------------------


class KenwardRoger:
    """The adjusted covariance of beta and what the F-test needs.

    vcov: (p, p) Phi; adjusted: (p, p) Phi_A; PP: (r, p, p) Phi P_r Phi; W: (r, r).
    """

    def __init__(self, vcov, adjusted, PP, W):
        self.vcov, self.adjusted, self.PP, self.W = vcov, adjusted, PP, W

    def test(self, L: np.ndarray, distance: np.ndarray) -> dict[str, float]:
        """F, its scale and its denominator degrees of freedom for L (q, p)."""
        q = len(L)
        # Theta Phi P_r Phi, Theta = L'(L Phi L')^-1 L, in the q dimensions of L
        inner = L @ self.PP @ L.T
        product = np.linalg.solve((L @ self.vcov @ L.T)[None], inner)
        trace = np.einsum("rii->r", product)
        A1 = float(trace @ self.W @ trace)
        pairs = np.einsum("rij,sji->rs", product, product)
        A2 = float(np.sum(self.W * pairs))
        den_df, scale = _kenward_roger_df(q, A1, A2)
        F = distance @ np.linalg.solve(L @ self.adjusted @ L.T, distance) / q
        return {
            "F": float(scale * F),
            "num_df": q,
            "den_df": den_df,
            "scale": scale,
            "F_unscaled": float(F),
        }

    def of_coefficients(self) -> np.ndarray:
        """(p,) degrees of freedom: with one row A1 and A2 are the same number."""
        a = np.diagonal(self.PP, axis1=1, axis2=2) / np.diagonal(self.vcov)
        A = np.sum(self.W @ a * a, axis=0)
        return np.array([_kenward_roger_df(1, x, x)[0] for x in A.tolist()])


def _kenward_roger_df(q: int, A1: float, A2: float) -> tuple[float, float]:
    """Denominator degrees of freedom and scale, matched to two moments of F."""
    if A2 < 1e-14:  # the variance parameters are known: a chi-squared test
        return np.inf, 1.0
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    den = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / den, (q - g) / den, (q + 2 - g) / den
    ratio = (1 - A2 / q) / (1 - c2 * B)
    V0, V1, V2 = 1 + c1 * B, 1 - c2 * B, 1 - c3 * B
    if abs(V0) < 1e-10:
        V0 = 0.0
    rho = ratio**2 * V0 / V2 / q if abs(V1) > 1e-10 else np.inf
    df = 4 + (q + 2) / (q * rho - 1)
    scale = 1.0 if abs(df - 2) < 1e-2 else df * (1 - A2 / q) / (df - 2)
    return float(df), float(scale)


@double_precision
def kenward_roger_parts(engine: Engine, estimates: Estimates) -> KenwardRoger:
    """Phi_A and the ingredients of the test, once a fit."""
    if not bool(estimates.reml):
        raise NotApplicableError(
            "Kenward and Roger's method is defined for REML fits; this one is by "
            "maximum likelihood. Fit with reml=True, or use ddf='satterthwaite'"
        )
    fixed = engine.moments.fixed
    sigma2 = np.float64((float(estimates.sigma) / fixed.scale) ** 2)
    theta = engine.theta(estimates)
    bent = host_curves(np.asarray(theta), engine.problem.covariances, float(sigma2))
    found = information.components(engine.problem, theta, sigma2, *bent)
    C, P, Q, K = (np.asarray(x) for x in (found.C, found.P, found.Q, found.K))
    if not all(np.isfinite(x).all() for x in (C, P, Q, K)):
        nothing = np.full(C.shape, np.nan)
        return KenwardRoger(nothing, nothing, np.full(P.shape, np.nan), K * np.nan)
    Phi = np.linalg.inv(C)
    PhiP = Phi @ P  # (r, p, p)
    IE2 = (
        K - 2 * np.einsum("ij,rsji->rs", Phi, Q) + np.einsum("rij,sji->rs", PhiP, PhiP)
    )
    # to unit diagonal first: variances may differ by many orders of magnitude
    unit = np.sqrt(np.maximum(np.diagonal(IE2), np.finfo(float).tiny))
    scaled = np.linalg.pinv(IE2 / np.outer(unit, unit), rcond=1e-12, hermitian=True)
    W = 2 * scaled / np.outer(unit, unit)
    mixed = np.tensordot(W, PhiP, axes=1)  # sum over s of W_rs Phi P_s
    U = np.tensordot(W, Q - np.asarray(found.R) / 4, axes=2) - np.sum(P @ mixed, axis=0)
    adjusted = Phi + 2 * Phi @ U @ Phi
    back = fixed.scale * fixed.R_inverse
    PP = PhiP @ Phi
    return KenwardRoger(
        back @ Phi @ back.T,
        back @ (adjusted + adjusted.T) @ back.T / 2,
        back @ PP @ back.T,
        W,
    )
