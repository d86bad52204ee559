"""One grouping factor with many columns: J blocks of q x q by batched LAPACK.

The same map as ``blocks`` where q is too large to unroll. LAPACK is called twice in a
row, for L and for L^-1; all else, derivatives included, is matrix products. That is on
purpose: in jaxlib 0.10 a batched LAPACK call on the CPU waits, on a thread of a pool,
for work that it gives to the same pool, so that as many such calls at once as there are
threads wait for ever.
"""

from __future__ import annotations

from typing import Any

import jax

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    inner,
)
from jaxglmm.runtime.arrays import is_host, jnp

Blocks = Float[Array, "J q q"]


def _root(M: Blocks) -> tuple[Blocks, Blocks]:
    """L with L L' = M, and L^-1."""
    if not is_host():
        return _device_root(M)
    L = jnp.linalg.cholesky(M)
    eye = jnp.broadcast_to(jnp.eye(M.shape[1], dtype=M.dtype), M.shape)
    return L, jnp.linalg.solve(L, eye)


@jax.custom_jvp
def _device_root(M: Blocks) -> tuple[Blocks, Blocks]:
    L = jax.lax.linalg.cholesky(M, symmetrize_input=False)
    eye = jnp.broadcast_to(jnp.eye(M.shape[1], dtype=M.dtype), M.shape)
    return L, jax.lax.linalg.triangular_solve(L, eye, left_side=True, lower=True)


@_device_root.defjvp
def _root_jvp(primals: tuple[Blocks], tangents: tuple[Blocks]) -> tuple:
    L, W = _device_root(*primals)
    (dM,) = tangents
    middle = W @ dM @ jnp.swapaxes(W, 1, 2)
    eye = jnp.eye(L.shape[1], dtype=L.dtype)
    phi = jnp.tril(middle) * (1 - eye / 2)
    return (L, W), (L @ phi, -phi @ W)


def _out(x: Float[Array, "J q K"]) -> Float[Array, "q K J"]:
    return jnp.transpose(x, (1, 2, 0))


def _in(x: Float[Array, "q K J"]) -> Float[Array, "J q K"]:
    return jnp.transpose(x, (2, 0, 1))


class Wide(AbstractSystem):
    """A: (q, q, J), the blocks Z_g'Z_g."""

    A: Float[Array, "q q J"]

    def normal(self, w: Effects) -> Effects:
        return (_out(_in(self.A) @ _in(w[0])),)

    def squares(self) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
        total = jnp.sum(self.A, axis=-1)
        return jnp.sum(self.A**2, axis=-1), jnp.diagonal(total)

    def factor(self, lam: Lambdas) -> WideFactor:
        A, Lam = _in(self.A), lam[0]
        M = Lam.T @ (A @ Lam) + jnp.eye(len(Lam), dtype=Lam.dtype)
        L, W = _root(M)
        return WideFactor(self, lam, L, W, A - _gram(W @ (Lam.T @ A)))


def _gram(W: Float[Array, "J q K"]) -> Float[Array, "J K K"]:
    return jnp.swapaxes(W, 1, 2) @ W


class WideFactor(AbstractFactor):
    """L: (J, q, q), the factors of the blocks of M; W: (J, q, q), their inverses.

    S: (J, q, q), the blocks of Z'V^-1Z.
    """

    system: Wide
    lam: Lambdas
    L: Blocks
    W: Blocks
    S: Blocks

    def log_det(self) -> Scalar:
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.L, axis1=1, axis2=2)))

    def forward(self, c: Effects) -> Effects:
        return (_out(self.W @ _in(c[0])),)

    def backward(self, z: Effects) -> Effects:
        return (_out(jnp.swapaxes(self.W, 1, 2) @ _in(z[0])),)

    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        return (_out(_gram(self.W)),)

    def selected(self) -> Float[Array, "q q J"]:
        """Lam M^-1 Lam'."""
        return _out(_gram(self.W @ self.lam[0].T))

    def traces(self, selected: Any = None) -> tuple[Float[Array, "q q"], ...]:
        return (jnp.sum(self.S, axis=0),)

    def gram(self, w: Effects) -> Float[Array, "K K"]:
        return inner(w[0], _out(self.S @ _in(w[0])))
