"""Coordinates without bounds for correlation matrices, with a prior on them.

K (K - 1) / 2 real numbers, row by row of the strict lower triangle, to the Cholesky
factor of a correlation matrix by partial correlations w = tanh(y) (Lewandowski,
Kurowicka and Joe 2009):

    L_ij = w_ij sqrt(1 - sum_{k<j} L_ik^2),  L_ii = sqrt(1 - sum_{k<i} L_ik^2)

Under LKJ(eta) the partial correlations are independent, w_ij ~ 2 Beta(b, b) - 1 with
b = eta + (K - 1 - j) / 2 for column j = 1, 2, ..., so a prior needs no Jacobian of L.
"""

from __future__ import annotations

from jax.scipy.special import betaln

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.runtime.arrays import jnp, nn


def correlation(y: Float[Array, " m"], K: int) -> Float[Array, "K K"]:
    """The Cholesky factor of a correlation matrix, (K, K) lower triangular."""
    w, k = jnp.tanh(y), 0
    one = jnp.ones((), y.dtype)
    rows = []
    for i in range(K):
        left, row = one, []
        for _ in range(i):
            row.append(w[k] * jnp.sqrt(left))
            left = left * (1 - w[k] ** 2)
            k += 1
        row.append(jnp.sqrt(left))
        rows.append(jnp.stack([*row, *[0 * one] * (K - i - 1)]))
    return jnp.stack(rows)


def log_lkj(y: Float[Array, " m"], K: int, eta: Scalar | float) -> Scalar:
    """log density of LKJ(eta) in the coordinates y, normalised, Jacobian included."""
    columns = jnp.asarray([j for i in range(K) for j in range(1, i + 1)], y.dtype)
    return log_partial(y, eta + (K - 1 - columns) / 2)


def log_share(y: Float[Array, " m"], b: Float[Array, " m"] | Scalar) -> Scalar:
    """log density of y where sigmoid(y) ~ Beta(b, b), each by itself; normalised."""
    inside = nn.log_sigmoid(y) + nn.log_sigmoid(-y)
    return jnp.sum(b * inside - betaln(b, b))


def log_partial(y: Float[Array, " m"], b: Float[Array, " m"] | Scalar) -> Scalar:
    """log density of y where tanh(y) ~ 2 Beta(b, b) - 1, each by itself; normalised."""
    # 1 - tanh^2 without cancelling: -2 log cosh y
    log_rest = -2 * (jnp.abs(y) + jnp.log1p(jnp.exp(-2 * jnp.abs(y))) - jnp.log(2.0))
    density = (b - 1) * log_rest - (2 * b - 1) * jnp.log(2.0) - betaln(b, b)
    return jnp.sum(density + log_rest)
