"""Random-effects designs given as a matrix: factors where there are any, entries else.

Columns of Z that share a variance and of which each row uses at most one are a grouping
factor with one value a row; a block of columns may be a few such factors (``a * x``
without an intercept is three). What is found runs on the structured systems. Any other
pattern becomes ``PatternRows``: Z'WZ in full, from pairs of entries of one row or by a
matrix product, whichever is less work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm._typing import Array, Float, Int
from jaxglmm.numerics.dense import DenseSystem
from jaxglmm.numerics.system import AbstractSystem, Effects
from jaxglmm.runtime.arrays import added, cho_solve, jnp, segment_sum
from jaxglmm.runtime.trees import field
from jaxglmm.structure.factors import TermColumns
from jaxglmm.structure.rows import AbstractRows

MOST_PARTS = 8  # single-valued factors beyond which a design is held as entries
MOST_ENTRIES = 2e8  # doubles of Z'Z, or of Z, that are still made
GEMM = 20  # entries of a matrix product in the time of one scattered pair


@dataclass(frozen=True)
class Part:
    """Columns of one block that form a factor.

    block: position of the block (its variance); columns: (J,) of Z; codes: (n,) level
    of each row; values: (n,), 0 where the row uses none; used: (n,) where it uses one.
    """

    block: int
    columns: np.ndarray
    codes: np.ndarray
    values: np.ndarray
    used: np.ndarray


def parts_of(Z: Any, ident: np.ndarray) -> list[Part] | None:
    """The factors that Z (n, q; SciPy sparse) is made of; None where it is not.

    ident: (q,) block of each column, 0 .. K-1.
    """
    out: list[Part] = []
    Z = Z.tocsc()
    for block in range(int(ident.max()) + 1):
        columns = np.flatnonzero(ident == block)
        found = _split(Z, columns)
        if found is None or len(out) + len(found) > MOST_PARTS:
            return None
        out += [_part(Z, block, part) for part in found]
    return _aligned(out)


def _split(Z: Any, columns: np.ndarray) -> list[np.ndarray] | None:
    """Columns in as few sets as first fit finds, rows used once in each."""
    indptr, indices, n = Z.indptr, Z.indices, Z.shape[0]
    inside = np.concatenate([indices[indptr[j] : indptr[j + 1]] for j in columns])
    if not len(inside) or np.bincount(inside, minlength=n).max() <= 1:
        return [columns]
    sets: list[list[int]] = []
    taken: list[np.ndarray] = []
    for j in columns:
        rows = indices[indptr[j] : indptr[j + 1]]
        free = [k for k, busy in enumerate(taken) if not busy[rows].any()]
        if not free:
            if len(sets) == MOST_PARTS:
                return None
            free = [len(sets)]
            sets.append([])
            taken.append(np.zeros(n, bool))
        sets[free[0]].append(int(j))
        taken[free[0]][rows] = True
    return [np.array(members) for members in sets]


def _part(Z: Any, block: int, columns: np.ndarray) -> Part:
    n = Z.shape[0]
    sub = Z[:, columns].tocoo()
    codes, values, used = np.zeros(n, np.int32), np.zeros(n), np.zeros(n, bool)
    codes[sub.row], values[sub.row], used[sub.row] = sub.col, sub.data, True
    return Part(block, columns, codes, values, used)


def _aligned(parts: list[Part]) -> list[Part]:
    """Parts whose columns name the same levels get the same codes, to share a factor.

    An intercept and a slope by one factor are two parts; a row with slope value zero
    uses no column of the second and takes its level from the first.
    """
    out: list[Part] = []
    for part in parts:
        for other in out:
            order = _same_levels(other, part)
            if order is not None:
                part = Part(
                    part.block, part.columns[order], other.codes, part.values, part.used
                )
                break
        out.append(part)
    return out


def _same_levels(one: Part, two: Part) -> np.ndarray | None:
    """Columns of ``two`` in the order of the levels of ``one``, or None."""
    J = len(one.columns)
    if len(two.columns) != J or J == 1 or not one.used[two.used].all():
        return None
    pairs = np.unique(one.codes[two.used].astype(np.int64) * J + two.codes[two.used])
    if len(pairs) != J or len(np.unique(pairs // J)) != J:
        return None
    return (pairs % J) if len(np.unique(pairs % J)) == J else None


def as_columns(parts: list[Part], covariance: Any) -> list[TermColumns]:
    """The parts as terms for ``build_rows``; equal codes share a factor."""
    named: dict[int, str] = {}
    out = []
    for part in parts:
        name = named.setdefault(id(part.codes), f"f{len(named)}")
        J = len(part.columns)
        out.append(TermColumns(name, part.codes, part.values[:, None], J, covariance))
    return out


class PatternRows(AbstractRows):
    """Any sparse Z, its columns in blocks of one variance each.

    Entries of block k: row ``row[k]``, column ``codes[k]``, value ``z[k][0]``, each
    (E_k,). ``one``, ``two``, ``target``: pairs of entries of one row and where they go
    in Z'WZ (lower triangle); None where Z is filled and ``dense`` holds it, (m, n).
    """

    row: tuple[Int[Array, " E"], ...]
    one: Int[Array, " P"] | None
    two: Int[Array, " P"] | None
    target: Int[Array, " P"] | None
    dense: Float[Array, "m n"] | None
    n: int = field(static=True)

    def spread(self, b: Effects) -> Float[Array, " n"]:
        total = jnp.zeros(self.n, self.z[0].dtype)
        for row, codes, z, x in zip(self.row, self.codes, self.z, b, strict=True):
            total = added(total, row, z[0] * x[0, 0][codes])
        return total

    def collect(self, r: Float[Array, "K n"]) -> Effects:
        out = []
        for row, codes, z, J in zip(
            self.row, self.codes, self.z, self.sizes, strict=True
        ):
            sums = [segment_sum(z[0] * x[row], codes, J) for x in r]
            out.append(jnp.stack(sums)[None])
        return tuple(out)

    def level_sum(self, r: Float[Array, " n"]) -> Float[Array, " J"]:
        raise NotImplementedError("rows of a pattern belong to several levels")

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        m = sum(self.sizes)
        if self.dense is not None:
            A = (self.dense * w) @ self.dense.T
        else:
            value = jnp.concatenate([z[0] for z in self.z])
            row = jnp.concatenate(self.row)
            pairs = value[self.one] * value[self.two] * w[row[self.one]]
            flat = added(jnp.zeros(m * m, w.dtype), self.target, pairs)
            lower = flat.reshape(m, m)
            A = lower + jnp.tril(lower, -1).T
        return DenseSystem(A, tuple((J, 1) for J in self.sizes))

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        """The whole inverse is made: rows may use any two columns together."""
        m = sum(self.sizes)
        sd = jnp.concatenate(
            [
                jnp.broadcast_to(x[0], J)
                for x, J in zip(factor.lam, self.sizes, strict=True)
            ]
        )
        L = factor.L
        N = sd[:, None] * cho_solve((L, True), jnp.eye(m, dtype=L.dtype)) * sd
        if self.dense is not None:
            return jnp.sum(self.dense * (N @ self.dense), axis=0)
        value = jnp.concatenate([z[0] for z in self.z])
        row = jnp.concatenate(self.row)
        twice = jnp.where(self.one == self.two, 1.0, 2.0)
        terms = value[self.one] * value[self.two] * N.reshape(-1)[self.target] * twice
        return added(jnp.zeros(self.n, L.dtype), row[self.one], terms)


def pattern_rows(Z: Any, blocks: list[np.ndarray], n_padded: int) -> PatternRows:
    """Rows of a sparse Z; blocks: columns of each block, two blocks at least.

    Raises:
        ModelError: Z'Z in full would be too large.
    """
    n, m = Z.shape[0], sum(map(len, blocks))
    if m * m > MOST_ENTRIES:
        raise ModelError(
            f"the {m} columns of exog_vc overlap within rows in a way that is no "
            "grouping factor, so they need a full matrix of "
            f"{8 * m * m / 1e9:.1f} GB. Give each grouping factor its own ident (one "
            "column used a row), or fewer columns"
        )
    entries = [Z[:, columns].tocsc().tocoo() for columns in blocks]
    starts = np.cumsum([0, *map(len, blocks)])
    row = np.concatenate([e.row for e in entries])
    column = np.concatenate(
        [s + e.col for s, e in zip(starts[:-1], entries, strict=True)]
    )
    degree = np.bincount(row, minlength=n).astype(float)
    n_pairs = float(np.sum(degree * (degree + 1) / 2))
    fields: dict[str, Any] = dict.fromkeys(("one", "two", "target", "dense"))
    if n * m <= MOST_ENTRIES and n * m * m < GEMM * n_pairs:
        full = np.zeros((m, n_padded))
        full[column, row] = np.concatenate([e.data for e in entries])
        fields["dense"] = full
    else:
        fields |= _pairs(row, column, m)
    return PatternRows(
        codes=tuple(e.col.astype(np.int32) for e in entries),
        z=tuple(e.data[None].astype(float) for e in entries),
        sizes=tuple(map(len, blocks)),
        row=tuple(e.row.astype(np.int32) for e in entries),
        n=n_padded,
        **fields,
    )


def _pairs(row: np.ndarray, column: np.ndarray, m: int) -> dict[str, np.ndarray]:
    """All pairs of entries of one row, the larger column first."""
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    start = np.searchsorted(row, row)
    place = np.arange(len(row)) - start  # how many entries of its row come before
    one = np.repeat(np.arange(len(row)), place + 1)
    first = np.repeat(np.cumsum(place + 1) - (place + 1), place + 1)
    two = start[one] + np.arange(len(one)) - first
    target = column[one].astype(np.int64) * m + column[two]
    kind = np.int32 if m * m < 2**31 else np.int64
    return {
        "one": order[one].astype(np.int32),
        "two": order[two].astype(np.int32),
        "target": target.astype(kind),
    }
