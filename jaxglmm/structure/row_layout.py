"""Index arrays of rows: which kind of rows a list of factors makes, sorted and padded.

The structure is chosen as in ``moments_of_design``; indices and sizes are fixed here,
on the host, so that the device only gathers and sums.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.levels import mesh
from jaxglmm.runtime.trees import Module
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure import moments_of_design as _build
from jaxglmm.structure.alike import is_of_all_rows
from jaxglmm.structure.cut_rows import cut
from jaxglmm.structure.factors import Factor, by_level
from jaxglmm.structure.padding import bucket, empty, pad
from jaxglmm.structure.rows import (
    LARGE_ROWS,
    AbstractRows,
    ArrowRows,
    NestedRows,
    NoRows,
    OneFactorRows,
    PaddedRows,
)
from jaxglmm.structure.sparse_rows import SparseRows
from jaxglmm.structure.wide_rows import wide_rows

WASTE = 1.5  # padded rows over rows, beyond which levels are not padded
LARGEST_ROWS = 2_000_000  # padded rows of several predictors, which say much each
SMALL_ROWS = 1024  # padded rows that are few anyway


def order(factors: list[Factor], n: int) -> np.ndarray:
    """(n,) rows sorted by the level of the largest factor."""
    if not factors:
        return np.arange(n)
    return by_level(factors[0].codes)


class Layout(Module):
    """Index arrays; n_places: rows with padding; places: of the sorted rows, or None.

    Rows without ``places`` are the first ones, padding has the last level; in either
    case its weight is zero.
    """

    rows: AbstractRows
    n_places: int
    places: np.ndarray | None = None


def rows(
    factors: list[Factor], n_padded: int, predictors: int = 1, probes: int = 0
) -> Layout:
    """Index arrays of sorted rows.

    factors: largest first, rows in their final order; n_padded: rows after padding,
    where their number is free; predictors: how many linear predictors there are;
    probes: random vectors of crossed factors of one, none for a dense matrix.
    """
    if probes and predictors == 1 and len(factors) > 1 and _chain(factors) is None:
        return _sparse_rows(factors, probes)
    wide = wide_rows(factors, n_padded) if predictors == 1 and factors else None
    if wide is not None:
        return Layout(wide, n_padded)
    found = _rows(factors, n_padded, LARGE_ROWS if predictors == 1 else LARGEST_ROWS)
    if predictors == 1:
        shared = mesh()
        by_device = cut(found.rows, factors, shared) if shared else None
        if by_device is None:
            return found
        index, places = by_device
        return Layout(index, index.codes[0].shape[-1], places)
    of = tuple(f.predictors for f in factors)
    index = replace(found.rows, of=of, K=predictors)
    return replace(found, rows=index)


def _rows(factors: list[Factor], n_padded: int, most: int) -> Layout:
    if not factors:
        return Layout(NoRows((), (), ()), n_padded)
    n = len(factors[0].codes)
    chain = _chain(factors) if len(factors) > 1 else None
    arrow = len(factors) > 1 and chain is None
    sizes = [
        bucket(f.n_levels, 16 if arrow and k else 8) for k, f in enumerate(factors)
    ]
    if len(factors) == 1:
        padded = _padded_rows(factors[0], sizes[0], n_padded, most)
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


def _sparse_rows(factors: list[Factor], probes: int) -> Layout:
    n = len(factors[0].codes)
    codes = tuple(f.codes.astype(np.int32, copy=False) for f in factors)
    z = tuple(_values(f, n, n) for f in factors)
    sizes = tuple(f.n_levels for f in factors)
    return Layout(SparseRows(codes, z, sizes, probes=probes), n)


def _padded_rows(factor: Factor, J: int, n_padded: int, most: int) -> Layout | None:
    """Every level with equally many rows, ``most`` in all, where that wastes little."""
    counts = np.bincount(factor.codes, minlength=J)
    height = int(counts.max())
    if height > 8:
        height = bucket(height)
    size = height * J
    if size > max(WASTE * n_padded, SMALL_ROWS) or size > most:
        return None
    starts = np.cumsum(counts) - counts
    row = np.arange(len(factor.codes)) - starts[factor.codes]
    places = row * J + factor.codes
    z = np.zeros((factor.q, size))
    z[:, places] = 1.0 if factor.values is None else factor.values.T
    codes = np.tile(np.arange(J, dtype=np.int32), height)
    return Layout(PaddedRows((codes,), (z,), (J,), height, mesh=mesh()), size, places)


def _chain(factors: list[Factor]) -> list[list[np.ndarray]] | None:
    """Ancestors of each factor's levels where all are nested, else None."""
    if max(f.q for f in factors) > small.UNROLL or any(map(is_of_all_rows, factors)):
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
