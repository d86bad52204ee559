"""Rows of factors with many columns: structures over time, levels that are related.

Sums over pairs of columns would be written out thousands of times. Instead rows that
use one column each are counted by cell, and of a factor with one level (levels with a
known covariance between them) rows that are alike are put together, so that Z'WZ is one
matrix product over the distinct ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._typing import Array, Float, Int
from jaxglmm.numerics.arrow import Arrow, DenseCoupling
from jaxglmm.numerics.blocks import Blocks
from jaxglmm.numerics.chains import ChainFactor, ChainSystem
from jaxglmm.numerics.system import AbstractSystem, Effects
from jaxglmm.numerics.wide import Wide
from jaxglmm.runtime.arrays import added, jnp, put, segment_sum
from jaxglmm.runtime.trees import field, tree_at
from jaxglmm.structure import moments_of_design as _build
from jaxglmm.structure.alike import FEW, distinct, is_of_all_rows, padded_levels, single
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.padding import bucket, pad
from jaxglmm.structure.rows import AbstractRows, Columns, sum_products


class CellRows(AbstractRows):
    """One factor, each row in one column: codes (n,) of levels, z (1, n) its value.

    cell: (n,) column * J + level; q: columns; chain: whether the effects of a level
    are one (``numerics.chains``).
    """

    cell: Int[Array, " n"]
    q: int = field(static=True)
    chain: bool = field(static=True)

    @property
    def sides(self) -> tuple[int, ...]:
        return (self.q,)

    def spread(self, b: Effects) -> Float[Array, " n"]:
        return b[0][:, 0].reshape(-1)[self.cell] * self.z[0][0]

    def collect(self, r: Columns) -> Effects:
        J = self.sizes[0]
        sums = [self._by_cell(self.z[0][0] * x) for x in r]
        return (jnp.stack([x.reshape(self.q, J) for x in sums], axis=1),)

    def _by_cell(self, x: Float[Array, " n"]) -> Array:
        return segment_sum(x, self.cell, self.q * self.sizes[0])

    def largest(self, b: Float[Array, "q 1 J"]) -> Float[Array, " J"]:
        return jnp.max(jnp.abs(self.z[0])) * jnp.max(jnp.abs(b[:, 0]), axis=0)

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        A = self._by_cell(w * self.z[0][0] ** 2).reshape(self.q, self.sizes[0])
        if self.chain:
            return ChainSystem(A)
        return Wide(jnp.eye(self.q, dtype=A.dtype)[:, :, None] * A[None])

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        if isinstance(factor, ChainFactor):
            diagonal = selected.diagonal
        else:
            diagonal = jnp.einsum("iig->ig", selected)
        return self.z[0][0] ** 2 * diagonal.reshape(-1)[self.cell]

    def turned(self, k: int, T: np.ndarray) -> AbstractRows:
        size = np.diagonal(T)
        if not np.array_equal(T, np.diag(size)):
            raise NotImplementedError("columns of a structure are not mixed")
        z = self.z[0] * size[np.asarray(self.cell) // self.sizes[0]]
        return tree_at(lambda rows: rows.z, self, (z,))


class OneLevelRows(AbstractRows):
    """Factors of one level: codes ((n,),) which distinct row, z (q, r) these."""

    def spread(self, b: Effects) -> Float[Array, " n"]:
        each = (x[:, 0, 0] @ z for x, z in zip(b, self.z, strict=True))
        return sum(each, jnp.zeros(()))[self.codes[0]]

    def collect(self, r: Columns) -> Effects:
        sums = jnp.stack([self._alike(x) for x in r], axis=1)
        return tuple((z @ sums)[:, :, None] for z in self.z)

    def _alike(self, x: Float[Array, " n"]) -> Float[Array, " r"]:
        return segment_sum(x, self.codes[0], self.z[0].shape[1])

    def level_sum(self, r: Float[Array, " n"]) -> Float[Array, " 1"]:
        return jnp.sum(r)[None]

    def largest(self, b: Float[Array, "q 1 1"]) -> Float[Array, " 1"]:
        return jnp.max(jnp.abs(b[:, 0, 0] @ self.z[0]))[None]

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        Z = jnp.concatenate(self.z)
        A, q = (Z * self._alike(w)) @ Z.T, len(self.z[0])
        head = Wide(A[:q, :q, None])
        if len(self.z) == 1:
            return head
        sides = tuple((1, len(z)) for z in self.z[1:])
        return Arrow(head, DenseCoupling(A[:q, None, q:]), A[q:, q:], sides)

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        if len(self.z) == 1:
            N = selected[:, :, 0]
        else:  # as ``ArrowRows`` has it
            F, X = factor.F[:, :, 0], factor.F[:, :, 0] @ selected.across[:, 0]
            own = F + F @ selected.outer[:, :, 0] @ F
            N = jnp.block([[own, -X], [-X.T, selected.P]])
        return _squares(N, jnp.concatenate(self.z))[self.codes[0]]


class AlikeRows(AbstractRows):
    """Several factors, of the later ones at least one with many columns.

    codes, z: of the first factor by row, of the others by distinct row of theirs (r);
    cell: (n,) pair of a level of the first and a distinct row of the others; cell_level
    and cell_row: (E,) these two; alike: (n,) the distinct row.
    """

    alike: Int[Array, " n"]
    cell: Int[Array, " n"]
    cell_level: Int[Array, " E"]
    cell_row: Int[Array, " E"]

    def _whole(self) -> Float[Array, "m r"]:
        """The distinct rows of the later factors, a column of Z a row."""
        out = []
        for codes, z, J in zip(self.codes[1:], self.z[1:], self.sizes[1:], strict=True):
            if J == 1:
                out.append(z)
                continue
            q, r = z.shape
            full, at = jnp.zeros((J * q, r), z.dtype), jnp.arange(r)
            for i in range(q):
                full = put(full, (codes * q + i, at), z[i])
            out.append(full)
        return jnp.concatenate(out)

    def _flat(self, b: Effects) -> Array:
        """Effects of the later factors as columns of ``_whole``."""
        return jnp.concatenate(
            [jnp.transpose(x, (2, 0, 1)).reshape(-1, x.shape[1]) for x in b]
        )

    def spread(self, b: Effects) -> Float[Array, " n"]:
        rest = (self._flat(b[1:])[:, 0] @ self._whole())[self.alike]
        return rest + sum(
            self.z[0][i] * self._at(0, b[0][i, 0]) for i in range(len(self.z[0]))
        )

    def collect(self, r: Columns) -> Effects:
        z = self.z[0]
        first = [[self._sum(0, z[i] * x) for x in r] for i in range(len(z))]
        n_rows = self.z[1].shape[1]
        sums = jnp.stack([segment_sum(x, self.alike, n_rows) for x in r], axis=1)
        flat, out, start = self._whole() @ sums, [], 0
        for own, J in zip(self.z[1:], self.sizes[1:], strict=True):
            q = len(own)
            part = flat[start : start + J * q].reshape(J, q, -1)
            out.append(jnp.transpose(part, (1, 2, 0)))
            start += J * q
        return (jnp.stack([jnp.stack(row) for row in first]), *out)

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        Z, z = self._whole(), self.z[0]
        A = self._blocks(0, w)
        head = Blocks(A) if len(A) <= _build.UNROLLED else Wide(A)
        E, J = len(self.cell_level), self.sizes[0]
        N = []
        for own in z:
            total = segment_sum(w * own, self.cell, E)
            rows = total[:, None] * Z.T[self.cell_row]
            N.append(added(jnp.zeros((J, len(Z)), w.dtype), self.cell_level, rows))
        second = (Z * segment_sum(w, self.alike, Z.shape[1])) @ Z.T
        sides = tuple(
            (J, len(own)) for J, own in zip(self.sizes[1:], self.z[1:], strict=True)
        )
        return Arrow(head, DenseCoupling(jnp.stack(N)), second, sides)

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        """As ``ArrowRows`` has it."""
        F, P, X, outer = factor.F, selected.P, selected.across, selected.outer
        q, Z, z = len(F), self._whole(), self.z[0]
        own = [
            [F[i, j] + sum_products(F, outer, i, j) for j in range(q)] for i in range(q)
        ]
        out = self._quadratic(0, own) + _squares(P, Z)[self.alike]
        for r in range(q):
            half = sum(z[j] * self._at(0, F[r, j]) for j in range(q))
            across = X[r][self.cell_level] * Z.T[self.cell_row]
            out = out - 2 * half * jnp.sum(across, axis=1)[self.cell]
        return out


def _squares(N: Float[Array, "q q"], z: Float[Array, "q r"]) -> Float[Array, " r"]:
    """z'N z of each column of z."""
    return jnp.sum(z * (N @ z), axis=0)


# On the host --------------------------------------------------------------------------


def wide_rows(factors: list[Factor], n_padded: int) -> AbstractRows | None:
    """The rows of these factors, sorted; None where another kind is theirs."""
    many = [f for f in factors if f.q > FEW or is_of_all_rows(f)]
    if not many or any(f.values is None for f in many):
        return None
    if all(f.n_levels == 1 for f in factors):
        values = [f.whole for f in factors]
        first, kind = distinct(values)
        size = bucket(len(first))
        z = tuple(pad(x[first].T, size) for x in values)
        return OneLevelRows((_codes(kind, n_padded),), z, (1,) * len(z))
    if len(factors) == 1:
        cells = single(factors[0].whole)
        return None if cells is None else _cell_rows(factors[0], *cells, n_padded)
    if any(f.n_levels > 1 for f in many):
        return None
    return _alike_rows(factors, n_padded)


def _cell_rows(
    factor: Factor, column: np.ndarray, value: np.ndarray, n_padded: int
) -> CellRows:
    J = bucket(factor.n_levels)
    return CellRows(
        (_codes(factor.codes, n_padded),),
        (pad(value[None], n_padded),),
        (J,),
        _codes(column * J + factor.codes, n_padded),
        factor.q,
        factor.covariance.is_chain,
    )


def _alike_rows(factors: list[Factor], n_padded: int) -> AlikeRows:
    first, others = factors[0], factors[1:]
    values = [f.whole for f in others]
    whole = [
        np.concatenate([f.codes[:, None], v], axis=1)
        for f, v in zip(others, values, strict=True)
    ]
    at, kind = distinct(whole)
    size = bucket(len(at))
    sizes = [padded_levels(f) for f in factors]
    cells, cell = np.unique(first.codes * np.int64(size) + kind, return_inverse=True)
    E = bucket(len(cells) + 1)
    return AlikeRows(
        (_codes(first.codes, n_padded), *(pad(f.codes[at], size) for f in others)),
        (pad(first.whole.T, n_padded), *(pad(v[at].T, size) for v in values)),
        tuple(sizes),
        _codes(kind, n_padded),
        _codes(cell.reshape(-1), n_padded),
        pad((cells // size).astype(np.int32), E),
        pad((cells % size).astype(np.int32), E),
    )


def _codes(codes: np.ndarray, size: int) -> np.ndarray:
    """Padded by the last level, whose order is kept where there is one."""
    out = np.full(size, codes.max(), np.int32)
    out[: len(codes)] = codes
    return out
