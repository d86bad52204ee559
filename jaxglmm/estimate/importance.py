"""Nested Laplace by importance sampling: the posterior of the parameters, exactly.

Draws from around the mode of the marginal posterior (``estimate.proposal``) are weighed
by their marginal posterior density, the random effects integrated out by Laplace or
quadrature at each: here. What is left of error is Monte Carlo's, which the weights
tell, and the integrator's, which they do not. The modes of u follow x by their
derivative in psi, then by Newton steps; the draws of u given x come with them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxglmm._typing import Array, Count, Float
from jaxglmm.density.posterior import PosteriorModel
from jaxglmm.estimate.posterior_mode import Mode
from jaxglmm.integrate import curve_lanes as _lanes
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.exact_marginal import Exact, conditional
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import (
    AbstractFactor,
    Effects,
    Lambdas,
    scale,
    scale_transposed,
)
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.trees import Module, tree_at

CELLS = 6000  # rows x lanes of a chunk: what the cache holds
TRUSTED = 1.0  # decrement of u in all up to which a value is corrected
NEAR = 1e-2  # decrement of u in all from which its value needs no more steps


class Noise(Module):
    """Random numbers behind the draws of u, NumPy's.

    In lanes z: (chunks, moves + 1, q, J, chunk) standard normal, and e: (chunks, moves,
    J, chunk) standard exponential; else z: (S, q, J) a factor, and e is empty.
    """

    z: tuple[Array, ...]
    e: Array


def noise(
    posterior: PosteriorModel, S: int, moves: int, seed: int, chunk: int
) -> Noise:
    """Random numbers for S draws.

    Args:
        posterior: the model.
        S: a multiple of ``chunk``.
        moves: of Metropolis for each u (lanes alone).
        seed: of NumPy's generator.
        chunk: as for ``evaluate``: numbers lie as they are used, not to be turned.
    """
    problem = posterior.problem
    rng = np.random.default_rng(seed)
    sizes = tuple(zip(problem.sides, problem.rows.sizes, strict=True))
    if not sizes or not _lanes.suits(problem):
        z = tuple(rng.standard_normal((S, q, J)) for q, J in sizes)
        return Noise(z, np.zeros(0))
    ((q, J),) = sizes
    z = rng.standard_normal((S // chunk, moves + 1, q, J, chunk))
    return Noise((z,), rng.standard_exponential((S // chunk, moves, J, chunk)))


class Evaluated(Module):
    """S points. log_lik, log_prior: (S,); u: (S, q, J) a factor, drawn given each x.

    nu: (S,) decrement of the modes; moved: (S,) share of accepted moves of u; levels:
    (S, J) what each level adds to the likelihood (lanes; else (S, 0)).
    """

    log_lik: Float[Array, " S"]
    log_prior: Float[Array, " S"]
    u: tuple[Float[Array, "S q J"], ...]
    nu: Float[Array, " S"]
    moved: Float[Array, " S"]
    levels: Float[Array, "S J"]


@partial(jit, static_argnames=("marginal", "chunk"))
def evaluate(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    mode: Mode,
    x: Float[Array, "S k"],
    numbers: Noise,
    steps: Count,
    *,
    chunk: int,
) -> Evaluated:
    """Likelihood and prior at many x, and one draw of u given each.

    Args:
        marginal: how u is integrated out.
        posterior: the model.
        mode: a point whose modes of u and their slopes predict those at x.
        x: the points; a multiple of ``chunk``.
        numbers: for the draws of u, see ``noise``.
        steps: Newton steps for each mode; without lanes the most of them.
        chunk: lanes at once where lanes are used, see ``chunk_size``.
    """
    if isinstance(marginal, Exact):
        found = _exactly(marginal, posterior, x, numbers, chunk)
    elif posterior.problem.sides and _lanes.suits(posterior.problem):
        found = _in_lanes(marginal, posterior, mode, x, numbers, chunk, steps)
    else:
        found = _one_by_one(marginal, posterior, mode, x, numbers, steps)
    log_lik, u, nu, moved, levels = found
    log_prior = jax.vmap(posterior.belief.log_prior)(x)
    return Evaluated(log_lik, log_prior, u, nu, moved, levels)


def chunk_size(posterior: PosteriorModel, S: int) -> int:
    """Lanes that fit the cache."""
    if not posterior.problem.sides or not _lanes.suits(posterior.problem):
        return 1
    return int(np.clip(CELLS // posterior.problem.y.size // 4 * 4, 8, S))


def _in_lanes(marginal, posterior, mode, x, numbers, chunk, steps):
    problem, belief = posterior.problem.folded(), posterior.belief
    psi0 = belief.psi(mode.x)
    (u0,), (slope,) = mode.u, mode.slope
    S = len(x)

    def run(args: tuple[Array, Array, Array]):
        x, z, e = args
        psi = jax.vmap(belief.psi)(x)  # (L, j)
        beta, theta, phi = (part.T for part in jax.vmap(problem.split)(psi))
        (lam,) = jax.vmap(problem.lambdas)(theta.T)
        own = _lanes.LaneParameters(beta, jnp.moveaxis(lam, 0, -1), phi)
        moved = jnp.tensordot(psi - psi0, slope[:, :, 0], axes=1)  # (L, q, J)
        u = u0[:, 0][..., None] + jnp.moveaxis(moved, 0, -1)
        found = _lanes.values(problem, own, u, marginal.nodes, steps)
        draw, accepted = _lanes.draws(problem, own, found, _lanes.LaneNoise(z, e))
        return found.levels, draw, found.nu, accepted

    cut = x.reshape(S // chunk, chunk, -1)
    levels, u, nu, moved = lax.map(run, (cut, numbers.z[0], numbers.e))
    # summed and turned out here: in there each reader would find them anew, and a loop
    # whose output is turned is not over vectors
    levels, u = (jnp.moveaxis(a, -1, 1).reshape(S, *a.shape[1:-1]) for a in (levels, u))
    return jnp.sum(levels, axis=1), (u,), nu.ravel(), moved.ravel(), levels


def _exactly(marginal, posterior, x, numbers, chunk):
    """A Gaussian model by its cross-products; u is Gaussian given each x.

    Moves of Metropolis from there are all accepted: their last proposal is the draw.
    """
    problem, belief = posterior.problem, posterior.belief
    known = marginal.over(problem)

    def one(args: tuple[Array, tuple[Array, ...]]):
        x, z = args
        at = conditional(known, belief.psi(x))
        drawn = at.factor.backward(tuple(a[:, None] for a in z))
        u = tuple((a + b)[:, 0] for a, b in zip(at.u, drawn, strict=True))
        return -at.value / 2, u

    if _lanes.suits(problem):
        cut = x.reshape(-1, chunk, x.shape[1])
        z = jnp.moveaxis(numbers.z[0][:, -1], -1, 1)
        log_lik, (u,) = lax.map(jax.vmap(one), (cut, (z,)))
        log_lik, u = log_lik.ravel(), (u.reshape(-1, *u.shape[2:]),)
    else:
        log_lik, u = lax.map(one, (x, numbers.z))
    still = jnp.zeros_like(log_lik)
    return log_lik, u, still, still + 1, jnp.zeros((len(x), 0))


def _one_by_one(marginal, posterior, mode, x, numbers, steps):
    """Draw after draw, whatever the structure; u from the Gaussian at its mode."""
    problem, belief = posterior.problem, posterior.belief
    psi0 = belief.psi(mode.x)

    def run(args: tuple[Array, tuple[Array, ...]]):
        x, z = args
        beta, theta, phi = problem.split(belief.psi(x))
        if not problem.sides:
            value = _fixed_only.value_at(problem, beta, phi)
            return -value / 2, (), jnp.zeros(()), jnp.ones(()), jnp.zeros(0)
        lam = problem.lambdas(theta)
        change = belief.psi(x) - psi0
        u = tuple(
            a + jnp.tensordot(change, s, axes=1)
            for a, s in zip(mode.u, mode.slope, strict=True)
        )
        at = follow(problem, beta, lam, phi, u, steps)
        log_lik = at.log_lik
        if marginal.beyond:
            folded = problem.folded()
            terms = marginal.terms(folded)
            d = marginal.at(folded, terms, belief.psi(x), at.mode, always=True).value
            log_lik = -(d + _point.constant(folded)) / 2
        drawn = at.factor.backward(tuple(a[:, None] for a in z))
        u = tuple(a + b for a, b in zip(at.mode, drawn, strict=True))
        flat = tuple(a[:, 0] for a in u)
        return log_lik, flat, at.nu, jnp.ones(()), jnp.zeros(0)

    return lax.map(run, (x, numbers.z))


def follow(
    problem: GeneralisedProblem,
    beta: Array,
    lam: Lambdas,
    phi: Array,
    u: Effects,
    steps: Count | int,
    near: float = NEAR,
) -> Near:
    """By Newton steps from u to where the decrement is less than ``near``.

    ``mode`` of what is returned is a step further still. steps: the most of them.
    """

    def look(u: Effects) -> Near:
        return near_mode(problem, beta, lam, phi, u)

    if problem.predictors.K > 1:  # M need not be positive definite on the way
        return look(_laplace.find_mode(problem, beta, lam, phi, u).u)

    def step(state: tuple[Any, Near]) -> tuple[Any, Near]:
        k, at = state
        return k + 1, look(at.damped)

    blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(look, u))
    begin = tree_at(lambda at: (at.damped, at.nu), blank, (u, blank.nu + jnp.inf))
    # a decrement that is no number ends it too, after all steps
    _, at = lax.while_loop(
        lambda s: (s[0] <= steps) & ~(s[1].nu < near), step, (jnp.asarray(0), begin)
    )
    return at


class Near(Module):
    """A point next to the mode of u: the likelihood, corrected for the rest of the way.

    mode: a Newton step on; damped: a shorter one where it would move a predictor far.
    """

    log_lik: Float[Array, ""]
    mode: Effects
    damped: Effects
    factor: AbstractFactor
    nu: Float[Array, ""]


def near_mode(
    problem: GeneralisedProblem, beta: Array, lam: Lambdas, phi: Array, u: Effects
) -> Near:
    """Laplace's log-likelihood from u, without its derivatives."""
    rows = problem.rows
    r = _laplace.rows_at(problem, _point.predictor(problem, beta, scale(lam, u)), phi)
    factor = rows.weigh(r.w).factor(lam)
    t = scale_transposed(lam, rows.collect(r.s[None]))
    h = tuple(a - b for a, b in zip(u, t, strict=True))
    z = factor.forward(h)
    step = factor.backward(z)
    nu = sum(jnp.sum(a * a) for a in z)
    squares = sum(jnp.sum(a * a) for a in u)
    # far from the mode the correction promises too much
    trust = (nu < TRUSTED) | _lanes.quadratic(problem)
    less = jnp.where(trust, nu, 0.0)
    value = jnp.sum(r.l) - (squares - less + factor.log_det()) / 2
    rho = _lanes.damping(problem, jnp.max(jnp.abs(rows.spread(scale(lam, step)))))
    return Near(
        value,
        tuple(a - b for a, b in zip(u, step, strict=True)),
        tuple(a - rho * b for a, b in zip(u, step, strict=True)),
        factor,
        nu,
    )
