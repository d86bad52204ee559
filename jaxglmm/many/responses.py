"""Responses as columns: in memory, in a file or sparse, read a chunk at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import DataError
from jaxglmm.formula.matrix import as_matrix
from jaxglmm.formula.reading import not_numeric
from jaxglmm.formula.tables import as_table
from jaxglmm.many.columns import MISSING


def check_order(values: Any, index: Any, name: str = "responses") -> None:
    """Refuse a frame whose row labels say that its rows are in another order.

    Rows are matched by position, as those of an array are.

    Raises:
        DataError: both have row labels of their own, and these differ.
    """
    import pandas as pd

    theirs = getattr(values, "index", None)
    if not isinstance(theirs, pd.Index) or not isinstance(index, pd.Index):
        return
    if len(theirs) != len(index) or theirs.equals(index):
        return
    default = pd.RangeIndex(len(index))
    plain = theirs.equals(default) or index.equals(default)
    if plain and not theirs.sort_values().equals(index.sort_values()):
        return
    raise DataError(
        f"the row labels of {name} and of the data differ, and rows are matched by "
        f"position: pass {name}.loc[data.index], or {name}.to_numpy() if the rows are "
        "in the same order"
    )


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

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.values.shape))
        return f"<Responses: {type(self.values).__name__} {shape}>"

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
    if hasattr(values, "iloc"):  # pandas
        if values.ndim == 1:
            values = values.to_frame()
        if all(_plain(dtype) for dtype in values.dtypes):
            return values.to_numpy(), np.asarray(values.columns)
        return _of_columns(values), np.asarray(values.columns)
    if isinstance(values, dict) or hasattr(values, "columns"):
        return _of_columns(values), np.asarray(as_table(values).names)
    if hasattr(values, "tocsc"):
        if values.dtype.kind == "c":
            raise DataError("responses is complex; it must be real")
        return values.tocsc(), None
    numbers = isinstance(values, np.ndarray) and values.dtype.kind in "fiub"
    if isinstance(values, np.ma.MaskedArray) or not (numbers or _on_disk(values)):
        return _matrix(values), None
    if len(values.shape) == 1:
        values = np.asarray(values)[:, None]
    if len(values.shape) != 2:
        raise _dimensions(len(values.shape))
    return values, None


def _matrix(values: Any) -> np.ndarray:
    try:
        count = np.ndim(values)
    except ValueError:
        raise DataError(
            "responses must be an (n, D) array or frame: these rows differ in length"
        ) from None
    if count not in (1, 2) and not hasattr(values, "tocsc"):
        raise _dimensions(count)
    return as_matrix(
        "responses", values, "responses must be numeric, text coded before"
    )


def _dimensions(count: int) -> DataError:
    return DataError(
        f"responses has {count} dimensions; it needs two: rows of the data by responses"
    )


def _plain(dtype: Any) -> bool:
    """NumPy's numbers, which a whole frame of them gives without a look at each."""
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub"


def _on_disk(values: Any) -> bool:
    """What has a shape and slices of numbers, such as arrays of h5py and zarr."""
    if isinstance(values, np.ndarray | list | tuple):
        return False
    return hasattr(values, "shape") and hasattr(values, "__getitem__")


def values_of(
    given: Any, which: np.ndarray, shape: tuple[int, ...], fill: float = 1.0
) -> np.ndarray:
    """Weights or offsets of some responses, (n, L): their own, of all, or none."""
    if given is None:
        return np.full(shape, fill)
    if isinstance(given, Responses):
        return given.take(which)
    return np.broadcast_to(given[:, None], shape)


def without_offset(
    responses: Responses,
    offset: np.ndarray | Responses | None,
    which: np.ndarray,
    keep: np.ndarray | None = None,
) -> np.ndarray:
    """(n, L) responses, the offset taken off, of the rows that are kept."""
    Y = responses.take(which)
    if offset is not None:
        Y = Y - values_of(offset, which, Y.shape)
    return Y if keep is None else Y[keep]


def marked(Y: np.ndarray, status: np.ndarray) -> np.ndarray:
    """``status`` (L,), but for responses with infinite or missing values."""
    if not np.isfinite(Y.sum(axis=0)).all():
        infinite, missing = np.isinf(Y).any(axis=0), np.isnan(Y).any(axis=0)
        status = np.where(infinite, _status.BAD_VALUES, status)
        status = np.where(missing, MISSING, status)
    return status


def _of_columns(values: Any) -> np.ndarray:
    """Columns of a frame, a table or a dict as doubles (n, D)."""
    table = as_table(values)
    out = np.empty((table.n, len(table.names)), order="F")
    for j, name in enumerate(table.names):
        column = table.column(name)
        if column.kind not in ("number", "truth"):
            raise DataError(f"responses must be numeric: column {not_numeric(column)}")
        out[:, j] = column.values
    return out
