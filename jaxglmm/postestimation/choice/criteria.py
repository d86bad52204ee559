"""Information criteria: AICc, the conditional AIC, and a table of several models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ComparisonError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.estimate import information
from jaxglmm.fitting.smoother import Smoother
from jaxglmm.postestimation.inference.comparison import comparable
from jaxglmm.postestimation.influence.rows import hat_values
from jaxglmm.runtime.precision import double_precision

CRITERIA = ("aic", "aicc", "bic")
FLAT = 1e-9  # eigenvalues of the Hessian, relative to the largest, that count as zero


def aicc(fit: Any) -> float:
    """AIC with Hurvich and Tsai's correction, 2 k (k + 1) / (n - k - 1) more.

    Infinite where n - k - 1 is not positive.
    """
    k, n = fit.npar, fit.nobs
    if n - k - 1 <= 0:
        return np.inf
    return fit.aic + 2 * k * (k + 1) / (n - k - 1)


@dataclass(frozen=True)
class ConditionalAIC:
    """AIC for predicting new rows of the same levels; see ``Fit.conditional_aic``.

    value: -2 log_likelihood + 2 df; log_likelihood: of the rows given the modes; df:
    effective number of parameters, the residual variance among them; trace: of the hat
    matrix at the estimated covariances, which df exceeds by what their estimation adds
    """

    value: float
    log_likelihood: float
    df: float
    trace: float

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return (
            f"<Conditional AIC {self.value:.2f}: log-likelihood "
            f"{self.log_likelihood:.2f}, {self.df:.2f} degrees of freedom>"
        )


@double_precision
def conditional_aic(fit: Any) -> ConditionalAIC:
    """Greven and Kneib's; see ``Fit.conditional_aic``.

    df = tr(d y^ / d y) + 1, y^ = X beta + Z b with all parameters estimated anew from
    y. At theta held, y^ = y - W^-1 P y, whose trace is n less that of the hat matrix;
    theta and log sigma^2 move by the implicit function theorem,

        d (theta, log sigma^2) / dy = 2 H^-1 (P V_j P y, P y)' / sigma^2,

    H the Hessian of the criterion, and y^ moves by W^-1 P V_j P y with theta_j.
    """
    _has_one(fit)
    design = fit.design
    P = Smoother(fit)
    y = design.y if design.offset is None else design.y - design.offset
    Py = P.times(y[P.rows])
    V = P.times(P.moved(Py))
    reml = bool(fit.reml)
    sigma2 = np.float64((fit.sigma / fit.engine.moments.fixed.scale) ** 2)
    H = information.curvature(fit.engine.problem, P.theta, sigma2, reml).hessian
    values, vectors = np.linalg.eigh(np.asarray(H))
    keep = values > FLAT * np.abs(values).max()
    inverse = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T
    moved = inverse @ (2 * np.column_stack([V, Py]).T / fit.sigma**2)
    extra = float(np.sum((V / P.w[:, None]).T * moved[:-1]))
    trace = float(np.sum(hat_values(fit)[P.rows]))
    sd2 = fit.sigma**2 / P.w
    e = fit.residuals[P.rows]
    log_likelihood = float(-0.5 * np.sum(np.log(2 * np.pi * sd2) + e**2 / sd2))
    df = trace + extra + 1
    return ConditionalAIC(-2 * log_likelihood + 2 * df, log_likelihood, df, trace)


def _has_one(fit: Any) -> None:
    if not fit.is_linear or fit.design.residual is not None or not fit.design.terms:
        raise NotApplicableError(
            "the conditional AIC is Greven and Kneib's for linear mixed models with "
            "independent residuals; compare other models by .aic, or by "
            "fit.cross_validate()"
        )


def compare_models(fits: tuple, criterion: str = "aic") -> pd.DataFrame:
    """Several fits by their criteria; see ``jg.compare_models``."""
    criterion = _arguments.choice("criterion", criterion, CRITERIA)
    names = [f"model{i + 1}" for i in range(len(fits))]
    if len(fits) == 1 and isinstance(fits[0], Mapping):
        names, fits = [str(x) for x in fits[0]], tuple(fits[0].values())
    elif len(fits) == 1 and isinstance(fits[0], list | tuple):
        fits = tuple(fits[0])
        names = [f"model{i + 1}" for i in range(len(fits))]
    if len(fits) < 2:
        raise ComparisonError("a table of models needs two fits or more")
    rows = [
        (f.formula, f.npar, f.log_likelihood, f.aic, aicc(f), f.bic)
        for f in comparable(fits)
    ]
    columns = ["formula", "npar", "log_likelihood", *CRITERIA]
    table = pd.DataFrame(rows, index=names, columns=columns)
    least = table[criterion].min()
    delta = table[criterion] - least if np.isfinite(least) else table[criterion] * 0.0
    share = np.exp(-0.5 * delta)
    table = table.assign(delta=delta, weight=share / share.sum())
    return table.sort_values(criterion, kind="stable")
