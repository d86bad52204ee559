"""A generalised model maximised along an affine subspace of its parameters.

psi = origin + basis f: what a profile likelihood needs (one parameter held, the others
free) and a refit from where another fit ended (origin 0, basis I). Coordinates f that
``idle`` marks have a column of zeros in ``basis`` and stay where they are, so that one
compiled program serves every parameter of a model.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxglmm._typing import Array, Bool, Count, Float, Int, Scalar
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import newton
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.trees import Module


class Subspace(Module):
    """psi = origin + basis f; idle: coordinates of f that do nothing."""

    origin: Float[Array, " k"]
    basis: Float[Array, "k k"]
    idle: Bool[Array, " k"]


class Restricted(Module):
    """f: (k,) the free coordinates; u: the mode; value: -2 log-likelihood."""

    free: Float[Array, " k"]
    u: Effects
    value: Scalar
    steps: Count
    status: Int[Array, ""]


@partial(jax.jit, static_argnums=0)
def maximise_along(
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    along: Subspace,
    free: Float[Array, " k"],
    u: Effects,
    tol: Scalar,
    max_steps: Count,
) -> Restricted:
    """The maximum of the likelihood on ``along``, from ``free`` and the mode ``u``."""
    B = along.basis
    idle = along.idle.astype(B.dtype)

    def evaluate(f: Array, aux: Effects):
        at = marginal.derivatives(problem, along.origin + B @ f, aux)
        H = B.T @ at.curvature @ B + jnp.diag(idle)
        return at.value, B.T @ at.score, H, at.scale @ B**2 + idle, at.u

    found = newton.minimise_carrying(evaluate, free, u, tol, max_steps, secant=True)
    return Restricted(found.x, found.aux, found.value, found.steps, found.status)
