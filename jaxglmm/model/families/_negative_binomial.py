"""The density that both negative binomials share: mean mu and size r, var mu + mu^2/r.

    log f = delta(r + y) - delta(r) - delta(y) + log(r / (2 pi y (r + y))) / 2
            + (r + y) log((r + y) / (r + mu)) - y log(y / mu),        y > 0,
    log f = -r log(1 + mu / r),                                       y = 0.

The first line is the binomial coefficient less its large parts, the second the unit
deviance. Nothing grows with r, so the Poisson limit is reached without a switch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxglmm._typing import Array, Float
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error


def log_density(y: Array, log_mu: Array, log_size: Array) -> Float[Array, ...]:
    """log f(y), elementwise, from the logarithms of mean and size."""
    mu, size = jnp.exp(log_mu), jnp.exp(log_size)
    some = y > 0
    y1 = jnp.where(some, y, 1.0)
    log_y, total = jnp.log(y1), size + y1
    # log(r + y), from the logarithm of r where that is large
    large = log_size > 0.0
    gain = jnp.log1p(y1 * jnp.exp(-jnp.where(large, log_size, 0.0)))
    log_total = jnp.where(
        large, log_size + gain, jnp.log(jnp.where(large, 1.0, size) + y1)
    )
    # log((r + y) / (r + mu)): by log1p where the two are close
    near = jnp.abs(y1 - mu) < 0.5 * (size + mu)
    gap = jnp.where(near, y1 - mu, 0.0) / jnp.where(near, size + mu, 1.0)
    apart = log_total - jnp.logaddexp(log_size, log_mu)
    log_ratio = jnp.where(near, jnp.log1p(gap), apart)
    value = (
        stirling_error(total, log_total)
        - stirling_error(size, log_size)
        - stirling_error(y1, log_y)
        + 0.5 * (log_size - log_y - log_total)
        - HALF_LOG_2PI
        + total * log_ratio
        - y1 * (log_y - log_mu)
    )
    return jnp.where(some, value, -size * jax.nn.softplus(log_mu - log_size))
