"""Inverses and determinants of many positive definite matrices at once.

On the host by LAPACK. In programs by sweeps over the rows, each one operation on all
matrices: batched LAPACK waits for threads of the pool it runs on (``wide``), and small
matrices are done sooner this way on any device.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float
from jaxglmm.runtime.arrays import is_host, jnp, lax, put

UNROLLED = 16  # rows up to which the sweeps are written out


def inverse(
    V: Float[Array, "K T T"],
) -> tuple[Float[Array, "K T T"], Float[Array, " K"]]:
    """V^-1 and log |V|; NaN where V is not positive definite."""
    if is_host():
        L = jnp.linalg.cholesky(V)
        half = jnp.linalg.inv(L)
        P = jnp.swapaxes(half, 1, 2) @ half
        return P, 2 * jnp.sum(jnp.log(jnp.diagonal(L, axis1=1, axis2=2)), axis=1)
    return _swept(V)


def _swept(V: Float[Array, "K T T"]) -> tuple[Array, Array]:
    """Gauss and Jordan's elimination without pivoting: all pivots are positive."""

    def body(j: Array | int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        A, log_det = state
        pivot = A[:, j, j]
        pivot = jnp.where(pivot > 0, pivot, jnp.nan)
        column = A[:, :, j]
        row = A[:, j, :] / pivot[:, None]
        B = A - column[:, :, None] * row[:, None, :]
        B = put(B, (slice(None), j, slice(None)), row)
        B = put(B, (slice(None), slice(None), j), -column / pivot[:, None])
        B = put(B, (slice(None), j, j), 1 / pivot)
        return B, log_det + jnp.log(pivot)

    state = V, jnp.zeros(V.shape[0], V.dtype)
    T = V.shape[-1]
    if T <= UNROLLED:
        for j in range(T):
            state = body(j, state)
        P, log_det = state
    else:
        P, log_det = lax.fori_loop(0, T, body, state)
    return (P + jnp.swapaxes(P, 1, 2)) / 2, log_det
