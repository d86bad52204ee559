"""The marginal log-density of a linear mixed model at given parameters.

y ~ N(X beta, sigma^2 V),  V = W^-1 + Z Lambda Lambda' Z'
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxglmm._typing import Scalar
from jaxglmm.density.params import Params
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.special import LOG_2PI


def log_marginal(params: Params, problem: Problem) -> Scalar:
    """log p(y | params) with the random effects integrated out, constants included.

    Exact, free of the number of rows, and differentiable in the parameters and in the
    arrays of the problem (through the factorisation, not through a loop).

    Args:
        params: theta, beta, log_sigma, in the problem's coordinates.
        problem: the model and its data as cross-products.

    Returns:
        A scalar; at the maximum-likelihood estimates it is ``Fit.log_likelihood``.

    >>> import jax, jax.numpy as jnp
    >>> import jaxglmm as jg
    >>> from jaxglmm.density import Params
    >>> from jaxglmm.integrate import log_marginal
    >>> fit = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    >>> with jax.enable_x64(True):
    ...     problem = fit.engine.problem
    ...     theta = jnp.linspace(0.0, 2.0, 5)[:, None]
    ...     along = jax.vmap(lambda x: Params(x, jnp.zeros(1), jnp.log(0.8)))(theta)
    ...     values = jax.vmap(log_marginal, in_axes=(0, None))(along, problem)
    >>> values.shape, int(values.argmax())
    ((5,), 2)
    """
    factor = problem.system.factor(problem.lambdas(params.theta))
    K, _ = factor.project(problem.B, problem.RR)
    v = jnp.append(-params.beta, 1.0)  # [X y] v = y - X beta
    r2 = v @ K @ v * jnp.exp(-2 * params.log_sigma)
    d = factor.log_det() + problem.n * (LOG_2PI + 2 * params.log_sigma) + r2
    return -(d + problem.constant) / 2
