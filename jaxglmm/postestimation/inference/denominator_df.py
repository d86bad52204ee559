"""F-tests of the fixed effects and tables of them.

Their degrees of freedom are those of ``fitting.degrees_of_freedom``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.fitted_model import FittedModel


def _satterthwaite_test(
    fit: FittedModel, L: np.ndarray, rhs: np.ndarray
) -> dict[str, float]:
    """F as a mean of squared independent t's, each with its degrees of freedom."""
    parts = fit.satterthwaite_parts
    values, vectors = np.linalg.eigh(L @ fit.coefficient_covariance() @ L.T)
    # a contrast that repeats others has no variance of its own
    keep = values > 1e-10 * values.max()
    rows = vectors[:, keep].T @ L
    distance = vectors[:, keep].T @ (L @ fit.coefficients - rhs)
    F = float(np.mean(distance**2 / values[keep]))
    df = parts.df(rows)
    return {"F": F, "num_df": int(keep.sum()), "den_df": _pooled(df)}


def _pooled(df: np.ndarray) -> float:
    """Denominator degrees of freedom of a mean of squared t's (Fai, Cornelius 1996)."""
    q = len(df)
    # equal ones are their own average; E - q would lose its digits
    if q == 1 or np.ptp(df) < 1e-8:
        return float(df.mean())
    if (df <= 2).any():
        return 2.0
    E = float(np.sum(df / (df - 2)))
    return 2 * E / (E - q)


def contrast_test(
    fit: FittedModel,
    L: np.ndarray,
    ddf: str = "satterthwaite",
    rhs: np.ndarray | None = None,
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
    if ddf.startswith("kenward-roger"):
        rows, values = _independent(L, rhs)
        distance = rows @ fit.coefficients - values
        parts = fit.kenward_roger_of(ddf)
        found: dict[str, Any] = parts.test(rows, distance)
    elif ddf in ("residual", "asymptotic", "between-within"):
        rows, values = _independent(L, rhs)
        distance = rows @ fit.coefficients - values
        spread = rows @ fit.coefficient_covariance() @ rows.T
        F = float(distance @ np.linalg.solve(spread, distance) / len(rows))
        found = {
            "F": F,
            "num_df": len(rows),
            "den_df": fit.plain_df(ddf, L),
        }
    elif fit.vcov_type.startswith("CR"):
        rows, values = _independent(L, rhs)
        found = fit.empirical_parts.test(rows, rows @ fit.coefficients - values)
    else:
        found = _satterthwaite_test(fit, L, rhs)
    k, df = found["num_df"], found["den_df"]
    if not np.isinf(df):
        found["p"] = float(stats.f.sf(found["F"], k, df))
    else:  # the scale of the errors is known
        found["p"] = float(stats.chi2.sf(k * found["F"], k))
    return found


def _independent(L: np.ndarray, rhs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A basis of the rows of L, with the right-hand side taken along."""
    u, s, vt = np.linalg.svd(L, full_matrices=False)
    keep = s > 1e-10 * s.max()
    return s[keep, None] * vt[keep], u[:, keep].T @ rhs


def anova_table(fit: FittedModel, type: int = 3, ddf: str = "satterthwaite"):
    """F-test of every term: sum_sq, mean_sq, num_df, den_df, statistic, p_value."""
    import pandas as pd

    from jaxglmm.postestimation.inference import hypothesis_matrices

    if ddf == "asymptotic":
        return _chi_squared_table(fit, type)
    rows = {}
    for name, L in hypothesis_matrices.of_terms(fit.design, type, fit.root).items():
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


def _chi_squared_table(fit: FittedModel, type: int):
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
