"""One positive definite matrix at a time: unrolled when small, LAPACK when not."""

from __future__ import annotations

import jax

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import is_host, jnp, solve_triangular

TINY = 8  # sides up to which a product is fused
SMALL = 5  # sides up to this are unrolled to scalars: faster in a loop, and under vmap


def product(A: Float[Array, "i j"], B: Float[Array, "j k"]) -> Float[Array, "i k"]:
    """A B; of tiny matrices fused multiply and add, for a call of GEMM costs more."""
    if max(*A.shape, *B.shape) <= TINY:
        return jnp.sum(A[:, :, None] * B[None], axis=1)
    return A @ B


def cholesky(M: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Lower Cholesky factor (NaN where M is not positive definite)."""
    if 0 < M.shape[0] <= SMALL:
        return small.stack(small.cholesky(small.rows(M)), M[0, 0])
    return jnp.linalg.cholesky(M, symmetrize_input=False)


def cholesky_of_lower(M: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Lower Cholesky factor from the lower triangle alone, derivatives included.

    JAX's own rule takes the tangent of M as symmetric: wrong where M is half filled.
    """
    return jnp.linalg.cholesky(M) if is_host() else _cholesky_of_lower(M)


@jax.custom_jvp
def _cholesky_of_lower(M: Float[Array, "p p"]) -> Float[Array, "p p"]:
    return jax.lax.linalg.cholesky(M, symmetrize_input=False)


@_cholesky_of_lower.defjvp
def _cholesky_of_lower_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple:
    L = _cholesky_of_lower(*primals)
    dM = jnp.tril(tangents[0])
    dM = dM + jnp.tril(dM, -1).T
    middle = _triangular(L, _triangular(L, dM, 0).T, 0)
    return L, L @ (jnp.tril(middle) - jnp.diag(diagonal(middle)) / 2)


def forward(L: Float[Array, "p p"], B: Float[Array, "p ..."]) -> Float[Array, "p ..."]:
    """L^-1 B for one vector or several columns."""
    if 0 < L.shape[0] <= SMALL:
        return jnp.stack(small.forward(small.lower(L), list(B)))
    return _triangular(L, B, 0)


def backward(L: Float[Array, "p p"], B: Float[Array, "p ..."]) -> Float[Array, "p ..."]:
    """L'^-1 B for one vector or several columns."""
    if 0 < L.shape[0] <= SMALL:
        return jnp.stack(small.backward(small.lower(L), list(B)))
    return _triangular(L, B, 1)


def _triangular(L: Float[Array, "p p"], B: Array, trans: int) -> Array:
    if L.shape[0] == 0:
        return B
    columns = B.reshape(len(L), -1)  # LAPACK knows matrices only
    return solve_triangular(L, columns, lower=True, trans=trans).reshape(B.shape)


def solve(L: Float[Array, "p p"], B: Float[Array, "p ..."]) -> Float[Array, "p ..."]:
    """(L L')^-1 B."""
    return backward(L, forward(L, B))


def inverse(L: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """(L L')^-1."""
    return solve(L, jnp.eye(L.shape[0], dtype=L.dtype))


def log_det(L: Float[Array, "p p"]) -> Scalar:
    """log |L L'|."""
    return 2 * jnp.sum(jnp.log(diagonal(L)))


def diagonal(A: Float[Array, "p p"]) -> Float[Array, " p"]:
    """The diagonal as one slice (``jnp.diagonal`` branches on the kind of device)."""
    return A.reshape(-1)[:: len(A) + 1]


def positive_part(G: Float[Array, "q q"]) -> Float[Array, "q q"]:
    """Nearest positive semidefinite matrix: negative eigenvalues set to zero."""
    q = G.shape[0]
    if q == 1:
        return jnp.maximum(G, 0)
    if q == 2:
        middle, half, off = (G[0, 0] + G[1, 1]) / 2, (G[0, 0] - G[1, 1]) / 2, G[1, 0]
        # of a double eigenvalue w, below, would be 0 / 0
        radius = jnp.sqrt(half * half + off * off) + 1e-300
        one, two = jnp.maximum(middle + radius, 0), jnp.maximum(middle - radius, 0)
        h, w = (one + two) / 2, (one - two) / (2 * radius)
        return jnp.stack(
            [jnp.stack([h + w * half, w * off]), jnp.stack([w * off, h - w * half])]
        )
    values, vectors = jnp.linalg.eigh(G)
    return (vectors * jnp.maximum(values, 0)) @ vectors.T
