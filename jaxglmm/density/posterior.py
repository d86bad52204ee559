"""The log posterior of (beta, theta, phi), random effects integrated out; the joint.

    log p(x | y) = log p(y | psi(x)) + log p(x) + constant

x: the coordinates of a ``Belief``, without bounds. The marginal likelihood comes from
an integrator (Laplace, quadrature); ``log_joint`` is the density of the rows and of the
spherical random effects u at x, for samplers that keep u: u is standard normal a priori
whatever x (the non-centred form), and levels that pad add independent coordinates.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.model.priors.joint_prior import AbstractBelief
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.numerics.system import Effects, Lambdas, scale
from jaxglmm.runtime.trees import Module


class PosteriorModel(Module):
    """A model with its data and what is believed of its parameters."""

    problem: GeneralisedProblem
    belief: AbstractBelief

    def folded(self) -> PosteriorModel:
        """The same with rows in the shape that sums run best over."""
        return PosteriorModel(self.problem.folded(), self.belief)

    def parameters(self, x: Float[Array, " k"]) -> tuple[Array, Lambdas, Array]:
        """beta, Lambda a factor, phi."""
        beta, theta, phi = self.problem.split(self.belief.psi(x))
        return beta, self.problem.lambdas(theta), phi


def log_rows(
    posterior: PosteriorModel, x: Float[Array, " k"], u: Effects
) -> Float[Array, " n"]:
    """log p(y_i | x, u) with weights, zero in rows that pad."""
    beta, lam, phi = posterior.parameters(x)
    problem = posterior.problem
    eta = problem.offset + problem.rows.spread(scale(lam, u))
    if problem.predictors.K > 1:
        eta = problem.predictors.values(problem.X, beta, eta)
    elif problem.p:
        eta = eta + jnp.tensordot(beta, problem.X, axes=1)
    l = problem.family.log_density(problem.y, eta, phi, problem.trials)
    return jnp.where(problem.weights > 0, problem.weights * l, 0.0)


def log_joint(posterior: PosteriorModel, x: Float[Array, " k"], u: Effects) -> Scalar:
    """log p(y, u, x), all constants included.

    Args:
        posterior: model, data and prior.
        x: (k,) coordinates of the belief.
        u: spherical random effects, (q, 1, J) a factor.
    """
    rows = jnp.sum(log_rows(posterior, x, u))
    normal = sum(jnp.sum(v * v) / 2 + v.size * HALF_LOG_2PI for v in u)
    return rows - normal + posterior.belief.log_prior(x)
