"""The mode of the marginal posterior, and the Gaussian there.

The random effects are integrated out (Laplace or quadrature), so that a mode exists:
the joint density of effects and variances has a spike at zero variance, where its mode
means nothing. f(x) = -log p(x | y) is minimised by the damped Newton method of
``numerics.newton`` with the likelihood's average information, the prior's own
curvature and the secant correction; the Hessian at the mode is exact, by forward mode
over the analytic score after one Newton step for the random effects.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.density.posterior import PosteriorModel
from jaxglmm.estimate.generalised import zeros
from jaxglmm.estimate.hessian import hessian as _likelihood_hessian
from jaxglmm.estimate.start_generalised import starting_values
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.numerics import newton
from jaxglmm.numerics.system import Effects, scale
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.trees import Module

ARRIVED = 1e-3  # decrement of u at which a value counts


class Mode(Module):
    """x: (k,) the mode; value: -log p(y, x) there; H: (k, k) its Hessian; u: mode of u.

    slope: du/dpsi at the mode, (j, q, 1, J) a factor; log_lik: log p(y | x).
    """

    x: Float[Array, " k"]
    value: Scalar
    log_lik: Scalar
    H: Float[Array, "k k"]
    u: Effects
    slope: Effects
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]


def derivatives(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    over: Any,
    x: Float[Array, " k"],
    u: Effects,
) -> tuple[Scalar, Array, Array, Array, Effects]:
    """f, its gradient, a positive stand-in for its Hessian, its scale, the mode u.

    f is infinite where the mode of u is not found: what is corrected for the rest of
    the way promises anything there. over: ``marginal.over`` of the problem.
    """
    belief, p = posterior.belief, posterior.problem.p
    psi = belief.psi(x)
    at = marginal.derivatives(over, psi, u)
    value = jnp.where(at.nu < ARRIVED, at.value, jnp.inf)
    J = jax.jacfwd(belief.psi)(x)
    log_prior, slope = jax.value_and_grad(belief.log_prior)(x)
    E = _bend(posterior, at.score, x)
    # a prior with long tails is not concave: its curvature counts where it helps
    positive = jnp.diag(jnp.maximum(jnp.diagonal(E), 0.0))
    own = positive.at[:p, :p].set(E[:p, :p])
    H = J.T @ at.curvature @ J / 2 + own
    size = (J**2).T @ at.scale / 2 + jnp.diagonal(positive)
    return value / 2 - log_prior, J.T @ at.score / 2 - slope, H, size, at.u


def _bend(posterior: PosteriorModel, score: Array, x: Float[Array, " k"]) -> Array:
    """What of f is curved besides the likelihood in psi."""
    belief = posterior.belief
    return jax.hessian(lambda z: score @ belief.psi(z) / 2 - belief.log_prior(z))(x)


def along_axes(f, x: Float[Array, " k"]):
    """Derivatives of f in every coordinate, one by one, stacked."""
    eye = jnp.eye(len(x), dtype=x.dtype)
    # no vmap: batched LAPACK calls could wait for each other
    return lax.map(lambda v: jax.jvp(f, (x,), (v,))[1], eye)


def hessian_at(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    over: Any,
    x: Float[Array, " k"],
    u: Effects,
) -> Float[Array, "k k"]:
    """The exact Hessian of f at x, u its mode."""
    belief = posterior.belief
    psi = belief.psi(x)
    score = marginal.score(over, psi, u)
    J = jax.jacfwd(belief.psi)(x)
    H = _likelihood_hessian.__wrapped__(marginal, over, psi, u)
    return J.T @ H @ J / 2 + _bend(posterior, score, x)


def find(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    x: Float[Array, " k"],
    u: Effects,
    tol: Scalar | float,
    max_steps: Count | int,
) -> Mode:
    """The mode from x and u, its Hessian and how u moves there."""
    over = marginal.over(posterior.problem)
    found = newton.minimise_carrying(
        lambda z, aux: derivatives(marginal, posterior, over, z, aux),
        x,
        u,
        tol,
        max_steps,
        secant=True,
    )
    x, slope = found.x, ()
    u = found.aux
    if u:
        psi = posterior.belief.psi(x)
        u = marginal.mode(over, psi, u)
        slope = along_axes(lambda z: marginal.nearer(over, z, u), psi)
    H = hessian_at(marginal, posterior, over, x, u)
    return Mode(
        x,
        found.value,
        -found.value - posterior.belief.log_prior(x),
        (H + H.T) / 2,
        u,
        slope,
        found.decrement,
        found.steps,
        found.status,
    )


find_compiled = partial(jit, static_argnums=0)(find)


@partial(jit, static_argnums=0)
def find_from_rows(
    marginal: AbstractMarginal,
    posterior: PosteriorModel,
    eta: Float[Array, " n"],
    phi: Float[Array, " r"],
    tol: Scalar,
    max_steps: Count,
) -> Mode:
    """The mode from the family's guess of each row's predictor."""
    x = starting_point(posterior, eta, phi)
    return find(marginal, posterior, x, zeros(posterior.problem), tol, max_steps)


def starting_point(
    posterior: PosteriorModel, eta: Float[Array, " n"], phi: Float[Array, " r"]
) -> Float[Array, " k"]:
    """x near the data, variances by moments."""
    psi = starting_values(posterior.problem, eta, phi)
    beta, theta, phi = posterior.problem.split(psi)
    return jnp.concatenate([beta, posterior.belief.coordinates(theta, phi)])


def effects_slope(posterior: PosteriorModel, mode: Mode) -> Effects:
    """db/dx of b = Lambda u at the mode, (q, k, J) a factor."""

    def b(x: Array) -> Effects:
        _, lam, _ = posterior.parameters(x)
        return scale(lam, mode.u)

    _, lam, _ = posterior.parameters(mode.x)
    direct = along_axes(b, mode.x)
    J = jax.jacfwd(posterior.belief.psi)(mode.x)
    moved = tuple(jnp.einsum("jk,jiag->kiag", J, x) for x in mode.slope)
    through = tuple(
        jnp.einsum("ij,kjag->kiag", a, x) for a, x in zip(lam, moved, strict=True)
    )
    return tuple(
        jnp.swapaxes((a + c)[:, :, 0], 0, 1)
        for a, c in zip(direct, through, strict=True)
    )
