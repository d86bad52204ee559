"""Rows of a design for models whose weights change: Z'WZ again and again.

A row belongs to one level of every factor. ``weigh(w)`` makes the structured system of
``numerics`` from row weights, ``spread`` takes effects to rows (Z b), ``collect`` rows
to effects (Z'r). The structure is chosen as in ``build``; indices and sizes are fixed
on the host, so that the device only gathers and sums. Rows are sorted by the largest
factor.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import numpy as np

from jaxglmm._typing import Array, Float, Int
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.arrow import Arrow, DenseCoupling, PairedCoupling
from jaxglmm.numerics.blocks import Blocks, BlocksFactor
from jaxglmm.numerics.nested import Nested
from jaxglmm.numerics.system import AbstractSystem, Effects
from jaxglmm.numerics.wide import Wide
from jaxglmm.runtime.arrays import added, jnp, put, segment_sum
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure import moments_of_design as _build
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.padding import bucket, empty, pad

Columns = Float[Array, "K n"] | list[Array]

WASTE = 1.5  # padded rows over rows, beyond which levels are not padded
SMALL_ROWS = 1024  # padded rows that are few anyway
LARGE_ROWS = 100_000  # padded rows beyond which columns outgrow the cache


class AbstractRows(eqx.Module):
    """Index and values of each factor: codes (n,), z (q, n), sizes of padded levels.

    Rows are flat, (n,), for every caller; ``folded`` gives the same rows in the shape
    that sums run best over, which is what loops use.
    """

    codes: tuple[Int[Array, " n"], ...]
    z: tuple[Float[Array, "q n"], ...]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def folded(self) -> AbstractRows:
        """The same rows in their folded shape."""
        return self

    def fold(self, x: Float[Array, "... n"]) -> Array:
        """Values of flat rows to folded ones."""
        return x

    def unfold(self, x: Array) -> Float[Array, " n"]:
        """The inverse of ``fold`` for one column."""
        return x

    def spread(self, b: Effects) -> Float[Array, " n"]:
        """Z b for one vector of effects, (q, 1, J) a factor."""
        total = 0.0
        for k, (z, x) in enumerate(zip(self.z, b, strict=True)):
            for i in range(len(z)):
                total = total + z[i] * self._at(k, x[i, 0])
        return total

    def collect(self, r: Columns) -> Effects:
        """Z'r, (q, K, J) a factor; r: (K, n), or K columns that need not be one."""
        out = []
        for k, z in enumerate(self.z):
            rows = [[self._sum(k, z[i] * x) for x in r] for i in range(len(z))]
            out.append(jnp.stack([jnp.stack(row) for row in rows]))
        return tuple(out)

    def level_sum(self, r: Float[Array, " n"]) -> Float[Array, " J"]:
        """Sum over the rows of each level of the first factor."""
        return self._sum(0, r)

    def largest(self, b: Float[Array, "q 1 J"]) -> Float[Array, " J"]:
        """The largest |z'b_g| of each level of the first factor, or more."""
        z = self.z[0]
        return sum(jnp.max(jnp.abs(z[i])) * jnp.abs(b[i, 0]) for i in range(len(z)))

    def _at(self, k: int, x: Float[Array, " J"]) -> Float[Array, " n"]:
        """The value of each row's level of factor k."""
        return x[self.codes[k]]

    def _sum(self, k: int, x: Float[Array, " n"]) -> Float[Array, " J"]:
        return segment_sum(x, self.codes[k], self.sizes[k], indices_are_sorted=k == 0)

    def _blocks(self, k: int, w: Float[Array, " n"]) -> Float[Array, "q q J"]:
        z = self.z[k]
        q = len(z)
        half = [[self._sum(k, w * z[i] * z[j]) for j in range(i + 1)] for i in range(q)]
        full = [[half[max(i, j)][min(i, j)] for j in range(q)] for i in range(q)]
        return small.stack(full, half[0][0])

    def _quadratic(self, k: int, N: small.Matrix) -> Float[Array, " n"]:
        """z'N_g z for the symmetric block N_g of each row's level of factor k."""
        z = self.z[k]
        out = 0.0
        for i in range(len(z)):
            for j in range(i + 1):
                here = z[i] * z[j] * self._at(k, N[i][j])
                out = out + (here if i == j else 2 * here)
        return out

    @abc.abstractmethod
    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        """The system Z'WZ."""

    @abc.abstractmethod
    def leverages(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        """d log|M| / dw, row by row: z'Lambda M^-1 Lambda'z, z the row of Z.

        factor: of ``weigh(w)``; selected: its ``selected()``.
        """


class NoRows(AbstractRows):
    """No factor at all: a generalised linear model."""

    def spread(self, b: Effects) -> Float[Array, " n"]:
        return jnp.zeros(())

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        raise NotImplementedError("a model without random effects has no system")

    def leverages(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        raise NotImplementedError("a model without random effects has no leverages")


class OneFactorRows(AbstractRows):
    """One factor, rows sorted by level."""

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        A = self._blocks(0, w)
        return Blocks(A) if len(A) <= _build.UNROLLED else Wide(A)

    def leverages(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        if isinstance(factor, BlocksFactor):
            return self._quadratic(0, selected)
        z, N = self.z[0], selected
        return sum(
            z[i] * jnp.sum(z * self._all_at(N[i]), axis=0) for i in range(len(z))
        )

    def _all_at(self, x: Float[Array, "q J"]) -> Array:
        """Values of the levels, several at once, at the rows."""
        return x[:, self.codes[0]]


class PaddedRows(OneFactorRows):
    """One factor whose levels have about as many rows each, all padded to ``height``.

    Row r of level g is at place r J + g, so that sums over rows run down columns.
    """

    height: int = eqx.field(static=True)

    def folded(self) -> AbstractRows:
        shape = (self.height, self.sizes[0])
        z = (self.z[0].reshape(len(self.z[0]), *shape),)
        return FoldedRows(self.codes, z, self.sizes, self.height)

    def fold(self, x: Float[Array, "... n"]) -> Array:
        return x.reshape(*x.shape[:-1], self.height, self.sizes[0])

    def unfold(self, x: Array) -> Float[Array, " n"]:
        return x.reshape(-1)

    def _at(self, k: int, x: Float[Array, " J"]) -> Float[Array, " n"]:
        return jnp.tile(x, self.height)

    def _sum(self, k: int, x: Float[Array, " n"]) -> Float[Array, " J"]:
        return jnp.sum(x.reshape(self.height, self.sizes[k]), axis=0)


class FoldedRows(PaddedRows):
    """The same, arrays of rows in shape (height, J)."""

    def folded(self) -> AbstractRows:
        return self

    def collect(self, r: Columns) -> Effects:
        whole = jnp.stack(r) if isinstance(r, list) else r
        return (jnp.stack([jnp.sum(whole * z, axis=1) for z in self.z[0]]),)

    def _at(self, k: int, x: Float[Array, " J"]) -> Array:
        return x[None]

    def _all_at(self, x: Float[Array, "q J"]) -> Array:
        return x[:, None]

    def _sum(self, k: int, x: Float[Array, "height J"]) -> Float[Array, " J"]:
        return jnp.sum(x, axis=0)


class NestedRows(AbstractRows):
    """Each factor inside the next; ancestors as in ``numerics.nested``."""

    ancestors: tuple[tuple[Int[Array, " J"], ...], ...]

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        K = len(self.sizes)
        C = []
        for k in range(K):
            own = []
            for m in range(k + 1, K):
                rows = [[self._sum(k, w * a * b) for b in self.z[m]] for a in self.z[k]]
                own.append(small.stack(rows, rows[0][0]))
            C.append(tuple(own))
        A = tuple(self._blocks(k, w) for k in range(K))
        return Nested(A, tuple(C), self.ancestors, self.sizes)

    def leverages(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        K = len(self.sizes)
        scaled = [
            small.apply(small.transpose(small.lower(lam)), list(z))
            for lam, z in zip(factor.lam, self.z, strict=True)
        ]
        out = 0.0
        for k in range(K):
            for m in range(k, K):  # blocks live at the levels of the finer factor
                for i, x in enumerate(scaled[k]):
                    for j, y in enumerate(scaled[m]):
                        block = self._at(k, selected[k, m][i][j])
                        out = out + (1.0 if k == m else 2.0) * x * y * block
        return out


class ArrowRows(AbstractRows):
    """Crossed factors.

    columns: column of block 2 of each row's level, (n,) a later factor; entry: (n,) the
    row's entry of the coupling, a later factor (sparse coupling only); row, col, pairs:
    as in ``PairedCoupling``.
    """

    columns: tuple[Int[Array, " n"], ...]
    entry: tuple[Int[Array, " n"], ...] | None
    row: Int[Array, " E"] | None
    col: Int[Array, " E"] | None
    pair_one: Int[Array, " P"] | None
    pair_two: Int[Array, " P"] | None
    pair_target: Int[Array, " P"] | None

    @property
    def m(self) -> int:
        """Columns of block 2."""
        return sum(s * len(z) for s, z in zip(self.sizes[1:], self.z[1:], strict=True))

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        A = self._blocks(0, w)
        head = Blocks(A) if len(A) <= _build.UNROLLED else Wide(A)
        sides = tuple(
            (s, len(z)) for s, z in zip(self.sizes[1:], self.z[1:], strict=True)
        )
        coupling = self._dense(w) if self.entry is None else self._sparse(w)
        return Arrow(head, coupling, self._second(w), sides)

    def _dense(self, w: Float[Array, " n"]) -> DenseCoupling:
        m = self.m
        out = []
        for i in range(len(self.z[0])):
            flat = jnp.zeros(self.sizes[0] * m, w.dtype)
            for column, z in zip(self.columns, self.z[1:], strict=True):
                for j in range(len(z)):
                    target = self.codes[0] * m + column + j
                    flat = added(flat, target, w * self.z[0][i] * z[j])
            out.append(flat.reshape(self.sizes[0], m))
        return DenseCoupling(jnp.stack(out))

    def _sparse(self, w: Float[Array, " n"]) -> PairedCoupling:
        assert self.entry is not None
        E = len(self.row)  # pyright: ignore[reportArgumentType]
        value = []
        for i in range(len(self.z[0])):
            total = jnp.zeros(E, w.dtype)
            for entry, z in zip(self.entry, self.z[1:], strict=True):
                for j in range(len(z)):
                    total = added(total, entry + j, w * self.z[0][i] * z[j])
            value.append(total)
        return PairedCoupling(
            self.row,  # pyright: ignore[reportArgumentType]
            self.col,  # pyright: ignore[reportArgumentType]
            jnp.stack(value),
            self.pair_one,  # pyright: ignore[reportArgumentType]
            self.pair_two,  # pyright: ignore[reportArgumentType]
            self.pair_target,  # pyright: ignore[reportArgumentType]
            self.sizes[0],
            self.m,
        )

    def leverages(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        """From N = Lambda M^-1 Lambda' on the pattern of Z'Z.

        N_22 = P, N_12 = -F X, N_11 = F + F X N' F with the coupling N_g and X = N_g P.
        """
        F, P, X, outer = factor.F, selected.P, selected.across, selected.outer
        q, m = len(F), self.m
        inner = [[sum_products(F, outer, i, j) for j in range(q)] for i in range(q)]
        own = [[F[i, j] + inner[i][j] for j in range(q)] for i in range(q)]
        out = self._quadratic(0, own)
        z, half = self.z[0], []
        for i in range(q):
            half.append(sum(z[j] * self._at(0, F[i, j]) for j in range(q)))
        diagonal = P.reshape(-1)[:: m + 1]
        for a, (ca, za) in enumerate(zip(self.columns, self.z[1:], strict=True)):
            for i in range(len(za)):
                for r in range(q):
                    out = out - 2 * half[r] * za[i] * self._across(X[r], a, i)
                out = out + za[i] * za[i] * diagonal[ca + i]
                for j in range(i):
                    out = out + 2 * za[i] * za[j] * P[ca + i, ca + j]
            for cb, zb in zip(self.columns[:a], self.z[1 : a + 1], strict=True):
                for i in range(len(za)):
                    for j in range(len(zb)):
                        out = out + 2 * za[i] * zb[j] * P[ca + i, cb + j]
        return out

    def _across(self, X: Array, a: int, i: int) -> Float[Array, " n"]:
        """Entry of N_g P in the column of component i of later factor a."""
        if self.entry is None:
            return X[self.codes[0], self.columns[a] + i]
        return X[self.entry[a] + i]

    def _second(self, w: Float[Array, " n"]) -> Float[Array, "m m"]:
        m = self.m
        flat = jnp.zeros(m * m, w.dtype)
        start = 0
        for a, (ca, za) in enumerate(zip(self.columns, self.z[1:], strict=True)):
            q, J = len(za), self.sizes[a + 1]
            blocks = self._blocks(a + 1, w)
            level = start + jnp.arange(J) * q
            for i in range(q):
                for j in range(q):
                    flat = put(flat, (level + i) * m + level + j, blocks[i, j])
            for cb, zb in zip(self.columns[:a], self.z[1 : a + 1], strict=True):
                for i in range(q):
                    for j in range(len(zb)):
                        x = w * za[i] * zb[j]
                        flat = added(flat, (ca + i) * m + cb + j, x)
                        flat = added(flat, (cb + j) * m + ca + i, x)
            start += J * q
        return flat.reshape(m, m)


def sum_products(
    F: Float[Array, "q q J"], A: Float[Array, "q q J"], i: int, j: int
) -> Float[Array, " J"]:
    """Entry (i, j) of F A F for symmetric F."""
    q = len(F)
    return sum(F[i, a] * A[a, b] * F[b, j] for a in range(q) for b in range(q))


def order(factors: list[Factor], n: int) -> np.ndarray:
    """(n,) rows sorted by the level of the largest factor."""
    if not factors:
        return np.arange(n)
    return np.argsort(factors[0].codes, kind="stable")


class Layout(eqx.Module):
    """Index arrays; n_places: rows with padding; places: of the sorted rows, or None.

    Rows without ``places`` are the first ones, padding has the last level; in either
    case its weight is zero.
    """

    rows: AbstractRows
    n_places: int
    places: np.ndarray | None = None


def rows(factors: list[Factor], n_padded: int) -> Layout:
    """Index arrays of sorted rows.

    factors: largest first, rows in their final order; n_padded: rows after padding,
    where their number is free.
    """
    if not factors:
        return Layout(NoRows((), (), ()), n_padded)
    n = len(factors[0].codes)
    chain = _chain(factors) if len(factors) > 1 else None
    arrow = len(factors) > 1 and chain is None
    sizes = [
        bucket(f.n_levels, 16 if arrow and k else 8) for k, f in enumerate(factors)
    ]
    if len(factors) == 1:
        padded = _padded_rows(factors[0], sizes[0], n_padded)
        if padded is not None:
            return padded
    codes = tuple(_pad_codes(f.codes, n_padded) for f in factors)
    z = tuple(_values(f, n, n_padded) for f in factors)
    if len(factors) == 1:
        return Layout(OneFactorRows(codes, z, tuple(sizes)), n_padded)
    if chain is not None:
        ancestors = tuple(
            tuple(pad(x, size) for x in up)
            for up, size in zip(chain, sizes, strict=True)
        )
        return Layout(NestedRows(codes, z, tuple(sizes), ancestors), n_padded)
    return Layout(_arrow_rows(factors, codes, z, sizes, n_padded), n_padded)


def _padded_rows(factor: Factor, J: int, n_padded: int) -> Layout | None:
    """Every level with equally many rows, where that wastes little."""
    counts = np.bincount(factor.codes, minlength=J)
    height = int(counts.max())
    if height > 8:
        height = bucket(height)
    size = height * J
    if size > max(WASTE * n_padded, SMALL_ROWS) or size > LARGE_ROWS:
        return None
    starts = np.cumsum(counts) - counts
    row = np.arange(len(factor.codes)) - starts[factor.codes]
    places = row * J + factor.codes
    z = np.zeros((factor.q, size))
    z[:, places] = 1.0 if factor.values is None else factor.values.T
    codes = np.tile(np.arange(J, dtype=np.int32), height)
    return Layout(PaddedRows((codes,), (z,), (J,), height), size, places)


def _chain(factors: list[Factor]) -> list[list[np.ndarray]] | None:
    """Ancestors of each factor's levels where all are nested, else None."""
    if max(f.q for f in factors) > small.UNROLL:
        return None
    parents = []
    for k in range(len(factors) - 1):
        parent = cross.parents(factors[k], factors[k + 1])
        if parent is None:
            return None
        parents.append(parent)
    out: list[list[np.ndarray]] = []
    for k in range(len(factors)):
        up: list[np.ndarray] = []
        for m in range(k + 1, len(factors)):
            up.append(parents[m - 1] if m == k + 1 else parents[m - 1][up[-1]])
        out.append(up)
    return out


def _pad_codes(codes: np.ndarray, size: int) -> np.ndarray:
    out = empty((size,), np.int32)
    out[: len(codes)] = codes
    out[len(codes) :] = codes.max()
    return out


def _values(factor: Factor, n: int, size: int) -> np.ndarray:
    out = empty((factor.q, size))
    out[:, :n] = 1.0 if factor.values is None else factor.values.T
    out[:, n:] = 0.0
    return out


def _arrow_rows(
    factors: list[Factor],
    codes: tuple[np.ndarray, ...],
    z: tuple[np.ndarray, ...],
    sizes: list[int],
    n_padded: int,
) -> ArrowRows:
    first, others = factors[0], factors[1:]
    starts = np.cumsum([0] + [s * f.q for s, f in zip(sizes[1:], others, strict=True)])
    m = int(starts[-1])
    _build.check_size(factors, m)
    columns = tuple(
        (starts[k] + c * f.q).astype(np.int32)
        for k, (c, f) in enumerate(zip(codes[1:], others, strict=True))
    )
    cells = [_cells(first, f) for f in others]
    n_entries = sum(len(c[0]) * f.q for c, f in zip(cells, others, strict=True))
    degree = np.zeros(sizes[0])
    for (level, _, _), f in zip(cells, others, strict=True):
        degree += f.q * np.bincount(level, minlength=sizes[0])
    n_pairs = float(np.sum(degree * (degree + 1) / 2))
    filled = n_entries / (first.n_levels * m)
    if filled > _build.FILLED or n_pairs > _build.MOST_PAIRS:
        nothing = (None,) * 6
        return ArrowRows(codes, z, tuple(sizes), columns, *nothing)
    row = np.concatenate(
        [np.repeat(c[0], f.q) for c, f in zip(cells, others, strict=True)]
    )
    col = np.concatenate(
        [
            (starts[k] + c[1][:, None] * f.q + np.arange(f.q)).ravel()
            for k, (c, f) in enumerate(zip(cells, others, strict=True))
        ]
    )
    sort = np.lexsort((col, row))
    place = np.empty(len(sort), np.int64)
    place[sort] = np.arange(len(sort))
    entry, begin = [], 0
    for (level, _, index), f in zip(cells, others, strict=True):
        # components of one cell stay neighbours in the sorted list
        entry.append(_pad_codes(place[begin + index * f.q], n_padded))
        begin += len(level) * f.q
    listed = cross.EntryList(row[sort], col[sort])
    one, two = listed.pairs(sizes[0])
    E, P = bucket(len(row) + 1), bucket(len(one))
    return ArrowRows(
        codes,
        z,
        tuple(sizes),
        columns,
        tuple(entry),
        _build.pad_index(listed.row, E),
        pad(listed.col, E),
        # padded pairs point at a padded entry, whose value is zero
        np.concatenate([one, np.full(P - len(one), E - 1, np.int32)]),
        np.concatenate([two, np.full(P - len(two), E - 1, np.int32)]),
        pad(listed.col[one].astype(np.int32) * m + listed.col[two], P),
    )


def _cells(first: Factor, factor: Factor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Occupied cells (level of first, level of factor) and each row's cell."""
    J2 = factor.n_levels
    key = first.codes.astype(np.int64) * J2 + factor.codes
    cells, index = cross.occupied(key, first.n_levels * J2)
    return cells // J2, cells % J2, index
