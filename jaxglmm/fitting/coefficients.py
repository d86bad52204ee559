"""The table of the fixed effects: estimate, standard error, df, t and p."""

from __future__ import annotations

import contextlib
import sys

import numpy as np

from jaxglmm._pandas import pd
from jaxglmm.numerics.student_t import two_sided

FEW = 100  # values that are faster found without SciPy where that is not imported


def standard_errors(vcov: np.ndarray) -> np.ndarray:
    """Square roots of the diagonal, (p,)."""
    return np.sqrt(np.diagonal(vcov))


def t_p_values(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Two-sided p of t with df degrees of freedom, exact in the tail, (p,).

    P(|T| > t) = I_{df / (df + t^2)}(df / 2, 1 / 2), the regularised incomplete beta.
    """
    t, df = np.broadcast_arrays(np.asarray(t, float), np.asarray(df, float))
    if t.size <= FEW and "scipy.special" not in sys.modules:
        with contextlib.suppress(ArithmeticError):
            pairs = zip(t.ravel().tolist(), df.ravel().tolist(), strict=True)
            return np.array([two_sided(*pair) for pair in pairs]).reshape(t.shape)
    from scipy import special  # slow to import

    with np.errstate(over="ignore", invalid="ignore"):
        p = special.betainc(df / 2, 0.5, df / (df + t**2))
        normal = special.erfc(np.abs(t) / np.sqrt(2))
    return np.where(np.isinf(df), normal, p)


def t_quantile(level: float, df: np.ndarray) -> np.ndarray:
    """Half width of a central interval in standard errors, (p,)."""
    from scipy import special  # slow to import

    df = np.asarray(df, float)
    finite = np.where(np.isinf(df), 1.0, df)
    upper = (1 + level) / 2
    return np.where(np.isinf(df), special.ndtri(upper), special.stdtrit(finite, upper))


def wald(beta, se, df, level: float) -> np.ndarray:
    """estimate -/+ t quantile times standard error, (p, 2)."""
    half = t_quantile(level, df) * se
    return np.column_stack([beta - half, beta + half])


def table(names, beta, se, df) -> pd.DataFrame:
    """One row a coefficient: estimate, std_error, df, statistic, p_value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.asarray(beta) / np.asarray(se)
    return pd.DataFrame(
        {
            "estimate": beta,
            "std_error": se,
            "df": df,
            "statistic": t,
            "p_value": t_p_values(t, df),
        },
        index=pd.Index(names, name="term"),
    )
