"""Fits: many fits of one model's shape, as arrays with the data sets first.

What ``fit_many`` and a parametric bootstrap return. A data set that failed has its
status and NaN, and the others are untouched; intervals and summaries use the rows that
are finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm import _status
from jaxglmm._errors import NotApplicableError
from jaxglmm.results import layout, numbers
from jaxglmm.results.fits_columns import Columns
from jaxglmm.results.layout import Paragraph, Table
from jaxglmm.results.predict import check_level
from jaxglmm.results.summary import Summary


@dataclass(frozen=True, repr=False)
class Fits:
    """Estimates of D data sets.

    coefficients: (D, p) fixed effects, named by ``coefficient_names``
    sd: (D, k) standard deviations of random effects, ``sd_names`` such as
        ``sd_Days|Subject``
    sigma: (D,) residual sd; theta: (D, m); log_likelihood: (D,)
    status: (D,) codes; converged, singular: (D,) bool
    original: name -> value in the fit that the data sets were drawn from
    se, df, p_values: (D, p) or None; t-tests of the coefficients (z-tests where df is
        infinite)
    df_sigma: (D,) degrees of freedom of the residual variance, or None
    steps: (D,) evaluations of each fit, or None
    labels: (D,) names of the data sets; their positions where None
    source: what can make the ``Fit`` of one data set, for ``fits[i]``
    facts: how it was done: formula, method, seconds, devices
    """

    coefficients: np.ndarray
    coefficient_names: tuple[str, ...]
    sd: np.ndarray
    sd_names: tuple[str, ...]
    sigma: np.ndarray
    theta: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray
    converged: np.ndarray
    singular: np.ndarray
    original: Mapping[str, float] = field(default_factory=dict)
    se: np.ndarray | None = None
    df: np.ndarray | None = None
    p_values: np.ndarray | None = None
    df_sigma: np.ndarray | None = None
    steps: np.ndarray | None = None
    labels: np.ndarray | None = None
    source: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_table(
        table: np.ndarray, columns: Columns, labels: np.ndarray | None = None, **more
    ) -> Fits:
        """Views of a table (D, columns) by name."""
        part = {name: table[:, where] for name, where in columns.slices().items()}
        status = part["status"][:, 0].astype(int)
        return Fits(
            coefficients=part["coefficients"],
            coefficient_names=columns.coefficients,
            sd=part["sd"],
            sd_names=columns.sd,
            sigma=part["sigma"][:, 0],
            theta=part["theta"],
            log_likelihood=part["log_likelihood"][:, 0],
            status=status,
            converged=status == _status.CONVERGED,
            singular=part["singular"][:, 0] == 1,
            se=part["se"],
            df=part["df"],
            p_values=part["p_values"],
            df_sigma=part["df_sigma"][:, 0],
            steps=part["steps"][:, 0],
            labels=labels,
            **more,
        )

    def __len__(self) -> int:
        return len(self.sigma)

    @property
    def names(self) -> list[str]:
        """Names of everything that has an interval."""
        return [*self.coefficient_names, *self.sd_names, "sigma"]

    def frame(self) -> pd.DataFrame:
        """One row a data set, one column a parameter."""
        values = np.column_stack([self.coefficients, self.sd, self.sigma])
        return pd.DataFrame(values, columns=self.names)

    def tidy(self) -> pd.DataFrame:
        """One row a data set and parameter: dataset, effect, term, estimate."""
        D, names = len(self), self.names
        p = len(self.coefficient_names)
        effects = ["fixed"] * p + ["ran_pars"] * (len(names) - p)
        return pd.DataFrame(
            {
                "dataset": np.repeat(np.arange(D), len(names)),
                "effect": np.tile(effects, D),
                "term": np.tile(names, D),
                "estimate": self.frame().to_numpy().ravel(),
            }
        )

    def confint(self, level: float = 0.95, method: str = "percentile") -> pd.DataFrame:
        """Bootstrap intervals, a frame of lower and upper.

        Args:
            level: coverage.
            method: "percentile" (quantiles of the draws) or "basic" (twice the estimate
                minus the opposite quantile; Davison and Hinkley 1997, 5.2).
        """
        check_level(level)
        values = self._finite()
        tail = (1 - level) / 2
        lower, upper = np.quantile(values, [tail, 1 - tail], axis=0)
        if method == "basic":
            centre = self._original()
            lower, upper = 2 * centre - upper, 2 * centre - lower
        elif method != "percentile":
            raise NotApplicableError(
                f"confint(method={method!r}): there are 'percentile' and 'basic'"
            )
        return pd.DataFrame({"lower": lower, "upper": upper}, index=self.names)

    def _finite(self) -> np.ndarray:
        values = self.frame().to_numpy()
        values = values[np.isfinite(values).all(axis=1)]
        if len(values) < 2:
            raise NotApplicableError(
                f"{len(values)} of {len(self)} data sets have finite estimates: "
                "see .status"
            )
        return values

    def _original(self) -> np.ndarray:
        if not self.original:
            raise NotApplicableError(
                "Basic intervals need the estimates that the draws came from; use "
                "method='percentile'"
            )
        return np.array([self.original[name] for name in self.names])

    def summary(self) -> Summary:
        """Mean, sd, bias and quantiles of every parameter; what failed."""
        values = self._finite()
        table = pd.DataFrame(
            {
                "mean": values.mean(axis=0),
                "sd": values.std(axis=0, ddof=1),
                "2.5%": np.quantile(values, 0.025, axis=0),
                "50%": np.quantile(values, 0.5, axis=0),
                "97.5%": np.quantile(values, 0.975, axis=0),
            },
            index=self.names,
        )
        if self.original:
            table.insert(0, "original", self._original())
            table.insert(2, "bias", table["mean"] - table["original"])
        blocks = [Paragraph(self._counts()), _table(table)]
        out = Summary(layout.as_text(blocks))
        out.html, out.table = layout.as_html(blocks), table
        return out

    def _counts(self) -> tuple[str, ...]:
        failed = self.status[~self.converged]
        counts = [
            f"{int(np.sum(failed == code))} {name}"
            for code, name in _STATUS_NAMES.items()
            if np.any(failed == code)
        ]
        text = f"{len(self)} fits, {int(self.converged.sum())} converged"
        text += f", {int(self.singular.sum())} singular"
        return (text, *([f"not converged: {', '.join(counts)}"] if counts else []))

    def __repr__(self) -> str:
        return f"<Fits {'; '.join(self._counts())} | {', '.join(self.names)}>"


_STATUS_NAMES = {
    _status.MAX_STEPS: "out of steps",
    _status.NOT_FINITE: "not finite",
    _status.STALLED: "stalled",
    _status.NO_RESIDUAL: "no residual variance",
}


def _table(table: pd.DataFrame) -> Table:
    """Every row to as many decimals as its sd deserves."""
    sd = table["sd"].tolist()
    rows = tuple(
        (str(name), *(numbers.with_errors([v], [s])[0][0] for v in values.tolist()))
        for name, s, values in zip(table.index, sd, table.to_numpy(), strict=True)
    )
    return Table("", ("", *table.columns), rows, "<" + ">" * table.shape[1])
