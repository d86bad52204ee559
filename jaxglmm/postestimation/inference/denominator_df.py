"""Degrees of freedom, F-tests and tables of the fixed effects.

Satterthwaite's method as in Kuznetsova, Brockhoff and Christensen (2017), with exact
derivatives; Kenward and Roger (1997) with the F-statistic of their section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.estimate import information
from jaxglmm.fitting.linear import internal_theta
from jaxglmm.runtime.precision import double_precision

if TYPE_CHECKING:
    from jaxglmm.results.fit import Fit

T = TypeVar("T")

FLAT = 1e-9  # eigenvalues of the Hessian, relative to the largest, that count as zero


def _once(fit: Fit, name: str, make: Callable[[Fit], T]) -> T:
    """What ``make`` finds, kept on the fit (and left behind when it is pickled)."""
    if name not in fit.__dict__:
        fit.__dict__[name] = make(fit)
    return fit.__dict__[name]


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
def satterthwaite_parts(fit: Fit) -> Satterthwaite:
    """Computed once a fit; directions in which the criterion is flat are left out."""
    engine = fit.engine
    theta = internal_theta(engine, fit)
    fixed = engine.moments.fixed
    sigma2 = np.float64((fit.sigma / fixed.scale) ** 2)
    found = information.curvature(engine.problem, theta, sigma2, fit.reml)
    hessian = np.asarray(found.hessian)
    if not np.isfinite(hessian).all():
        nothing = np.full(hessian.shape, np.nan)
        return Satterthwaite(
            nothing, fit.coefficient_covariance(), np.asarray(found.dvcov)
        )
    values, vectors = np.linalg.eigh(hessian)
    keep = values > FLAT * np.abs(values).max()
    half = vectors[:, keep] / np.sqrt(values[keep])
    back = fixed.scale * fixed.R_inverse
    inner = np.moveaxis(np.asarray(found.dvcov), 2, 0)
    dvcov = np.moveaxis(back @ inner @ back.T, 0, 2)
    return Satterthwaite(2 * half @ half.T, fit.coefficient_covariance(), dvcov)


def _satterthwaite(fit: Fit) -> Satterthwaite:
    return _once(fit, "_satterthwaite_parts", satterthwaite_parts)


def satterthwaite(fit: Fit) -> np.ndarray:
    """(p,) degrees of freedom of the coefficients."""
    if fit.design.p == 0:
        return np.zeros(0)
    return _satterthwaite(fit).of_coefficients()


def _satterthwaite_test(fit: Fit, L: np.ndarray, rhs: np.ndarray) -> dict[str, float]:
    """F as a mean of squared independent t's, each with its degrees of freedom."""
    parts = _satterthwaite(fit)
    values, vectors = np.linalg.eigh(L @ fit.coefficient_covariance() @ L.T)
    keep = values > 1e-10 * values.max()
    rows = vectors[:, keep].T @ L
    distance = vectors[:, keep].T @ (L @ fit.coefficients - rhs)
    F = float(np.mean(distance**2 / values[keep]))
    df = parts.df(rows)
    return {"F": F, "num_df": int(keep.sum()), "den_df": _pooled(df)}


def _pooled(df: np.ndarray) -> float:
    """Denominator degrees of freedom of a mean of squared t's (Fai, Cornelius 1996)."""
    q = len(df)
    if q == 1 or np.ptp(df) < 1e-8:
        return float(df.mean())
    if (df <= 2).any():
        return 2.0
    E = float(np.sum(df / (df - 2)))
    return 2 * E / (E - q)


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
def kenward_roger_parts(fit: Fit) -> KenwardRoger:
    """Phi_A and the ingredients of the test, once a fit."""
    if not fit.reml:
        raise NotApplicableError(
            "Kenward and Roger's method is defined for REML fits; this one is by "
            "maximum likelihood. Fit with reml=True, or use ddf='satterthwaite'"
        )
    engine = fit.engine
    fixed = engine.moments.fixed
    sigma2 = np.float64((fit.sigma / fixed.scale) ** 2)
    found = information.components(engine.problem, internal_theta(engine, fit), sigma2)
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
    U = np.tensordot(W, Q, axes=2) - np.sum(P @ mixed, axis=0)
    adjusted = Phi + 2 * Phi @ U @ Phi
    back = fixed.scale * fixed.R_inverse
    PP = PhiP @ Phi
    return KenwardRoger(
        back @ Phi @ back.T,
        back @ (adjusted + adjusted.T) @ back.T / 2,
        back @ PP @ back.T,
        W,
    )


def _kenward_roger(fit: Fit) -> KenwardRoger:
    return _once(fit, "_kenward_roger_parts", kenward_roger_parts)


def kenward_roger(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """The adjusted covariance (p, p) and the degrees of freedom (p,)."""
    parts = _kenward_roger(fit)
    return parts.adjusted, parts.of_coefficients()


# Tests -------------------------------------------------------------------------------


def contrast_test(
    fit: Fit, L: np.ndarray, ddf: str = "satterthwaite", rhs: np.ndarray | None = None
) -> dict[str, float]:
    """F-test of L beta = rhs, L (q, p): F, num_df, den_df, p.

    Rows of L that others determine are left out.
    """
    from scipy import stats

    L = np.atleast_2d(np.asarray(L, float))
    rhs = np.zeros(len(L)) if rhs is None else np.broadcast_to(rhs, (len(L),))
    if not np.isfinite(L).all() or not L.any():
        raise NotApplicableError(
            "L must be finite and have a number other than zero in it: each row is one "
            "linear combination of the coefficients"
        )
    if ddf == "kenward-roger":
        rows, values = _independent(L, rhs)
        distance = rows @ fit.coefficients - values
        found: dict[str, Any] = _kenward_roger(fit).test(rows, distance)
    elif ddf in ("residual", "asymptotic"):
        rows, values = _independent(L, rhs)
        distance = rows @ fit.coefficients - values
        spread = rows @ fit.coefficient_covariance() @ rows.T
        F = float(distance @ np.linalg.solve(spread, distance) / len(rows))
        found = {
            "F": F,
            "num_df": len(rows),
            "den_df": np.inf if ddf == "asymptotic" else float(fit.nobs - fit.design.p),
        }
    else:
        found = _satterthwaite_test(fit, L, rhs)
    k, df = found["num_df"], found["den_df"]
    if np.isfinite(df):
        found["p"] = float(stats.f.sf(found["F"], k, df))
    else:  # the scale of the errors is known
        found["p"] = float(stats.chi2.sf(k * found["F"], k))
    return found


def _independent(L: np.ndarray, rhs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A basis of the rows of L, with the right-hand side taken along."""
    u, s, vt = np.linalg.svd(L, full_matrices=False)
    keep = s > 1e-10 * s.max()
    return s[keep, None] * vt[keep], u[:, keep].T @ rhs


def anova_table(fit: Fit, type: int = 3, ddf: str = "satterthwaite"):
    """F-test of every term: sum_sq, mean_sq, num_df, den_df, statistic, p_value."""
    import pandas as pd

    from jaxglmm.postestimation.inference import hypothesis_matrices

    if ddf == "asymptotic":
        return _chi_squared_table(fit, type)
    rows = {}
    for name, L in hypothesis_matrices.of_terms(fit.design, type).items():
        if not len(L):  # other terms determine it
            rows[name] = (np.nan, np.nan, 0, np.nan, np.nan, np.nan)
            continue
        found = contrast_test(fit, L, ddf)
        mean_sq = found.get("F_unscaled", found["F"]) * fit.sigma**2
        rows[name] = (
            mean_sq * found["num_df"],
            mean_sq,
            found["num_df"],
            found["den_df"],
            found["F"],
            found["p"],
        )
    columns = ["sum_sq", "mean_sq", "num_df", "den_df", "statistic", "p_value"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.astype({"num_df": int}) if len(table) else table


def _chi_squared_table(fit: Fit, type: int):
    """Wald's chi-squared test of every term: statistic, df, p_value."""
    import pandas as pd

    from jaxglmm.postestimation.inference import hypothesis_matrices

    # the information of beta, V^-1 = root'root
    V = fit.coefficient_covariance()
    root = np.linalg.inv(np.linalg.cholesky(V)) if np.isfinite(V).all() else V
    rows = {}
    for name, L in hypothesis_matrices.of_terms(fit.design, type, root).items():
        if not len(L):
            rows[name] = (np.nan, 0, np.nan)
            continue
        found = contrast_test(fit, L, "asymptotic")
        rows[name] = (found["F"] * found["num_df"], found["num_df"], found["p"])
    columns = ["statistic", "df", "p_value"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.astype({"df": int}) if len(table) else table


def compare(fits, refit: bool | None = None):
    """Likelihood-ratio tests; see ``jaxglmm.anova``."""
    from jaxglmm.postestimation.inference.comparison import compare as _compare

    return _compare(fits, refit)
