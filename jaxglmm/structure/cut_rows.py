"""Rows of generalised models whose levels are shared among devices.

Each device has the rows of its own levels of the largest factor, as many places as the
others. What goes from levels to rows and back stays on a device; sums over levels of
other factors are made there and added up. Indices are those of the whole, so that
rows, seen from outside, are like any others.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxglmm._typing import Array, Float
from jaxglmm.numerics.arrow import DenseCoupling, PairedCoupling
from jaxglmm.numerics.cut_coupling import DENSE, CutDense, CutPairs
from jaxglmm.runtime.arrays import segment_sum
from jaxglmm.runtime.levels import LAST, WHOLE, each, last, number, total
from jaxglmm.runtime.trees import field
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.padding import bucket, empty
from jaxglmm.structure.rows import AbstractRows, ArrowRows, OneFactorRows

UNEVEN = 1.5  # places over rows, beyond which levels are not shared


class CutOneFactor(OneFactorRows):
    """One factor."""

    mesh: Any = field(static=True, kw_only=True)

    def _at(self, k: int, x: Float[Array, " J"]) -> Float[Array, " n"]:
        return _at(self, k, x)

    def _sum(self, k: int, x: Float[Array, " n"]) -> Float[Array, " J"]:
        return _sum(self, k, x)

    def _all_at(self, x: Float[Array, "q J"]) -> Array:
        def own(x: Array, codes: Array) -> Array:
            return x[:, codes - number() * x.shape[-1]]

        return each(own, self.mesh, (last(2), LAST), last(2))(x, self.codes[0])


class CutArrow(ArrowRows):
    """Crossed factors."""

    mesh: Any = field(static=True, kw_only=True)

    def there(self) -> ArrowRows:
        """On a device: its own rows and levels, counted from zero."""
        J, k = self.sizes[0] // self.mesh.size, number()
        codes = (self.codes[0] - k * J, *self.codes[1:])
        own = codes, self.z, (J, *self.sizes[1:]), self.columns
        if self.entry is None:
            return ArrowRows(*own, *(None,) * 6)
        E = len(self.row)  # pyright: ignore[reportArgumentType]
        return ArrowRows(
            *own,
            tuple(x - k * E for x in self.entry),
            self.row - k * J,  # pyright: ignore[reportOptionalOperand]
            self.col,
            self.pair_one - k * E,  # pyright: ignore[reportOptionalOperand]
            self.pair_two - k * E,  # pyright: ignore[reportOptionalOperand]
            self.pair_target,
        )

    def _at(self, k: int, x: Float[Array, " J"]) -> Float[Array, " n"]:
        return _at(self, k, x)

    def _sum(self, k: int, x: Float[Array, " n"]) -> Float[Array, " J"]:
        return _sum(self, k, x)

    def _dense(self, w: Float[Array, " n"]) -> DenseCoupling:
        def own(rows: CutArrow, w: Array) -> Array:
            return rows.there()._dense(w).N

        N = each(own, self.mesh, (_specs(self), LAST), DENSE)(self, w)
        return CutDense(N, mesh=self.mesh)

    def _sparse(self, w: Float[Array, " n"]) -> PairedCoupling:
        def own(rows: CutArrow, w: Array) -> Array:
            return rows.there()._sparse(w).value

        return CutPairs(
            self.row,  # pyright: ignore[reportArgumentType]
            self.col,  # pyright: ignore[reportArgumentType]
            each(own, self.mesh, (_specs(self), LAST), last(2))(self, w),
            self.pair_one,  # pyright: ignore[reportArgumentType]
            self.pair_two,  # pyright: ignore[reportArgumentType]
            self.pair_target,  # pyright: ignore[reportArgumentType]
            self.sizes[0],
            self.m,
            mesh=self.mesh,
        )

    def _across(self, X: Array, a: int, i: int) -> Float[Array, " n"]:
        def own(rows: CutArrow, X: Array) -> Array:
            return rows.there()._across(X, a, i)

        return each(own, self.mesh, (_specs(self), LAST), LAST)(self, X)


def _specs(rows: AbstractRows) -> Any:
    """Every array of the rows is cut along its last axis."""
    return jax.tree.map(lambda x: last(x.ndim), rows)


def _at(rows: Any, k: int, x: Array) -> Array:
    """The value of each row's level of factor k; levels of the first are cut."""

    def own(x: Array, codes: Array) -> Array:
        return x[codes if k else codes - number() * len(x)]

    return each(own, rows.mesh, (WHOLE if k else LAST, LAST), LAST)(x, rows.codes[k])


def _sum(rows: Any, k: int, x: Array) -> Array:
    """Sums over the rows of each level of factor k."""
    J = rows.sizes[k] if k else rows.sizes[k] // rows.mesh.size

    def own(x: Array, codes: Array) -> Array:
        if k:
            return total(segment_sum(x, codes, J))
        return segment_sum(x, codes - number() * J, J, indices_are_sorted=True)

    return each(own, rows.mesh, (LAST, LAST), WHOLE if k else LAST)(x, rows.codes[k])


# How rows are laid out ----------------------------------------------------------------


def cut(
    rows: AbstractRows, factors: list[Factor], mesh: Mesh
) -> tuple[AbstractRows, np.ndarray] | None:
    """Rows by devices, and the places of the sorted rows; None where not to be cut.

    rows: of sorted rows, as ``row_layout`` makes them for one device.
    """
    crossed = isinstance(rows, ArrowRows)
    if not crossed and type(rows) is not OneFactorRows:
        return None
    n, D = len(factors[0].codes), mesh.size
    J = 8 * -(-factors[0].n_levels // (8 * D))  # levels of a device
    level = factors[0].codes // J
    places, size = _places(level, D)
    if D * size > max(UNEVEN * n, 64 * D):
        return None
    n_places = D * size

    def moved(x: np.ndarray, fill: Any = 0) -> np.ndarray:
        out = empty((*x.shape[:-1], n_places), x.dtype)
        out[:] = fill
        out[..., places] = x[..., :n]
        return out

    end = np.repeat((np.arange(D, dtype=np.int32) + 1) * J - 1, size)
    codes = (moved(rows.codes[0], end), *(moved(x) for x in rows.codes[1:]))
    sizes = (D * J, *rows.sizes[1:])
    z = tuple(moved(x) for x in rows.z)
    if not crossed:
        return CutOneFactor(codes, z, sizes, mesh=mesh), places
    columns = tuple(moved(x) for x in rows.columns)
    if rows.entry is None:
        return CutArrow(codes, z, sizes, columns, *(None,) * 6, mesh=mesh), places
    spread, lists = _lists(rows, J, D)
    entry = []
    for x, zk in zip(rows.entry, rows.z[1:], strict=True):
        # components of one cell are neighbours, and stay so
        last_one = np.repeat(
            (np.arange(D, dtype=np.int32) + 1) * len(lists[0]) // D, size
        )
        entry.append(moved(spread[x[:n]], last_one - len(zk)))
    return CutArrow(codes, z, sizes, columns, tuple(entry), *lists, mesh=mesh), places


def _places(part: np.ndarray, D: int) -> tuple[np.ndarray, int]:
    """Where sorted things go that belong to parts (n,), and the places of a part."""
    counts = np.bincount(part, minlength=D)
    size = bucket(int(counts.max()) + 1)  # one is free in each
    starts = np.cumsum(counts) - counts
    return np.arange(len(part)) - starts[part] + part * size, size


def _lists(
    rows: ArrowRows, J: int, D: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Entries and pairs by devices; new positions of the entries, and the lists."""
    one, two, row = (np.asarray(x) for x in (rows.pair_one, rows.pair_two, rows.row))
    n_pairs = int(np.sum(one < len(row) - 1))  # padded ones are of the last entry
    n_entries = int(one[:n_pairs].max()) + 1
    row, one, two = row[:n_entries], one[:n_pairs], two[:n_pairs]
    entry, E = _places(row // J, D)
    pair, P = _places(row[one] // J, D)

    def listed(x: Any, at: np.ndarray, size: int, fill: Any = 0) -> np.ndarray:
        out = empty((D * size,), np.int32)
        out[:] = fill
        out[at] = np.asarray(x)[: len(at)]
        return out

    entry = entry.astype(np.int32)
    device = np.arange(1, D + 1, dtype=np.int32)
    free = np.repeat(device * E - 1, P)  # its value is zero
    return entry, (
        listed(row, entry, E, np.repeat(device * J - 1, E)),
        listed(rows.col, entry, E),
        listed(entry[one], pair, P, free),
        listed(entry[two], pair, P, free),
        listed(rows.pair_target, pair, P),
    )
