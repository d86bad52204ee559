"""``fit_vb``: the best member of a family of Gaussians."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxglmm._errors import ConvergenceWarning
from jaxglmm.compat.statsmodels.bayes import joint as _joint
from jaxglmm.compat.statsmodels.bayes import objective as _objective
from jaxglmm.compat.statsmodels.bayes.covariance import Independent
from jaxglmm.compat.statsmodels.bayes.layout import BayesArrays, DesignLayout
from jaxglmm.compat.statsmodels.bayes.options import (
    OWN,
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
from jaxglmm.estimate import mean_field
from jaxglmm.formula.notices import warn
from jaxglmm.runtime.precision import double_precision

WIDEST = 0.6  # sd of a column's part of the predictor that a start may have
NARROW = (
    "A mean field is too narrow where coefficients and random effects are correlated; "
    "structure='joint' or fit_map() do not assume independence"
)


def fit_vb(
    model: BayesState,
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
    layout, A = laid_out(model, scale_fe)
    data = layout.data
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
        warn("VB fitting did not converge", ConvergenceWarning)
    facts = {
        "method": "mean-field variational Bayes",
        "status": "converged" if record.success else "not converged",
        "elbo": -record.fun + _objective.bound_constant(data, rule),
    }
    covariance = recoded_covariance(Independent(s**2), A)
    return BayesMixedGLMResults(
        model, recoded(m, A), covariance, record, facts, (NARROW,)
    )


def _starting_values(
    model: BayesState, data: BayesArrays, mean: Any, sd: Any, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """As documented: scales' means at least -1, all log sds at least -1."""
    p, K = model.k_fep, model.k_vcp
    k = p + K + model.k_vc
    m = np.zeros(k) if mean is None else model._packed(mean, "mean").copy()
    if sd is None:
        noise = 0.0 if rng is None else 0.1 * generator(rng).normal(size=k)
        s = np.full(k, -0.5) + noise
    else:
        s = np.log(model._packed(sd, "sd"))
    m[p : p + K] = np.maximum(m[p : p + K], -1.0)
    return m, np.exp(np.maximum(s, -1.0))


def _by_newton(
    layout: DesignLayout,
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
    q = _objective.MeanField.of(layout.data, m, s)
    gm, gs = _objective.bound_gradient(layout.data, q, rule)
    largest = max(np.abs(gm).max(), np.abs(gs * s).max())
    # the gradient at rounding's floor: it is a sum of terms this large
    floor = 1e-10 * max(1.0, np.abs(layout.data.y).sum())
    success = float(found.gap) <= TOLERANCE or largest <= max(options.gtol, floor)
    value = -_objective.bound(layout.data, q, rule)
    record = record_of(
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
    layout: DesignLayout, mean: np.ndarray, sd: np.ndarray, rule: str, options: Options
) -> mean_field.Factored:
    """One pass at a time, the gradient's norm printed after each."""
    while True:
        found = _run_mean_field(layout, mean, sd, rule, 1, TOLERANCE)
        mean, sd = _packed(layout, found)
        q = _objective.MeanField.of(layout.data, mean, sd)
        g = np.concatenate(_objective.bound_gradient(layout.data, q, rule))
        print(f"|G|={np.linalg.norm(g):f}")
        options = replace(options, max_steps=options.max_steps - 1)
        if float(found.gap) <= TOLERANCE or options.max_steps <= 0:
            return found


@double_precision
def _run_mean_field(
    layout: DesignLayout,
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
    layout: DesignLayout, found: mean_field.Factored
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
    data: BayesArrays,
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

    def split(x: np.ndarray) -> tuple[np.ndarray, _objective.MeanField]:
        s = np.exp(x[k:])
        return s, _objective.MeanField.of(data, x[:k], s)

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
    model: BayesState,
    layout: DesignLayout,
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
    record = record_of(
        mixture.mean,
        -float(found.elbo),
        None,
        mixture.steps + int(found.steps),
        success,
        f"gap {float(found.gap):.2g}",
    )
    if not success:
        warn("VB fitting did not converge", ConvergenceWarning)
    facts = {
        "method": "Gaussian variational Bayes, effects and coefficients together",
        "status": "converged" if success else "not converged",
        "elbo": float(mixture.nodes.log_evidence),
    }
    return BayesMixedGLMResults(
        model,
        recoded(mixture.mean, A),
        recoded_covariance(mixture, A),
        record,
        facts,
    )


def mean_field_start(layout: DesignLayout) -> np.ndarray:
    """The packed means of a mean field, near which a joint mode is sought."""
    found = _run_mean_field(layout, None, None, "exact", 200, 1e-8)
    return _packed(layout, found)[0]
