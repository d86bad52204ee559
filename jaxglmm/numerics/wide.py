"""One grouping factor with many columns: J blocks of q x q by batched LAPACK.

The same map as ``blocks`` where q is too large to unroll.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    inner,
)


def _solve(
    L: Float[Array, "J q q"], B: Float[Array, "J q K"], transposed: bool
) -> Array:
    return jax.lax.linalg.triangular_solve(
        L, B, left_side=True, lower=True, transpose_a=transposed
    )


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
        L = jax.lax.linalg.cholesky(M, symmetrize_input=False)
        LA = Lam.T @ A
        return WideFactor(self, lam, L, A - _gram(_solve(L, LA, False)))


def _gram(W: Float[Array, "J q K"]) -> Float[Array, "J K K"]:
    return jnp.swapaxes(W, 1, 2) @ W


class WideFactor(AbstractFactor):
    """L: (J, q, q) factors of the blocks of M; S: (J, q, q) blocks of Z'V^-1Z."""

    system: Wide
    lam: Lambdas
    L: Float[Array, "J q q"]
    S: Float[Array, "J q q"]

    def log_det(self) -> Scalar:
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.L, axis1=1, axis2=2)))

    def forward(self, c: Effects) -> Effects:
        return (_out(_solve(self.L, _in(c[0]), False)),)

    def backward(self, z: Effects) -> Effects:
        return (_out(_solve(self.L, _in(z[0]), True)),)

    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        eye = jnp.broadcast_to(jnp.eye(self.L.shape[1]), self.L.shape)
        return (_out(_gram(_solve(self.L, eye, False))),)

    def traces(self) -> tuple[Float[Array, "q q"], ...]:
        return (jnp.sum(self.S, axis=0),)

    def gram(self, w: Effects) -> Float[Array, "K K"]:
        return inner(w[0], _out(self.S @ _in(w[0])))
