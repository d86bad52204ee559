"""Draws of fixed and random effects given the variance parameters.

Given theta and sigma, (beta, b) of a linear mixed model are normal around their
estimates, with the inverse of Henderson's matrix for their covariance:

    beta = Q^-1 X'V^-1 y + sigma L_Q'^-1 e
    b    = Lambda Lambda'Z'V^-1(y - X beta) + sigma Lambda L'^-1 z

with V = I + Z Lambda Lambda'Z', Q = X'V^-1X = L_Q L_Q', M = L L', and e and z standard
normal.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float
from jaxglmm.integrate import exact
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics import spd
from jaxglmm.numerics.system import Effects, scale, scale_transposed
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.compile import stored


@stored
def effects_given(
    problem: Problem,
    theta: Float[Array, "n m"],
    log_sigma2: Float[Array, " n"],
    e: Float[Array, "n p"],
    z: Effects,
) -> tuple[Float[Array, "n p"], Effects]:
    """beta (n, p) and b (n, q, 1, J) a factor, one draw for each theta and sigma^2.

    e: (n, p) and z: (n, q, 1, J) a factor, standard normal. All in the coordinates of
    the problem.
    """
    p = problem.p

    def one(x: tuple[Array, Array, Array, Effects]) -> tuple[Array, Effects]:
        own, log_s2, e, z = x
        lam, sigma = problem.lambdas(own), jnp.exp(log_s2 / 2)
        at = exact.marginal(problem, lam)
        beta = at.beta + sigma * spd.backward(at.LQ, e) if p else at.beta
        t = tuple(
            x[:, p:, :] - jnp.sum(x[:, :p, :] * beta[None, :, None], 1, keepdims=True)
            for x in at.T
        )
        mode = scale(lam, scale_transposed(lam, t))
        noise = scale(lam, at.factor.backward(z))
        pairs = zip(mode, noise, strict=True)
        return beta, tuple(m + sigma * w for m, w in pairs)

    return lax.map(one, (theta, log_sigma2, e, z))


@stored(host=True)
def noise_of_effects(
    problem: Problem, theta: Float[Array, " m"], z: Effects
) -> Effects:
    """b - E b for sigma = 1 at one theta; z and the answer (q, n, J) a factor."""
    lam = problem.lambdas(theta)
    return scale(lam, problem.system.factor(lam).backward(z))
