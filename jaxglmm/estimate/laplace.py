"""Generalised linear mixed models: Laplace or quadrature, maximised.

Start: beta by a few weighted least-squares steps without random effects, theta by
moments of the working score, phi as the family suggests. Then the damped Newton method
of ``numerics.newton``, the mode carried from point to point, and the rule of the
boundary.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxglmm._typing import Array, Bool, Count, Float, Int, Scalar
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate import quadrature as _quadrature
from jaxglmm.model.generalised import GeneralisedProblem
from jaxglmm.numerics import newton, spd
from jaxglmm.numerics.system import Effects, inner_all, scale

NEAR_ZERO = 1e-3
INDIFFERENT = 1e-8
WEAKEST, STRONGEST = 0.2, 2.0  # starting standard deviations, on the scale of eta


class LaplaceMarginal(eqx.Module):
    """Integrate u out by Laplace; nodes > 1: adaptive Gauss-Hermite (one factor)."""

    hessian: str = eqx.field(static=True, default="observed")
    nodes: int = eqx.field(static=True, default=1)

    def derivatives(
        self, problem: GeneralisedProblem, psi: Array, u: Effects
    ) -> _laplace.Laplace:
        """Value, score, curvature and the mode."""
        if not u:
            return _fixed_only.derivatives(problem, psi)
        found = _laplace.laplace(problem, psi, u, self.hessian)
        if self.nodes > 1:
            return _quadrature.improve(problem, psi, found, self.nodes)
        return found

    def value(self, problem: GeneralisedProblem, psi: Array, u: Effects) -> Scalar:
        """-2 log-likelihood."""
        beta, theta, phi = problem.split(psi)
        if not u:
            return _fixed_only.value_at(problem, beta, phi)
        lam = problem.lambdas(theta)
        mode = _laplace.find_mode(problem, beta, lam, phi, u).u
        if self.nodes > 1:
            return _quadrature.value_at(problem, beta, lam, phi, mode, self.nodes)
        return _laplace.value_at(problem, beta, lam, phi, mode, self.hessian)


class GeneralisedFitted(eqx.Module):
    """psi: (k,) estimates; u: mode; b: Lambda u; hessian: exact, (k, k), or zeros."""

    psi: Float[Array, " k"]
    u: Effects
    b: Effects
    eta: Float[Array, " n"]
    criterion: Scalar
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]


def zeros(problem: GeneralisedProblem) -> Effects:
    """u = 0."""
    sizes = problem.rows.sizes
    return tuple(
        jnp.zeros((q, 1, J), problem.y.dtype)
        for q, J in zip(problem.sides, sizes, strict=True)
    )


def starting_values(
    problem: GeneralisedProblem, eta: Float[Array, " n"], phi: Float[Array, " r"]
) -> Float[Array, " k"]:
    """psi to start from; eta: the family's guess of each row's predictor."""
    X, p = problem.X, problem.p
    used = problem.weights > 0
    beta = jnp.zeros(p)
    if p:
        target = jnp.where(used, eta - problem.offset, 0.0)
        w = jnp.where(used, problem.weights, 0.0)
        w = w * problem.family.expected_weight(eta, phi, problem.trials)
        beta = _least_squares(X, w, target)
        for _ in range(3):
            at = problem.offset + beta @ X
            r = _laplace.rows_at(problem, at, phi)
            info = jnp.where(
                used,
                problem.weights
                * problem.family.expected_weight(at, phi, problem.trials),
                0.0,
            )
            step = spd.solve(
                spd.cholesky((info * X) @ X.T + 1e-9 * jnp.eye(p)), X @ r.s
            )
            size = jnp.max(jnp.abs(step @ X))
            step = step * jnp.minimum(1.0, 4.0 / jnp.maximum(size, 1e-12))
            beta = jnp.where(jnp.isfinite(step).all(), beta + step, beta)
    if not problem.sides:
        return jnp.concatenate([beta, phi])
    r = _laplace.rows_at(problem, problem.offset + beta @ X, phi)
    (t,) = (problem.rows.collect(r.s[None]),)
    system = problem.rows.weigh(r.step)
    squares, traces = system.squares()
    own = jnp.concatenate([jnp.sum(x[:, 0] ** 2, axis=-1) for x in t])
    variance = (own - traces) / jnp.maximum(jnp.diagonal(squares), 1e-12)
    sd = jnp.sqrt(jnp.clip(variance, WEAKEST**2, STRONGEST**2))
    sd = jnp.where(jnp.isfinite(sd), sd, 0.5)
    theta, offset = [], 0
    for pattern, q in zip(problem.patterns, problem.sides, strict=True):
        theta += [sd[offset + i] if i == j else 0 * sd[0] for i, j in pattern]
        offset += q
    return jnp.concatenate([beta, jnp.stack(theta), phi])


def _least_squares(X: Array, w: Array, y: Array) -> Array:
    XX = (w * X) @ X.T
    ridge = 1e-9 * jnp.trace(XX) * jnp.eye(len(X))
    return spd.solve(spd.cholesky(XX + ridge), X @ (w * y))


@partial(jax.jit, static_argnums=0)
def fit_compiled(
    marginal: LaplaceMarginal,
    problem: GeneralisedProblem,
    eta: Float[Array, " n"],
    phi: Float[Array, " r"],
    tol: Scalar,
    max_steps: Count,
) -> GeneralisedFitted:
    """The one jit boundary of a fit."""
    psi = starting_values(problem, eta, phi)
    return fit_from(marginal, problem, psi, zeros(problem), tol, max_steps)


def fit_from(
    marginal: LaplaceMarginal,
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    u: Effects,
    tol: Scalar | float,
    max_steps: Count | int,
) -> GeneralisedFitted:
    """Maximise from psi and u."""

    def evaluate(x: Array, aux: Effects):
        at = marginal.derivatives(problem, x, aux)
        return at.value, at.score, at.curvature, at.scale, at.u

    found = newton.minimise_carrying(evaluate, psi, u, tol, max_steps, secant=True)
    psi = _pin(marginal, problem, found.x, found.aux)
    beta, theta, phi = problem.split(psi)
    mode, b = (), ()
    if u:
        lam = problem.lambdas(theta)
        mode = _laplace.find_mode(problem, beta, lam, phi, found.aux).u
        b = scale(lam, mode)
    return GeneralisedFitted(
        psi,
        mode,
        b,
        _laplace.predictor(problem, beta, b),
        marginal.value(problem, psi, mode),
        found.decrement,
        found.steps,
        found.status,
    )


def _diagonal(problem: GeneralisedProblem) -> Bool[Array, " k"]:
    inside = [i == j for pattern in problem.patterns for i, j in pattern]
    n_phi = problem.family.n_phi
    return jnp.asarray([False] * problem.p + inside + [False] * n_phi)


def _pin(
    marginal: LaplaceMarginal, problem: GeneralisedProblem, psi: Array, u: Effects
) -> Array:
    """Diagonals next to zero set to zero where that costs nothing."""
    if not u:
        return psi
    near = _diagonal(problem) & (jnp.abs(psi) < NEAR_ZERO)
    pinned = jnp.where(near, 0.0, psi)

    def choose() -> Array:
        here = marginal.value(problem, psi, u)
        there = marginal.value(problem, pinned, u)
        cost = INDIFFERENT * jnp.maximum(1.0, jnp.abs(here))
        return jnp.where(there <= here + cost, pinned, psi)

    return lax.cond(jnp.any(near), choose, lambda: psi)


@partial(jax.jit, static_argnums=0)
def hessian(
    marginal: LaplaceMarginal, problem: GeneralisedProblem, psi: Array, u: Effects
) -> Float[Array, "k k"]:
    """The exact Hessian of -2 log-likelihood at an optimum, u its mode.

    Forward mode over the analytic score, after one Newton step that carries the mode's
    derivative; by quadrature, over the gradient of the value.
    """

    def score(x: Array) -> Array:
        if not u:
            return _fixed_only.derivatives(problem, x).score
        beta, theta, phi = problem.split(x)
        lam = problem.lambdas(theta)
        moved = _laplace.newton_step(problem, beta, lam, phi, u)
        if marginal.nodes > 1:
            return _quadrature.score_at(problem, x, moved, marginal.nodes)
        at = _laplace.derivatives_at(problem, beta, lam, phi, moved, marginal.hessian)
        return at.score

    eye = jnp.eye(len(psi), dtype=psi.dtype)

    def along(direction: Array) -> Array:
        return jax.jvp(score, (psi,), (direction,))[1]

    H = lax.map(along, eye)  # one by one: no batched LAPACK call waits for another
    return (H + H.T) / 2


__all__ = [
    "GeneralisedFitted",
    "LaplaceMarginal",
    "fit_compiled",
    "hessian",
    "inner_all",
]
