"""Laplace's approximation to the marginal of a generalised linear mixed model.

With h(u) = -sum_i l_i(eta_i) + u'u / 2 minimal at u^, w = -d2l/deta2 there and
M = Lambda'Z'WZ Lambda + I,

    d(psi) = -2 log L = 2 h(u^) + log|M|

(2 pi cancels against the prior of u). The mode by Newton's method, damped a level at a
time where there is one factor, for its levels are independent. At the mode, with s =
dl/deta, w1 = dw/deta, the leverages lev = d log|M| / dw and a = w1 lev,

    dd/dbeta = X'(a - 2 s) - (Z'WX)'Lambda M^-1 Lambda'Z'a
    dd = tr(G dSigma),  G = S - t t' + (c t' + t c') / 2,  t = Z's,  c = Z'a - Z'WZ
    Lambda M^-1 Lambda'Z'a, S the sum of the diagonal blocks of Z'V^-1Z, V = W^-1 + Z
    Sigma Z'

the first-order score of a linear mixed model with weights w plus what the movement of w
adds (Kristensen et al. 2016 give the general form). Observed information is used in M,
so the approximation is Laplace's; ``hessian="expected"`` puts Fisher's information
there, as lme4 does, which differs for links that are not canonical.
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxglmm._typing import Array, Count, Float, Scalar
from jaxglmm.integrate.exact import boundary, directions
from jaxglmm.model.covariance import pack
from jaxglmm.model.generalised import GeneralisedProblem
from jaxglmm.numerics.system import (
    AbstractFactor,
    Effects,
    Lambdas,
    at_least,
    inner,
    inner_all,
    scale,
    scale_transposed,
)

Hessian = Literal["observed", "expected"]

MODE = 1e-12  # Newton decrement of the mode, a level
MOST = 100  # steps to the mode


class RowDerivatives(eqx.Module):
    """l, s, w, w1 and the (positive) information for steps, weights inside, (n,)."""

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
    if family.link.name == family.canonical:
        step = w
    else:
        step = jnp.where(w > 0, w, family.expected_weight(eta, phi, problem.trials))
    out = (jnp.where(used, v * x, 0.0) for x in (l, s, w, w1, step))
    return RowDerivatives(*out)


class Mode(eqx.Module):
    """u: the mode, (q, 1, J) a factor; decrement: what a Newton step still gains."""

    u: Effects
    decrement: Scalar
    steps: Count


def predictor(
    problem: GeneralisedProblem, beta: Float[Array, " p"], b: Effects
) -> Float[Array, " n"]:
    """offset + X beta + Z b."""
    eta = problem.offset + problem.rows.spread(b)
    return eta + beta @ problem.X if problem.p else eta


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
) -> Mode:
    """Minimise h from ``start``: Newton steps, halved where the deviance rises."""

    def look(u: Effects) -> tuple[Array, Effects, Array]:
        eta = predictor(problem, beta, scale(lam, u))
        r = rows_at(problem, eta, phi)
        factor = problem.rows.weigh(r.step).factor(lam)
        t = problem.rows.collect(r.s[None])
        grad = tuple(a - b for a, b in zip(u, scale_transposed(lam, t), strict=True))
        z = factor.forward(grad)
        step = factor.backward(z)
        gain = (
            jnp.sum(z[0][:, 0] ** 2, axis=0)
            if len(u) == 1
            else sum(jnp.sum(x * x) for x in z)
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
    return Mode(u, left, steps)


class Laplace(eqx.Module):
    """The approximation and its first derivatives at one psi.

    value: -2 log-likelihood; score (k,); curvature (k, k) positive semidefinite
    stand-in for the Hessian; scale (k,) of its damping; u: the mode.
    """

    value: Scalar
    score: Float[Array, " k"]
    curvature: Float[Array, "k k"]
    scale: Float[Array, " k"]
    u: Effects


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
    factor = problem.rows.weigh(r.w).factor(lam)
    t = scale_transposed(lam, problem.rows.collect(r.s[None]))
    grad = tuple(a - b for a, b in zip(u, t, strict=True))
    step = factor.backward(factor.forward(grad))
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
) -> Laplace:
    """Value, score and curvature; the mode from ``start``."""
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    u = find_mode(problem, beta, lam, phi, start).u
    return derivatives_at(problem, beta, lam, phi, u, hessian)


def derivatives_at(
    problem: GeneralisedProblem,
    beta: Array,
    lam: Lambdas,
    phi: Array,
    u: Effects,
    hessian: Hessian = "observed",
) -> Laplace:
    """The formulas of this module's head, at the mode."""
    rows, X = problem.rows, problem.X
    eta = predictor(problem, beta, scale(lam, u))
    r = rows_at(problem, eta, phi)
    kept = lam if len(lam) == 1 else at_least(lam)
    factor = rows.weigh(r.w).factor(kept)
    w, w1 = r.w, r.w1
    if hessian == "expected":
        w, w1 = jax.jvp(
            lambda x: _information(problem, x, phi, hessian),
            (eta,),
            (jnp.ones_like(eta),),
        )
    log_det, lev = jax.value_and_grad(lambda x: rows.weigh(x).factor(lam).log_det())(w)
    value = -2 * jnp.sum(r.l) + sum(jnp.sum(x**2) for x in u) + log_det
    a = w1 * lev

    sums = rows.collect(jnp.concatenate([r.s[None], a[None], r.w * X]))
    t = tuple(x[:, :1] for x in sums)
    Za = tuple(x[:, 1:2] for x in sums)
    ZX = tuple(x[:, 2:] for x in sums)
    moved = _through(factor, kept, Za)  # Lambda M^-1 Lambda'Z'a
    c = tuple(x - y for x, y in zip(Za, factor.system.normal(moved), strict=True))
    beta_score = X @ (a - 2 * r.s) - inner_all(ZX, moved)[:, 0]
    S = (
        factor.traces()
        if hessian == "observed"
        else rows.weigh(w).factor(kept).traces()
    )
    G = tuple(
        x - inner_levels(y, y) + 0.5 * (inner_levels(z, y) + inner_levels(y, z))
        for x, y, z in zip(S, t, c, strict=True)
    )
    theta_score = 2 * pack(
        [g @ x for g, x in zip(G, lam, strict=True)], problem.patterns
    )
    phi_score, phi_curvature = _dispersion(problem, eta, phi, r, lev, moved, hessian)

    v = directions(problem, lam, t)
    XX = (r.w * X) @ X.T
    Q, T = factor.project(ZX, XX)
    cross = jnp.sqrt(2.0) * inner_all(T, v)
    info = factor.gram(v)
    H = jnp.block([[2 * Q, cross], [cross.T, info + boundary(G, problem.patterns)]])
    if len(phi):
        H = jnp.block(
            [
                [H, jnp.zeros((len(H), len(phi)))],
                [jnp.zeros((len(phi), len(H))), phi_curvature],
            ]
        )
    diagonal = jnp.concatenate(
        [2 * jnp.diagonal(Q), 1 + jnp.diagonal(info), jnp.diagonal(phi_curvature)]
    )
    score = jnp.concatenate([beta_score, theta_score, phi_score])
    return Laplace(value, score, H, diagonal, u)


def inner_levels(a: Float[Array, "q 1 J"], b: Float[Array, "q 1 J"]) -> Array:
    """Sum over the levels of a b', (q, q)."""
    return inner(jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1))


def _through(factor: AbstractFactor, lam: Lambdas, v: Effects) -> Effects:
    """Lambda M^-1 Lambda'v."""
    return scale(lam, factor.backward(factor.forward(scale_transposed(lam, v))))


def _dispersion(
    problem: GeneralisedProblem,
    eta: Array,
    phi: Array,
    r: RowDerivatives,
    lev: Array,
    moved: Effects,
    hessian: Hessian,
) -> tuple[Float[Array, " r"], Float[Array, "r r"]]:
    """Score and curvature of the dispersion parameters."""
    k = len(phi)
    if not k:
        return jnp.zeros(0), jnp.zeros((0, 0))
    at_rows = problem.rows.spread(moved)

    def pieces(x: Array) -> tuple[Array, Array, Array]:
        here = rows_at(problem, eta, x)
        w = here.w if hessian == "observed" else _information(problem, eta, x, hessian)
        return here.l, here.s, w

    score = []
    for j in range(k):
        unit = jnp.zeros(k).at[j].set(1.0)
        _, (dl, ds, dw) = jax.jvp(pieces, (phi,), (unit,))
        score.append(jnp.sum(-2 * dl + lev * dw + ds * at_rows))

    def total(x: Array) -> Scalar:
        return -2 * jnp.sum(rows_at(problem, eta, x).l)

    H = jax.hessian(total)(phi)
    floor = 0.1 + 0.1 * jnp.abs(H)
    return jnp.stack(score), jnp.where(
        jnp.eye(k, dtype=bool), jnp.maximum(H, floor), 0.0
    )
