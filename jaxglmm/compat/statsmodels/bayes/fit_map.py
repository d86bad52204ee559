"""``fit_map``: the mode of the marginal posterior, or of the joint one."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import ConvergenceWarning, PosteriorWarning
from jaxglmm.compat.statsmodels.bayes import marginal as _marginal
from jaxglmm.compat.statsmodels.bayes import objective as _objective
from jaxglmm.compat.statsmodels.bayes.covariance import FullCovariance
from jaxglmm.compat.statsmodels.bayes.fit_vb import mean_field_start
from jaxglmm.compat.statsmodels.bayes.layout import BayesArrays, DesignLayout
from jaxglmm.compat.statsmodels.bayes.options import (
    OWN,
    STEPS,
    TOLERANCE,
    Options,
    generator,
    laid_out,
    recoded,
    recoded_covariance,
    record_of,
)
from jaxglmm.compat.statsmodels.bayes.results import BayesMixedGLMResults
from jaxglmm.compat.statsmodels.bayes.state import BayesState
from jaxglmm.formula.notices import warn

METHODS = (  # of scipy.optimize.minimize
    *("nelder-mead", "powell", "cg", "bfgs", "newton-cg", "l-bfgs-b", "tnc", "cobyla"),
    *("cobyqa", "slsqp", "trust-constr", "dogleg", "trust-ncg", "trust-exact"),
    "trust-krylov",
)
COLLAPSED = 0.8  # of -(number of effects) vcp_p^2: a log sd there is the spike at zero


def fit_map(
    model: BayesState,
    method: str,
    minim_opts: dict | None,
    scale_fe: bool,
    rng: Any,
    joint: bool,
) -> BayesMixedGLMResults:
    """The mode of the marginal posterior, or of the joint one."""
    _check_method(method)
    layout, A = laid_out(model, scale_fe)
    start = _random_start(layout.data, rng)
    if joint:
        return _fit_joint_mode(model, layout, A, method, minim_opts, start)
    options = Options.of(minim_opts, refuse=method == OWN)
    found = _marginal.find(layout, start, TOLERANCE, options.max_steps)
    mean = recoded(found.mean, A)
    success = found.status == 0
    record = record_of(
        mean,
        float(found.mode.value),
        None,
        found.steps,
        success,
        f"Newton decrement {float(found.mode.decrement):.2g}",
    )
    if options.disp:
        print(record)
    if not success:
        warn(
            f"the marginal mode was not reached: {record.message} after {found.steps} "
            "evaluations. Raise minim_opts={'maxiter': ...}",
            ConvergenceWarning,
        )
    facts = {
        "method": "marginal posterior mode (Laplace)",
        "status": "converged" if success else "not converged",
        "log_marginal": found.log_marginal,
    }
    return BayesMixedGLMResults(
        model, mean, recoded_covariance(found, A), record, facts
    )


def _check_method(method: Any) -> None:
    """Names of SciPy's methods, in any case; functions are SciPy's custom ones."""
    if callable(method) or str(method).lower() in METHODS:
        return
    raise ValueError(
        f"method={method!r} is no method of scipy.optimize.minimize; there are "
        f"{', '.join(METHODS)}"
    )


def _fit_joint_mode(
    model: BayesState,
    layout: DesignLayout,
    A: np.ndarray | None,
    method: str,
    minim_opts: dict | None,
    start: np.ndarray | None,
) -> BayesMixedGLMResults:
    """The interior mode of the joint density nearest to the mean field's mean."""
    from scipy.optimize import minimize

    data = layout.data
    if start is None:
        start = mean_field_start(layout)
    options = dict(minim_opts or {})
    if method == OWN:
        method = "trust-exact"
        options = {
            "gtol": 1e-8,
            "maxiter": STEPS,
            "initial_trust_radius": 0.2,
            "max_trust_radius": 1.0,
            **options,
        }
    extra = {}
    if method.startswith("trust") or method == "dogleg":
        extra["hess"] = lambda x: -_objective.log_posterior_hessian(data, x)
    found = minimize(
        lambda x: -_objective.log_posterior(data, x),
        start,
        jac=lambda x: -_objective.log_posterior_gradient(data, x),
        method=method,
        options=options,
        **extra,
    )
    gradient = float(np.linalg.norm(_objective.log_posterior_gradient(data, found.x)))
    H = -_objective.log_posterior_hessian(data, found.x)
    is_mode = _positive(H)
    collapsed = _collapsed(data, found.x)
    found.success = bool(gradient <= 1e-4) and is_mode
    if not is_mode:
        warn(
            "the joint density of coefficients, scales and random effects is not "
            "concave where the search ended, so that this is no mode, and the standard "
            "deviations mean nothing. fit_map() without joint=True integrates the "
            "random effects out",
            ConvergenceWarning,
        )
    elif not found.success:
        warn(
            f"Laplace fitting did not converge, |gradient|={gradient:.6f}",
            ConvergenceWarning,
        )
    elif collapsed:
        warn(
            "the joint mode is where a scale is next to zero: with the random effects "
            "at zero, only the prior of log s holds it, at -q vcp_p^2 for q effects, "
            "whatever the data. fit_map() without joint=True integrates the random "
            "effects out",
            PosteriorWarning,
        )
    C = np.linalg.inv(H) if is_mode else np.linalg.pinv(H)
    facts = {
        "method": "joint posterior mode",
        "status": _status_of(found.success, collapsed),
        "log_posterior": -float(found.fun),
    }
    notes = ("The joint mode ignores that scales and random effects move together",)
    return BayesMixedGLMResults(
        model,
        recoded(found.x, A),
        recoded_covariance(FullCovariance(C), A),
        found,
        facts,
        notes,
    )


def _status_of(success: bool, collapsed: bool) -> str:
    if not success:
        return "not converged"
    return "at a scale of zero" if collapsed else "converged"


def _collapsed(data: BayesArrays, x: np.ndarray) -> bool:
    _, zeta, _ = _objective.unpack(data, x)
    count = np.bincount(data.ident, minlength=len(zeta))
    return bool(np.any(zeta < -COLLAPSED * np.maximum(count, 2) * data.vcp_p**2))


def _positive(H: np.ndarray) -> bool:
    return bool(np.linalg.eigvalsh(H)[0] > 0)


def _random_start(data: BayesArrays, rng: Any) -> np.ndarray | None:
    """statsmodels' random start where a seed or generator is given."""
    if rng is None:
        return None
    p, K, q = data.X.shape[1], len(data.vcp_p), data.Z.shape[1]
    return np.concatenate([np.zeros(p), np.ones(K), generator(rng).normal(size=q)])
