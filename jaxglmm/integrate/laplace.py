"""Laplace's approximation to the marginal of a generalised linear mixed model.

With h(u) = -sum_i l_i(eta_i) + u'u / 2 minimal at u^, w = -d2l/deta2 there and
M = Lambda'Z'WZ Lambda + I,

    d(psi) = -2 log L = 2 h(u^) + log|M|

(2 pi cancels against the prior of u). The mode by Newton's method, damped a level at a
time where there is one factor, for its levels are independent. The
derivatives of d are in ``laplace_derivatives``.
"""

from __future__ import annotations

import jax

from jaxglmm._typing import Array, Count, Float, Scalar
from jaxglmm.integrate import laplace_derivatives as point
from jaxglmm.integrate.laplace_derivatives import Hessian as Hessian
from jaxglmm.integrate.laplace_derivatives import predictor as predictor
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects, Lambdas, scale, scale_transposed
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module

MODE = 1e-12  # Newton decrement of the mode, a level
MOST = 100  # steps to the mode


class RowDerivatives(Module):
    """l, s, w, w1 and the (positive) information for steps, weights inside.

    Shapes as in ``laplace_derivatives.RowTerms``.
    """

    l: Float[Array, " n"]
    s: Float[Array, " n"]
    w: Float[Array, " n"]
    w1: Float[Array, " n"]
    step: Float[Array, " n"]


def rows_at(
    problem: GeneralisedProblem, eta: Float[Array, " n"], phi: Float[Array, " r"]
) -> RowDerivatives:
    """The log density of the rows and its derivatives in the predictor."""
    family, v = problem.family, problem.weights
    used = v > 0
    l, s, w, w1 = family.derivatives(problem.y, eta, phi, problem.trials)
    if family.has_canonical_link:
        step = w
    elif problem.predictors.K > 1:
        expected = family.expected_block(eta, phi, problem.trials)
        step = problem.predictors.bounded(w, expected)
    else:
        step = jnp.where(w > 0, w, family.expected_weight(eta, phi, problem.trials))
    out = (jnp.where(used, v * x, 0.0) for x in (l, s, w, w1, step))
    return RowDerivatives(*out)


class ModeOfEffects(Module):
    """u: the mode, (q, 1, J) a factor; decrement: what a Newton step still gains."""

    u: Effects
    decrement: Scalar
    steps: Count


def _penalised(
    problem: GeneralisedProblem,
    l: Float[Array, " n"],
    u: Effects,
) -> Array:
    """-2 l + u'u a level (one factor) or in all (several)."""
    if len(u) == 1:
        rows = problem.rows.level_sum(l)
        return -2 * rows + jnp.sum(u[0][:, 0] ** 2, axis=0)
    return -2 * jnp.sum(l) + sum(jnp.sum(x**2) for x in u)


def find_mode(
    problem: GeneralisedProblem,
    beta: Float[Array, " p"],
    lam: Lambdas,
    phi: Float[Array, " r"],
    start: Effects,
) -> ModeOfEffects:
    """Minimise h from ``start``: Newton steps, halved where the deviance rises."""

    def look(u: Effects) -> tuple[Array, Effects, Array]:
        eta = predictor(problem, beta, scale(lam, u))
        r = rows_at(problem, eta, phi)
        factor = problem.rows.weigh(r.step).factor(lam)
        if problem.predictors.K > 1:
            # M may be positive where blocks of rows are not, and then steps by what
            # bounds them would converge linearly
            own = problem.rows.weigh(r.w).factor(lam)
            factor = point.where_positive(own, factor)
        t = problem.rows.collect(r.s[None])
        grad = tuple(a - b for a, b in zip(u, scale_transposed(lam, t), strict=True))
        step, squares = factor.newton(grad)
        gain = (
            jnp.sum(squares[0][:, 0], axis=0)
            if len(u) == 1
            else sum(jnp.sum(x) for x in squares)
        )
        return _penalised(problem, r.l, u), step, gain

    def body(state):
        u, value, trial, steps, _ = state
        new, step, gain = look(trial)
        slack = 1e-10 * (1 + jnp.abs(value))
        ok = jnp.isfinite(new) & jnp.isfinite(gain) & (new <= value + slack)
        ok = ok | jnp.isinf(value) & jnp.isfinite(new)
        u = tuple(jnp.where(ok, a, b) for a, b in zip(trial, u, strict=True))
        value = jnp.where(ok, new, value)
        ahead = tuple(a - s for a, s in zip(trial, step, strict=True))
        back = tuple((a + b) / 2 for a, b in zip(trial, u, strict=True))
        trial = tuple(jnp.where(ok, a, b) for a, b in zip(ahead, back, strict=True))
        left = jnp.max(jnp.where(ok, gain, jnp.inf))
        return u, value, trial, steps + 1, left

    first = jnp.full_like(
        _penalised(problem, jnp.zeros_like(problem.y), start), jnp.inf
    )
    state = (start, first, start, jnp.asarray(0), jnp.asarray(jnp.inf))
    # the last trial is one Newton step beyond the point that passed
    _, _, u, steps, left = lax.while_loop(
        lambda s: (s[4] > MODE) & (s[3] < MOST), body, state
    )
    if problem.predictors.K > 1:
        # blocks of several predictors are seldom positive far out, and steps by what
        # bounds them converge linearly: the last one is Newton's own
        closer = newton_step(problem, beta, lam, phi, u)
        near = left < 1e-3
        u = tuple(
            jnp.where(near & jnp.all(jnp.isfinite(x)), x, y)
            for x, y in zip(closer, u, strict=True)
        )
    return ModeOfEffects(u, left, steps)


class Evaluation(Module):
    """A marginal likelihood and its first derivatives at one psi.

    value: -2 log-likelihood; score (k,); curvature (k, k) positive semidefinite
    stand-in for the Hessian; scale (k,) of its damping; u: the mode; nu: its decrement.
    """

    value: Scalar
    score: Float[Array, " k"]
    curvature: Float[Array, "k k"]
    scale: Float[Array, " k"]
    u: Effects
    nu: Scalar | float = 0.0


def log_marginal(
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    start: Effects,
    hessian: Hessian = "observed",
) -> Scalar:
    """Laplace's log-likelihood, differentiable in psi to second order.

    The mode is found without derivatives, then two Newton steps carry them: after k
    steps derivatives up to order 2^k - 1 are exact.
    """
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    still = jax.tree.map(lax.stop_gradient, (beta, lam, phi))
    mode = find_mode(problem, still[0], still[1], still[2], start)
    u = jax.tree.map(lax.stop_gradient, mode.u)
    for _ in range(2):
        u = newton_step(problem, beta, lam, phi, u)
    return -0.5 * value_at(problem, beta, lam, phi, u, hessian)


def newton_step(
    problem: GeneralisedProblem, beta: Array, lam: Lambdas, phi: Array, u: Effects
) -> Effects:
    """One undamped Newton step towards the mode, differentiable."""
    r = rows_at(problem, predictor(problem, beta, scale(lam, u)), phi)
    return newton_update(problem, lam, r.w, r.s, u)


def newton_update(
    problem: GeneralisedProblem, lam: Lambdas, w: Array, s: Array, u: Effects
) -> Effects:
    """The same from the weights and slopes of the rows."""
    factor = problem.rows.weigh(w).factor(lam)
    t = scale_transposed(lam, problem.rows.collect(s[None]))
    grad = tuple(a - b for a, b in zip(u, t, strict=True))
    step = factor.solve(grad)
    return tuple(a - s for a, s in zip(u, step, strict=True))


def _information(
    problem: GeneralisedProblem, eta: Array, phi: Array, hessian: Hessian
) -> Array:
    """What stands in M: observed or expected information of the rows."""
    if hessian == "observed":
        return rows_at(problem, eta, phi).w
    w = problem.family.expected_weight(eta, phi, problem.trials)
    return jnp.where(problem.weights > 0, problem.weights * w, 0.0)


def value_at(
    problem: GeneralisedProblem,
    beta: Array,
    lam: Lambdas,
    phi: Array,
    u: Effects,
    hessian: Hessian = "observed",
) -> Scalar:
    """d at a given u (the mode, or close to it)."""
    eta = predictor(problem, beta, scale(lam, u))
    r = rows_at(problem, eta, phi)
    w = r.w if hessian == "observed" else _information(problem, eta, phi, hessian)
    log_det = problem.rows.weigh(w).factor(lam).log_det()
    return -2 * jnp.sum(r.l) + sum(jnp.sum(x**2) for x in u) + log_det


def laplace(
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    start: Effects,
    hessian: Hessian = "observed",
) -> Evaluation:
    """Value, score and curvature; the mode from ``start``."""
    beta, theta, phi = problem.split(psi)
    u = find_mode(problem, beta, problem.lambdas(theta), phi, start).u
    folded = problem.folded()
    at = point.evaluate(folded, point.terms_of(folded, hessian), psi, u, True, hessian)
    value = at.value + point.constant(folded)
    return Evaluation(value, at.score, at.curvature, at.scale, u, at.nu)
