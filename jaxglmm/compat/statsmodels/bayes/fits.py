"""``fit_map`` and ``fit_vb``: starts, methods, scaling, records.

"BFGS" is statsmodels' default and means the method of this package, Newton's on the
structure of the design. Any other name is a method of ``scipy.optimize.minimize`` and
runs on the same objective.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxglmm._errors import ConvergenceWarning, PosteriorWarning
from jaxglmm.compat.statsmodels.bayes import joint as _joint
from jaxglmm.compat.statsmodels.bayes import marginal as _marginal
from jaxglmm.compat.statsmodels.bayes import objective as _objective
from jaxglmm.compat.statsmodels.bayes.covariance import (
    Covariance,
    Independent,
    Matrix,
    Recoded,
)
from jaxglmm.compat.statsmodels.bayes.layout import Data, Layout
from jaxglmm.compat.statsmodels.bayes.results import BayesMixedGLMResults
from jaxglmm.estimate import mean_field
from jaxglmm.runtime.precision import double_precision

if TYPE_CHECKING:
    from jaxglmm.compat.statsmodels.bayes.model import BayesMixedGLM

OWN = "BFGS"  # the name that means our own method
METHODS = (  # of scipy.optimize.minimize
    *("nelder-mead", "powell", "cg", "bfgs", "newton-cg", "l-bfgs-b", "tnc", "cobyla"),
    *("cobyqa", "slsqp", "trust-constr", "dogleg", "trust-ncg", "trust-exact"),
    "trust-krylov",
)
TOLERANCE = 1e-12
STEPS = 500
WIDEST = 0.6  # sd of a column's part of the predictor that a start may have
CONSTANT = 1e-8  # sd of a column of exog below which it is constant, as in statsmodels
COLLAPSED = 0.8  # of -(number of effects) vcp_p^2: a log sd there is the spike at zero
NARROW = (
    "A mean field is too narrow where coefficients and random effects are correlated; "
    "structure='joint' or fit_map() do not assume independence"
)


@dataclass(frozen=True)
class Options:
    """What ``minim_opts`` says: most steps, largest gradient that counts as zero."""

    max_steps: int = STEPS
    gtol: float = 1e-5
    disp: bool = False

    @classmethod
    def of(cls, minim_opts: dict | None, refuse: bool = True) -> Options:
        """Read; unknown names are refused, unless they are another method's."""
        given = dict(minim_opts or {})
        out = cls(
            int(given.pop("maxiter", STEPS)),
            float(given.pop("gtol", 1e-5)),
            bool(given.pop("disp", False)),
        )
        if given and refuse:
            raise ValueError(
                f"minim_opts {', '.join(map(repr, given))} mean nothing to method "
                "'BFGS' here, which takes 'maxiter', 'gtol', 'disp'; name another "
                "method of scipy.optimize.minimize to pass it its own options"
            )
        return out


# Scaling ------------------------------------------------------------------------------


def scaled(data: Data) -> tuple[Data, np.ndarray]:
    """Columns of X centred and of unit sd, and A with beta = A gamma.

    Centring needs a constant column to move into; without one columns are only scaled.
    """
    X = data.X
    mean, sd = X.mean(0), X.std(0)
    moving = sd > CONSTANT
    fixed = np.flatnonzero(~moving & (mean != 0))
    A = np.diag(np.where(moving, 1 / np.where(moving, sd, 1.0), 1.0))
    new = X.copy()
    if len(fixed):
        c = fixed[0]
        new[:, moving] -= mean[moving]
        A[c, moving] -= mean[moving] / (sd[moving] * mean[c])
    new[:, moving] /= sd[moving]
    return replace(data, X=new), A


# fit_map ------------------------------------------------------------------------------


def fit_map(
    model: BayesMixedGLM,
    method: str,
    minim_opts: dict | None,
    scale_fe: bool,
    rng: Any,
    joint: bool,
) -> BayesMixedGLMResults:
    """The mode of the marginal posterior, or of the joint one."""
    _check_method(method)
    data, A = scaled(model._data) if scale_fe else (model._data, None)
    layout = Layout(data) if scale_fe else model.layout
    start = _random_start(data, rng)
    if joint:
        return _fit_joint_mode(model, layout, A, method, minim_opts, start)
    options = Options.of(minim_opts, refuse=method == OWN)
    found = _marginal.find(layout, start, TOLERANCE, options.max_steps)
    mean = _recoded(found.mean, A)
    success = found.status == 0
    record = _record(
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
        warnings.warn(
            f"the marginal mode was not reached: {record.message} after {found.steps} "
            "evaluations. Raise minim_opts={'maxiter': ...}",
            ConvergenceWarning,
            stacklevel=3,
        )
    facts = {
        "method": "marginal posterior mode (Laplace)",
        "status": "converged" if success else "not converged",
        "log_marginal": found.log_marginal,
    }
    return BayesMixedGLMResults(
        model, mean, _recoded_covariance(found, A), record, facts
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
    model: BayesMixedGLM,
    layout: Layout,
    A: np.ndarray | None,
    method: str,
    minim_opts: dict | None,
    start: np.ndarray | None,
) -> BayesMixedGLMResults:
    """The interior mode of the joint density nearest to the mean field's mean."""
    from scipy.optimize import minimize

    data = layout.data
    if start is None:
        start = _joint_start(layout)
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
        warnings.warn(
            "the joint density of coefficients, scales and random effects is not "
            "concave where the search ended, so that this is no mode, and the standard "
            "deviations mean nothing. fit_map() without joint=True integrates the "
            "random effects out",
            ConvergenceWarning,
            stacklevel=4,
        )
    elif not found.success:
        warnings.warn(
            f"Laplace fitting did not converge, |gradient|={gradient:.6f}",
            ConvergenceWarning,
            stacklevel=4,
        )
    elif collapsed:
        warnings.warn(
            "the joint mode is where a scale is next to zero: with the random effects "
            "at zero, only the prior of log s holds it, at -q vcp_p^2 for q effects, "
            "whatever the data. fit_map() without joint=True integrates the random "
            "effects out",
            PosteriorWarning,
            stacklevel=4,
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
        _recoded(found.x, A),
        _recoded_covariance(Matrix(C), A),
        found,
        facts,
        notes,
    )


def _status_of(success: bool, collapsed: bool) -> str:
    if not success:
        return "not converged"
    return "at a scale of zero" if collapsed else "converged"


def _joint_start(layout: Layout) -> np.ndarray:
    found = _run_mean_field(layout, None, None, "exact", 200, 1e-8)
    return _packed(layout, found)[0]


def _collapsed(data: Data, x: np.ndarray) -> bool:
    _, zeta, _ = _objective.unpack(data, x)
    count = np.bincount(data.ident, minlength=len(zeta))
    return bool(np.any(zeta < -COLLAPSED * np.maximum(count, 2) * data.vcp_p**2))


def _positive(H: np.ndarray) -> bool:
    return bool(np.linalg.eigvalsh(H)[0] > 0)


# fit_vb -------------------------------------------------------------------------------


def fit_vb(
    model: BayesMixedGLM,
    mean: Any,
    sd: Any,
    method: str,
    minim_opts: dict | None,
    scale_fe: bool,
    verbose: bool,
    rng: Any,
    structure: str,
    quadrature: str,
) -> BayesMixedGLMResults:
    """The best member of a family of Gaussians."""
    if structure not in ("mean-field", "joint"):
        raise ValueError(f"structure={structure!r} is not one of 'mean-field', 'joint'")
    model.verbose = bool(verbose)
    data, A = scaled(model._data) if scale_fe else (model._data, None)
    layout = Layout(data) if scale_fe else model.layout
    mean, sd = _starting_values(model, data, mean, sd, rng)
    if structure == "joint":
        return _fit_joint_vb(model, layout, A, mean, method, minim_opts, quadrature)
    rule = model._rule(quadrature)
    if method != OWN:
        m, s, record = _by_scipy(data, mean, sd, method, minim_opts, rule, verbose)
    else:
        options = Options.of(minim_opts)
        m, s, record = _by_newton(layout, mean, sd, rule, options, verbose)
    if not record.success:
        warnings.warn("VB fitting did not converge", ConvergenceWarning, stacklevel=3)
    facts = {
        "method": "mean-field variational Bayes",
        "status": "converged" if record.success else "not converged",
        "elbo": -record.fun + _objective.bound_constant(data, rule),
    }
    covariance = _recoded_covariance(Independent(s**2), A)
    return BayesMixedGLMResults(
        model, _recoded(m, A), covariance, record, facts, (NARROW,)
    )


def _starting_values(
    model: BayesMixedGLM, data: Data, mean: Any, sd: Any, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """As documented: scales' means at least -1, all log sds at least -1."""
    p, K = model.k_fep, model.k_vcp
    k = p + K + model.k_vc
    m = np.zeros(k) if mean is None else model._packed(mean, "mean").copy()
    if sd is None:
        noise = 0.0 if rng is None else 0.1 * _generator(rng).normal(size=k)
        s = np.full(k, -0.5) + noise
    else:
        s = np.log(model._packed(sd, "sd"))
    m[p : p + K] = np.maximum(m[p : p + K], -1.0)
    return m, np.exp(np.maximum(s, -1.0))


def _by_newton(
    layout: Layout,
    mean: np.ndarray,
    sd: np.ndarray,
    rule: str,
    options: Options,
    verbose: bool,
) -> tuple[np.ndarray, np.ndarray, Any]:
    if verbose:
        found = _step_by_step(layout, mean, sd, rule, options)
    else:
        found = _run_mean_field(layout, mean, sd, rule, options.max_steps, TOLERANCE)
    m, s = _packed(layout, found)
    q = _objective.Factored.of(layout.data, m, s)
    gm, gs = _objective.bound_gradient(layout.data, q, rule)
    largest = max(np.abs(gm).max(), np.abs(gs * s).max())
    # the gradient at rounding's floor: it is a sum of terms this large
    floor = 1e-10 * max(1.0, np.abs(layout.data.y).sum())
    success = float(found.gap) <= TOLERANCE or largest <= max(options.gtol, floor)
    value = -_objective.bound(layout.data, q, rule)
    record = _record(
        np.concatenate([m, np.log(s)]),
        value,
        -np.concatenate([gm, gs * s]),
        int(found.steps),
        success,
        f"largest component of the gradient {largest:.2g}",
    )
    if options.disp:
        print(record)
    return m, s, record


def _step_by_step(
    layout: Layout, mean: np.ndarray, sd: np.ndarray, rule: str, options: Options
) -> mean_field.Factored:
    """One pass at a time, the gradient's norm printed after each."""
    while True:
        found = _run_mean_field(layout, mean, sd, rule, 1, TOLERANCE)
        mean, sd = _packed(layout, found)
        q = _objective.Factored.of(layout.data, mean, sd)
        g = np.concatenate(_objective.bound_gradient(layout.data, q, rule))
        print(f"|G|={np.linalg.norm(g):f}")
        options = replace(options, max_steps=options.max_steps - 1)
        if float(found.gap) <= TOLERANCE or options.max_steps <= 0:
            return found


@double_precision
def _run_mean_field(
    layout: Layout,
    mean: np.ndarray | None,
    sd: np.ndarray | None,
    rule: str,
    max_steps: int,
    tol: float,
) -> mean_field.Factored:
    data = layout.data
    p, K, q = data.X.shape[1], len(data.vcp_p), data.Z.shape[1]
    mean = np.zeros(p + K + q) if mean is None else mean
    sd = np.full(p + K + q, np.exp(-0.5)) if sd is None else sd
    beta, zeta, u = _objective.unpack(data, mean)
    sd_beta, sd_zeta, sd_u = _objective.unpack(data, sd)
    # an optimum does not depend on its start, but exp() of a wide one overflows
    largest = np.sqrt(np.maximum(data.Z.multiply(data.Z).max(axis=0).toarray(), 1e-30))
    sd_beta = np.minimum(sd_beta, WIDEST / layout.size)
    sd_u = np.minimum(sd_u, WIDEST / np.ravel(largest))
    start = mean_field.Factored(
        jnp.asarray(beta * layout.size),
        layout.effects(u),
        jnp.asarray(zeta),
        jnp.asarray((sd_beta * layout.size) ** 2),
        layout.effects(sd_u**2, power=2),
        jnp.asarray(np.minimum(sd_zeta, WIDEST) ** 2),
        jnp.asarray(np.inf),
        jnp.asarray(0),
    )
    return mean_field.fit_mean_field(
        layout.problem,
        layout.scales,
        jnp.asarray(layout.precision),
        jnp.asarray(data.phi, float),
        start,
        jnp.asarray(tol),
        jnp.asarray(max_steps),
        rule=rule,
    )


def _packed(
    layout: Layout, found: mean_field.Factored
) -> tuple[np.ndarray, np.ndarray]:
    mean = [
        np.asarray(found.beta) / layout.size,
        np.asarray(found.zeta),
        layout.by_column(found.b),
    ]
    variance = [
        np.asarray(found.var_beta) / layout.size**2,
        np.asarray(found.var_zeta),
        layout.by_column(found.var_b, power=2),
    ]
    return np.concatenate(mean), np.sqrt(np.concatenate(variance))


def _by_scipy(
    data: Data,
    mean: np.ndarray,
    sd: np.ndarray,
    method: str,
    minim_opts: dict | None,
    rule: str,
    verbose: bool,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """The bound by a method of scipy.optimize.minimize, standard deviations as logs."""
    from scipy.optimize import minimize

    k = len(mean)

    def split(x: np.ndarray) -> tuple[np.ndarray, _objective.Factored]:
        s = np.exp(x[k:])
        return s, _objective.Factored.of(data, x[:k], s)

    def gradient(x: np.ndarray) -> np.ndarray:
        s, q = split(x)
        gm, gs = _objective.bound_gradient(data, q, rule)
        if verbose:
            print(f"|G|={np.sqrt(np.sum(gm**2) + np.sum(gs**2)):f}")
        return -np.concatenate([gm, gs * s])

    record = minimize(
        lambda x: -_objective.bound(data, split(x)[1], rule),
        np.concatenate([mean, np.log(sd)]),
        jac=gradient,
        method=method,
        options=minim_opts,
    )
    return record.x[:k], np.exp(record.x[k:]), record


def _fit_joint_vb(
    model: BayesMixedGLM,
    layout: Layout,
    A: np.ndarray | None,
    mean: np.ndarray,
    method: str,
    minim_opts: dict | None,
    quadrature: str,
) -> BayesMixedGLMResults:
    if method != OWN:
        raise ValueError(
            f"fit_method={method!r} belongs to structure='mean-field'; the joint "
            "Gaussian is found by Newton's method (fit_method='BFGS', the default)"
        )
    if quadrature == "statsmodels":
        quadrature = "exact"  # its rule is no rule to integrate variances over
    options = Options.of(minim_opts)
    mixture, found = _joint.find(
        layout, mean, 1e-8, options.max_steps, model._rule(quadrature)
    )
    success = float(found.gap) <= 1e-8
    record = _record(
        mixture.mean,
        -float(found.elbo),
        None,
        mixture.steps + int(found.steps),
        success,
        f"gap {float(found.gap):.2g}",
    )
    if not success:
        warnings.warn("VB fitting did not converge", ConvergenceWarning, stacklevel=4)
    facts = {
        "method": "Gaussian variational Bayes, effects and coefficients together",
        "status": "converged" if success else "not converged",
        "elbo": float(mixture.nodes.log_evidence),
    }
    return BayesMixedGLMResults(
        model,
        _recoded(mixture.mean, A),
        _recoded_covariance(mixture, A),
        record,
        facts,
    )


# Shared -------------------------------------------------------------------------------


def _random_start(data: Data, rng: Any) -> np.ndarray | None:
    """statsmodels' random start where a seed or generator is given."""
    if rng is None:
        return None
    p, K, q = data.X.shape[1], len(data.vcp_p), data.Z.shape[1]
    return np.concatenate([np.zeros(p), np.ones(K), _generator(rng).normal(size=q)])


def _generator(rng: Any) -> Any:
    return rng if hasattr(rng, "normal") else np.random.default_rng(rng)


def _recoded(mean: np.ndarray, A: np.ndarray | None) -> np.ndarray:
    if A is None:
        return mean
    out = mean.copy()
    out[: len(A)] = A @ mean[: len(A)]
    return out


def _recoded_covariance(inner: Covariance, A: np.ndarray | None) -> Covariance:
    return inner if A is None else Recoded(inner, A)


def _record(x, fun, jac, steps, success, message) -> Any:
    from scipy.optimize import OptimizeResult

    return OptimizeResult(
        x=x, fun=fun, jac=jac, nit=steps, nfev=steps, success=success, message=message
    )
