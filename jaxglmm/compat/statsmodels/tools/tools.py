"""``add_constant`` of ``statsmodels.tools.tools``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from jaxglmm.compat.statsmodels._theirs import falling_through

HAS_CONSTANT = ("skip", "raise", "add")


def add_constant(data: Any, prepend: bool = True, has_constant: str = "skip") -> Any:
    """A design with a column of ones, ``const``.

    Args:
        data: (n, p) array, frame or series; a vector is one column.
        prepend: the ones come first, else last.
        has_constant: where a column is constant and not zero already, "skip" returns
            the data as they are, "raise" refuses, "add" adds all the same.

    Returns:
        A frame where ``data`` is pandas', else an array.

    >>> add_constant([2.0, 3.0]).tolist()
    [[1.0, 2.0], [1.0, 3.0]]
    """
    if has_constant not in HAS_CONSTANT:
        raise ValueError(f"has_constant={has_constant!r} must be one of {HAS_CONSTANT}")
    frame = data.to_frame() if isinstance(data, pd.Series) else data
    is_frame = isinstance(frame, pd.DataFrame)
    x = frame if is_frame else np.asarray(frame)
    if not is_frame:
        if x.dtype.names:
            raise TypeError("data is a structured array; make a frame of it first")
        if x.ndim > 2:
            raise ValueError("Only implemented for 2-dimensional arrays")
        x = x[:, None] if x.ndim == 1 else x
    values = np.asarray(x)
    constant = (
        (np.ptp(values, axis=0) == 0) & (values != 0).all(axis=0)
        if len(values) and values.dtype.kind in "iufb"
        else np.array([_constant(column) for column in values.T], bool)
    )
    if constant.any() and has_constant == "skip":
        return x
    if constant.any() and has_constant == "raise":
        where = np.flatnonzero(constant)
        names = [str(x.columns[j]) if is_frame else str(j) for j in where]
        raise ValueError(f"Column(s) {','.join(names)} are constant.")
    if is_frame:
        out = x.copy()
        out.insert(0 if prepend else x.shape[1], "const", 1.0)
        return out
    ones = np.ones((len(x), 1))
    return np.column_stack([ones, x] if prepend else [x, ones])


def _constant(column: np.ndarray) -> bool:
    try:
        numbers = column.astype(float)
    except (TypeError, ValueError):
        return False
    return bool(len(numbers) and np.ptp(numbers) == 0 and numbers[0] != 0)


__getattr__ = falling_through(__name__, "statsmodels.tools.tools")
