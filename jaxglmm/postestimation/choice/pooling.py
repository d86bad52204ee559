"""Fits of imputed data sets put together by Rubin's rules.

The estimate is the mean, its covariance T = U + (1 + 1/m) B: what the fits say of their
own errors, and what they differ by (Rubin 1987). Degrees of freedom are Barnard and
Rubin's (1999), which stay below those of data without gaps; tests of several
coefficients are those of Li, Raghunathan and Rubin (1991), D1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ComparisonError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import components
from jaxglmm.many.record import FittedModels


@dataclass(frozen=True)
class Pooled:
    """Estimates over m imputed data sets; shows itself.

    names: (p,); estimates: (m, p); within: (m, p, p) covariances of each, diagonal
    unless ``full``; complete_df: (p,) of data without gaps; variances: frame of the
    means of sds, correlations and dispersion parameters; converged: (m,)
    """

    names: tuple[str, ...]
    estimates: np.ndarray
    within: np.ndarray
    complete_df: np.ndarray
    variances: pd.DataFrame
    converged: np.ndarray
    full: bool

    @property
    def m(self) -> int:
        """Number of imputed data sets."""
        return len(self.estimates)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """(p,) means."""
        return self.estimates.mean(axis=0)

    @cached_property
    def between(self) -> np.ndarray:
        """(p, p) covariance of the estimates over data sets, B."""
        away = self.estimates - self.coefficients
        return away.T @ away / (self.m - 1)

    @cached_property
    def covariance(self) -> np.ndarray:
        """(p, p) T = U + (1 + 1/m) B."""
        return self.within.mean(axis=0) + (1 + 1 / self.m) * self.between

    @property
    def se(self) -> np.ndarray:
        """(p,) standard errors."""
        return np.sqrt(np.diagonal(self.covariance))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Estimates with tests, limits at 95 per cent, and what the gaps cost."""
        return self.tidy()

    def tidy(self, level: float = 0.95) -> pd.DataFrame:
        """One row a coefficient.

        Args:
            level: coverage of the limits.

        Returns:
            estimate, std_error, df, statistic, p_value, conf_low, conf_high; riv,
            relative increase in variance by the gaps; lambda, share of the variance
            that is theirs; fmi, fraction of missing information.
        """
        from scipy import stats

        level = _arguments.level(level)
        df, riv, share = self._degrees()
        se = self.se
        with np.errstate(invalid="ignore", divide="ignore"):
            t = self.coefficients / se
            p = 2 * stats.t.sf(np.abs(t), df)
            reach = stats.t.ppf((1 + level) / 2, df) * se
            fmi = (riv + 2 / (df + 3)) / (riv + 1)
        found = {
            "estimate": self.coefficients,
            "std_error": se,
            "df": df,
            "statistic": t,
            "p_value": p,
            "conf_low": self.coefficients - reach,
            "conf_high": self.coefficients + reach,
            "riv": riv,
            "lambda": share,
            "fmi": fmi,
        }
        return pd.DataFrame(found, index=list(self.names))

    def _degrees(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Barnard and Rubin's df, the relative increase in variance, its share."""
        extra = (1 + 1 / self.m) * np.diagonal(self.between)
        inside = np.diagonal(self.within.mean(axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            share = extra / (inside + extra)
            old = (self.m - 1) / share**2
            nu = self.complete_df
            seen = np.where(
                np.isinf(nu), np.inf, (nu + 1) / (nu + 3) * nu * (1 - share)
            )
            df = 1 / (1 / old + 1 / seen)
            df = np.where((share == 0) & np.isinf(seen), np.inf, df)
            return df, extra / inside, share

    def test(self, which: Any = None) -> dict[str, float]:
        """Several coefficients are zero at once: D1.

        Args:
            which: names; None for all but the intercept.

        Returns:
            F, num_df, den_df, p.
        """
        from scipy import stats

        if not self.full:
            raise NotApplicableError(
                "a test of several coefficients needs their covariances in each data "
                "set: pool a list of fits, [*fits], rather than a table of many"
            )
        chosen = (
            [n for n in self.names if n != "(Intercept)"]
            if which is None
            else (_arguments.names("which", which))
        )
        strange = [name for name in chosen if name not in self.names]
        if strange or not chosen:
            raise NotApplicableError(
                f"test({which!r}): coefficients are {', '.join(self.names)}"
            )
        at = [self.names.index(name) for name in chosen]
        k, m = len(at), self.m
        inside = self.within.mean(axis=0)[np.ix_(at, at)]
        more = np.linalg.solve(inside, self.between[np.ix_(at, at)])
        r = (1 + 1 / m) * float(np.trace(more)) / k
        Q = self.coefficients[at]
        F = float(Q @ np.linalg.solve(inside, Q)) / (k * (1 + r))
        t = k * (m - 1)
        if r <= 0:
            df = np.inf
        elif t > 4:
            df = 4 + (t - 4) * (1 + (1 - 2 / t) / r) ** 2
        else:
            df = t * (1 + 1 / k) * (1 + 1 / r) ** 2 / 2
        p = stats.chi2.sf(k * F, k) if np.isinf(df) else stats.f.sf(F, k, df)
        return {"F": F, "num_df": k, "den_df": float(df), "p": float(p)}

    def __repr__(self) -> str:
        head = f"Pooled over {self.m} imputed data sets (Rubin's rules)"
        lost = int((~self.converged).sum())
        note = f"\n{lost} of them did not converge" if lost else ""
        return f"{head}\n{self.table.round(4).to_string()}{note}"


def pool(fits: Any, df: Any = None) -> Pooled:
    """See ``jg.pool``."""
    if isinstance(fits, FittedModels):
        return _of_table(fits, df)
    found = list(fits) if isinstance(fits, Iterable) else [fits]
    if len(found) < 2 or not all(hasattr(f, "coefficient_covariance") for f in found):
        raise ComparisonError(
            "pool() takes two or more fits of one model, a list or what fit_many "
            "returns, one for each imputed data set"
        )
    first = found[0]
    if any(f.coefficient_names != first.coefficient_names for f in found):
        raise ComparisonError(
            "the fits have different coefficients: each imputed data set needs the "
            "same model (and every level of each factor)"
        )
    own = [np.asarray(f.denominator_df, float) for f in found]
    pars = [components.parameters(f.design, f.estimates, f.is_linear) for f in found]
    named = [
        {**{p.label: p.value for p in each}, **f.dispersions}
        for each, f in zip(pars, found, strict=True)
    ]
    return Pooled(
        tuple(first.coefficient_names),
        np.stack([f.coefficients for f in found]),
        np.stack([f.coefficient_covariance() for f in found]),
        _complete(df, np.mean(own, axis=0)),
        _means(pd.DataFrame(named)),
        np.array([f.converged for f in found]),
        True,
    )


def _of_table(fits: FittedModels, df: Any) -> Pooled:
    if len(fits) < 2 or fits.se is None:
        raise ComparisonError(
            "pool() needs two or more fits with standard errors, one for each imputed "
            "data set"
        )
    lost = int((~np.isfinite(fits.coefficients)).any(axis=1).sum())
    if lost:
        raise ComparisonError(
            f"{lost} of the {len(fits)} data sets have no estimates (see .status_names)"
            ": pool those that have, fits[fits.converged]"
        )
    own = np.full(fits.coefficients.shape, np.inf) if fits.df is None else fits.df
    rest = fits.frame().drop(columns=list(fits.coefficient_names))
    return Pooled(
        tuple(fits.coefficient_names),
        np.asarray(fits.coefficients),
        np.stack([np.diag(se**2) for se in fits.se]),
        _complete(df, np.mean(own, axis=0)),
        _means(rest),
        np.asarray(fits.converged),
        False,
    )


def _complete(given: Any, own: np.ndarray) -> np.ndarray:
    """(p,) degrees of freedom of data without gaps."""
    if given is None:
        return own
    if not _arguments.is_number(given) or not given > 0:
        raise NotApplicableError(
            f"df={_arguments.shown(given)} must be a positive number, the degrees of "
            "freedom that complete data would have (inf for z-tests)"
        )
    return np.full(len(own), float(given))


def _means(found: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over data sets of each variance parameter."""
    return pd.DataFrame({"estimate": found.mean(), "sd_between": found.std()})
