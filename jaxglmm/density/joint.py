"""The joint log-density of response and random effects, from cross-products.

    y | u ~ N(X beta + Z b, sigma^2 W^-1),  b = sigma Lambda u,  u ~ N(0, I)

so that, with v = y - X beta - Z b,

    -2 log p(y, u) = n log(2 pi sigma^2) - log|W| + v'Wv / sigma^2
                     + k log(2 pi) + u'u

for k random effects. u is standard normal a priori whatever the parameters (the
non-centred form, good for samplers): levels that only pad the problem add independent
standard normal coordinates, and nothing else. v'Wv comes from Z'WZ, Z'W[X y] and
[X y]'W[X y]: no rows are read.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.density.params import Params
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.numerics.system import Effects, inner_all, scale


def zeros(problem: Problem) -> Effects:
    """Effects u of zero in the shapes that ``log_joint`` takes.

    A tuple with one (q, 1, J) array a factor: components, one, levels.
    """
    return tuple(jnp.zeros_like(b[:, :1]) for b in problem.B)


def effects(params: Params, u: Effects, problem: Problem) -> Effects:
    """b = sigma Lambda u, the effects on the scale of the problem's response."""
    b = scale(problem.lambdas(params.theta), u)
    return tuple(jnp.exp(params.log_sigma) * x for x in b)


def log_joint(params: Params, u: Effects, problem: Problem) -> Scalar:
    """log p(y, u | params), all constants included.

    Args:
        params: theta, beta, log_sigma.
        u: spherical random effects, one (q, 1, J) array a factor (see ``zeros``).
        problem: the model and its data as cross-products.

    Returns:
        A scalar. Its integral over u is ``exp(log_marginal(params, problem))``.

    >>> import jax, jax.numpy as jnp
    >>> import jaxglmm as jg
    >>> from jaxglmm.density import Params, log_joint, zeros
    >>> fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    >>> with jax.enable_x64(True):
    ...     problem = fit.engine.problem
    ...     params = Params(jnp.ones(1), jnp.zeros(1), jnp.zeros(()))
    ...     up = jax.grad(log_joint, argnums=1)(params, zeros(problem), problem)
    >>> [x.shape for x in up]
    [(1, 1, 8)]
    """
    b = effects(params, u, problem)
    rest = _sum_of_squares(params.beta, b, problem) * jnp.exp(-2 * params.log_sigma)
    likelihood = problem.n * (LOG_2PI + 2 * params.log_sigma) + rest
    prior = sum(x.size * LOG_2PI + jnp.sum(x * x) for x in u)
    return -(likelihood + prior + problem.constant) / 2


def _sum_of_squares(
    beta: Float[Array, " p"], b: Effects, problem: Problem
) -> Float[Array, ""]:
    """(y - X beta - Z b)'W(y - X beta - Z b)."""
    v = jnp.append(-beta, 1.0)  # [X y] v = y - X beta
    crossed = inner_all(b, problem.B)[0] @ v
    square = inner_all(b, problem.system.normal(b))[0, 0]
    return v @ problem.RR @ v - 2 * crossed + square
