"""Where the search for a generalised model's estimates starts.

beta: weighted least squares, iterated without random effects, from the family's guess
of each row's predictor. theta: moments of the working score there. With t_k = Z_k's and
W the information of the rows, E t_k't_k = tr(Z_k'WZ_k) + sum_l theta_l^2 |Z_k'WZ_l|^2
to first order, solved for theta^2 and kept between two standard deviations.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxglmm._typing import Array, Float
from jaxglmm.integrate import point as _point
from jaxglmm.model.generalised import GeneralisedProblem
from jaxglmm.numerics import newton, spd
from jaxglmm.numerics.system import (
    AbstractSystem,
    Effects,
    scale,
    scale_transposed,
)

WEAKEST, STRONGEST = 0.2, 2.0  # starting standard deviations, on the scale of eta
ENOUGH = 0.1  # gain of a step, in deviance, below which beta starts well enough
MOST = 12  # steps for beta
MODEST = 2.0  # change of eta that a first Newton step may make in full


def starting_values(
    problem: GeneralisedProblem, eta: Float[Array, " n"], phi: Float[Array, " r"]
) -> Float[Array, " k"]:
    """psi to start from; eta: the family's guess of each row's predictor."""
    return start(problem, eta, phi)[0]


def start(
    problem: GeneralisedProblem, eta: Float[Array, " n"], phi: Float[Array, " r"]
) -> tuple[Float[Array, " k"], Effects]:
    """``starting_values``, and u one damped Newton step on the way to its mode."""
    folded = problem.folded()
    beta, s, w = _without_effects(folded, problem.rows.fold(eta), phi)
    if not problem.sides:
        return jnp.concatenate([beta, phi]), ()
    t, system = folded.rows.collect([s]), folded.rows.weigh(w)
    theta = _moments(folded, t, system)
    lam = folded.lambdas(theta)
    factor = system.factor(lam)
    u = factor.backward(factor.forward(scale_transposed(lam, t)))
    moved = scale(lam, u)
    if len(u) == 1:
        r = folded.rows.largest(moved[0])
    else:
        r = jnp.max(jnp.abs(folded.rows.spread(moved)))
    u = tuple(x * jnp.where(r < MODEST, 1.0, damping(r)) for x in u)
    return jnp.concatenate([beta, theta, phi]), u


def damping(r: Array) -> Array:
    """log(1 + r) / r: how much of a Newton step is taken that moves eta by r."""
    return jnp.where(r < 1e-2, 1.0, jnp.log1p(r) / jnp.maximum(r, 1e-300))


def _without_effects(
    problem: GeneralisedProblem, guess: Array, phi: Array
) -> tuple[Array, Array, Array]:
    """beta without random effects, and s and w of the rows next to it.

    The first evaluation is of the guess, which is no combination of the columns of X:
    its step is the least-squares fit of the guess, from a constant that lies inside the
    domain of the link wherever the guesses do.
    """
    X, used = problem.X, problem.weights > 0
    terms = _point.terms_of(problem)
    target = jnp.where(used, guess - problem.offset, 0.0)
    n = jnp.maximum(jnp.sum(used), 1)
    level = jnp.where(used, jnp.sum(target) / n, 0.0)
    square = spd.cholesky(_point.gram(X, used * 1.0) + 1e-9 * n * jnp.eye(len(X)))
    middle = spd.solve(square, _point.total(X, level))

    def evaluate(beta: Array, aux: tuple[Array, Array, Array]) -> Any:
        first = aux[2]
        eta = _point.predictor(problem, beta, _nothing(problem))
        r = terms(jnp.where(first & used, guess, eta), phi)
        w = jnp.abs(r.w)
        s = jnp.where(first, w * (guess - eta), r.s)
        H = 2 * _point.gram(X, w)
        H = H + 1e-9 * (1e-300 + jnp.trace(H)) * jnp.eye(len(X))
        value = jnp.where(first, 1e300, -2 * jnp.sum(r.l))
        score = -2 * _point.total(X, s)
        return value, score, H, spd.diagonal(H), (s, w, jnp.asarray(False))

    zero = jnp.zeros_like(guess)
    aux = (zero, zero, jnp.asarray(True))
    if problem.p == 0:
        value = evaluate(middle, (zero, zero, jnp.asarray(False)))
        return middle, value[4][0], value[4][1]
    found = newton.minimise_carrying(evaluate, middle, aux, ENOUGH, MOST, secant=False)
    return found.x, found.aux[0], found.aux[1]


def _nothing(problem: GeneralisedProblem) -> Any:
    return tuple(
        jnp.zeros((q, 1, J), problem.y.dtype)
        for q, J in zip(problem.sides, problem.rows.sizes, strict=True)
    )


def _moments(
    problem: GeneralisedProblem, t: Effects, system: AbstractSystem
) -> Float[Array, " m"]:
    squares, traces = system.squares()
    own = jnp.concatenate([jnp.sum(x[:, 0] ** 2, axis=-1) for x in t])
    alone = spd.diagonal(squares)
    variance = (own - traces) / jnp.maximum(alone, 1e-12)
    if len(own) > 1:
        scale = 1 / jnp.sqrt(jnp.maximum(alone, 1e-12))
        root = spd.cholesky(squares * scale * scale[:, None] + 1e-6 * jnp.eye(len(own)))
        together = spd.solve(root, (own - traces) * scale) * scale
        usable = jnp.isfinite(together) & (together > 0)
        variance = jnp.where(usable, together, variance)
    sd = jnp.sqrt(jnp.clip(variance, WEAKEST**2, STRONGEST**2))
    sd = jnp.where(jnp.isfinite(sd), sd, 0.5)
    theta, offset = [], 0
    for pattern, q in zip(problem.patterns, problem.sides, strict=True):
        theta += [sd[offset + i] if i == j else 0 * sd[0] for i, j in pattern]
        offset += q
    return jnp.stack(theta)
