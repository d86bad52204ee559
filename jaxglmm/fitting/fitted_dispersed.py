"""What a linear model with a formula of its residual sd is, as a record.

Residuals are independent, and the logarithm of their standard deviation is a linear
predictor: a residual structure with the columns of that formula as its scales. So its
numbers are those of models with correlated residuals, by the names that models of
several components have.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm.fitting import components as _components
from jaxglmm.fitting import residual_parameters as _parameters
from jaxglmm.fitting.fitted_correlated import FittedCorrelated
from jaxglmm.formula.design import DISP, Design

COND = "cond"


class FittedDispersed(FittedCorrelated):
    """A fitted linear model whose residual sd has a formula, or no residual at all."""

    @property
    def dispersion_design(self) -> Design:
        """The design of the logarithm of the residual standard deviation."""
        return self._term.part

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the linear predictors: "cond" and "disp"."""
        return (COND,) if self._term.is_silent else (COND, DISP)

    @property
    def formula(self) -> str:
        """That of the response, then that of the dispersion."""
        return f"{super(FittedCorrelated, self).formula}, {DISP} {self._term.text}"

    @property
    def fixef(self) -> dict[str, float]:
        """Name -> coefficient of both formulas; ``fixef["disp"]`` has those of one."""
        from jaxglmm.fitting.fitted_components import ByComponent

        pairs = zip(self._term.scale_names, self.estimates.phi, strict=True)
        own = {name: float(value) for name, value in pairs}
        return ByComponent(super().fixef | own, self.components)

    @cached_property
    def varcorr(self) -> _components.VarCorr:
        """Of the random effects; there is no one sigma."""
        return _components.varcorr(self.design, self.estimates, False)

    @property
    def sigma(self) -> float:
        """NaN: the residual standard deviation differs from row to row."""
        return float("nan")

    @cached_property
    def _given_covariance(self) -> np.ndarray:
        """By the joint curvature in the coefficients of both formulas."""
        if self.vcov_type != "asymptotic":
            return super()._given_covariance
        from jaxglmm.fitting.degrees_of_freedom_blocks import joint_covariance

        return joint_covariance(self)

    @cached_property
    def dispersion_covariance(self) -> np.ndarray:
        """(k, k) of the coefficients of the dispersion's formula."""
        from jaxglmm.fitting.degrees_of_freedom_blocks import parameter_covariance

        k = len(self.estimates.phi)
        own, turn = parameter_covariance(self)[:k, :k], self.engine.turn
        return turn @ own @ turn.T

    def dispersion_predictor(self, newdata: Any = None) -> np.ndarray:
        """Log residual sd at weight one, (n,), or of new rows."""
        w = self.design.weights
        variance = np.asarray(_parameters.row_variances(self, newdata))
        if newdata is None and w is not None:
            variance = variance * w
        with np.errstate(divide="ignore"):
            return np.log(variance) / 2
