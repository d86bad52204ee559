"""A table of any make as named columns of four kinds.

pandas and polars frames, pyarrow tables, NumPy record arrays and dicts of columns are
read column by column, and only the columns that a model names. A column is a
``number``, a ``truth``, a ``time`` or a ``label``; labels become codes and levels at
once, since nothing downstream wants the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError
from jaxglmm.formula.levels import compress, factorize
from jaxglmm.formula.notices import nearest


@dataclass(frozen=True)
class Column:
    """One variable.

    kind: "number", "truth", "time": ``values`` (n,) is set; "label": ``codes`` and
    ``levels`` are. ``whole`` marks whole numbers that are floats only because some rows
    were missing.
    """

    name: str
    kind: str
    values: np.ndarray | None = None
    codes: np.ndarray | None = None
    levels: np.ndarray | None = None
    whole: bool = False

    def __len__(self) -> int:
        return len(self.values if self.codes is None else self.codes)  # type: ignore

    @property
    def missing(self) -> np.ndarray | None:
        """(n,) mask, or None where no value is missing."""
        if self.codes is not None:
            mask = self.codes < 0
        elif self.kind == "time":
            mask = np.isnat(self.values)  # type: ignore[arg-type]
        elif self.kind == "number" and self.values.dtype.kind == "f":  # type: ignore
            with np.errstate(invalid="ignore", over="ignore"):
                if np.isfinite(self.values.sum()):  # type: ignore[union-attr]
                    return None
            mask = np.isnan(self.values)  # type: ignore[arg-type]
        else:
            return None
        return mask if mask.any() else None

    def take(self, rows: np.ndarray | None) -> Column:
        """The column at ``rows`` (all of it if None)."""
        if rows is None:
            return self
        if self.codes is not None:
            return replace(self, codes=self.codes[rows])
        return replace(self, values=self.values[rows])  # type: ignore[index]

    def owned(self) -> Column:
        """The column with values of its own, safe from later changes to the data."""
        if self.values is None:
            return self
        return replace(self, values=self.values.copy())

    def as_factor(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes and the levels that occur."""
        if self.codes is not None:
            codes, used = compress(self.codes, len(self.levels))  # type: ignore
            return codes, self.levels[used]  # type: ignore[index]
        values = self.values
        if self.whole and values.dtype.kind == "f":  # type: ignore[union-attr]
            known = ~np.isnan(values)  # type: ignore[arg-type]
            if known.all():
                values = values.astype(np.int64)  # type: ignore[union-attr]
        return factorize(values)

    def labels(self) -> np.ndarray:
        """(n,) values as a plain array; labels spelled out, None where missing."""
        if self.codes is None:
            return self.values  # type: ignore[return-value]
        if (self.codes < 0).any():
            return np.append(self.levels.astype(object), [None])[self.codes]  # type: ignore
        return self.levels[self.codes]  # type: ignore[index]

    def as_series(self) -> pd.Series:
        """For expressions: what a user's function expects of a data frame's column."""
        if self.codes is None:
            return pd.Series(self.values, copy=False)
        levels = pd.Index(self.levels)
        return pd.Series(pd.Categorical.from_codes(self.codes, categories=levels))


class Columns(Mapping[str, np.ndarray]):
    """Columns by name; looking one up gives the plain array."""

    def __init__(self, columns: Mapping[str, Column]):
        self.columns = dict(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name].labels()

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"Columns({', '.join(self.columns)})"


@dataclass(frozen=True)
class Table:
    """Names, number of rows, row labels, and a way to fetch one raw column."""

    names: tuple[str, ...]
    n: int
    fetch: Callable[[str], Any]
    index: object = None

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
    """Wrap a frame, a pyarrow table, a record array or a dict of columns."""
    if isinstance(data, Table):
        return data
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


def read_column(name: str, raw) -> Column:
    """One raw column, of whatever library, as a ``Column``.

    Raises:
        DataError: for more than one dimension, or values no model can use.
    """
    if isinstance(raw, Column):
        return raw
    if isinstance(raw, np.ndarray) and raw.ndim == 1 and raw.dtype.kind in "iufb":
        return _plain(name, raw)
    if isinstance(raw, pd.Index):
        raw = raw.to_series()
    if isinstance(raw, pd.Categorical):
        raw = pd.Series(raw)
    if not isinstance(raw, pd.Series):
        raw = _to_series(name, raw)
        if isinstance(raw, Column):
            return raw
    dtype = raw.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "c":
        raise DataError(f"column {name!r} is complex; a column must be real")
    if isinstance(dtype, np.dtype) and dtype.kind in "iufb":
        return _plain(name, raw.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        categories = raw.cat.categories
        return Column(
            name,
            "label",
            codes=raw.cat.codes.to_numpy().astype(np.int32),
            levels=_labels(categories),
        )
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return Column(name, "time", raw.to_numpy())
    if isinstance(dtype, pd.DatetimeTZDtype):
        return Column(name, "time", raw.to_numpy("datetime64[ns]"))
    if dtype == np.dtype(object):
        better = raw.infer_objects()
        if better.dtype != np.dtype(object):
            return read_column(name, better)
        if pd.api.types.infer_dtype(raw, skipna=True) == "decimal":
            return Column(name, "number", raw.astype(float).to_numpy())
    elif pd.api.types.is_bool_dtype(dtype) and not raw.isna().any():
        return Column(name, "truth", raw.to_numpy(bool))
    elif pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
        return _nullable(name, raw)
    try:
        codes, levels = factorize(
            raw.array if dtype != np.dtype(object) else raw.to_numpy()
        )
    except TypeError:
        raise DataError(
            f"column {name!r} holds {type(raw.iloc[0]).__name__} objects; a column "
            "must be numbers, text, true/false, dates or categories"
        ) from None
    return Column(name, "label", codes=codes, levels=levels)


def _plain(name: str, values: np.ndarray) -> Column:
    if values.dtype.kind == "b":
        return Column(name, "truth", values)
    if values.dtype == np.float16 or not values.dtype.isnative:
        values = values.astype(np.float64)
    return Column(name, "number", values)


def _nullable(name: str, raw: pd.Series) -> Column:
    """pandas' nullable numbers: missing ones become NaN, whole ones stay marked."""
    whole = pd.api.types.is_integer_dtype(raw.dtype)
    if not raw.isna().any():
        return _plain(name, raw.to_numpy(np.int64 if whole else np.float64))
    return Column(
        name, "number", raw.to_numpy(np.float64, na_value=np.nan), whole=whole
    )


def _labels(categories: pd.Index) -> np.ndarray:
    labels = categories.to_numpy()
    return labels if labels.dtype.kind in "iufb" else np.asarray(list(labels), object)


def _to_series(name: str, raw) -> pd.Series | Column:
    """Lists, arrays and other libraries' columns as pandas' (or at once as ours)."""
    if isinstance(raw, np.ndarray):
        if raw.ndim == 2 and raw.shape[1] == 1:
            raw = raw[:, 0]
        if raw.ndim != 1:
            raise DataError(
                f"column {name!r} has {raw.ndim} dimensions; it must have 1"
            )
        if raw.dtype.kind in "US":
            raw = raw.astype(str).astype(object)
        return pd.Series(raw)
    if isinstance(raw, list | tuple | range):
        if any(np.ndim(v) for v in raw[:1]):
            raise DataError(f"column {name!r} is nested; it must be a flat list")
        return pd.Series(list(raw))
    if hasattr(raw, "__array_interface__") or isinstance(
        raw, pd.api.extensions.ExtensionArray
    ):
        return pd.Series(raw)
    import narwhals.stable.v1 as nw

    try:
        series = nw.from_native(raw, series_only=True)
    except TypeError:
        if hasattr(raw, "__array__"):  # JAX, PyTorch and other array libraries
            return _to_series(name, np.asarray(raw))
        raise DataError(
            f"{name!r} must be a column of values, not {type(raw).__name__}"
        ) from None
    return _from_narwhals(name, series)


def _from_narwhals(name: str, series) -> pd.Series | Column:
    import narwhals.stable.v1 as nw

    dtype = series.dtype
    if dtype.is_numeric():
        whole = dtype.is_integer() and series.null_count() > 0
        values = (series.cast(nw.Float64) if series.null_count() else series).to_numpy()
        if dtype.is_decimal():
            values = values.astype(float)
        return replace(_plain(name, values), whole=whole)
    if dtype in (nw.Datetime, nw.Date, nw.Duration):
        return pd.Series(series.to_numpy()).rename(name)
    if dtype == nw.String:
        return _text(name, series)
    labels = pd.Series(series.to_list(), dtype=object)
    is_polars = series.implementation is nw.Implementation.POLARS
    # polars' plain Categorical has the order of some global cache: no order at all.
    if dtype == nw.Enum or (dtype == nw.Categorical and not is_polars):
        return labels.astype(pd.CategoricalDtype(series.cat.get_categories().to_list()))
    return labels


def _text(name: str, series) -> pd.Series | Column:
    """Text of polars and pyarrow, by Arrow's hash table: no Python string a row."""
    try:
        encoded = series.to_arrow().dictionary_encode()
    except ImportError:
        return pd.Series(series.to_list(), dtype=object)
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    codes, levels = factorize(np.array(encoded.dictionary.to_pylist(), dtype=object))
    raw = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Column(
        name, "label", codes=np.append(codes, np.int32(-1)).take(raw), levels=levels
    )


def _from_pandas(data: pd.DataFrame) -> Table:
    names = tuple(str(c) for c in data.columns)
    keys = dict(zip(names, data.columns, strict=True))

    def fetch(name: str):
        column = data[keys[name]]
        if isinstance(column, pd.DataFrame):
            raise DataError(f"column {name!r} appears {column.shape[1]} times; rename")
        return column

    return Table(names, len(data), fetch, data.index)


def _from_mapping(data: Mapping) -> Table:
    if not data:
        raise DataError("data is empty: it has no columns")
    names = tuple(str(k) for k in data)
    keys = dict(zip(names, data, strict=True))
    first = data[keys[names[0]]]
    if np.ndim(first) == 0 and not hasattr(first, "__len__"):
        raise DataError(
            f"data[{names[0]!r}] is a single value; a dict of columns needs lists or "
            "arrays"
        )
    return Table(names, len(first), lambda name: data[keys[name]])
