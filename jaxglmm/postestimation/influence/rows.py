"""Leverage of rows, and what each does to the fixed effects at covariances held.

With P = V^-1 - V^-1 X C X'V^-1, C = (X'V^-1 X)^-1 (units of sigma^2), leaving row i out
is a column for it alone: beta moves by -C X'V^-1 e_i (P y)_i / P_ii.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.conditional_variance import leverage
from jaxglmm.fitting.smoother import Smoother
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.precision import double_precision


def hat_values(fit: Any) -> np.ndarray:
    """(n,) diagonal of the hat matrix: how far each fitted value follows its row.

    The variance of the prediction error of X beta + Z b at the estimated variances,
    times the row's weight over sigma^2; of a generalised model at the mode, by Fisher's
    weights. Their sum is the
    effective number of coefficients, random ones included.

    Raises:
        NotApplicableError: correlated residuals, or several predictors.
    """
    design = fit.design
    kinds = ("ordinal", "nominal")
    several = design.parts or (not fit.is_linear and fit.family.family_kind in kinds)
    if design.residual is not None or several:
        raise NotApplicableError(
            "hat values are those of one linear predictor with independent residuals"
        )
    w = np.ones(design.n) if design.weights is None else design.weights
    if not fit.is_linear:
        w = w * _fisher(fit)
    return leverage(fit, w) * w / fit.estimates.sigma**2


@double_precision
def _fisher(fit: Any) -> np.ndarray:
    design = fit.design
    trials = np.ones(design.n) if design.trials is None else design.trials
    phi = jnp.asarray(np.atleast_1d(fit.estimates.phi))
    eta = jnp.asarray(fit.linear_predictor)
    found = fit.family.expected_weight(eta, phi, jnp.asarray(trials))
    return np.broadcast_to(np.asarray(found), (design.n,))


def cooks_distance(fit: Any) -> np.ndarray:
    """(n,) of each row, (r / (1 - h))^2 h / (p phi): covariances held.

    r: Pearson's residuals; h: hat values; phi: sigma^2, or 1. As lme4's.
    """
    h = hat_values(fit)
    r = fit.resid("pearson")
    scale = fit.sigma**2 if fit.is_linear else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (r / (1 - h)) ** 2 * h / (scale * max(fit.design.p, 1))
    return np.where(np.isfinite(found), found, np.nan)


def studentised(fit: Any) -> np.ndarray:
    """(n,) residuals over their standard errors, r / (sigma sqrt(1 - h))."""
    h = hat_values(fit)
    scale = fit.sigma if fit.is_linear else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        found = fit.resid("pearson") / (scale * np.sqrt(1 - h))
    return np.where(np.isfinite(found), found, np.nan)


@double_precision
def held(fit: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without each row, covariances held: beta (n, p), vcov (n, p, p), det ratio (n,).

    NaN for rows of weight zero, which no fit has.
    """
    design = fit.design
    P = Smoother(fit)
    y = design.y if design.offset is None else design.y - design.offset
    Py = P.times(y[P.rows])
    C = np.asarray(fit.estimates.vcov) / fit.sigma**2
    CV = P.VX @ C
    h = hat_values(fit)[P.rows]
    diagonal = P.w * (1 - h)
    inverse = diagonal + np.sum(CV * P.VX, axis=1)  # of V^-1
    n, p = design.n, design.p
    beta, ratio = np.full((n, p), np.nan), np.full(n, np.nan)
    vcov = np.full((n, p, p), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta[P.rows] = fit.coefficients - CV * (Py / diagonal)[:, None]
        outer = CV[:, :, None] * CV[:, None] / diagonal[:, None, None]
        vcov[P.rows] = fit.sigma**2 * (C + outer)
        ratio[P.rows] = inverse / diagonal
    return beta, vcov, ratio
