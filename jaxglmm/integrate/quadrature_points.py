"""Adaptive quadrature with all nodes at once; its gradient by Fisher's identity.

With nodes u_gk around the mode of a level (``integrate.quadrature``),

    log L_g = log sum_k exp(c_k + l_g(eta(psi, u_gk)) - u_gk'u_gk / 2) + log|C_g|

is differentiated with the nodes where they are:

    d log L_g / d psi = sum_k pi_k d l_g(eta(psi, u_gk)) / d psi,

pi_k the share of node k: the derivative of the exact log L_g (Fisher's identity), up to
the error of quadrature, not that of the sum to the last digit. Samplers that move along
gradients and accept by values need no more, and a few large operations take the place
of many small ones.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.normal_rule import product_rule
from jaxglmm.runtime.arrays import jnp, nn
from jaxglmm.structure.rows import FoldedRows

MOST_CELLS = 200_000  # nodes x rows held at once


def suits(problem: GeneralisedProblem, nodes: int) -> bool:
    """Whether all nodes of all rows of a folded problem may be held at once."""
    folded = isinstance(problem.rows, FoldedRows) and problem.sides[0] <= 3
    folded = folded and problem.predictors.K == 1
    return folded and nodes ** problem.sides[0] * problem.y.size <= MOST_CELLS


def log_marginal(
    problem: GeneralisedProblem,
    psi: Float[Array, " k"],
    u: Float[Array, "q J"],
    root: small.Matrix,
    nodes: int,
) -> Scalar:
    """log p(y | psi); its derivative in psi is Fisher's.

    Args:
        problem: folded, one factor.
        psi: (beta, theta, phi).
        u: modes of the spherical effects.
        root: Cholesky factors of their curvature M, entry by entry.
        nodes: a dimension.
    """
    assert isinstance(problem.rows, FoldedRows)
    beta, theta, phi = problem.split(psi)
    (lam,) = problem.lambdas(theta)
    grid, log_w = product_rule(nodes, len(u))
    log_w = log_w + np.sum(grid**2, axis=1) / 2
    one = jnp.ones_like(u[0])
    shift = small.backward(root, [z[:, None] * one for z in grid.T])  # (K, J) each
    there = [a + b for a, b in zip(u, shift, strict=True)]
    b = [jnp.asarray(a) for a in small.apply(small.lower(lam), there)]
    eta = problem.offset
    for j in range(problem.p):
        eta = eta + problem.X[j] * beta[j]
    zs = problem.rows.z[0]
    eta = eta + sum(
        z * x[:, None] for z, x in zip(zs, b, strict=True)
    )  # (K, height, J)
    l = problem.family.kernel_derivatives(problem.y, eta, phi, problem.trials)[0]
    base = problem.family.log_base(problem.y, problem.trials)
    used, weights = problem.weights > 0, problem.weights
    rows = jnp.sum(jnp.where(used, weights * l, 0.0), axis=1)
    terms = log_w[:, None] + rows - sum(a * a for a in there) / 2
    levels = nn.logsumexp(terms, axis=0) - small.log_diagonal(root)
    return jnp.sum(levels) + jnp.sum(jnp.where(used, weights * base, 0.0))
