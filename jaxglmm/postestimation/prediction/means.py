"""What a row is expected to be, and the Jacobian of that in the parameters.

Predictions, slopes and contrasts are functions of such means; their variances follow
by the delta method, J V J'. Here those of a linear model, X beta + offset with Jacobian
X; ``generalised_means`` has the others.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.coefficients import t_p_values, t_quantile
from jaxglmm.formula.design import NewRows
from jaxglmm.postestimation.prediction import predict
from jaxglmm.postestimation.report.frames import exponentiated

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.model.links import Link

TYPES = ("response", "link")
EFFECTS = ("population", "marginal")


def check(type: str, re: str) -> None:
    """Refuse words that are not among the choices."""
    _arguments.choice("type", type, TYPES)
    _arguments.choice("re", re, EFFECTS)


def asymptotic(jacobian: np.ndarray) -> np.ndarray:
    """(n,) degrees of freedom: infinite, NaN where there is nothing to test."""
    return np.where(jacobian.any(axis=1), np.inf, np.nan)


@dataclass(frozen=True)
class MeanRows:
    """Means of rows, and what their uncertainty is made of.

    value: (n,) means; jacobian: (n, k) in the parameters (or draws of the means, for a
    posterior: both go along with averages and differences); offset: (n,) part of the
    predictor; full: (n, p_all) rows of the full X where columns of it were dropped and
    the means are linear in it; blind: (n,) those that the data cannot tell, where they
    are not linear.
    """

    value: np.ndarray
    jacobian: np.ndarray
    offset: np.ndarray
    full: np.ndarray | None = None
    blind: np.ndarray | None = None

    def map(self, linear: Callable, either: Callable) -> MeanRows:
        """A linear function of all; ``either`` joins what cannot be told."""
        return MeanRows(
            linear(self.value),
            linear(self.jacobian),
            linear(self.offset),
            None if self.full is None else linear(self.full),
            None if self.blind is None else either(self.blind),
        )

    def plus(self, other: MeanRows) -> MeanRows:
        """The sum of two quantities, row by row."""

        def add(name: str) -> np.ndarray | None:
            a, b = getattr(self, name), getattr(other, name)
            return None if a is None else (a | b if name == "blind" else a + b)

        names = ("value", "jacobian", "offset", "full", "blind")
        return MeanRows(*(add(name) for name in names))  # type: ignore[arg-type]

    def take(self, positions: Sequence[int]) -> MeanRows:
        """Some of the rows."""
        return self.map(lambda x: x[positions], lambda x: x[positions])

    @staticmethod
    def joined(parts: Sequence[MeanRows]) -> MeanRows:
        """Rows below one another."""

        def below(name: str) -> np.ndarray | None:
            found = [getattr(part, name) for part in parts]
            return None if found[0] is None else np.concatenate(found)

        names = ("value", "jacobian", "offset", "full", "blind")
        return MeanRows(*(below(name) for name in names))  # type: ignore[arg-type]


def difference(
    first: MeanRows, second: MeanRows, change: np.ndarray, width=1.0
) -> MeanRows:
    """(first - second) / width, whose means are ``change``; width: a number or (n,)."""
    by = np.asarray(width, float)
    column = by[:, None] if by.ndim else by
    full = blind = None
    if first.full is not None and second.full is not None:
        full = (first.full - second.full) / column
    if first.blind is not None and second.blind is not None:
        blind = first.blind | second.blind
    jacobian = (first.jacobian - second.jacobian) / column
    return MeanRows(change / by, jacobian, first.offset, full, blind)


class Means(abc.ABC):
    """Means of rows as functions of a fit's parameters.

    fit: whose; covariance: (k, k) of the parameters; random: whether the columns of the
    random terms are needed; is_link: on the scale of the linear predictor; is_linear:
    in the parameters; is_affine: in X beta; of_response: whether they are on the scale
    of the formula's left side, which may be a function of the response; tests_each:
    whether degrees of freedom cost a computation a row; at_once: rows whose means are
    held together, None for all.
    """

    fit: FittedModel
    covariance: np.ndarray
    random = False
    is_link = False
    is_linear = False
    is_affine = False
    of_response = False
    tests_each = False
    at_once: int | None = None
    ddf: str | None = None
    link: Link | None = None

    @abc.abstractmethod
    def at(self, new: NewRows) -> MeanRows:
        """Means and Jacobians of rows."""

    @abc.abstractmethod
    def df(self, jacobian: np.ndarray) -> np.ndarray:
        """Denominator degrees of freedom of rows of J, (k,)."""

    @abc.abstractmethod
    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Confidence limits of means."""

    def joint(self, rows: MeanRows, df: float | None = None) -> dict[str, float]:
        """F-test that all of the means are zero: num_df, den_df, statistic, p_value.

        df: denominator degrees of freedom instead of the fit's.
        """
        from scipy import stats

        V = rows.jacobian @ self.covariance @ rows.jacobian.T
        values, vectors = np.linalg.eigh(V)
        keep = values > 1e-10 * values.max()
        z = vectors[:, keep].T @ rows.value
        k, den = int(keep.sum()), np.inf if df is None else float(df)
        F = float(np.sum(z * z / values[keep]) / k)
        finite = np.isfinite(den)
        p = stats.f.sf(F, k, den) if finite else stats.chi2.sf(k * F, k)
        return {"num_df": k, "den_df": den, "statistic": F, "p_value": float(p)}

    def of(self, new: NewRows) -> MeanRows:
        """Means of rows, with what tells whether the data can tell them."""
        found = self.at(new)
        missing = self.fit.design.null_space
        if missing is None or new.full is None:
            return found
        if self.is_affine:
            return replace(found, full=new.full)
        return replace(found, blind=missing.inestimable(new.full))

    def change(self, above: MeanRows, below: MeanRows) -> np.ndarray:
        """Difference of two means, without what rounding would leave of it."""
        if not self.is_linear:
            return above.value - below.value
        rise = (above.jacobian - below.jacobian) @ self.fit.coefficients
        return rise + (above.offset - below.offset)

    def logarithm(self, rows: MeanRows) -> MeanRows:
        """Logarithms of means, which must be positive."""
        if not (rows.value[~self.inestimable(rows)] > 0).all():
            raise NotApplicableError(
                f"ratio=True: a mean is {np.min(rows.value):.3g}, and ratios need "
                "positive means. Use differences (ratio=False)"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = rows.jacobian / rows.value[:, None]
            return replace(rows, value=np.log(rows.value), jacobian=slope)

    def inestimable(self, rows: MeanRows) -> np.ndarray:
        """Rows whose mean the data cannot tell, (n,)."""
        if rows.blind is not None:
            return rows.blind
        missing = self.fit.design.null_space
        if rows.full is None or missing is None:
            return np.zeros(len(rows.value), bool)
        return missing.inestimable(rows.full)

    def table(self, rows: MeanRows, level: float, ratio: bool = False) -> pd.DataFrame:
        """estimate, std_error, df, statistic, p_value and limits, NaN without answer.

        Args:
            rows: what is estimated.
            level: coverage of conf_low, conf_high.
            ratio: exp of all but the test.
        """
        _arguments.level(level)
        blind = self.inestimable(rows)
        estimate = np.where(blind, np.nan, rows.value)
        jacobian = np.where(blind[:, None], 0.0, rows.jacobian)
        error = np.sqrt(
            # zero for a row of zeros, or less by rounding
            np.maximum(predict.fixed_variance(jacobian, self.covariance), 0.0)
        )
        error = np.where(blind, np.nan, error)
        df = self.df(jacobian)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = estimate / error
        half = t_quantile(level, df) * error
        table = pd.DataFrame(
            {
                "estimate": estimate,
                "std_error": error,
                "df": df,
                "statistic": t,
                "p_value": t_p_values(t, df),
                "conf_low": estimate - half,
                "conf_high": estimate + half,
            }
        )
        return exponentiated(table) if ratio else table


class LinearMeans(Means):
    """Means of a linear model: X beta + offset."""

    is_linear = True
    is_affine = True
    of_response = True
    tests_each = True

    def __init__(self, fit: FittedModel, type: str, ddf: str | None = None):
        self.fit = fit
        self.ddf = fit.ddf if ddf is None else ddf
        self.covariance = fit.coefficient_covariance(self.ddf)
        self.is_link = type == "link"

    def at(self, new: NewRows) -> MeanRows:
        offset = np.broadcast_to(new.offset, (len(new.X),))
        return MeanRows(new.X @ self.fit.coefficients + offset, new.X, offset)

    def df(self, jacobian: np.ndarray) -> np.ndarray:
        if self.ddf == "satterthwaite" and len(jacobian):  # of all rows at once
            found = self.fit.satterthwaite_parts.df(jacobian)
            return np.where(jacobian.any(axis=1), found, np.nan)
        return np.array([self._df(row) for row in jacobian])

    def _df(self, row: np.ndarray) -> float:
        if not row.any():
            return np.nan
        if self.ddf == "residual":
            return float(self.fit.nobs - self.fit.design.p)
        from jaxglmm.postestimation.inference.denominator_df import contrast_test

        return float(contrast_test(self.fit, row[None], self.ddf)["den_df"])

    def joint(self, rows: MeanRows, df: float | None = None) -> dict[str, float]:
        if df is not None:
            return super().joint(rows, df)
        from jaxglmm.postestimation.inference.denominator_df import contrast_test

        rhs = -rows.offset
        if not self.is_linear:  # means that were turned back, near the estimates
            rhs = rows.jacobian @ self.fit.coefficients - rows.value
        found = contrast_test(self.fit, rows.jacobian, self.ddf, rhs=rhs)
        out = {"num_df": found["num_df"], "den_df": found["den_df"]}
        return out | {"statistic": found["F"], "p_value": found["p"]}

    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        half = t_quantile(level, df) * error
        return estimate - half, estimate + half
