"""Fixed effects under an L1 penalty, the variances held at their fit."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pandas as pd

from jaxglmm._errors import ConvergenceWarning, DataError, ModelError
from jaxglmm.compat.statsmodels.mixedlm.estimate import FitRequest, estimate
from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.state import FitState, ModelState
from jaxglmm.formula.notices import warn

Fit = TypeVar("Fit", bound=FitState)


def checked(alpha: Any, k_fe: int) -> np.ndarray:
    """(k_fe,) weights of the penalty."""
    weights = np.broadcast_to(np.asarray(alpha, float), (k_fe,))
    if (weights < 0).any():
        raise ValueError(f"alpha={alpha!r} must not be negative")
    return weights


def shrunk(
    base: Fit,
    start_params: Any,
    weights: np.ndarray,
    ceps: float,
    ptol: float,
    maxit: int,
) -> Fit:
    """The fit ``base`` with fixed effects under the penalty, its variances kept."""
    model = base.model
    ev = model._evaluator
    params = base.params_object
    _, K, _ = ev.ground(params.cov_re, params.vcomp)
    Q, c = _quadratic(ev, K, base.scale)
    beta = np.array(params.fe_params if start_params is None else start_params, float)
    if len(beta) != model.k_fe:
        raise DataError(
            f"start_params of fit_regularized are {model.k_fe} fixed effects, got "
            f"{len(beta)} numbers"
        )
    beta, rounds = descend(Q, c, weights, beta, ptol, maxit)
    beta[np.abs(beta) < ceps] = 0.0
    scale = ev.scale(K, beta, base.reml)
    at = MixedLMParams.from_components(beta, params.cov_re, vcomp=params.vcomp)
    results = type(base)(
        model,
        at.get_packed(use_sqrt=False, has_fe=True),
        params_object=at,
        scale=scale,
        reml=base.reml,
        converged=rounds < maxit,
        freepat=base.freepat,
        held=base.held,
        evaluator=ev,
        zero=beta == 0,
        shrunk=(base.cov_re_array, base.vcomp),
    )
    results.mle_retvals = {
        "converged": rounds < maxit,
        "iterations": rounds,
        "fopt": -results.llf / results.nobs,
        "message": f"coordinate descent, {rounds} rounds",
    }
    if rounds >= maxit:
        warn(
            f"Coordinate descent stopped after {maxit} rounds; raise maxit.",
            ConvergenceWarning,
        )
    return results


def _quadratic(ev: Evaluator, K: np.ndarray, scale: float):
    """X'V^-1X and X'V^-1y of the natural covariance, in the user's units."""
    fixed, p = ev.engine.moments.fixed, ev.p
    Q = fixed.R.T @ K[:p, :p] @ fixed.R / scale
    beta = ev.gls(K)
    return Q, Q @ beta


def descend(Q, c, weights, beta, ptol: float, maxit: int) -> tuple[np.ndarray, int]:
    """Minimise b'Qb - 2 c'b + sum weights |b| coordinate by coordinate."""
    beta = np.array(beta, float)
    for rounds in range(1, maxit + 1):
        before = beta.copy()
        for j in range(len(beta)):
            rest = c[j] - Q[j] @ beta + Q[j, j] * beta[j]
            shrunk = max(abs(rest) - weights[j] / 2, 0.0)
            beta[j] = np.sign(rest) * shrunk / Q[j, j]
        if np.abs(beta - before).max(initial=0.0) < ptol:
            return beta, rounds
    return beta, maxit


def path(model: ModelState, alphas: Any, options: dict[str, Any]) -> pd.DataFrame:
    """Coefficients along weights, the unpenalised fit made once."""
    unknown = set(options) - {"ceps", "ptol", "maxit", "reml"}
    if unknown:
        raise TypeError(f"regularization_path has no argument {sorted(unknown)[0]!r}")
    ceps, ptol = options.get("ceps", 1e-4), options.get("ptol", 1e-6)
    base = estimate(model, FitRequest(reml=options.get("reml", True)))
    ev = model._evaluator
    _, K, _ = ev.ground(base.params_object.cov_re, base.params_object.vcomp)
    Q, c = _quadratic(ev, K, base.scale)
    beta, rows = base.params_object.fe_params, {}
    for alpha in sorted(np.asarray(alphas, float).tolist()):
        if alpha < 0:
            raise ModelError(f"alpha={alpha} must not be negative")
        weights = np.full(model.k_fe, alpha)
        beta, _ = descend(Q, c, weights, beta, ptol, options.get("maxit", 200))
        rows[alpha] = np.where(np.abs(beta) < ceps, 0.0, beta)
    out = pd.DataFrame(rows, index=model.exog_names).T
    return out.rename_axis("alpha")
