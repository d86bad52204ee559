"""NUTS, on the marginal posterior or on the joint one, in whitened coordinates.

Marginal: z with x = x^ + L'^-1 z, H = L L' the Hessian at the mode; the log density is
Laplace's or quadrature's and its gradient the analytic score, so that nothing is
differentiated through a mode. Modes of u follow x by their derivative, then by Newton's
method. Joint: (z, v) with u = u^ + (du/dx)(x - x^) + C'^-1 v, C C' = M at the mode: the
joint Gaussian at the mode is white, and no approximation of the likelihood is made.

Either way the metric is the identity and only the step size is tuned, by dual
averaging over the warm-up (Hoffman and Gelman 2014), one a chain. blackjax draws the
trajectories, chain after chain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.density.posterior import PosteriorModel, log_joint
from jaxglmm.estimate.importance import Near, follow
from jaxglmm.estimate.posterior_mode import ARRIVED, Mode
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate import quadrature_points as _fisher
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.exact_marginal import Exact
from jaxglmm.integrate.laplace import rows_at
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.blocks import BlocksFactor
from jaxglmm.numerics.system import AbstractFactor, Effects, scale
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.trees import Module
from jaxglmm.structure.rows import PaddedRows

Density = Literal["marginal", "joint"]

MOST = 30  # Newton steps for a mode
NEAR = 1e-4  # decrement of u from which one more step is exact enough


class Chains(Module):
    """State of C chains between segments: positions and how their steps are tuned."""

    state: Any
    tuning: Any


class Segment(Module):
    """n draws of C chains: positions (C, n, d), and what NUTS says of them."""

    position: Float[Array, "C n d"]
    log_density: Float[Array, "C n"]
    acceptance: Float[Array, "C n"]
    diverging: Array
    energy: Float[Array, "C n"]
    n_steps: Array
    tree_depth: Array
    step_size: Float[Array, "C n"]


class White(Module):
    """Whitened coordinates: the mode, R with R R' = H^-1, the factor of M there."""

    mode: Mode
    R: Float[Array, "k k"]
    factor: AbstractFactor | None
    slope: Effects

    def x(self, z: Float[Array, " k"]) -> Float[Array, " k"]:
        """Coordinates of the belief."""
        return self.mode.x + self.R @ z


@partial(jit, static_argnames="density")
def whiten(posterior: PosteriorModel, mode: Mode, *, density: Density) -> White:
    """At the mode of the marginal posterior."""
    L = jnp.linalg.cholesky(mode.H)
    # products, not solves, in every step: LAPACK is slow to call and chains may thread
    R = solve_triangular(L, jnp.eye(len(L), dtype=L.dtype), lower=True, trans=1)
    if density == "marginal" or not mode.u:
        return White(mode, R, None, ())
    problem = posterior.problem
    beta, lam, phi = posterior.parameters(mode.x)
    eta = _point.predictor(problem, beta, scale(lam, mode.u))
    w = rows_at(problem, eta, phi).w
    J = jax.jacfwd(posterior.belief.psi)(mode.x)
    slope = tuple(jnp.einsum("jk,jiag->kiag", J, s) for s in mode.slope)
    return White(mode, R, problem.rows.weigh(w).factor(lam), slope)


def split(white: White, z: Float[Array, " d"]) -> tuple[Array, Effects]:
    """x and u of a joint position."""
    k = len(white.R)
    x, parts, at = white.x(z[:k]), [], k
    for u in white.mode.u:
        parts.append(z[at : at + u.size].reshape(u.shape))
        at += u.size
    assert white.factor is not None
    drawn = white.factor.backward(tuple(parts))
    change = x - white.mode.x
    u = tuple(
        a + jnp.tensordot(change, s, axes=1) + d
        for a, s, d in zip(white.mode.u, white.slope, drawn, strict=True)
    )
    return x, u


def log_density(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    white: White,
    density: Density,
) -> Callable[[Array], Scalar]:
    """log p of a position, up to a constant, differentiable once."""
    if density == "joint" and white.mode.u:
        at_mode = -white.mode.value

        def joint(z: Array) -> Scalar:
            x, u = split(white, z)
            return log_joint(posterior, x, u) - at_mode

        return joint
    return _marginal(marginal, posterior, white)


def _derivatives(
    marginal: AbstractMarginal, problem: GeneralisedProblem
) -> Callable[[Array, Near], tuple[Scalar, Array]]:
    """-2 log-likelihood and its score at psi, next to the mode of u."""
    if marginal.nodes > 1 and _fisher.suits(problem, marginal.nodes):

        def at_once(psi: Array, near: Near) -> tuple[Scalar, Array]:
            assert isinstance(near.factor, BlocksFactor)
            u, root = near.mode[0][:, 0], near.factor.L
            value, score = jax.value_and_grad(_fisher.log_marginal, argnums=1)(
                problem, psi, u, root, marginal.nodes
            )
            return -2 * value, -2 * score

        return at_once
    terms, constant = marginal.terms(problem), _point.constant(problem)

    def in_turn(psi: Array, near: Near) -> tuple[Scalar, Array]:
        at = marginal.at(problem, terms, psi, near.mode, always=True)
        return at.value + constant, at.score

    return in_turn


def _marginal(
    marginal: AbstractMarginal, posterior: PosteriorModel, white: White
) -> Callable[[Array], Scalar]:
    problem, belief, mode = posterior.problem, posterior.belief, white.mode
    folded, exact = problem.folded(), isinstance(marginal, Exact)
    derivatives = _derivatives(marginal, folded) if mode.u and not exact else None
    known = marginal.over(problem)
    psi0 = belief.psi(mode.x)

    def both(z: Array) -> tuple[Scalar, Array]:
        x = white.x(z)
        psi, pull = jax.vjp(belief.psi, x)
        if derivatives is not None:
            beta, theta, phi = folded.split(psi)
            lam = folded.lambdas(theta)
            u = tuple(
                a + jnp.tensordot(psi - psi0, s, axes=1)
                for a, s in zip(mode.u, mode.slope, strict=True)
            )
            near = follow(folded, beta, lam, phi, u, MOST, NEAR)
            value, score = derivatives(psi, near)
            value = jnp.where(near.nu < ARRIVED, value, jnp.inf)
        else:
            found = marginal.derivatives(known, psi, mode.u)
            value, score = found.value, found.score
        (back,) = pull(-score / 2)
        log_prior, slope = jax.value_and_grad(belief.log_prior)(x)
        gradient = white.R.T @ (back + slope)
        total = -value / 2 + log_prior + mode.value
        ok = jnp.isfinite(total) & jnp.isfinite(jnp.sum(gradient))
        return jnp.where(ok, total, -jnp.inf), jnp.where(ok, gradient, 0.0)

    @jax.custom_vjp
    def f(z: Array) -> Scalar:
        return both(z)[0]

    f.defvjp(both, lambda gradient, c: (c * gradient,))
    return f


def may_thread(posterior: PosteriorModel) -> bool:
    """Whether two calls of ``advance`` may run at once: all algebra is elementwise."""
    padded = isinstance(posterior.problem.rows, PaddedRows)
    return padded and max(posterior.problem.sides, default=0) <= small.UNROLL


def _kernel(log_p: Callable[[Array], Scalar], target: float):
    """(state, tuning), (key, tune) -> one more draw and what to keep of it."""
    import blackjax.mcmc.nuts as nuts
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    kernel = nuts.build_kernel()
    start, update, final = dual_averaging_adaptation(target)

    def step(carry: tuple, now: tuple) -> tuple:
        state, tuning = carry
        key, tune = now
        size = jnp.where(tune, jnp.exp(tuning.log_step_size), final(tuning))
        one = jnp.ones_like(state.position)
        state, info = kernel(key, state, log_p, size, one)
        tuned = update(tuning, info.acceptance_rate)
        tuning = jax.tree.map(lambda a, b: jnp.where(tune, a, b), tuned, tuning)
        kept = (
            state.position,
            state.logdensity,
            info.acceptance_rate,
            info.is_divergent,
            info.energy,
            info.num_integration_steps,
            info.num_trajectory_expansions,
            size,
        )
        return (state, tuning), kept

    return nuts.init, start, step


@partial(jit, static_argnames=("marginal", "density", "target"))
def begin(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    white: White,
    positions: Float[Array, "C d"],
    step_size: Scalar,
    *,
    density: Density,
    target: float,
) -> Chains:
    """Chains at the given positions."""
    log_p = log_density(marginal, posterior, white, density)
    init, start, _ = _kernel(log_p, target)
    states = lax.map(lambda z: init(z, log_p), positions)
    tuning = jax.vmap(lambda _: start(step_size))(positions[:, 0])
    return _strong(Chains(states, tuning))


@partial(jit, static_argnames=("marginal", "density", "target"))
def advance(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    white: White,
    chains: Chains,
    keys: Array,
    tune: Array,
    *,
    density: Density,
    target: float,
) -> tuple[Chains, Segment]:
    """n more draws of every chain.

    Args:
        marginal: of the marginal density.
        posterior: the model.
        white: coordinates around the mode of the marginal posterior.
        chains: where they are.
        keys: (C, n) random keys.
        tune: whether step sizes move (warm-up).
        density: "marginal" or "joint".
        target: acceptance that step sizes are tuned to.
    """
    log_p = log_density(marginal, posterior, white, density)
    _, _, step = _kernel(log_p, target)

    def one(args: tuple) -> tuple:
        state, tuning, keys = args
        every = jnp.broadcast_to(tune, keys.shape[:1])
        return lax.scan(step, (state, tuning), (keys, every))

    # in turn: side by side each would wait for the longest trajectory, and branches
    # that one chain takes would be computed for all
    (state, tuning), kept = lax.map(one, (chains.state, chains.tuning, keys))
    return _strong(Chains(state, tuning)), Segment(*kept)


def _strong(chains: Chains) -> Chains:
    """Without weak types: they differ from segment to segment, and each compiles."""
    return jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype), chains)


@partial(jit, static_argnames="density")
def positions_to_parameters(
    white: White, positions: Float[Array, "S d"], *, density: Density
) -> tuple[Float[Array, "S k"], tuple[Float[Array, "S q J"], ...]]:
    """x of every draw, and u where the joint density was sampled."""
    if density == "marginal" or not white.mode.u:
        return jax.vmap(white.x)(positions), ()
    x, u = lax.map(lambda z: split(white, z), positions)
    return x, tuple(a[:, :, 0] for a in u)
