"""What a row is expected to be, and the Jacobian of that in the parameters.

Predictions, slopes and contrasts are functions of such means; their variances follow
by the delta method, J V J'. Here those of a linear model, X beta + offset with Jacobian
X; ``generalised_means`` has the others.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.design import NewRows
from jaxglmm.results.coefficients import t_quantile

if TYPE_CHECKING:
    from jaxglmm.results.fit import Fit

TYPES = ("response", "link")
EFFECTS = ("population", "marginal")


def check(type: str, re: str) -> None:
    """Refuse words that are not among the choices."""
    for name, value, allowed in (("type", type, TYPES), ("re", re, EFFECTS)):
        if value not in allowed:
            raise NotApplicableError(
                f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}"
            )


@dataclass(frozen=True)
class Rows:
    """value: (n,) means; jacobian: (n, k); offset: (n,) part of the predictor."""

    value: np.ndarray
    jacobian: np.ndarray
    offset: np.ndarray

    def take(self, positions: list[int]) -> Rows:
        """Some of the rows."""
        return Rows(
            self.value[positions], self.jacobian[positions], self.offset[positions]
        )

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """Rows below one another."""
        return Rows(
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.jacobian for part in parts]),
            np.concatenate([part.offset for part in parts]),
        )


class Means(abc.ABC):
    """Means of rows as functions of a fit's parameters.

    fit: whose; covariance: (k, k) of the parameters; random: whether the columns of the
    random terms are needed; is_link: on the scale of the linear predictor; is_linear:
    in the parameters; tests_each: whether degrees of freedom cost a computation a row.
    """

    fit: Fit
    covariance: np.ndarray
    random = False
    is_link = False
    is_linear = False
    tests_each = False

    @abc.abstractmethod
    def at(self, new: NewRows) -> Rows:
        """Means and Jacobians of rows."""

    @abc.abstractmethod
    def df(self, jacobian: np.ndarray) -> np.ndarray:
        """Denominator degrees of freedom of rows of J, (k,)."""

    @abc.abstractmethod
    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Confidence limits of means."""

    def change(self, above: Rows, below: Rows) -> np.ndarray:
        """Difference of two means, without what rounding would leave of it."""
        if not self.is_linear:
            return above.value - below.value
        rise = (above.jacobian - below.jacobian) @ self.fit.coefficients
        return rise + (above.offset - below.offset)


class LinearMeans(Means):
    """Means of a linear model: X beta + offset."""

    is_linear = True
    tests_each = True

    def __init__(self, fit: Fit, type: str):
        self.fit = fit
        self.covariance = fit.coefficient_covariance()
        self.is_link = type == "link"

    def at(self, new: NewRows) -> Rows:
        offset = np.broadcast_to(new.offset, (len(new.X),))
        return Rows(new.X @ self.fit.coefficients + offset, new.X, offset)

    def df(self, jacobian: np.ndarray) -> np.ndarray:
        return np.array([self._df(row) for row in jacobian])

    def _df(self, row: np.ndarray) -> float:
        if not row.any():
            return np.nan
        if self.fit.ddf == "residual":
            return float(self.fit.nobs - self.fit.design.p)
        from jaxglmm.results.inference import contrast_test

        return float(contrast_test(self.fit, row[None], self.fit.ddf)["den_df"])

    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        half = t_quantile(level, df) * error
        return estimate - half, estimate + half
