"""One grouping factor with few columns: M is J independent q x q blocks, unrolled.

Everything is element-wise along the levels: no LAPACK call, no n. With A_g = Z_g'Z_g,
M_g = Lam'A_gLam + I = L_gL_g' and N_g = Lam M_g^-1 Lam', the blocks of Z'V^-1Z are
S_g = A_g - A_gN_gA_g, for any Lam, singular ones included.
"""

from __future__ import annotations

from typing import Any

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics import spd
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    inner,
)
from jaxglmm.runtime.arrays import jnp


class Blocks(AbstractSystem):
    """A: (q, q, J), the blocks Z_g'Z_g."""

    A: Float[Array, "q q J"]

    def normal(self, w: Effects) -> Effects:
        return (jnp.stack(small.apply(small.rows(self.A), list(w[0]))),)

    def squares(self) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
        total = jnp.sum(self.A, axis=-1)
        return jnp.sum(self.A**2, axis=-1), spd.diagonal(total)

    def factor(self, lam: Lambdas) -> BlocksFactor:
        return BlocksFactor(self, lam, _cholesky(self.A, lam[0]))


def _cholesky(A: Float[Array, "q q J"], lam: Float[Array, "q q"]) -> small.Matrix:
    Lam = small.lower(lam)
    AL = small.matmul(small.rows(A), Lam)
    return small.cholesky(
        small.plus_identity(small.symmetric(small.transpose(Lam), AL))
    )


class BlocksFactor(AbstractFactor):
    """L: the Cholesky factors of the blocks of M, entry by entry."""

    system: Blocks
    lam: Lambdas
    L: small.Matrix

    def _N(self) -> small.Matrix:
        W = small.forward_matrix(self.L, small.transpose(small.lower(self.lam[0])))
        return small.symmetric(small.transpose(W), W)

    def _S(self) -> small.Matrix:
        A = small.rows(self.system.A)
        return small.subtract(A, small.symmetric(A, small.matmul(self._N(), A)))

    def log_det(self) -> Scalar:
        return 2 * jnp.sum(small.log_diagonal(self.L))

    def forward(self, c: Effects) -> Effects:
        return (jnp.stack(small.forward(self.L, list(c[0]))),)

    def backward(self, z: Effects) -> Effects:
        return (jnp.stack(small.backward(self.L, list(z[0]))),)

    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        q = len(self.L)
        one = self.system.A[0, 0]
        columns = [
            small.solve(self.L, [1.0 * (i == j) + 0 * one for i in range(q)])
            for j in range(q)
        ]
        return (small.stack(columns, one),)

    def selected(self) -> small.Matrix:
        """Lam M^-1 Lam', entry by entry."""
        return self._N()

    def traces(self, selected: Any = None) -> tuple[Float[Array, "q q"], ...]:
        return (jnp.sum(small.stack(self._S(), self.system.A[0, 0]), axis=-1),)

    def project(
        self, B: Effects, RR: Float[Array, "r r"]
    ) -> tuple[Float[Array, "r r"], Effects]:
        rows = list(B[0])
        NB = small.apply(self._N(), rows)
        ANB = small.apply(small.rows(self.system.A), NB)
        T = jnp.stack([b - x for b, x in zip(rows, ANB, strict=True)])
        return RR - inner(B[0], jnp.stack(NB)), (T,)

    def gram(self, w: Effects) -> Float[Array, "K K"]:
        return inner(w[0], jnp.stack(small.apply(self._S(), list(w[0]))))
