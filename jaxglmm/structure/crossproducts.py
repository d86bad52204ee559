"""Z'Z, Z'R and R'R on the host: the only place where the rows are read.

Everything is a weighted count by level (``np.bincount``) or, for many columns, a
product with a sparse indicator; no dense Z and no array larger than the data is made.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxglmm.structure.factors import Factor
from jaxglmm.structure.fixed import Basis

LARGE = 200_000  # rows above which the basis of X is not stored
MANY = 40  # columns above which it is: column by column would read X too often


def _times(*columns: np.ndarray | None) -> np.ndarray | None:
    """Product of columns, None standing for ones."""
    out = None
    for column in columns:
        if column is not None:
            out = column if out is None else out * column
    return out


def count(codes: np.ndarray, size: int, *columns: np.ndarray | None) -> np.ndarray:
    """Sum of the product of the columns by code, as doubles (size,)."""
    return np.bincount(codes, _times(*columns), size).astype(float, copy=False)


def gram(factor: Factor, w: np.ndarray | None, size: int) -> np.ndarray:
    """(q, q, size) blocks Z_g'WZ_g."""
    q = factor.q
    out = np.empty((q, q, size))
    for i in range(q):
        for j in range(i + 1):
            out[i, j] = count(factor.codes, size, w, factor.column(i), factor.column(j))
            out[j, i] = out[i, j]
    return out


def times(factor: Factor, R: np.ndarray, size: int) -> np.ndarray:
    """(q, r, size) products Z_g'R for R (n, r), weights already in R."""
    q, r = factor.q, R.shape[1]
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
    """(q, p, size) products Z_g'W X~ a factor; a large X~ is made a column at a time."""
    n, p = basis.X.shape
    if n <= LARGE or p > MANY:
        right = basis.whole if w is None else basis.whole * w[:, None]
        return [times(f, right, size) for f, size in zip(factors, sizes, strict=True)]
    out = [np.empty((f.q, p, s)) for f, s in zip(factors, sizes, strict=True)]
    for j in range(p):
        column = basis.column(j)
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

    def pairs(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """All (e1 >= e2) of one row, as indices of entries."""
        degree = self.degrees(size)
        start = np.cumsum(degree) - degree
        own = start[self.row]
        partners = np.arange(len(self)) - own + 1
        e1 = np.repeat(np.arange(len(self), dtype=np.int32), partners)
        begin = np.cumsum(partners) - partners
        e2 = np.arange(len(e1)) - np.repeat(begin - own, partners)
        return e1, e2.astype(np.int32)


class Entries(EntryList):
    """The coupling of the first factor with all columns of the others, entry by entry.

    Sorted by row (level of the first factor), then column; ``value`` (q, E).
    """

    def __init__(
        self,
        first: Factor,
        others: list[Factor],
        sizes: list[int],
        w: np.ndarray | None,
    ):
        rows, columns, values = [], [], []
        offset = 0
        for factor, size in zip(others, sizes, strict=True):
            for row, level, column, value in _pairs(first, factor, w):
                rows.append(row)
                columns.append(offset + level * factor.q + column)
                values.append(value)
            offset += size * factor.q
        row, col = np.concatenate(rows), np.concatenate(columns)
        order = np.lexsort((col, row)) if len(rows) > 1 else slice(None)
        super().__init__(row[order], col[order])
        self.value = np.concatenate(values, axis=1)[:, order]
        self.m = offset


def _pairs(
    first: Factor, factor: Factor, w: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, int, np.ndarray]]:
    """Occupied (level of first, level of factor) with the blocks' values by column."""
    J1, J2 = first.n_levels, factor.n_levels
    if first.values is None and factor.values is None:
        table = _table(first, factor, w)
        yield table.row, table.col, 0, table.data[None]
        return
    key = first.codes.astype(np.int64) * J2 + factor.codes
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


def _table(first: Factor, factor: Factor, w: np.ndarray | None):
    """Weighted counts of all occupied cells of two factors, as a sparse table."""
    from scipy.sparse import csr_matrix

    n = len(first.codes)
    data = np.ones(n) if w is None else w
    pointer = np.arange(n + 1)
    Z1 = csr_matrix((data, first.codes, pointer), shape=(n, first.n_levels))
    Z2 = csr_matrix((np.ones(n), factor.codes, pointer), shape=(n, factor.n_levels))
    table = (Z1.T @ Z2).tocsr()
    table.sort_indices()
    return table.tocoo()
