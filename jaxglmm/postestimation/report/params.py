"""The fit as one frozen record of plain values: ``fit.params.x``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._brief import brief

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.fitting.components import VarianceComponent
    from jaxglmm.fitting.fitted_model import FittedModel


@brief
@dataclass(frozen=True)
class LinearParams:
    """Estimates and facts of a linear mixed model, by their documented names."""

    coefficients: np.ndarray
    coefficient_names: tuple[str, ...]
    se: np.ndarray
    t_values: np.ndarray
    p_values: np.ndarray
    df_satterthwaite: np.ndarray
    var_components: tuple[VarianceComponent, ...]
    residual_variance: float
    residual_std: float
    log_likelihood: float
    reml: bool
    aic: float
    bic: float
    n_obs: int
    n_groups: dict[str, int]
    converged: bool
    n_iter: int
    is_singular: bool
    random_effects: dict[str, pd.DataFrame]
    fitted_values: np.ndarray
    linear_predictor: np.ndarray
    residuals: np.ndarray
    theta: np.ndarray


def params(fit: FittedModel) -> LinearParams:
    """The record of a fit."""
    return LinearParams(
        **{name: getattr(fit, name) for name in LinearParams.__dataclass_fields__}
    )


@brief
@dataclass(frozen=True)
class GeneralisedParams:
    """Estimates and facts of a generalised model, by their documented names."""

    coefficients: np.ndarray
    coefficient_names: tuple[str, ...]
    se: np.ndarray
    z_values: np.ndarray
    p_values: np.ndarray
    var_components: tuple[VarianceComponent, ...]
    log_likelihood: float
    deviance: float
    family_name: str
    link_name: str
    dispersion: float
    aic: float
    bic: float
    n_obs: int
    n_groups: dict[str, int]
    converged: bool
    n_iter: int
    is_singular: bool
    random_effects: dict[str, pd.DataFrame]
    fitted_values: np.ndarray
    linear_predictor: np.ndarray
    residuals: np.ndarray
    theta: np.ndarray


def generalised_params(fit: FittedModel) -> GeneralisedParams:
    """The record of a generalised fit."""
    names = GeneralisedParams.__dataclass_fields__
    return GeneralisedParams(**{name: getattr(fit, name) for name in names})
