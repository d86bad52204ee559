"""A table of any make as named columns.

pandas and polars frames, pyarrow tables, NumPy record arrays, lists of records and
dicts of columns are read column by column, and only the columns that a model names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.formula.align import by_labels, row_labels
from jaxglmm.formula.column import Column, Columns
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.raw import read_column

__all__ = ["Column", "Columns", "Table", "as_table", "read_column"]


@dataclass(frozen=True)
class Table:
    """Names, number of rows, row labels, and a way to fetch one raw column.

    index: labels that results carry. labels: those by which rows are found where a
    column comes from elsewhere (a dict of Series has these and no index).
    """

    names: tuple[str, ...]
    n: int
    fetch: Callable[[str], Any]
    index: object = None
    labels: pd.Index | None = None

    def column(self, name: str) -> Column:
        """One column, checked for its length."""
        if name not in self.names:
            raise DataError(
                f"no column {name!r} in the data{nearest(name, self.names)}"
            )
        column = read_column(name, self.fetch(name))
        if len(column) != self.n:
            raise DataError(
                f"column {name!r} has {len(column)} rows, but {self.names[0]!r} has "
                f"{self.n}: all columns need the same length"
            )
        return column


def as_table(data) -> Table:
    """Wrap a frame, a pyarrow table, records, or a dict of columns."""
    if isinstance(data, Table):
        return data
    listing = isinstance(data, list | tuple) and len(data) > 0
    if listing and all(isinstance(row, Mapping) for row in data):
        data = pd.DataFrame(list(data))
    if isinstance(data, pd.DataFrame):
        return _from_pandas(data)
    if isinstance(data, Mapping):
        return _from_mapping(data)
    if isinstance(data, np.ndarray) and data.dtype.names:
        return Table(tuple(data.dtype.names), len(data), lambda name: data[name])
    if isinstance(data, np.ndarray | list | tuple | str) or data is None:
        raise DataError(
            f"data must be a table with named columns (a pandas or polars frame, a "
            f"pyarrow table, a dict of arrays), not {type(data).__name__}"
        )
    import narwhals.stable.v1 as nw

    if hasattr(data, "to_struct_array") and not hasattr(data, "combine_chunks"):
        import pyarrow as pa

        data = pa.Table.from_batches([data])  # narwhals knows no record batch
    try:
        frame = nw.from_native(data)
    except TypeError:
        raise DataError(
            f"cannot read data of type {type(data).__name__}; pass a pandas or polars "
            "frame, a pyarrow table or a dict of arrays"
        ) from None
    if isinstance(frame, nw.LazyFrame):
        raise DataError("data is lazy; call .collect() first")
    return Table(tuple(frame.columns), len(frame), lambda name: frame[name])


def _from_pandas(data: pd.DataFrame) -> Table:
    keys, flat = list(data.columns), data.columns.nlevels == 1
    names = tuple(map(str, keys))
    places: dict[str, list[int]] = {}
    for j, name in enumerate(names):
        places.setdefault(name, []).append(j)

    def fetch(name: str):
        at = places[name]
        if len(at) > 1:
            raise DataError(f"column {name!r} appears {len(at)} times; rename")
        if flat and keys[at[0]] == name:
            return data[name]  # in half the time
        return data.iloc[:, at[0]]

    return Table(names, len(data), fetch, data.index, data.index)


def _from_mapping(data: Mapping) -> Table:
    if not data:
        raise DataError("data is empty: it has no columns")
    names = tuple(str(k) for k in data)
    keys = dict(zip(names, data, strict=True))
    if len(keys) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"column {twice!r} appears twice, as text and as a number")
    first = data[keys[names[0]]]
    if not hasattr(first, "__len__") or getattr(first, "shape", None) == ():
        raise DataError(
            f"data[{names[0]!r}] is a single value; a dict of columns needs lists or "
            "arrays"
        )
    found = (row_labels(column) for column in data.values())
    labels = next((each for each in found if each is not None), None)

    def fetch(name: str):
        return by_labels(f"column {name!r}", data[keys[name]], labels)

    return Table(names, _length(first), fetch, labels=labels)


def _length(column) -> int:
    """Rows of a column; SciPy's sparse vectors have no ``len``."""
    return column.shape[0] if hasattr(column, "tocsc") else len(column)
