"""p-values and limits of a family of comparisons, by name of the adjustment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.coefficients import t_p_values, t_quantile
from jaxglmm.numerics import multiplicity, simultaneous
from jaxglmm.postestimation.comparisons.shown import Shown
from jaxglmm.postestimation.prediction.means import MeanRows, Means

ADJUST = (
    *("none", "tukey", "dunnettx", "dunnett", "mvt", "scheffe", "sidak", "bonferroni"),
    *("holm", "holm-sidak", "fdr"),
)
BY_NUMBER = ("sidak", "bonferroni", "holm", "holm-sidak", "fdr")
NAMES = {"fdr": "fdr_bh"}


@dataclass(frozen=True)
class Comparisons:
    """Comparisons that are looked at together.

    statistic, df, p: (m,) of each by itself; covariance: (m, m) of the estimates;
    n_means: how many means all pairs of which these are, None where they are not.
    """

    statistic: np.ndarray
    df: np.ndarray
    p: np.ndarray
    covariance: np.ndarray
    n_means: int | None

    @cached_property
    def correlation(self) -> np.ndarray:
        """(m, m); that of what has no variance is zero."""
        sd = np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))
        scale = np.where(sd > 0, sd, np.inf)
        R = self.covariance / np.outer(scale, scale)
        np.fill_diagonal(R, 1.0)
        return R

    @cached_property
    def rank(self) -> int:
        """Dimension of the space that the comparisons span."""
        return int(np.linalg.matrix_rank(self.covariance, hermitian=True))

    def _many(self, t: np.ndarray, df: float) -> np.ndarray:
        return simultaneous.multivariate_t(t, self.correlation, df)

    def p_values(self, adjust: str) -> np.ndarray:
        """(m,) adjusted."""
        if adjust == "none" or len(self.p) == 1:
            return self.p
        if adjust in BY_NUMBER:
            return multiplicity.adjusted(self.p, NAMES.get(adjust, adjust))
        if adjust == "tukey":
            return simultaneous.tukey(self.statistic, self._pairs(), self.df)
        if adjust == "scheffe":
            return simultaneous.scheffe(self.statistic, self.rank, self.df)
        if adjust == "dunnettx":
            return simultaneous.dunnettx(self.statistic, len(self.p), self.df)
        out = np.full(len(self.p), np.nan)
        for df in np.unique(self.df[~np.isnan(self.df)]):
            here = self.df == df
            out[here] = self._many(self.statistic[here], float(df))
        return out

    def _pairs(self) -> int:
        if self.n_means is None:
            raise NotApplicableError(
                "adjust='tukey' is for all pairs of means: use pairs(), or "
                "adjust='mvt', which is exact for any comparisons"
            )
        return self.n_means

    def multipliers(self, adjust: str, level: float) -> np.ndarray:
        """(m,) numbers of standard errors on both sides: limits that hold for all.

        Of stepwise adjustments, which have no limits, those by Bonferroni.
        """
        m = len(self.p)
        if adjust == "none" or m == 1:
            return t_quantile(level, self.df)
        if adjust in ("bonferroni", "holm", "fdr"):
            return t_quantile(1 - (1 - level) / m, self.df)
        if adjust in ("sidak", "holm-sidak"):
            return t_quantile(level ** (1 / m), self.df)
        # what differs by rounding has one limit
        digits = np.array([float(f"{x:.12g}") for x in self.df])
        each, back = np.unique(digits, return_inverse=True)
        out = np.full(len(each), np.nan)
        known = np.flatnonzero(~np.isnan(each))
        single = t_quantile(level, each[known])
        if adjust in ("tukey", "scheffe", "dunnettx"):

            def p_each(c: np.ndarray) -> np.ndarray:
                if adjust == "tukey":
                    return simultaneous.tukey(c, self._pairs(), each[known])
                if adjust == "scheffe":
                    return simultaneous.scheffe(c, self.rank, each[known])
                return simultaneous.dunnettx(c, m, each[known])

            out[known] = simultaneous.critical_each(p_each, level, single)
            return out[back]
        for i, start in zip(known, single, strict=True):

            def p_of(c: float, df: float = float(each[i])) -> float:
                return float(self._many(np.array([c]), df)[0])

            out[i] = simultaneous.critical(p_of, level, float(start))
        return out[back]


@dataclass(frozen=True)
class Wanted:
    """How estimates are to be shown; see ``MarginalMeans``."""

    shown: Shown
    level: float
    adjust: str
    n_means: int | None
    df: float | None


def tabulated(
    means: Means, rows: MeanRows, asked: Wanted, groups: Sequence[np.ndarray]
) -> pd.DataFrame:
    """estimate, std_error, df, statistic, p_value, conf_low, conf_high of the rows.

    Of draws: estimate, std_error, limits, p_direction.
    """
    shown = asked.shown
    base = means.table(rows, asked.level)
    if "p_value" not in base:
        drawn = replace(rows, jacobian=shown.value(rows.jacobian))
        found = means.table(drawn, asked.level)
        return found.assign(p_direction=base["p_direction"])
    estimate, error = base["estimate"].to_numpy(), base["std_error"].to_numpy()
    df, t = base["df"].to_numpy(), base["statistic"].to_numpy()
    p = base["p_value"].to_numpy()
    if asked.df is not None:
        df = np.where(np.isnan(df), np.nan, float(asked.df))
        p = t_p_values(t, df)
    adjusted, half = np.array(p), np.full(len(p), np.nan)
    for i in groups:
        J = rows.jacobian[i]
        V = J @ means.covariance @ J.T
        family = Comparisons(t[i], df[i], p[i], V, asked.n_means)
        adjusted[i] = family.p_values(asked.adjust)
        half[i] = family.multipliers(asked.adjust, asked.level) * error[i]
    ends = shown.value(estimate - half), shown.value(estimate + half)
    return pd.DataFrame(
        {
            "estimate": shown.value(estimate),
            "std_error": error * np.abs(shown.slope(estimate)),
            "df": df,
            "statistic": t,
            "p_value": adjusted,
            "conf_low": np.minimum(*ends),
            "conf_high": np.maximum(*ends),
        }
    )
