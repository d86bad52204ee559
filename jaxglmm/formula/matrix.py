"""A matrix of numbers of any make as float64: what is masked is missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import DataError

HINT = "code its columns as numbers, or use a formula, which codes factors"


def as_matrix(name: str, raw: Any, hint: str = HINT) -> np.ndarray:
    """Numbers (n, p) as float64; (n,) becomes one column. A copy.

    Args:
        name: of the argument, for messages.
        raw: an array (masked ones too), a SciPy sparse matrix, nested lists.
        hint: what to do, for messages.

    Raises:
        DataError: as ``as_numbers``, and for another number of dimensions.
    """
    matrix = as_numbers(name, raw, hint)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2:
        raise DataError(
            f"{name} must have 2 dimensions (rows, columns), got {matrix.ndim}"
        )
    return matrix


def as_numbers(name: str, raw: Any, hint: str = HINT) -> np.ndarray:
    """Numbers of any shape as float64; what is missing or masked is NaN. A copy.

    Raises:
        DataError: text (``"308"`` is text too), dates, complex numbers, rows of
            different lengths, what is no number.
    """
    if hasattr(raw, "tocsc") and hasattr(raw, "toarray"):
        raw = raw.toarray()
    try:
        found = raw if isinstance(raw, np.ndarray) else np.asanyarray(raw)
    except ValueError:
        raise DataError(f"{name} is not numeric: its rows differ in length") from None
    if found.dtype.kind in "cmM":
        raise DataError(f"{name} must be real numbers, not {found.dtype}; {hint}")
    if found.dtype.kind == "O":
        strange = next((v for v in found.ravel() if isinstance(v, str | bytes)), None)
        if strange is not None:
            raise DataError(f"{name} is not numeric: it holds text {strange!r}; {hint}")
    if found.dtype.kind in "US":
        raise DataError(f"{name} is not numeric: it holds text; {hint}")
    mask = np.ma.getmask(found)
    try:
        matrix = np.array(_plain(found), np.float64, order="C")
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name} is not numeric; {hint}") from None
    if mask is not np.ma.nomask:
        matrix[mask] = np.nan
    return matrix


def unmasked(values: Any) -> Any:
    """What is masked as missing: NaN among numbers, None among others."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    mask = np.ma.getmaskarray(values)
    if not mask.any():
        return values.data
    if values.dtype.kind in "iufb":
        return values.astype(np.float64).filled(np.nan)
    found = values.data.astype(object)
    found[mask] = None
    return found


def _plain(found: np.ndarray) -> np.ndarray:
    """Without a mask; pandas' ``NA`` and ``None`` among objects as NaN."""
    data = np.ma.getdata(found)
    if data.dtype.kind != "O":
        return data
    import pandas as pd

    return np.where(pd.isna(data), np.nan, data)
