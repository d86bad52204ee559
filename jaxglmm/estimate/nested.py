"""Nested Laplace by importance sampling: the posterior of the parameters, exactly.

Around the mode x^ of the marginal posterior with Hessian H = L L', draws x = x^ +
scale L'^-1 t from a multivariate t (7 degrees of freedom, scale 1.1) are weighed by
their marginal posterior density, the random effects integrated out by Laplace or
quadrature at each. What is left of error is Monte Carlo's, which the weights tell, and
the integrator's, which they do not. The modes of u follow x by their derivative in
psi, then one Newton step; the draws of u given x come with them.

The standard normal numbers behind t are a scrambled Sobol sequence: the means of 4,000
draws are then several times as exact as those of independent ones.
"""

from __future__ import annotations

from functools import lru_cache, partial
from math import lgamma, log, pi

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxglmm._compile import jit
from jaxglmm._typing import Array, Float
from jaxglmm.density.posterior import HALF_LOG_2PI as HALF_LOG_2PI
from jaxglmm.density.posterior import Posterior
from jaxglmm.estimate.laplace import LaplaceMarginal
from jaxglmm.estimate.map import Mode
from jaxglmm.integrate import fixed_only as _fixed_only
from jaxglmm.integrate import lanes as _lanes
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate import point as _point
from jaxglmm.model.generalised import GeneralisedProblem
from jaxglmm.numerics.system import (
    AbstractFactor,
    Effects,
    Lambdas,
    scale,
    scale_transposed,
)

CELLS = 6000  # rows x lanes of a chunk: what the cache holds
DF, SCALE = 7.0, 1.1
TRUSTED = 1.0  # decrement of u in all up to which a value is corrected


@lru_cache(maxsize=8)
def standard_t(k: int, S: int, seed: int) -> np.ndarray:
    """(S, k) draws of the multivariate t, by a scrambled Sobol sequence."""
    from scipy.special import gammaincinv, ndtri

    points = _uniform(k + 1, S, seed)
    squares = 2 * gammaincinv(DF / 2, points[:, k])  # chi-squared
    return ndtri(points[:, :k]) / np.sqrt(squares / DF)[:, None]


@lru_cache(maxsize=8)
def standard_normal(k: int, S: int, seed: int) -> np.ndarray:
    """(S, k) draws of the standard normal, by a scrambled Sobol sequence."""
    from scipy.special import ndtri

    return ndtri(_uniform(k, S, seed))


def _uniform(k: int, S: int, seed: int) -> np.ndarray:
    """(S, k) points in the open unit cube."""
    from scipy.stats.qmc import Sobol

    power = int(np.ceil(np.log2(max(S, 2))))
    points = Sobol(k, rng=np.random.default_rng(seed)).random_base2(power)[:S]
    return np.clip(points, 1e-12, 1 - 1e-12)


def log_proposal(t: np.ndarray, H: np.ndarray) -> np.ndarray:
    """(S,) log density of the proposals made from t; on the host."""
    k = t.shape[1]
    constant = lgamma((DF + k) / 2) - lgamma(DF / 2) - k / 2 * log(DF * pi)
    volume = np.linalg.slogdet(H)[1] / 2 - k * log(SCALE)
    return constant + volume - (DF + k) / 2 * np.log1p(np.sum(t**2, axis=1) / DF)


class Noise(eqx.Module):
    """Random numbers behind the draws of u, NumPy's.

    z: (S, moves + 1, q, J) a factor, standard normal; e: (S, moves, J) standard
    exponential, of the first factor.
    """

    z: tuple[Float[Array, "S m q J"], ...]
    e: Float[Array, "S h J"]


def noise(posterior: Posterior, S: int, moves: int, seed: int) -> Noise:
    """Random numbers for S draws; moves: of Metropolis for each u (lanes alone)."""
    problem = posterior.problem
    rng = np.random.default_rng(seed)
    if not problem.sides or not _lanes.suits(problem):
        moves = 0
    z = tuple(
        rng.standard_normal((S, moves + 1, q, J))
        for q, J in zip(problem.sides, problem.rows.sizes, strict=True)
    )
    J = problem.rows.sizes[0] if problem.sides else 0
    return Noise(z, rng.standard_exponential((S, moves, J)))


class Evaluated(eqx.Module):
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


@partial(jit, static_argnames=("marginal", "chunk", "steps"))
def evaluate(
    marginal: LaplaceMarginal,
    posterior: Posterior,
    mode: Mode,
    x: Float[Array, "S k"],
    numbers: Noise,
    *,
    chunk: int,
    steps: int = 1,
) -> Evaluated:
    """Likelihood and prior at many x, and one draw of u given each.

    Args:
        marginal: how u is integrated out.
        posterior: the model.
        mode: a point whose modes of u and their slopes predict those at x.
        x: the points; a multiple of ``chunk``.
        numbers: for the draws of u, see ``noise``.
        chunk: lanes at once where lanes are used, see ``chunk_size``.
        steps: Newton steps for each mode.
    """
    if posterior.problem.sides and _lanes.suits(posterior.problem):
        found = _in_lanes(marginal, posterior, mode, x, numbers, chunk, steps)
    else:
        found = _one_by_one(marginal, posterior, mode, x, numbers, steps)
    log_lik, u, nu, moved, levels = found
    log_prior = jax.vmap(posterior.belief.log_prior)(x)
    return Evaluated(log_lik, log_prior, u, nu, moved, levels)


def proposals(
    mode_x: np.ndarray, H: np.ndarray, t: np.ndarray, scale: float = SCALE
) -> np.ndarray:
    """x^ + scale L'^-1 t for standard draws t (S, k); on the host."""
    from scipy.linalg import solve_triangular

    L = np.linalg.cholesky(H)
    return mode_x + scale * solve_triangular(L, t.T, lower=True, trans=1).T


def chunk_size(posterior: Posterior, S: int) -> int:
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
        own = _lanes.Lanes(beta, jnp.moveaxis(lam, 0, -1), phi)
        moved = jnp.tensordot(psi - psi0, slope[:, :, 0], axes=1)  # (L, q, J)
        u = u0[:, 0][..., None] + jnp.moveaxis(moved, 0, -1)
        found = _lanes.values(problem, own, u, marginal.nodes, steps)
        own_noise = _lanes.Noise(jnp.moveaxis(z, 0, -1), jnp.moveaxis(e, 0, -1))
        draw, accepted = _lanes.draws(problem, own, found, own_noise)
        draw = jnp.moveaxis(draw, -1, 0)
        return found.log_lik, draw, found.nu, accepted, found.levels.T

    cut = jax.tree.map(
        lambda a: a.reshape(S // chunk, chunk, *a.shape[1:]),
        (x, numbers.z[0], numbers.e),
    )
    out = lax.map(run, cut)
    log_lik, u, nu, moved, levels = (a.reshape(S, *a.shape[2:]) for a in out)
    return log_lik, (u,), nu, moved, levels


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
        for _ in range(steps):
            u = near_mode(problem, beta, lam, phi, u).damped
        at = near_mode(problem, beta, lam, phi, u)
        log_lik = at.log_lik
        if marginal.beyond:
            folded = problem.folded()
            terms = marginal.terms(folded)
            d = marginal.at(folded, terms, belief.psi(x), at.mode, always=True).value
            log_lik = -(d + _point.constant(folded)) / 2
        drawn = at.factor.backward(tuple(jnp.swapaxes(a, 0, 1) for a in z))
        u = tuple(a + b for a, b in zip(at.mode, drawn, strict=True))
        flat = tuple(a[:, 0] for a in u)
        return log_lik, flat, at.nu, jnp.ones(()), jnp.zeros(0)

    return lax.map(run, (x, numbers.z))


class Near(eqx.Module):
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
