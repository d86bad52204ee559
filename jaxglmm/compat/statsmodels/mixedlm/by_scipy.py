"""SciPy's optimisers by statsmodels' names, and fits under penalties.

The objective is the log-likelihood with the scale profiled; penalties have ``func`` and
``deriv``, as statsmodels' have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm.compat.statsmodels.mixedlm.coordinates import Coordinates, Roots
from jaxglmm.compat.statsmodels.mixedlm.evaluate import Evaluator
from jaxglmm.compat.statsmodels.mixedlm.fit import CovarianceFound
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams

OUTSIDE = 1e10  # of the objective, where steps leave the covariances

SCIPY = {  # statsmodels' names
    "bfgs": "BFGS",
    "lbfgs": "L-BFGS-B",
    "cg": "CG",
    "nm": "Nelder-Mead",
    "powell": "Powell",
    "minimize": "BFGS",
    "basinhopping": "basinhopping",
}
OPTIONS = {  # of each: statsmodels' keyword -> SciPy's option
    "BFGS": {"gtol": "gtol", "maxiter": "maxiter", "eps": "eps", "disp": "disp"},
    "L-BFGS-B": {
        "gtol": "gtol",
        "ftol": "ftol",
        "maxiter": "maxiter",
        "eps": "eps",
        "maxcor": "maxcor",
        "maxls": "maxls",
    },
    "CG": {"gtol": "gtol", "maxiter": "maxiter", "eps": "eps", "disp": "disp"},
    "Nelder-Mead": {"ftol": "fatol", "maxiter": "maxiter", "disp": "disp"},
    "Powell": {"ftol": "ftol", "maxiter": "maxiter", "disp": "disp"},
    "basinhopping": {},
}
HOPS = 20  # of basin hopping


def minimise(
    ev: Evaluator,
    coordinates: Coordinates,
    reml: bool,
    methods: Sequence[str],
    options: dict[str, Any],
    keep_all: bool,
) -> tuple[Any, list, Any]:
    """SciPy's optimisers by name, one after the other until one converges.

    Over the coordinates, scale and fixed effects profiled, the objective divided by n
    as in statsmodels. Returns the coordinates there, points (with keep_all), and the
    record of SciPy.
    """
    from scipy.optimize import minimize

    constant = ev.constant(reml)

    def objective(x: np.ndarray):
        here = coordinates.point(x, 0.0)
        if here is None:
            return OUTSIDE, np.zeros_like(x)
        at = ev.slopes(*here)
        v = ev.direction(ev.gls(at.K))
        value = ev.value(at.log_det, at.K, v, reml) + constant / 2
        _, score = ev.score_from(at, v, reml)
        J = coordinates.jacobian(x, 0.0)[:, :-1]
        return -value / ev.n, -(J.T @ score) / ev.n

    x, path, record = coordinates.start(), [], None
    for name in methods:
        kind = SCIPY[name]
        given = {OPTIONS[kind][k]: v for k, v in options.items() if k in OPTIONS[kind]}
        if kind == "basinhopping":
            record = _hopped(objective, x)
            x = np.atleast_1d(record.x)
            break
        kept = (lambda z: path.append(z.copy())) if keep_all else None
        uses_gradient = kind not in ("Nelder-Mead", "Powell")
        record = minimize(
            objective if uses_gradient else lambda z: objective(z)[0],
            x,
            jac=uses_gradient or None,
            method=kind,
            tol=options.get("tol"),
            options=given,
            callback=kept,
        )
        x = np.atleast_1d(record.x)
        if record.success:
            break
    return x, path, record


def _hopped(objective: Callable, x: np.ndarray) -> Any:
    """SciPy's basin hopping, the same hops at every call."""
    from inspect import signature

    from scipy.optimize import basinhopping

    seed = "rng" if "rng" in signature(basinhopping).parameters else "seed"
    options: dict[str, Any] = {
        "niter": HOPS,
        "minimizer_kwargs": {"method": "BFGS", "jac": True},
        seed: np.random.default_rng(0),
    }
    return basinhopping(objective, x, **options)


def penalised(
    ev: Evaluator,
    start: MixedLMParams,
    coordinates: Roots,
    reml: bool,
    fe_pen: Any,
    cov_pen: Any,
    max_steps: int,
) -> CovarianceFound:
    """Maximise the log-likelihood less penalties, over beta and covariances together.

    The scale is profiled. Penalties have ``func`` and ``deriv``: of the fixed effects,
    and of (cov_re1, its inverse).
    """
    from scipy.optimize import minimize

    fixed = ev.engine.moments.fixed
    p = ev.p
    back = fixed.scale * fixed.R_inverse  # d beta / d internal

    def split(x: np.ndarray):
        cov_re, vcomp = coordinates.point(x[p:], 0.0)  # type: ignore[misc]
        return fixed.beta(x[:p]), cov_re, vcomp

    def objective(x: np.ndarray):
        beta, cov_re, vcomp = split(x)
        at = ev.slopes(cov_re, vcomp)
        v = ev.direction(beta)
        value = ev.value(at.log_det, at.K, v, reml)
        fe, score = ev.score_from(at, v, reml)
        if fe_pen is not None:
            value -= fe_pen.func(beta)
            fe = fe - fe_pen.deriv(beta)
        if cov_pen is not None and ev.k_re:
            inverse = np.linalg.pinv(cov_re)
            value -= cov_pen.func(cov_re, inverse)
            score = score.copy()
            score[: len(ev.triangle)] -= cov_pen.deriv(cov_re, inverse)
        J = coordinates.jacobian(x[p:], 0.0)[:, :-1]
        gradient = np.concatenate([back.T @ fe, J.T @ score])
        return -value, -gradient

    x = np.append(
        (fixed.R @ (start.fe_params - fixed.beta0)) / fixed.scale, coordinates.start()
    )
    found = minimize(
        objective,
        x,
        jac=True,
        method="BFGS",
        options={"gtol": 1e-6, "maxiter": max_steps},
    )
    size = float(np.abs(found.jac).max())
    close = found.success or size < 1e-4 * max(1.0, abs(found.fun))
    beta, cov_re, vcomp = split(found.x)
    status = _status.CONVERGED if close else _status.MAX_STEPS
    return CovarianceFound(cov_re, vcomp, status, int(found.nit), size, beta=beta)
