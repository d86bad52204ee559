"""Where the search for a generalised model's estimates starts.

beta: weighted least squares, iterated without random effects, from the family's guess
of each row's predictor. theta: moments of the working score there. With t_k = Z_k's and
W the information of the rows, E t_k't_k = tr(Z_k'WZ_k) + sum_l theta_l^2 |Z_k'WZ_l|^2
to first order, solved for theta^2 and kept between two standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxglmm._typing import Array, Float
from jaxglmm.estimate.start import likeliest
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate import pieces
from jaxglmm.model.covariances.base import starts as covariance_starts
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import newton, spd
from jaxglmm.numerics.system import (
    AbstractSystem,
    Effects,
    scale,
    scale_transposed,
)
from jaxglmm.runtime.arrays import jnp

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
    guess = problem.rows.fold(eta)
    beta, at = _without_effects(folded, guess, phi)
    if not problem.sides:
        return jnp.concatenate([beta, phi]), ()

    def sums(part: GeneralisedProblem, guess: Array) -> tuple[Effects, AbstractSystem]:
        s, w = at(part, guess)
        return part.rows.collect([s]), part.rows.weigh(w)

    t, system = pieces.summed(folded, sums, guess)
    theta = _likeliest(folded, _moments(folded, t, system), t, system)
    lam = folded.lambdas(theta)
    factor = system.factor(lam)
    u = factor.solve(scale_transposed(lam, t))
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
) -> tuple[Array, Callable[[GeneralisedProblem, Array], tuple[Array, Array]]]:
    """beta without random effects, and s and w of the rows (and guesses) next to it.

    The first evaluation is of the guess, which is no combination of the columns of X:
    its step is the least-squares fit of the guess, from a constant that lies inside the
    domain of the link wherever the guesses do.
    """
    in_pieces = pieces.count(problem) > 1
    model = problem.predictors

    def level_of(part: GeneralisedProblem, guess: Array) -> tuple[Array, ...]:
        used = part.weights > 0
        target = jnp.where(used, guess - part.offset, 0.0)
        n, level = jnp.sum(used), model.each(target)
        return n, level, model.gram(part.X, model.alike(used * 1.0))

    used, target, square = pieces.summed(problem, level_of, guess)
    n = jnp.maximum(used, 1)
    # columns may be all but dependent in the rows that have weight
    root = spd.cholesky(square + 1e-9 * n * jnp.eye(problem.p))

    def toward(part: GeneralisedProblem) -> Array:
        own = model.along_rows(target / n, guess)
        return model.total(part.X, jnp.where(part.weights > 0, own, 0.0))

    middle = spd.solve(root, pieces.summed(problem, toward))

    def at(
        part: GeneralisedProblem, guess: Array, beta: Array, first: Array | bool
    ) -> tuple[Array, Array, Array]:
        eta = _point.predictor(part, beta, _nothing(part))
        used = part.weights > 0
        r = _point.terms_of(part)(jnp.where(first & used, guess, eta), phi)
        w = _point.step_weights(part, eta, phi, r.w)
        return jnp.where(first, model.apply(w, guess - eta), r.s), w, r.l

    def evaluate(beta: Array, aux: tuple[Any, ...]) -> Any:
        first = aux[-1]

        def sums(part: GeneralisedProblem, s: Array, w: Array, l: Array) -> Any:
            return model.gram(part.X, w), model.total(part.X, s), jnp.sum(l)

        if in_pieces:
            H, score, l = pieces.summed(
                problem,
                lambda part, guess: sums(part, *at(part, guess, beta, first)),
                guess,
            )
            kept = beta, first, jnp.asarray(True)
        else:
            s, w, l = at(problem, guess, beta, first)
            H, score, l = sums(problem, s, w, l)
            kept = s, w
        H = 2 * H
        # weights underflow where a first guess is far off
        H = H + 1e-9 * (1e-300 + jnp.trace(H)) * jnp.eye(len(H))
        value = jnp.where(first, 1e300, -2 * l)
        return value, -2 * score, H, spd.diagonal(H), (*kept, jnp.asarray(False))

    def kept_at(part: GeneralisedProblem, guess: Array) -> tuple[Array, Array]:
        if not in_pieces:
            return aux[0], aux[1]
        s, w, _ = at(part, guess, aux[0], aux[1])
        return aux[2] * s, aux[2] * w

    zero = jnp.zeros_like(guess)
    no, yes = jnp.asarray(False), jnp.asarray(True)
    weightless = zero if model.K == 1 else jnp.zeros((model.K, *guess.shape))
    nothing = (middle, yes, no) if in_pieces else (zero, weightless)
    if problem.p == 0:
        beta, aux = middle, evaluate(middle, (*nothing, no))[4]
    else:
        found = newton.minimise_carrying(
            evaluate, middle, (*nothing, yes), ENOUGH, MOST, secant=False
        )
        beta, aux = found.x, found.aux
    return beta, kept_at


def _nothing(problem: GeneralisedProblem) -> Any:
    return tuple(
        jnp.zeros((q, 1, J), problem.y.dtype)
        for q, J in zip(problem.sides, problem.rows.sizes, strict=True)
    )


def _moments(
    problem: GeneralisedProblem, t: Effects, system: AbstractSystem
) -> Float[Array, "k m"]:
    squares, traces = system.squares()
    own = jnp.concatenate([jnp.sum(x[:, 0] ** 2, axis=-1) for x in t])
    alone = spd.diagonal(squares)
    # a column that is zero wherever rows have weight says nothing of its variance
    variance = (own - traces) / jnp.maximum(alone, 1e-12)
    if len(own) > 1:
        scale = 1 / jnp.sqrt(jnp.maximum(alone, 1e-12))
        root = spd.cholesky(squares * scale * scale[:, None] + 1e-6 * jnp.eye(len(own)))
        together = spd.solve(root, (own - traces) * scale) * scale
        usable = jnp.isfinite(together) & (together > 0)
        variance = jnp.where(usable, together, variance)
    sd = jnp.sqrt(jnp.clip(variance, WEAKEST**2, STRONGEST**2))
    sd = jnp.where(jnp.isfinite(sd), sd, 0.5)
    found = [jnp.stack(x) for x in covariance_starts(problem.covariances, sd)]
    return jnp.stack(found)


def _likeliest(
    problem: GeneralisedProblem,
    found: Float[Array, "k m"],
    t: Effects,
    system: AbstractSystem,
) -> Float[Array, " m"]:
    """Of several ranges of a correlation the one of the best working linear model."""
    if len(found) == 1:
        return found[0]

    def value(theta: Array) -> Array:
        lam = problem.lambdas(theta)
        factor = system.factor(lam)
        squares = factor.newton(scale_transposed(lam, t))[1]
        return factor.log_det() - sum(jnp.sum(x) for x in squares)

    return likeliest(found, value)
