"""Responses as columns: in memory, in a file or sparse, read a chunk at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import DataError


class Responses:
    """An (n, D) matrix of which some rows are used.

    Args:
        values: NumPy array or memory map, pandas or polars frame, dict of columns,
            SciPy sparse matrix, or anything with a shape and slices (h5py, zarr).
        n: rows that there must be.
        rows: those that are used; all of them by default.

    Raises:
        DataError: of another shape, or not numeric.
    """

    def __init__(self, values: Any, n: int, rows: np.ndarray | None = None):
        self.values, self.labels = _read(values)
        self.rows, self.n = rows, n if rows is None else len(rows)
        shape = self.values.shape
        if shape[0] != n:
            hint = ""
            if shape[1] == n:
                hint = "; it has one response a row: pass its transpose"
            raise DataError(
                f"responses has the shape {shape}, but the data have {n} rows: it "
                f"needs one row for each of them and one column a response{hint}"
            )
        if shape[1] == 0:
            raise DataError("responses has no columns: there is nothing to fit")

    def __len__(self) -> int:
        return self.values.shape[1]

    def take(self, which: np.ndarray) -> np.ndarray:
        """Columns ``which`` as doubles (n, L), contiguous."""
        first, last = int(which[0]), int(which[-1])
        if last - first == len(which) - 1 and (np.diff(which) == 1).all():
            block = self._slice(first, last + 1)
        elif isinstance(self.values, np.ndarray):
            block = self.values[:, which]
        else:
            distinct, place = np.unique(which, return_inverse=True)
            parts = [self._slice(int(i), int(i) + 1) for i in distinct]
            block = np.concatenate(parts, axis=1)[:, place]
        if self.rows is not None:
            block = block[self.rows]
        return np.ascontiguousarray(block, np.float64)

    def _slice(self, start: int, stop: int) -> np.ndarray:
        part = self.values[:, start:stop]
        return part.toarray() if hasattr(part, "toarray") else np.asarray(part)


def _read(values: Any) -> tuple[Any, np.ndarray | None]:
    """Something with a shape that can be sliced, and names of its columns."""
    if values is None:
        raise DataError("responses is None: pass an (n, D) array or frame of responses")
    if isinstance(values, dict):
        import pandas as pd

        values = pd.DataFrame(values)
    if hasattr(values, "iloc"):  # pandas
        if values.ndim == 1:
            values = values.to_frame()
        return _numeric(values.to_numpy()), np.asarray(values.columns)
    if hasattr(values, "get_columns"):  # polars
        return _numeric(values.to_numpy()), np.asarray(values.columns)
    if hasattr(values, "tocsc"):
        return values.tocsc(), None
    if not hasattr(values, "shape") or isinstance(values, np.ndarray):
        values = np.asanyarray(values)
    elif not hasattr(values, "__getitem__"):
        raise DataError(
            f"responses must be an (n, D) array or frame, not {type(values).__name__}"
        )
    if len(values.shape) == 1:
        values = np.asarray(values)[:, None]
    if len(values.shape) != 2:
        raise DataError(
            f"responses has {len(values.shape)} dimensions; it needs two: rows of the "
            "data by responses"
        )
    return (_numeric(values) if isinstance(values, np.ndarray) else values), None


def _numeric(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "fiub":
        return values
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(
            "responses must be numeric: some columns hold text or objects"
        ) from None
