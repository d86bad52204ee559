"""Models without random effects: the likelihood itself, nothing is integrated out.

Value, score and curvature in the form of ``integrate.laplace``, so that a generalised
linear model goes through the same optimiser: the curvature is the information of beta
(observed where it is positive, Fisher's elsewhere) and that of the dispersion.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.integrate.laplace import Evaluation, predictor, rows_at
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import spd
from jaxglmm.runtime.arrays import grad, hessian, jnp, put


def value_at(
    problem: GeneralisedProblem, beta: Float[Array, " p"], phi: Float[Array, " r"]
) -> Scalar:
    """-2 log-likelihood."""
    return -2 * jnp.sum(rows_at(problem, predictor(problem, beta, ()), phi).l)


def derivatives(problem: GeneralisedProblem, psi: Float[Array, " k"]) -> Evaluation:
    """Value, score and curvature at psi = (beta, phi)."""
    beta, _, phi = problem.split(psi)
    eta = predictor(problem, beta, ())
    r = rows_at(problem, eta, phi)
    X = problem.X

    def total(x: Array) -> Scalar:
        l = problem.family.log_density(problem.y, eta, x, problem.trials)
        return -2 * jnp.sum(jnp.where(problem.weights > 0, problem.weights * l, 0.0))

    k = len(psi)
    model = problem.predictors
    if model.K == 1:
        square, score = 2 * (r.step * X) @ X.T, -2 * X @ r.s
    else:
        square, score = 2 * model.gram(X, r.step), -2 * model.total(X, r.s)
    H = put(jnp.zeros((k, k)), np.s_[: problem.p, : problem.p], square)
    if len(phi):
        inside = hessian(total)(phi)
        kept = jnp.where(
            jnp.eye(len(phi), dtype=bool), 0.1 + jnp.maximum(inside, 0.0), 0.0
        )
        H = put(H, np.s_[problem.p :, problem.p :], kept)
        score = jnp.concatenate([score, grad(total)(phi)])
    return Evaluation(-2 * jnp.sum(r.l), score, H, spd.diagonal(H), ())
