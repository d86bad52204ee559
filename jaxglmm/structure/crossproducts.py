"""Z'Z, Z'R and R'R on the host: the only place where the rows are read.

Everything is a weighted count by level (``np.bincount``) or, for many columns, a
product with a sparse indicator or a matrix product a level; no dense Z and no array
larger than the data is made.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from jaxglmm.runtime.shares import Share
from jaxglmm.structure.alike import FEW
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.fixed import Basis

LARGE = 200_000  # rows above which the basis of X is not stored
ROWS = 250_000  # at a time
PAIRS = 250_000  # of entries at a time
PRODUCTS = 16  # up to which each is counted by itself
PAYS = 2_000  # products times rows of a level that are worth a matrix product
MANY = 40  # columns above which it is: column by column would read X too often


def _times(*columns: np.ndarray | None) -> np.ndarray | None:
    """Product of columns, None standing for ones."""
    out = None
    for column in columns:
        if column is not None:
            out = column if out is None else out * column
    return out


def count(codes: np.ndarray, size: int, *columns: np.ndarray | None) -> np.ndarray:
    """Sum of the product of the columns by code, as doubles (size,).

    By pieces of rows: ``np.bincount`` makes copies of what it is given.
    """
    n, rows = len(codes), max(ROWS, 4 * size)
    if n <= rows:
        return np.bincount(codes, _times(*columns), size).astype(float, copy=False)
    total = np.zeros(size)
    for start in range(0, n, rows):
        here = slice(start, start + rows)
        product = _times(*(None if c is None else c[here] for c in columns))
        total += np.bincount(codes[here], product, size)
    return total


def gram(factor: Factor, w: np.ndarray | None, size: int) -> np.ndarray:
    """(q, q, size) blocks Z_g'WZ_g."""
    q = factor.q
    if _is_by_level(factor, q * (q + 1) // 2):
        Z = factor.whole
        out = _by_level(factor, Z if w is None else Z * w[:, None], size)
        for i in range(q):
            out[:i, i] = out[i, :i]  # to the last bit, under weights too
        return out
    out = np.empty((q, q, size))
    for i in range(q):
        for j in range(i + 1):
            out[i, j] = count(factor.codes, size, w, factor.column(i), factor.column(j))
            out[j, i] = out[i, j]
    return out


def _is_by_level(factor: Factor, n_products: int) -> bool:
    """Whether a matrix product a level costs less than a pass over the rows each."""
    n = len(factor.codes)
    work = n_products * n / max(factor.n_levels, 1)
    return factor.q > FEW or (n <= LARGE and n_products > PRODUCTS and work > PAYS)


def _by_level(factor: Factor, R: np.ndarray, size: int) -> np.ndarray:
    """(q, r, size) products Z_g'R by a matrix product a level."""
    order, starts = factor.runs
    Z = factor.whole
    if order is not None:
        R, Z = R[order], Z[order]
    out = np.zeros((size, factor.q, R.shape[1]))
    for g, (start, stop) in enumerate(itertools.pairwise(starts.tolist())):
        np.matmul(Z[start:stop].T, R[start:stop], out=out[g])
    return np.ascontiguousarray(np.moveaxis(out, 0, -1))


def times(factor: Factor, R: np.ndarray, size: int) -> np.ndarray:
    """(q, r, size) products Z_g'R for R (n, r), weights already in R."""
    q, r = factor.q, R.shape[1]
    if _is_by_level(factor, q * r):
        return _by_level(factor, R, size)
    out = np.empty((q, r, size))
    if r <= 6:
        for i in range(q):
            for c in range(r):
                out[i, c] = count(factor.codes, size, factor.column(i), R[:, c])
        return out
    for i in range(q):
        out[i] = (indicator(factor, i, size) @ R).T
    return out


def times_basis(
    factors: list[Factor], basis: Basis, w: np.ndarray | None, sizes: list[int]
) -> list[np.ndarray]:
    """(q, p, size) products Z_g'W X~ a factor; a large X~ is made by columns."""
    n, p = basis.X.shape
    if n <= LARGE or p > MANY:
        right = basis.whole if w is None else basis.whole * w[:, None]
        return [times(f, right, size) for f, size in zip(factors, sizes, strict=True)]
    out = [np.empty((f.q, p, s)) for f, s in zip(factors, sizes, strict=True)]
    column = np.empty(n)
    for j in range(p):
        basis.column(j, out=column)
        if w is not None:
            column *= w
        for f, size, block in zip(factors, sizes, out, strict=True):
            for i in range(f.q):
                block[i, j] = count(f.codes, size, f.column(i), column)
    return out


def indicator(factor: Factor, i: int, size: int):
    """Z_i' as a sparse matrix (size, n)."""
    from scipy.sparse import csc_matrix

    n = len(factor.codes)
    column = factor.column(i)
    data = np.ones(n) if column is None else np.ascontiguousarray(column)
    return csc_matrix((data, factor.codes, np.arange(n + 1)), shape=(size, n))


def coupling(
    fine: Factor, coarse: Factor, w: np.ndarray | None, size: int
) -> np.ndarray:
    """(q_fine, q_coarse, size) blocks of nested factors, by level of the fine one."""
    out = np.empty((fine.q, coarse.q, size))
    for i in range(fine.q):
        for j in range(coarse.q):
            out[i, j] = count(fine.codes, size, w, fine.column(i), coarse.column(j))
    return out


def parents(fine: Factor, coarse: Factor) -> np.ndarray | None:
    """(J_fine,) the level of ``coarse`` that holds each level of ``fine``, or None."""
    out = np.zeros(fine.n_levels, np.int32)
    out[fine.codes] = coarse.codes
    return out if np.array_equal(out[fine.codes], coarse.codes) else None


# Occupied (level of one factor, level of another), a column of the second, and the
# blocks' values (q of the first, E) there.
Pairs = Iterator[tuple[np.ndarray, np.ndarray, int, np.ndarray]]


class AbstractCounts(abc.ABC):
    """Z'WZ of factors by blocks, wherever the sums come from."""

    @abc.abstractmethod
    def gram(self, factor: Factor, size: int) -> np.ndarray:
        """(q, q, size) blocks Z_g'WZ_g."""

    @abc.abstractmethod
    def pairs(self, one: Factor, two: Factor) -> Pairs:
        """Blocks of two factors, sorted by levels."""

    @abc.abstractmethod
    def parents(self, fine: Factor, coarse: Factor) -> np.ndarray | None:
        """(J_fine,) the level of ``coarse`` that holds each of ``fine``, or None."""

    @abc.abstractmethod
    def coupling(self, fine: Factor, coarse: Factor, size: int) -> np.ndarray:
        """(q_fine, q_coarse, size) blocks of nested factors."""


def of_rows(factor: Factor, rows: slice) -> Factor:
    """The factor of some of the rows."""
    values = None if factor.values is None else factor.values[rows]
    return replace(factor, codes=factor.codes[rows], values=values)


class RowCounts(AbstractCounts):
    """Sums over the rows that the factors hold.

    share: the rows that are read here, where several processes add their sums; what
    couples factors each makes of all rows.
    """

    def __init__(self, w: np.ndarray | None, share: Share | None = None):
        self.w, self.share = w, share

    def gram(self, factor: Factor, size: int) -> np.ndarray:
        if self.share is None:
            return gram(factor, self.w, size)
        rows = self.share.rows
        w = None if self.w is None else self.w[rows]
        return self.share.added([gram(of_rows(factor, rows), w, size)])[0]

    def pairs(self, one: Factor, two: Factor) -> Pairs:
        return pairs_of(one, two, self.w)

    def parents(self, fine: Factor, coarse: Factor) -> np.ndarray | None:
        return parents(fine, coarse)

    def coupling(self, fine: Factor, coarse: Factor, size: int) -> np.ndarray:
        return coupling(fine, coarse, self.w, size)


class EntryList:
    """Rows and columns of occupied entries, sorted by row, then column."""

    def __init__(self, row: np.ndarray, col: np.ndarray):
        self.row = row.astype(np.int32, copy=False)
        self.col = col.astype(np.int32, copy=False)

    def __len__(self) -> int:
        return len(self.row)

    def degrees(self, size: int) -> np.ndarray:
        """Entries in each row."""
        return np.bincount(self.row, minlength=size)

    def n_pairs(self, size: int) -> int:
        """Number of pairs of entries of one row."""
        degree = self.degrees(size)
        return int(np.sum(degree * (degree + 1) // 2))

    def pieces(
        self, size: int, pairs: int = PAIRS
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """All (e1 >= e2) of one row as indices of entries, about ``pairs`` at a time.

        The list of pairs may be many times larger than the data, so nothing of its
        length is made here; the slice says where in it a piece belongs.
        """
        degree = self.degrees(size)
        own = (np.cumsum(degree) - degree).astype(np.int32)[self.row]
        partners = np.arange(1, len(self) + 1, dtype=np.int32) - own
        end = np.cumsum(partners, dtype=np.int64)
        first = done = 0
        while first < len(self):
            last = max(first + 1, int(np.searchsorted(end, done + pairs, "right")))
            count = partners[first:last]
            e1 = np.repeat(np.arange(first, last, dtype=np.int32), count)
            shift = end[first:last] - count - done - own[first:last]
            e2 = np.arange(len(e1), dtype=np.int32)
            e2 -= np.repeat(shift.astype(np.int32), count)
            yield slice(done, done + len(e1)), e1, e2
            first, done = last, done + len(e1)

    def pairs(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """All (e1 >= e2) of one row, as indices of entries."""
        e1, e2 = np.empty((2, self.n_pairs(size)), np.int32)
        for here, one, two in self.pieces(size):
            e1[here], e2[here] = one, two
        return e1, e2


class Entries(EntryList):
    """The coupling of the first factor with all columns of the others, entry by entry.

    Sorted by row (level of the first factor), then column; ``value`` (q, E).
    """

    def __init__(
        self,
        first: Factor,
        others: list[Factor],
        sizes: list[int],
        counts: AbstractCounts,
    ):
        rows, columns, values = [], [], []
        offset = 0
        for factor, size in zip(others, sizes, strict=True):
            for row, level, column, value in counts.pairs(first, factor):
                rows.append(row)
                columns.append(offset + level * factor.q + column)
                values.append(value)
            offset += size * factor.q
        row, col = np.concatenate(rows), np.concatenate(columns)
        order = np.lexsort((col, row)) if len(rows) > 1 else slice(None)
        super().__init__(row[order], col[order])
        self.value = np.concatenate(values, axis=1)[:, order]
        self.m = offset

    def target(self, e1: np.ndarray, e2: np.ndarray) -> np.ndarray:
        """Where pairs stand in a flat (m, m) matrix; m is at most some 20,000."""
        return self.col[e1] * np.int32(self.m) + self.col[e2]


def pairs_of(first: Factor, factor: Factor, w: np.ndarray | None) -> Pairs:
    """Occupied (level of first, level of factor) with the blocks' values by column."""
    J1, J2 = first.n_levels, factor.n_levels
    key = first.codes.astype(np.int64)
    key *= J2
    key += factor.codes
    if first.values is None and factor.values is None:
        cells, value = _counts(key, J1 * J2, w)
        row = (cells // J2).astype(np.int32)
        yield row, (cells % J2).astype(np.int32), 0, value[None]
        return
    cells, entry = occupied(key, J1 * J2)
    row, level = cells // J2, cells % J2
    for j in range(factor.q):
        value = np.stack(
            [
                count(entry, len(cells), w, first.column(i), factor.column(j))
                for i in range(first.q)
            ]
        )
        yield row, level, j, value


def occupied(key: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys in order, and which of them each row has."""
    if size > max(4 * len(key), 1_000_000):
        return np.unique(key, return_inverse=True)
    seen = np.bincount(key, minlength=size) > 0  # a direct table of cells
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[key]


def _counts(
    key: np.ndarray, size: int, w: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys in order and the weights of their rows; may sort ``key``."""
    if size <= 4 * len(key):  # a direct table of cells
        seen = np.bincount(key, minlength=size) > 0
        cells = np.flatnonzero(seen)
        return cells, count(key, size, w)[cells]
    if w is None:
        key.sort()
    else:
        order = np.argsort(key, kind="stable")
        key, w = key[order], w[order]
    start = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    cells = key[start]
    if w is not None:
        return cells, np.add.reduceat(w, start)
    return cells, np.diff(start, append=len(key)).astype(float)
