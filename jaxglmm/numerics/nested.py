"""Nested factors: fine levels eliminated inside coarse ones, exactly and without fill.

Factors are ordered from fine to coarse; each level of factor k lies in one level of
every coarser factor l (its ancestor). Eliminating the fine levels changes only the
blocks of their ancestors, so the factor of M has the pattern of M itself:

    L_k L_k' = M_k ;  W_kl = L_k^-1 M_kl ;  M_lm -= sum over the k in l of W_kl' W_km

Cost: linear in the levels. The inverse on the same pattern runs back from coarse to
fine (Takahashi's recursion): with V_kl = (M^-1)_kl,

    V_kl = -L_k'^-1 sum_m W_km V_ml ;  V_kk = L_k'^-1 (L_k^-1 - sum_m W_km V_mk)
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float, Int, Scalar
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.system import AbstractFactor, AbstractSystem, Effects, Lambdas
from jaxglmm.runtime.arrays import jnp, segment_sum
from jaxglmm.runtime.trees import field

Pair = tuple[int, int]


class Nested(AbstractSystem):
    """Blocks of each factor, and its coupling with those it lies in.

    A[k]: (q_k, q_k, J_k); C[k][l - k - 1]: (q_k, q_l, J_k) for k < l, the coupling of
    each level with its ancestor, whose index is ancestors[k][l - k - 1]: (J_k,).
    """

    A: tuple[Float[Array, "q q J"], ...]
    C: tuple[tuple[Float[Array, "q k J"], ...], ...]
    ancestors: tuple[tuple[Int[Array, " J"], ...], ...]
    levels: tuple[int, ...] = field(static=True)

    @property
    def pairs(self) -> list[Pair]:
        K = len(self.levels)
        return [(k, m) for k in range(K) for m in range(k + 1, K)]

    def up(self, k: int, m: int, x: Array) -> Array:
        """Sum over the levels of k inside each level of m (last axis)."""
        index = self.ancestors[k][m - k - 1]
        total = segment_sum(jnp.moveaxis(x, -1, 0), index, self.levels[m])
        return jnp.moveaxis(total, 0, -1)

    def down(self, k: int, m: int, x: Array) -> Array:
        """Value of each level's ancestor (last axis)."""
        return x[..., self.ancestors[k][m - k - 1]]

    def normal(self, w: Effects) -> Effects:
        out = [
            small.apply(small.rows(a), list(x)) for a, x in zip(self.A, w, strict=True)
        ]
        for k, m in self.pairs:
            C = small.rows(self.C[k][m - k - 1])
            fine = small.apply(C, list(self.down(k, m, w[m])))
            coarse = small.apply(small.transpose(C), list(w[k]))
            out[k] = [a + b for a, b in zip(out[k], fine, strict=True)]
            out[m] = [a + self.up(k, m, b) for a, b in zip(out[m], coarse, strict=True)]
        return tuple(jnp.stack(x) for x in out)

    def squares(self) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
        K = len(self.levels)
        table: list[list[Array]] = [[jnp.zeros(())] * K for _ in range(K)]
        for k in range(K):
            table[k][k] = jnp.sum(self.A[k] ** 2, axis=-1)
        for k, m in self.pairs:  # every fine level meets one coarse level alone
            table[k][m] = jnp.sum(self.C[k][m - k - 1] ** 2, axis=-1)
            table[m][k] = table[k][m].T
        traces = [jnp.diagonal(jnp.sum(A, axis=-1)) for A in self.A]
        return jnp.block(table), jnp.concatenate(traces)

    def factor(self, lam: Lambdas) -> NestedFactor:
        K = len(self.levels)
        Lam = [small.lower(x) for x in lam]
        M = [
            small.plus_identity(_sandwich(Lam[k], small.rows(self.A[k]), Lam[k]))
            for k in range(K)
        ]
        off = {
            (k, m): _sandwich(Lam[k], small.rows(self.C[k][m - k - 1]), Lam[m])
            for k, m in self.pairs
        }
        L, W = [], {}
        for k in range(K):
            L.append(small.cholesky(M[k]))
            above = range(k + 1, K)
            for m in above:
                W[k, m] = small.forward_matrix(L[k], off[k, m])
            for m in above:
                M[m] = self._eliminate(k, m, M[m], W[k, m], W[k, m])
                for h in range(m + 1, K):
                    off[m, h] = self._eliminate(k, m, off[m, h], W[k, m], W[k, h])
        return NestedFactor(self, lam, L, W)

    def _eliminate(
        self, k: int, m: int, M: small.Matrix, left: small.Matrix, right: small.Matrix
    ) -> small.Matrix:
        change = small.matmul(small.transpose(left), right)
        summed = [[self.up(k, m, x) for x in row] for row in change]
        return small.subtract(M, summed)


def _sandwich(left: small.Matrix, A: small.Matrix, right: small.Matrix) -> small.Matrix:
    return small.matmul(small.transpose(left), small.matmul(A, right))


class NestedFactor(AbstractFactor):
    """L[k]: Cholesky factors of the diagonal blocks; W[k, m]: L_k^-1 M_km."""

    system: Nested
    lam: Lambdas
    L: list[small.Matrix]
    W: dict[Pair, small.Matrix]

    def log_det(self) -> Scalar:
        return 2 * sum(jnp.sum(small.log_diagonal(L)) for L in self.L)

    def forward(self, c: Effects) -> Effects:
        rest = [list(x) for x in c]
        out = []
        for k, L in enumerate(self.L):
            z = small.forward(L, rest[k])
            out.append(jnp.stack(z))
            for m in range(k + 1, len(self.L)):
                change = small.apply(small.transpose(self.W[k, m]), z)
                rest[m] = [
                    a - self.system.up(k, m, b)
                    for a, b in zip(rest[m], change, strict=True)
                ]
        return tuple(out)

    def backward(self, z: Effects) -> Effects:
        K = len(self.L)
        out: dict[int, Array] = {}
        for k in reversed(range(K)):
            v = list(z[k])
            for m in range(k + 1, K):
                known = list(self.system.down(k, m, out[m]))
                change = small.apply(self.W[k, m], known)
                v = [a - b for a, b in zip(v, change, strict=True)]
            out[k] = jnp.stack(small.backward(self.L[k], v))
        return tuple(out[k] for k in range(K))

    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        return self.blocks_of(self.selected())

    def selected(self) -> dict[Pair, small.Matrix]:
        """(M^-1)_km of each level of k and its ancestor in m, k <= m."""
        K = len(self.L)
        V: dict[Pair, small.Matrix] = {}
        for k in reversed(range(K)):
            for m in range(k + 1, K):  # V_km, from the blocks among k's ancestors
                V[k, m] = self._row(k, m, V)
            V[k, k] = self._diagonal(k, V)
        return V

    def blocks_of(
        self, selected: dict[Pair, small.Matrix]
    ) -> tuple[Float[Array, "q q J"], ...]:
        return tuple(
            small.stack(selected[k, k], self.system.A[k][0, 0])
            for k in range(len(self.L))
        )

    def _down(self, k: int, m: int, A: small.Matrix) -> small.Matrix:
        return [[self.system.down(k, m, x) for x in row] for row in A]

    def _row(self, k: int, m: int, V: dict[Pair, small.Matrix]) -> small.Matrix:
        total = None
        for h in range(k + 1, len(self.L)):
            if h <= m:
                block = self._down(k, h, V[h, m])  # indexed by the finer of the two
            else:
                block = small.transpose(self._down(k, m, V[m, h]))
            part = small.matmul(self.W[k, h], block)
            total = part if total is None else _add(total, part)
        assert total is not None
        columns = [small.backward(self.L[k], c) for c in small.transpose(total)]
        return [[-x for x in row] for row in small.transpose(columns)]

    def _diagonal(self, k: int, V: dict[Pair, small.Matrix]) -> small.Matrix:
        q = len(self.L[k])
        one = self.system.A[k][0, 0]
        eye = [[1.0 * (i == j) + 0 * one for j in range(q)] for i in range(q)]
        middle = small.forward_matrix(self.L[k], eye)
        for m in range(k + 1, len(self.L)):
            part = small.matmul(self.W[k, m], small.transpose(V[k, m]))
            middle = small.subtract(middle, part)
        columns = [small.backward(self.L[k], c) for c in small.transpose(middle)]
        return small.transpose(columns)


def _add(A: small.Matrix, B: small.Matrix) -> small.Matrix:
    return [
        [x + y for x, y in zip(a, b, strict=True)] for a, b in zip(A, B, strict=True)
    ]
