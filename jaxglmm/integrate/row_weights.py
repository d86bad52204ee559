"""Weights of rows: prior ones, and positive ones in place of what may be negative."""

from __future__ import annotations

import jax

from jaxglmm._typing import Array
from jaxglmm.integrate.rows_lanes import LaneRows
from jaxglmm.model.families._base import ByPhi
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime.arrays import jnp


def weighted(found: ByPhi, used: Array, weights: Array) -> ByPhi:
    """Rows times their weights, zero where they are not used."""
    return jax.tree.map(lambda x: jnp.where(used, weights * x, 0.0), found)


def step_weights(
    problem: GeneralisedProblem | LaneRows, eta: Array, phi: Array, w: Array
) -> Array:
    """Weights of a step to the mode where observed information is not positive."""
    if problem.predictors.K == 1:
        return jnp.abs(w)
    expected = problem.family.expected_block(eta, phi, problem.trials)
    if expected is not None:
        weighted = problem.weights * expected
        expected = jnp.where(problem.weights > 0, weighted, 0.0)
    return problem.predictors.bounded(w, expected)


def positive_weights(
    problem: GeneralisedProblem | LaneRows, eta: Array, phi: Array, w: Array
) -> Array:
    """Weights of the average information that are positive.

    Where observed information is negative these matrices are not positive definite, and
    no damping makes a Newton step of them.
    """
    if problem.predictors.K > 1:
        return step_weights(problem, eta, phi, w)
    expected = problem.family.expected_weight(eta, phi, problem.trials)
    expected = jnp.where(problem.weights > 0, problem.weights * expected, 0.0)
    return jnp.maximum(w, jnp.where(jnp.isfinite(expected), expected, 0.0))
