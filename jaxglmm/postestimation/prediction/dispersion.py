"""Predictions of the residual sd of a linear model, where that has a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.fitting.model_frame import readable
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
