"""From a design's arrays to rows on the device, for models whose weights change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jaxglmm.structure.bucket import bucket, pad
from jaxglmm.structure.factors import Columns, Factor, join
from jaxglmm.structure.fixed import orthonormal
from jaxglmm.structure.rows import AbstractRows, order, rows


@dataclass(frozen=True)
class RowData:
    """Rows of a design in internal coordinates, and the way back.

    rows: index arrays; X: (p, n) padded, columns orthogonal with mean square one;
    factors: in the order of ``rows``; R: (p, p), X of the user = X~ R; sort: (n,) the
    row of the design at each place; n: rows; size: rows after padding.
    """

    rows: AbstractRows
    X: np.ndarray
    factors: tuple[Factor, ...]
    R: np.ndarray
    sort: np.ndarray
    n: int
    size: int

    def place(self, values: np.ndarray | float, fill: float = 0.0) -> np.ndarray:
        """(n,) values of the design's rows, sorted and padded."""
        column = np.broadcast_to(np.asarray(values, float), (self.n,))[self.sort]
        out = pad(column, self.size)
        out[self.n :] = fill
        return out

    def back(self, values: np.ndarray) -> np.ndarray:
        """The inverse of ``place``."""
        out = np.empty(self.n)
        out[self.sort] = values[: self.n]
        return out


def build_rows(X: np.ndarray, terms: list[Columns]) -> RowData:
    """X: (n, p) of full rank; terms: any number, none for a model without effects."""
    n, p = X.shape
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
    R, basis = orthonormal(X, None)
    size = bucket(n)
    columns = np.zeros((p, size))
    columns[:, :n] = basis.whole[sort].T * np.sqrt(n)
    return RowData(
        rows(sorted_factors, size),
        columns,
        tuple(sorted_factors),
        R / np.sqrt(n),
        sort,
        n,
        size,
    )
