"""What is believed before the data: coordinates without bounds, and a density on them.

A belief maps x = (beta, y), any real vector, to the parameters psi = (beta, theta, phi)
of a ``GeneralisedProblem`` and says log p(x), Jacobians included, so that a posterior
is a plain function on R^k. beta are the problem's own coefficients; y stands for
variances, correlations and dispersion.
"""

from __future__ import annotations

import abc

import jax.numpy as jnp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.runtime.trees import Module


class AbstractBelief(Module):
    """Coordinates and prior of a model's parameters."""

    @property
    @abc.abstractmethod
    def p(self) -> int:
        """Number of coefficients."""

    @abc.abstractmethod
    def rest(self, y: Float[Array, " r"]) -> Float[Array, " j"]:
        """(theta, phi) of the problem."""

    @abc.abstractmethod
    def coordinates(
        self, theta: Float[Array, " m"], phi: Float[Array, " r"]
    ) -> Float[Array, " r"]:
        """A y whose (theta, phi) are near these, to start from."""

    @abc.abstractmethod
    def log_prior_beta(self, beta: Float[Array, " p"]) -> Scalar:
        """log p(beta), normalised."""

    @abc.abstractmethod
    def log_prior_rest(self, y: Float[Array, " r"]) -> Scalar:
        """log p(y), normalised, with the Jacobian of the coordinates."""

    @abc.abstractmethod
    def normal(self) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
        """Mean and precision of beta where its prior is normal."""

    def psi(self, x: Float[Array, " k"]) -> Float[Array, " j"]:
        """The problem's (beta, theta, phi)."""
        return jnp.concatenate([x[: self.p], self.rest(x[self.p :])])

    def log_prior(self, x: Float[Array, " k"]) -> Scalar:
        """log p(x)."""
        return self.log_prior_beta(x[: self.p]) + self.log_prior_rest(x[self.p :])
