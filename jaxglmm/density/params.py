"""Params: the parameters of a linear mixed model as one pytree."""

from __future__ import annotations

import jax.numpy as jnp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.runtime.trees import Module


class Params(Module):
    """A point in the parameter space of a ``Problem``, in its own coordinates.

    theta: (m,) free entries of the relative Cholesky factors, diagonals of any sign;
    beta: (p,) fixed effects; log_sigma: logarithm of the residual standard deviation.
    All of them are unconstrained.
    """

    theta: Float[Array, " m"]
    beta: Float[Array, " p"]
    log_sigma: Scalar

    @classmethod
    def of(
        cls, theta: Float[Array, " m"], beta: Float[Array, " p"], sigma2: Scalar
    ) -> Params:
        """From a residual variance, as ``Fitted`` holds it."""
        return cls(jnp.asarray(theta), jnp.asarray(beta), jnp.log(sigma2) / 2)
