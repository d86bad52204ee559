"""Residuals of a linear model."""

from __future__ import annotations

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError


def of_type(
    type: str, residuals: np.ndarray, weights: np.ndarray | None, sigma: float
) -> np.ndarray:
    """(n,) as they are, times the root of the weights, or also over sigma."""
    if _arguments.is_among(type, ("response",)):
        return residuals
    if _arguments.is_among(type, ("pearson", "scaled")):
        pearson = residuals if weights is None else np.sqrt(weights) * residuals
        return pearson if type == "pearson" else pearson / sigma
    raise NotApplicableError(
        f"resid(type={_arguments.shown(type)}): a linear mixed model has "
        "'response', 'pearson' and 'scaled' residuals"
    )
