"""From a design's arrays to rows on the device, for models whose weights change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxglmm._brief import brief
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.factors import Factor, TermColumns, join
from jaxglmm.structure.fixed import orthonormal
from jaxglmm.structure.padding import bucket, empty
from jaxglmm.structure.row_layout import order, rows
from jaxglmm.structure.rows import LARGE_ROWS, AbstractRows
from jaxglmm.structure.wide_rows import AlikeRows, CellRows, OneLevelRows

SAME = 1e-12  # of columns whose mean square is one: the rounding of their making


@brief
@dataclass(frozen=True)
class RowData:
    """Rows of a design in internal coordinates, and the way back.

    rows: index arrays; X: (p, n) padded, columns of a predictor orthogonal with mean
    square one; factors: in the order of ``rows``; R: (p, p), X of the user = X~ R, one
    block a predictor; columns: of X, predictor by predictor; sort: (n,) the
    rows of the design in the order of their levels; places: (n,) where these are, None
    for the first n; n: rows; size: rows after padding.
    """

    rows: AbstractRows
    X: np.ndarray
    factors: tuple[Factor, ...]
    R: np.ndarray
    sort: np.ndarray
    n: int
    size: int
    places: np.ndarray | None = None
    columns: tuple[int, ...] = ()

    def place(self, values: np.ndarray | float, fill: float = 0.0) -> np.ndarray:
        """(n,) values of the design's rows, sorted and padded; (K, n) of predictors."""
        if np.ndim(values) == 2:
            return np.stack([self.place(own, fill) for own in np.asarray(values)])
        column = np.broadcast_to(np.asarray(values, float), (self.n,))
        return _spread(column, self.sort, self.places, self.size, fill)

    def used(self) -> np.ndarray:
        """(size,) which rows are the design's, not padding."""
        out = empty((self.size,), bool)
        if self.places is None:
            out[: self.n], out[self.n :] = True, False
        else:
            out.fill(False)
            out[self.places] = True
        return out

    def back(self, values: np.ndarray) -> np.ndarray:
        """The inverse of ``place``."""
        if np.ndim(values) == 2:
            return np.stack([self.back(own) for own in np.asarray(values)])
        out = np.empty(self.n)
        found = values[: self.n] if self.places is None else values[self.places]
        out[self.sort] = found
        return out


def build_rows(
    X: np.ndarray | Sequence[np.ndarray], terms: list[TermColumns], probes: int = 0
) -> RowData:
    """The rows of a design.

    X: (n, p) of full rank, one for each linear predictor where there are several;
    terms: any number, none for a model without effects; probes: as for ``rows``.
    """
    own = (X,) if isinstance(X, np.ndarray) else tuple(X)
    n = len(own[0])
    factors = join(terms)
    sort = order(factors, n)
    sorted_factors = [
        replace(
            f,
            codes=f.codes[sort],
            values=None if f.values is None else f.values[sort],
        )
        for f in factors
    ]
    del factors
    layout = rows(sorted_factors, bucket(n), len(own), probes)
    size, places = layout.n_places, layout.places
    counts = tuple(x.shape[1] for x in own)
    columns, R = empty((sum(counts), size)), np.zeros((sum(counts),) * 2)
    start = 0
    for x in own:
        here = slice(start, start + x.shape[1])
        R[here, here], basis = orthonormal(x, None)
        for j in range(x.shape[1]):
            column = basis.column(j)
            column *= np.sqrt(n)
            columns[start + j] = _spread(column, sort, places, size, 0.0)
        start = here.stop
    index = layout.rows
    by_row = not isinstance(index, CellRows | OneLevelRows | AlikeRows)
    if size > LARGE_ROWS and by_row:
        z = tuple(_held_once(x, columns) for x in index.z)
        index = tree_at(lambda r: r.z, index, z)
    if places is None and by_row:  # what was made of them is theirs, without a copy
        sorted_factors = [
            replace(f, codes=codes[:n], values=None if f.values is None else z[:, :n].T)
            for f, codes, z in zip(sorted_factors, index.codes, index.z, strict=True)
        ]
    return RowData(
        index,
        columns,
        tuple(sorted_factors),
        R / np.sqrt(n),
        sort,
        n,
        size,
        places,
        counts,
    )


def _held_once(z: np.ndarray, X: np.ndarray) -> np.ndarray:
    """z (q, n), or the columns of X (p, n) side by side that are the same numbers.

    Slopes have their mean among the fixed effects as a rule, and in internal
    coordinates the two are one column.
    """
    q = len(z)
    for first in range(len(X) - q + 1):
        own = X[first : first + q]
        if all(_same(a, b) for a, b in zip(z, own, strict=True)):
            return own
    return z


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two columns are the same but for rounding; the first rows tell most."""
    return all(
        bool((np.abs(a[here] - b[here]) < SAME).all())
        for here in (slice(0, 64), slice(64, None))
    )


def _spread(
    column: np.ndarray,
    sort: np.ndarray,
    places: np.ndarray | None,
    size: int,
    fill: float,
) -> np.ndarray:
    """(n,) values of the design's rows to (size,)."""
    out = empty((size,))
    if places is None:
        np.take(column, sort, out=out[: len(sort)])
        out[len(sort) :] = fill
    else:
        out.fill(fill)
        out[places] = column[sort]
    return out
