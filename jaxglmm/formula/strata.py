"""Rows that are alike in a few columns: which differ, and which each row has."""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Float, Int

MOST = 64  # distinct rows that count as few
LOOK = 1000  # rows of which the values of a column are guessed


def strata(
    columns: Float[np.ndarray, "n k"],
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "S k"]] | None:
    """Code (n,) of each row and the distinct rows (S, k); None where S > ``MOST``."""
    n, k = columns.shape
    code, size = np.zeros(n, np.int64), min(n, 1)
    for j in range(k):
        found = _values(columns[:, j])
        if found is None:
            return None
        values, which = found
        code = which if j == 0 else code * len(values) + which
        size *= len(values)
        if size > MOST or j == k - 1:
            seen = np.bincount(code, minlength=size) > 0
            size = int(seen.sum())
            if size > MOST:
                return None
            if size < len(seen):
                code = (np.cumsum(seen) - 1)[code]
    first = [int(np.argmax(code == s)) for s in range(size)]
    return code, columns[first]


def _values(column: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The distinct values of a column and which each row has; None where many."""
    values = np.unique(column[:LOOK])
    if len(values) > MOST:
        return None
    which = _match(values, column)
    if which is None:
        values = np.unique(column)
        if len(values) > MOST:
            return None
        which = _match(values, column)
    return None if which is None else (values, which)  # NaN is like nothing


def _match(values: np.ndarray, column: np.ndarray) -> np.ndarray | None:
    if len(values) > 2:
        which = np.minimum(np.searchsorted(values, column), len(values) - 1)
        return which if np.array_equal(values[which], column) else None
    high = column == values[-1]
    same = high if len(values) == 1 else high | (column == values[0])
    return high.astype(np.int64) * (len(values) - 1) if same.all() else None
