"""Crossed factors too large for a dense matrix on a device: Z'WZ in sparse form."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.numerics.sparse_arrow import SparseArrow
from jaxglmm.numerics.sparse_schur import block_diagonal
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure.factors import Factor


def sparse_arrow(
    factors: list[Factor], counts: cross.AbstractCounts
) -> tuple[SparseArrow, list[Factor], list[int]]:
    """The system, its factors and their levels, none of them padded."""
    first, others = factors[0], factors[1:]
    sizes = [f.n_levels for f in factors]
    entries = cross.Entries(first, others, sizes[1:], counts)
    N = _coupling(entries, first)
    sides = tuple((f.n_levels, f.q) for f in others)
    A22 = _second(others, counts)
    return SparseArrow(counts.gram(first, sizes[0]), N, A22, sides, 0), factors, sizes


def _coupling(entries: cross.Entries, first: Factor) -> Any:
    """Z_1'WZ_2, (J q, m), level by level."""
    from scipy.sparse import coo_matrix, csr_matrix

    shape = first.n_levels * first.q, entries.m
    if first.q == 1:  # sorted already
        at = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(entries.degrees(shape[0]), out=at[1:])
        return csr_matrix((entries.value[0], entries.col, at), shape=shape)
    rows = entries.row * first.q + np.arange(first.q)[:, None]
    cols = np.broadcast_to(entries.col, rows.shape)
    whole = entries.value.ravel(), (rows.ravel(), cols.ravel())
    return coo_matrix(whole, shape=shape).tocsr()


def _second(factors: list[Factor], counts: cross.AbstractCounts) -> Any:
    """Z_2'WZ_2 of all factors but the first, (m, m)."""
    from scipy.sparse import bmat, coo_matrix

    grid: list[list[Any]] = [[None] * len(factors) for _ in factors]
    for a, f in enumerate(factors):
        blocks = counts.gram(f, f.n_levels)
        grid[a][a] = block_diagonal(np.moveaxis(blocks, 2, 0), f.n_levels)
        for b, g in enumerate(factors[:a]):
            rows, cols, values = [], [], []
            for row, level, j, value in counts.pairs(f, g):
                for i in range(f.q):
                    rows.append(row.astype(np.int64) * f.q + i)
                    cols.append(level.astype(np.int64) * g.q + j)
                    values.append(value[i])
            shape = f.n_levels * f.q, g.n_levels * g.q
            at = np.concatenate(rows), np.concatenate(cols)
            block = coo_matrix((np.concatenate(values), at), shape=shape)
            grid[a][b], grid[b][a] = block, block.T
    return bmat(grid, format="csr")
