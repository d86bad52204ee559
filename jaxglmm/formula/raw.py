"""Columns of any library as a ``Column``: what is missing, and what kind it is.

NumPy arrays (masked ones too), lists, pandas of every dtype, and what narwhals reads:
polars, pyarrow. A value is missing where its library says so, and identifiers of 64
bits stay themselves beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.formula.column import Column
from jaxglmm.formula.levels import factorize

EXACT = 2.0**53  # whole numbers up to here are floats without loss


def read_column(name: str, raw) -> Column:
    """One raw column, of whatever library, as a ``Column``.

    Raises:
        DataError: for more than one dimension, or values no model can use.
    """
    if isinstance(raw, Column):
        return raw
    if isinstance(raw, np.ma.MaskedArray):
        return _masked(name, raw)
    if isinstance(raw, np.ndarray) and raw.ndim == 1 and raw.dtype.kind in "iufb":
        return _plain(name, raw)
    if isinstance(raw, pd.Index):
        raw = raw.to_series()
    if isinstance(raw, pd.api.extensions.ExtensionArray):
        raw = pd.Series(raw)
    if not isinstance(raw, pd.Series):
        raw = _to_series(name, raw)
        if isinstance(raw, Column):
            return raw
    return _of_pandas(name, raw)


def _of_pandas(name: str, raw: pd.Series) -> Column:
    dtype = raw.dtype
    if isinstance(dtype, pd.SparseDtype):
        return _of_pandas(name, raw.sparse.to_dense())
    if isinstance(dtype, pd.CategoricalDtype):
        codes = raw.cat.codes.to_numpy().astype(np.int32)
        levels = _labels(raw.cat.categories)
        order = "stated" if raw.cat.ordered else "given"
        return Column(name, "label", codes=codes, levels=levels, order=order)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return Column(name, "time", raw.to_numpy("datetime64[ns]"))
    if isinstance(dtype, np.dtype):
        if dtype.kind == "c":
            raise DataError(f"column {name!r} is complex; a column must be real")
        if dtype.kind in "iufb":
            return _plain(name, raw.to_numpy())
        if dtype.kind in "mM":
            return Column(name, "time", raw.to_numpy())
        return _objects(name, raw.to_numpy())
    if isinstance(dtype, pd.ArrowDtype) and not _simple(dtype):
        import pyarrow as pa

        chunks = pa.chunked_array(raw.array.__arrow_array__())  # type: ignore
        return read_column(name, chunks)
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype):
        return _nullable(name, raw)
    return _label(name, raw.array)


def _simple(dtype: pd.ArrowDtype) -> bool:
    """Numbers, truths and text of Arrow: pandas' own reading of them is right."""
    kind = dtype.kind
    return kind in "iufbO" and dtype.type in (int, float, bool, str)


def _plain(name: str, values: np.ndarray) -> Column:
    if values.dtype.kind == "b":
        return Column(name, "truth", values)
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        values = values.astype(np.float64)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return Column(name, "number", values)


def _partly(name: str, values: np.ndarray, missing: np.ndarray) -> Column:
    """Numbers or truths of which some are missing, whatever ``values`` holds there."""
    if not missing.any():
        return _plain(name, values)
    found = _plain(name, values)
    floats = np.where(missing, np.nan, values.astype(np.float64))
    exact = None if values.dtype.kind == "f" else values
    return Column(name, found.kind, floats, exact=exact)


def _masked(name: str, raw: np.ma.MaskedArray) -> Column:
    """What is masked is missing."""
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    missing = np.ma.getmaskarray(raw)
    values = raw.data
    if raw.ndim != 1 or raw.dtype.names or not missing.any():
        return read_column(name, values)
    if values.dtype.kind in "iufb":
        return _partly(name, values, missing)
    if values.dtype.kind in "US":
        values = _decoded(name, values)
    values = values.copy()
    values[missing] = None if values.dtype.kind == "O" else "NaT"
    return read_column(name, values)


def _nullable(name: str, raw: pd.Series) -> Column:
    """pandas' nullable and Arrow-backed numbers and truths."""
    dtype: Any = raw.dtype
    own = dtype.numpy_dtype
    if own.kind not in "iufb":
        return _objects(name, raw.to_numpy(object, na_value=None))
    missing = raw.isna().to_numpy(bool)
    if not missing.any():
        return _plain(name, raw.to_numpy(own))
    return _partly(name, raw.to_numpy(own, na_value=own.type(0)), missing)


def _objects(name: str, values: np.ndarray) -> Column:
    """Python objects: numbers where all are numbers, else dates, else labels."""
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "complex" or any(isinstance(v, complex) for v in values[:1000]):
        raise DataError(f"column {name!r} is complex; a column must be real")
    if kind in ("integer", "floating", "mixed-integer-float", "boolean", "decimal"):
        return _numbers(name, values, kind)
    if kind in ("datetime", "datetime64", "timedelta", "timedelta64"):
        better = pd.Series(values, dtype=object).infer_objects()
        if better.dtype != np.dtype(object):
            return _of_pandas(name, better)
    if kind == "date":
        days = [None if pd.isna(v) else v for v in values]
        return Column(name, "time", np.array(days, "datetime64[s]"))
    if kind in ("period", "interval"):
        return _label(name, pd.Series(values).infer_objects().array)
    return _label(name, values)


def _numbers(name: str, values: np.ndarray, kind: str) -> Column:
    """Numbers that are Python objects, exact as labels whatever their size."""
    missing = pd.isna(values)
    known = values[~missing]
    exact = None
    if kind == "boolean":
        exact = known.astype(bool)
    elif kind != "floating":
        exact = _whole(known.tolist())
    try:
        floats = np.full(len(values), np.nan)
        floats[~missing] = known.astype(np.float64)
    except (OverflowError, TypeError, ValueError):
        raise DataError(
            f"column {name!r} holds numbers beyond the range of doubles; rescale it, "
            "or make text of it if it is a label"
        ) from None
    if exact is None:
        return Column(name, "number", floats)
    own = np.zeros(len(values), exact.dtype)
    own[~missing] = exact
    if exact.dtype.kind == "O":
        return Column(name, "number", floats, exact=own)
    return _partly(name, own, missing)


def _whole(values: list) -> np.ndarray | None:
    """Whole numbers as integers, of Python's kind beyond 64 bits; None for others."""
    try:
        whole = [int(v) for v in values]
    except (OverflowError, ValueError):  # infinite
        return None
    if any(w != v for w, v in zip(whole, values, strict=True)):
        return None
    for dtype in (np.int64, np.uint64):
        try:
            return np.array(whole, dtype)
        except OverflowError:
            continue
    return np.array(whole, object)


def _label(name: str, values) -> Column:
    try:
        codes, levels = factorize(values)
    except TypeError:
        strange = _unhashable(values)
        raise DataError(
            f"column {name!r} holds {strange} objects; a column must be numbers, text, "
            "true/false, dates or categories"
        ) from None
    return Column(name, "label", codes=codes, levels=levels)


def _unhashable(values) -> str:
    for value in values:
        try:
            hash(value)
        except TypeError:
            return type(value).__name__
    return type(values[0]).__name__


def _labels(categories: pd.Index) -> np.ndarray:
    """The categories as an array; tuples stay one label each."""
    if isinstance(categories.dtype, pd.DatetimeTZDtype):
        return categories.to_numpy("datetime64[ns]")
    labels = categories.to_numpy()
    if labels.dtype.kind in "iufbmM":
        return labels
    found = np.empty(len(labels), object)
    found[:] = list(labels)
    return found


def _decoded(name: str, values: np.ndarray) -> np.ndarray:
    """Fixed-width text as Python strings; bytes are UTF-8."""
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"column {name!r} holds bytes that are not UTF-8 text; decode it first"
            ) from None
    return values.astype(str).astype(object)


def _to_series(name: str, raw) -> pd.Series | Column:
    """Lists, arrays and other libraries' columns as pandas' (or at once as ours)."""
    if isinstance(raw, np.ndarray):
        return _of_array(name, raw)
    if isinstance(raw, list | tuple | range):
        return _of_list(name, raw)
    if hasattr(raw, "tocsc") and hasattr(raw, "toarray"):  # SciPy's sparse vectors
        dense = np.asarray(raw.toarray())
        return _to_series(name, dense[0] if dense.shape[0] == 1 else dense)
    if hasattr(raw, "__array_interface__"):
        return pd.Series(raw)
    import narwhals.stable.v1 as nw

    if hasattr(raw, "dictionary_encode") and not hasattr(raw, "chunks"):
        import pyarrow as pa

        raw = pa.chunked_array([raw])  # narwhals knows these only
    try:
        series = nw.from_native(raw, series_only=True)
    except TypeError:
        if hasattr(raw, "__array__"):  # JAX, PyTorch and other array libraries
            return _to_series(name, np.asarray(raw))
        raise DataError(
            f"{name!r} must be a column of values, not {type(raw).__name__}"
        ) from None
    return _of_narwhals(name, series)


def _of_array(name: str, raw: np.ndarray) -> pd.Series | Column:
    raw = np.asarray(raw)  # a column of ``np.matrix`` would stay one
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise DataError(f"column {name!r} has {raw.ndim} dimensions; it must have 1")
    if raw.dtype.names:
        raise DataError(
            f"column {name!r} is an array of records ({', '.join(raw.dtype.names)}); "
            "pass one of its fields"
        )
    if raw.dtype.kind in "iufb":
        return _plain(name, raw)
    if raw.dtype.kind in "US":
        return _label(name, _decoded(name, raw))
    if raw.dtype.kind == "V":  # bfloat16 and other numbers that NumPy does not know
        try:
            return _plain(name, raw.astype(np.float64))
        except (TypeError, ValueError):
            raise DataError(f"column {name!r} holds raw bytes, not numbers") from None
    if raw.dtype.kind == "O":
        return _objects(name, raw)
    return pd.Series(raw)


def _of_list(name: str, raw: list | tuple | range) -> pd.Series | Column:
    if any(isinstance(v, list | tuple | np.ndarray | dict) for v in raw):
        raise DataError(f"column {name!r} is nested; it must be a flat list")
    values = np.empty(len(raw), object)
    values[:] = [None if v is np.ma.masked else v for v in raw]
    return _objects(name, values)


def _of_narwhals(name: str, series) -> pd.Series | Column:
    import narwhals.stable.v1 as nw

    dtype = series.dtype
    if dtype.is_integer() or dtype.is_float():
        return _of_numbers(name, series)
    if dtype in (nw.Datetime, nw.Date, nw.Duration):
        return pd.Series(series.to_numpy()).rename(name)
    if dtype == nw.String:
        return _text(name, series)
    if dtype in (nw.Categorical, nw.Enum):
        return _of_categories(series)
    return _of_list(name, series.to_list())


def _of_numbers(name: str, series) -> Column:
    try:
        if not series.null_count():
            return _plain(name, np.asarray(series.to_numpy()))
        missing = np.asarray(series.is_null().to_numpy(), bool)
        values = np.asarray(series.fill_null(0).to_numpy())
    except Exception:  # of the library behind it, such as 128 bits in polars
        return _objects(name, np.array(series.to_list(), object))
    if values.dtype.kind not in "iuf":
        return _objects(name, np.array(series.to_list(), object))
    return _partly(name, values, missing)


def _of_categories(series) -> pd.Series:
    import narwhals.stable.v1 as nw

    native = series.to_native()
    if hasattr(native, "dictionary_encode"):  # pyarrow: its dictionary is of any type
        return native.to_pandas()
    labels = pd.Series(series.to_list(), dtype=object)
    is_polars = series.implementation is nw.Implementation.POLARS
    # polars' plain Categorical has the order of some global cache: no order at all.
    if series.dtype == nw.Enum or not is_polars:
        categories = series.cat.get_categories().to_list()
        return labels.astype(pd.CategoricalDtype(categories, series.dtype == nw.Enum))
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
