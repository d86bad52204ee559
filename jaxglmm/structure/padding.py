"""Sizes rounded up to a few values, so that a second data set compiles nothing.

Padding is exact: an empty level has Z'Z = 0, so its block of M is I, its
log-determinant 0 and its effects 0.
"""

from __future__ import annotations

import math

import numpy as np

ALIGNED = 64  # bytes: arrays that begin there go to the CPU's device without a copy


def empty(shape: tuple[int, ...], dtype: type | np.dtype = float) -> np.ndarray:
    """``np.empty`` that a device on the host takes as it is; not to be changed then.

    >>> empty((3, 2)).ctypes.data % ALIGNED
    0
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    raw = np.empty(size + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start : start + size].view(kind).reshape(shape)


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
    shape[axis] = size
    out = np.moveaxis(empty(tuple(shape), x.dtype), axis, -1)
    out[..., : size - missing] = np.moveaxis(x, axis, -1)
    out[..., size - missing :] = 0
    return np.moveaxis(out, -1, axis)
