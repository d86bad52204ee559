"""Random-effects meta-analysis and meta-regression with known sampling variances.

y_i = x_i'beta + u_i + e_i, u_i ~ N(0, tau^2), e_i ~ N(0, v_i), v_i known. With W =
diag(1 / (v + tau^2)) and P = W - WX (X'WX)^-1 X'W the criteria' scores in tau^2 are
y'PPy - tr P (REML) and y'PPy - tr W (ML). Moment estimators: DerSimonian and Laird
(1986), Hedges and Olkin (1985), Sidik and Jonkman (2005), Paule and Mandel (1982);
tests by Knapp and Hartung (2003). Small dense algebra in NumPy: a study is a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from jaxglmm._errors import ConvergenceWarning, ModelError
from jaxglmm.formatting import numbers
from jaxglmm.formula.notices import warn
from jaxglmm.numerics.special import LOG_2PI

METHODS = ("REML", "ML", "DL", "HE", "SJ", "PM", "EE")
TESTS = ("z", "t", "knha")
STEPS, CLOSE = 200, 1e-13


@dataclass(frozen=True)
class Weighted:
    """Weighted least squares at one tau^2."""

    y: np.ndarray
    X: np.ndarray
    w: np.ndarray

    @cached_property
    def vcov(self) -> np.ndarray:
        """(X'WX)^-1."""
        return np.linalg.inv((self.X.T * self.w) @ self.X)

    @cached_property
    def P(self) -> np.ndarray:
        """(k, k) W - WX (X'WX)^-1 X'W."""
        WX = self.w[:, None] * self.X
        return np.diag(self.w) - WX @ self.vcov @ WX.T

    @cached_property
    def beta(self) -> np.ndarray:
        """Coefficients."""
        return self.vcov @ ((self.X.T * self.w) @ self.y)

    @cached_property
    def Q(self) -> float:
        """The weighted residual sum of squares."""
        r = self.y - self.X @ self.beta
        return float(np.sum(self.w * r * r))


def tau2_of(
    y: np.ndarray, X: np.ndarray, v: np.ndarray, method: str
) -> tuple[float, float]:
    """tau^2 and its standard error by one of ``METHODS``."""
    k, p = X.shape
    if method == "EE":
        return 0.0, np.nan
    fixed = Weighted(y, X, 1.0 / v)
    if method == "DL":
        trace = float(np.trace(fixed.P))
        tau2 = (fixed.Q - (k - p)) / trace
        t = max(tau2, 0.0)
        inner = 2 * (k - p) + 4 * t * trace + 2 * t * t * float(np.sum(fixed.P**2))
        return t, float(np.sqrt(inner)) / trace
    if method == "HE":
        plain = Weighted(y, X, np.ones(k))
        tau2 = (plain.Q - float(np.sum(np.diagonal(plain.P) * v))) / (k - p)
        t, PV = max(tau2, 0.0), plain.P * v
        inner = 2 * np.trace(PV @ PV) + 4 * t * np.trace(PV) + 2 * t * t * (k - p)
        return t, float(np.sqrt(inner)) / (k - p)
    if method == "SJ":
        first = float(np.var(y))
        at = Weighted(y, X, 1.0 / (v + first))
        tau2 = first * at.Q / (k - p)
        PV = at.P * (v + tau2)
        se = np.sqrt((first / (k - p)) ** 2 * 2 * np.trace(PV @ PV))
        return tau2, float(se)
    if method == "PM":
        tau2 = _paule_mandel(y, X, v, k - p)
        mean = (k - p) / k * float(np.sum(1.0 / (v + tau2)))  # trace P, if alike
        return tau2, float(np.sqrt(2 * (k - p))) / mean
    return _likely(y, X, v, reml=method == "REML")


def _paule_mandel(y: np.ndarray, X: np.ndarray, v: np.ndarray, df: int) -> float:
    """Where Q(tau^2) is its expectation, by Newton's method from the left."""
    tau2 = 0.0
    for _ in range(STEPS):
        at = Weighted(y, X, 1.0 / (v + tau2))
        excess = at.Q - df
        if tau2 == 0.0 and excess <= 0:
            return 0.0
        slope = float(np.sum((at.P @ y) ** 2))
        step = excess / slope
        tau2 += step
        if abs(step) <= CLOSE * max(tau2, 1e-10):
            break
    return max(tau2, 0.0)


def _likely(
    y: np.ndarray, X: np.ndarray, v: np.ndarray, reml: bool
) -> tuple[float, float]:
    """By Fisher's scoring with steps that stay at or above zero."""
    tau2 = max(float(np.var(y, ddof=1) - np.mean(v)), 0.1 * float(np.mean(v)))
    best = _criterion(y, X, v, tau2, reml)
    for _ in range(STEPS):
        at = Weighted(y, X, 1.0 / (v + tau2))
        Py = at.P @ y
        down = np.trace(at.P) if reml else np.sum(at.w)
        size = np.sum(at.P**2) if reml else np.sum(at.w**2)
        step = float((Py @ Py - down) / size)
        to = max(tau2 + step, 0.0)
        value = _criterion(y, X, v, to, reml)
        while value > best + 1e-12 and abs(to - tau2) > CLOSE * (tau2 + 1e-10):
            to = (to + tau2) / 2
            value = _criterion(y, X, v, to, reml)
        done = abs(to - tau2) <= CLOSE * max(tau2, 1e-10)
        tau2, best = to, min(value, best)
        if done:
            break
    else:
        warn(
            f"tau^2 = {tau2:.4g} had not converged after {STEPS} steps; try "
            "method='PM', which always does",
            ConvergenceWarning,
        )
    at = Weighted(y, X, 1.0 / (v + tau2))
    size = np.sum(at.P**2) if reml else np.sum(at.w**2)
    return tau2, float(np.sqrt(2.0 / size))


def _criterion(
    y: np.ndarray, X: np.ndarray, v: np.ndarray, tau2: float, reml: bool
) -> float:
    """-2 log-likelihood; of REML with |X'X|, which makes it free of X's units."""
    at, (k, p) = Weighted(y, X, 1.0 / (v + tau2)), X.shape
    out = float(np.sum(np.log(v + tau2))) + at.Q + (k - p * reml) * LOG_2PI
    if reml:
        out -= np.linalg.slogdet(at.vcov)[1] + np.linalg.slogdet(X.T @ X)[1]
    return out


@dataclass(frozen=True)
class MetaFit:
    """A meta-analysis: effects, heterogeneity, and what is asked of them.

    coefficients: Series; vcov: (p, p); tau2, se_tau2: between-study variance;
    Q, Q_df, Q_p: Cochran's test of heterogeneity; I2 in per cent, H2;
    log_likelihood: of ML or REML (with log|X'X| / 2, as metafor); method, test.
    """

    coefficients: pd.Series
    vcov: np.ndarray
    tau2: float
    se_tau2: float
    Q: float
    I2: float
    H2: float
    log_likelihood: float
    method: str
    test: str
    level: float
    y: np.ndarray = field(repr=False)
    X: np.ndarray = field(repr=False)
    v: np.ndarray = field(repr=False)

    @property
    def nobs(self) -> int:
        """Number of studies."""
        return len(self.y)

    @property
    def df(self) -> float:
        """Of the tests: k - p, or infinite of z."""
        return np.inf if self.test == "z" else float(self.nobs - self.X.shape[1])

    @property
    def Q_df(self) -> int:
        """Degrees of freedom of Q."""
        return self.nobs - self.X.shape[1]

    @property
    def Q_p(self) -> float:
        """p-value of Q."""
        from scipy.stats import chi2

        return float(chi2.sf(self.Q, self.Q_df))

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return -2 * self.log_likelihood + 2 * self._npar

    @property
    def bic(self) -> float:
        """Schwarz's criterion; of REML with k - p studies."""
        n = self.Q_df if self.method == "REML" else self.nobs
        return -2 * self.log_likelihood + np.log(n) * self._npar

    @property
    def _npar(self) -> int:
        return self.X.shape[1] + (self.method != "EE")

    @property
    def table(self) -> pd.DataFrame:
        """estimate, std_error, statistic, df, p_value, conf_low, conf_high."""
        se = np.sqrt(np.diagonal(self.vcov))
        estimate = self.coefficients.to_numpy()
        half = self._quantile * se
        return pd.DataFrame(
            {
                "estimate": estimate,
                "std_error": se,
                "statistic": estimate / se,
                "df": self.df,
                "p_value": self._p(estimate / se),
                "conf_low": estimate - half,
                "conf_high": estimate + half,
            },
            index=self.coefficients.index,
        )

    def moderators(self) -> dict[str, float]:
        """The test of all coefficients but the intercept (of it, where it is alone)."""
        from scipy.stats import chi2, f

        names = [*self.coefficients.index]
        at = [i for i, n in enumerate(names) if n != "(Intercept)"] or [0]
        beta = self.coefficients.to_numpy()[at]
        QM = float(beta @ np.linalg.solve(self.vcov[np.ix_(at, at)], beta))
        m = len(at)
        if np.isinf(self.df):
            return {"QM": QM, "df": m, "p_value": float(chi2.sf(QM, m))}
        F = QM / m
        p = float(f.sf(F, m, self.df))
        return {"QM": F, "df": m, "den_df": self.df, "p_value": p}

    def predict(self, X: np.ndarray | None = None) -> pd.DataFrame:
        """Mean effects with confidence and prediction intervals.

        Args:
            X: (m, p) design rows; None for the mean effect, where that is the model.
        """
        if X is None and self.X.shape[1] > 1:
            raise ModelError(
                "a meta-regression predicts for given moderators: predict(X), a row of "
                f"{self.X.shape[1]} numbers ({', '.join(self.coefficients.index)})"
            )
        rows = np.ones((1, 1)) if X is None else np.atleast_2d(np.asarray(X, float))
        mean = rows @ self.coefficients.to_numpy()
        var = np.einsum("ij,jk,ik->i", rows, self.vcov, rows)
        half, wide = (self._quantile * np.sqrt(x) for x in (var, var + self.tau2))
        return pd.DataFrame(
            {
                "fit": mean,
                "se": np.sqrt(var),
                "lower": mean - half,
                "upper": mean + half,
                "pred_lower": mean - wide,
                "pred_upper": mean + wide,
            }
        )

    def blup(self) -> np.ndarray:
        """(k,) effects of the studies, shrunk towards their means."""
        mean = self.X @ self.coefficients.to_numpy()
        return mean + self.tau2 / (self.tau2 + self.v) * (self.y - mean)

    @property
    def _quantile(self) -> float:
        from scipy.stats import norm, t

        upper = (1 + self.level) / 2
        return float(norm.ppf(upper) if np.isinf(self.df) else t.ppf(upper, self.df))

    def _p(self, statistic: np.ndarray) -> np.ndarray:
        from scipy.stats import norm, t

        size = np.abs(statistic)
        return 2 * (norm.sf(size) if np.isinf(self.df) else t.sf(size, self.df))

    def __repr__(self) -> str:
        p = numbers.p_value(self.Q_p)
        head = (
            f"Meta-analysis of {self.nobs} studies ({self.method}; tests: {self.test})",
            f"tau^2 {self.tau2:.4f} (SE {self.se_tau2:.4f}), I^2 {self.I2:.1f}%, "
            f"H^2 {self.H2:.2f}",
            f"Heterogeneity: Q({self.Q_df}) = {self.Q:.3f}, p {p}",
        )
        return "\n".join((*head, "", self.table.to_string(float_format="%.4f")))


def analyse(
    y: np.ndarray,
    X: np.ndarray,
    names: tuple[str, ...],
    v: np.ndarray,
    method: str,
    test: str,
    level: float,
) -> MetaFit:
    """Estimate tau^2, then everything at it."""
    k, p = X.shape
    tau2, se = tau2_of(y, X, v, method)
    at, fixed = Weighted(y, X, 1.0 / (v + tau2)), Weighted(y, X, 1.0 / v)
    typical = (k - p) / float(np.trace(fixed.P))
    between = tau2  # of equal effects what Q says beyond its expectation
    if method == "EE":
        between = typical * max(fixed.Q / (k - p) - 1.0, 0.0)
    vcov = at.vcov * (at.Q / (k - p) if test == "knha" else 1.0)
    minus2 = _criterion(y, X, v, tau2, method == "REML")
    return MetaFit(
        pd.Series(at.beta, index=list(names), name="estimate"),
        vcov,
        tau2,
        se,
        fixed.Q,
        100 * between / (typical + between),
        between / typical + 1,
        -minus2 / 2,
        method,
        test,
        level,
        y,
        X,
        v,
    )
