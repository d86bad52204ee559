"""Predictions and means of the residual sd of a linear model whose sd has a formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.fitting.model_frame import readable
from jaxglmm.formula.design import Design, NewRows
from jaxglmm.model.links import Log
from jaxglmm.postestimation.prediction.means import MeanRows, Means, asymptotic
from jaxglmm.postestimation.prediction.predict import CHOICES, answerable_of

TYPES = ("response", "conditional", "link", "disp")


def check_type(type: Any) -> None:
    """Refuse a type that these models have not."""
    _arguments.choice("type", type, TYPES)


def predict(fit: Any, newdata: Any, se: bool, interval: Any, level: float):
    """The residual sd, (n,), or a frame with ``fit`` and what else was asked for.

    Standard errors by the delta method, limits on the scale of its logarithm.
    """
    _arguments.level(level)
    _arguments.flag("se", se)
    _arguments.choice("interval", interval, CHOICES["interval"])
    if interval == "prediction":
        raise NotApplicableError(
            "interval='prediction' is for a new observation: type='response'. For the "
            "residual standard deviation use interval='confidence'"
        )
    part = fit.dispersion_design
    newdata = None if newdata is None else readable(newdata)
    sd = np.exp(fit.dispersion_predictor(newdata))
    if not se and interval is None:
        return sd
    if newdata is None:
        X, index = part.X, fit.design.index
    elif part.recipe is None:  # without a residual
        X, index = np.zeros((len(sd), 0)), None
    else:
        new = answerable_of(part, part.recipe.new_rows(newdata, random=False))
        X, index = new.X, new.index
    error = np.sqrt(np.einsum("ij,jk,ik->i", X, fit.dispersion_covariance, X))
    half = t_quantile(level, np.full(len(sd), np.inf)) * error
    out = {"fit": sd}
    if se:
        out["se"] = sd * error
    if interval is not None:
        out["lower"], out["upper"] = sd * np.exp(-half), sd * np.exp(half)
    return pd.DataFrame(out, index=index)


@dataclass(frozen=True)
class DispersionPart:
    """The formula of the residual sd, as a fit whose means are asked for.

    coefficients: (k,) of the logarithm of the residual standard deviation.
    """

    design: Design
    coefficients: np.ndarray

    @property
    def sigma(self) -> float:
        """There is none: differences of log standard deviations have no unit."""
        raise NotApplicableError(
            "a dispersion formula has no standard deviation to divide by: its "
            "differences are logarithms of ratios, or give effect_sizes(sigma=)"
        )


class DispersionMeans(Means):
    """Means of the log residual sd of a linear model, or of the sd itself.

    Tests are by z: the likelihood has the coefficients' covariance at the maximum.
    """

    def __init__(self, fit: Any, type: str):
        part = fit.dispersion_design
        self.fit: Any = DispersionPart(part, np.asarray(fit.estimates.phi))
        self.covariance = fit.dispersion_covariance
        self.is_link = self.is_linear = self.is_affine = type == "displink"
        self.link = Log()

    def at(self, new: NewRows) -> MeanRows:
        offset = np.broadcast_to(np.asarray(new.offset, float), (len(new.X),))
        eta = new.X @ self.fit.coefficients + offset
        if self.is_link:
            return MeanRows(eta, new.X, offset)
        sd = np.exp(eta)
        return MeanRows(sd, sd[:, None] * new.X, np.zeros(len(sd)))

    def df(self, jacobian: np.ndarray) -> np.ndarray:
        """Infinite; NaN where there is nothing to test."""
        return asymptotic(jacobian)

    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Made on the scale of the logarithm."""
        half = t_quantile(level, df) * error
        if self.is_link:
            return estimate - half, estimate + half
        factor = np.exp(half / estimate)
        return estimate / factor, estimate * factor
