"""Sizes rounded up to a few values, so that a second data set compiles nothing.

Padding is exact: an empty level has Z'Z = 0, so its block of M is I, its
log-determinant 0 and its effects 0.
"""

from __future__ import annotations

import numpy as np


def bucket(size: int, steps: int = 8) -> int:
    """The next of ``steps`` sizes per power of two; 8 at least."""
    if size <= 8:
        return 8
    unit = max(1, 2 ** (int(size - 1).bit_length() - 1) // steps)
    return -(-size // unit) * unit


def pad(x: np.ndarray, size: int, axis: int = -1) -> np.ndarray:
    """``x`` with zeros appended along ``axis`` up to ``size``."""
    missing = size - x.shape[axis]
    if missing == 0:
        return np.ascontiguousarray(x)
    shape = list(x.shape)
    shape[axis] = missing
    return np.concatenate([x, np.zeros(shape, x.dtype)], axis=axis)
