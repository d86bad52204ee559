"""Adaptive Gauss-Hermite quadrature: one grouping factor, up to three columns.

Around the mode u^_g of a level, with M_g = L_gL_g' its curvature and product nodes z_k
of weights w_k (probabilists', sum one),

    log L_g = log sum_k exp(log w_k + z_k'z_k / 2 + l_g(u_gk) - u_gk'u_gk / 2) -
    log|L_g|, u_gk = u^_g + L_g'^-1 z_k

One node is Laplace's approximation (Pinheiro and Bates 1995). Sums of logarithms, never
products of likelihoods. The gradient is by reverse mode, one Newton step carrying the
derivative of the mode.
"""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate.laplace import Laplace
from jaxglmm.model.generalised import GeneralisedProblem
from jaxglmm.numerics.system import Effects, Lambdas, scale


def product_rule(nodes: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (nodes^q, q) and log weights (nodes^q,) for the standard normal."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    grid = np.array(list(itertools.product(z, repeat=q)))
    weights = np.array([np.prod(x) for x in itertools.product(w, repeat=q)])
    kept = weights > 1e-300
    return grid[kept], np.log(weights[kept])


def value_at(
    problem: GeneralisedProblem,
    beta: Array,
    lam: Lambdas,
    phi: Array,
    u: Effects,
    nodes: int,
) -> Scalar:
    """-2 log-likelihood by quadrature around u (the mode, or close to it)."""
    q = problem.sides[0]
    grid, log_w = product_rule(nodes, q)
    eta = _laplace.predictor(problem, beta, scale(lam, u))
    r = _laplace.rows_at(problem, eta, phi)
    factor = problem.rows.weigh(r.step).factor(lam)

    def node(z: Float[Array, " q"], log_weight: Scalar) -> Float[Array, " J"]:
        J = u[0].shape[-1]
        shift = factor.backward((jnp.broadcast_to(z[:, None, None], (q, 1, J)),))
        at = (u[0] + shift[0],)
        eta = _laplace.predictor(problem, beta, scale(lam, at))
        l = problem.family.log_density(problem.y, eta, phi, problem.trials)
        used = problem.weights > 0
        l = problem.rows.level_sum(jnp.where(used, problem.weights * l, 0.0))
        return log_weight + z @ z / 2 + l - jnp.sum(at[0][:, 0] ** 2, axis=0) / 2

    terms = jax.lax.map(lambda x: node(*x), (jnp.asarray(grid), jnp.asarray(log_w)))
    return -2 * jnp.sum(logsumexp(terms, axis=0)) + factor.log_det()


def score_at(
    problem: GeneralisedProblem, psi: Array, u: Effects, nodes: int
) -> Float[Array, " k"]:
    """Gradient of -2 log-likelihood in psi, u depending on psi as the mode does."""
    return jax.grad(lambda x: _value(problem, x, u, nodes))(psi)


def _value(problem: GeneralisedProblem, psi: Array, u: Effects, nodes: int) -> Scalar:
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    mode = _laplace.newton_step(problem, beta, lam, phi, u)
    return value_at(problem, beta, lam, phi, mode, nodes)


def improve(
    problem: GeneralisedProblem, psi: Array, found: Laplace, nodes: int
) -> Laplace:
    """Laplace's derivatives with value and score by quadrature, its curvature kept."""
    u = jax.tree.map(jax.lax.stop_gradient, found.u)
    value, score = jax.value_and_grad(lambda x: _value(problem, x, u, nodes))(psi)
    return eqx.tree_at(lambda f: (f.value, f.score), found, (value, score))
