"""Kinds of columns in every role: the same design as from their harmless form.

The harmless form of numbers is a list of floats, NaN where one is missing; that of
labels is a list of short texts, None where one is missing.
"""

import contextlib
import datetime as dt
import re
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from doors import (
    check_generalised,
    check_linear,
    design_from_arrays,
    design_from_formula,
)

from jaxglmm import (
    DataError,
    FormulaError,
    JaxGLMMWarning,
    MissingRowsWarning,
    ModelError,
)

N = 24
LOST = (3, 17)  # rows that are missing, where some are
r = np.random.default_rng(5)
NUMBERS = r.permutation(np.resize(np.arange(1, 121, 17), N))  # 113 ** 2 fits no int8
BASE = {"y": r.normal(size=N), "x": r.normal(size=N), "g": np.resize(list("abcd"), N)}
IDS = 2**60 + 3 * NUMBERS.astype(object)  # less than 256 apart: one double for all


def objects(values, lost=()):
    found = np.empty(len(values), object)
    found[:] = [None if i in lost else v for i, v in enumerate(values)]
    return found


def masked(values, lost):
    return np.ma.array(values, mask=[i in lost for i in range(len(values))])


def arrow(values, kind, lost):
    return pa.array(objects(values, lost).tolist(), type=kind)


NUMERIC = {  # what makes a column of whole numbers, some of them missing
    **{
        f"masked {kind}": lambda v, lost, kind=kind: masked(v.astype(kind), lost)
        for kind in ("int8", "uint8", "int64", "float16", "float32", "float64")
    },
    "masked (n, 1)": lambda v, lost: masked(v, lost)[:, None],
    **{
        kind: lambda v, lost, kind=kind: pd.Series(objects(v, lost), dtype=kind)
        for kind in (
            *("Int8", "UInt8", "Int64", "UInt64", "Float32", "Float64"),
            *("int8[pyarrow]", "uint32[pyarrow]", "double[pyarrow]"),
        )
    },
    "sparse": lambda v, lost: pd.Series(
        pd.arrays.SparseArray(np.where(np.isin(range(N), lost), np.nan, v))
    ),
    "objects": objects,
    "list": lambda v, lost: objects(v, lost).tolist(),
    "tuple": lambda v, lost: tuple(objects(v.astype(float), lost)),
    "mixed list": lambda v, lost: (
        [2 * k / 2 if k % 2 else k for k in v[:0]] + objects(v, lost).tolist()
    ),
    "decimals": lambda v, lost: objects([Decimal(int(k)) for k in v], lost),
    "NA objects": lambda v, lost: np.where(np.isin(range(N), lost), pd.NA, objects(v)),
    "masked objects": lambda v, lost: masked(objects(v), lost),
    **{
        f"polars {kind}": lambda v, lost, kind=kind: pl.Series(
            objects(v, lost).tolist(), dtype=kind
        )
        for kind in (pl.Int8, pl.UInt32, pl.Int64, pl.Float32, pl.Int128)
    },
    "polars Decimal": lambda v, lost: pl.Series(
        objects(v, lost).tolist(), dtype=pl.Decimal(10, 2)
    ),
    **{
        f"arrow {kind}": lambda v, lost, kind=kind: arrow(v, kind, lost)
        for kind in (pa.int8(), pa.uint64(), pa.float32())
    },
    "arrow decimal": lambda v, lost: arrow(
        [Decimal(int(k)) for k in v], pa.decimal128(10, 2), lost
    ),
    "arrow decimal of pandas": lambda v, lost: pd.Series(
        arrow([Decimal(int(k)) for k in v], pa.decimal128(10, 2), lost).to_pandas(),
        dtype=pd.ArrowDtype(pa.decimal128(10, 2)),
    ),
}
WHOLE = {  # without a missing value
    **{
        kind: lambda v, kind=kind: v.astype(kind)
        for kind in (
            *("int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64"),
            *("float16", "float32", "longdouble", ">i2", ">f4"),
        )
    },
    "index": lambda v: pd.Index(v),
    "np.matrix": lambda v: np.matrix(v.astype("int8")).T,
    "column": lambda v: v.astype("int8")[:, None],
    "scipy": lambda v: scipy.sparse.csr_matrix(v.astype("int8")[:, None]),
    "scipy array": lambda v: scipy.sparse.coo_array(v.astype("int8")),
}
CASES = [
    *((name, make, LOST) for name, make in NUMERIC.items()),
    *((name, lambda v, _, make=make: make(v), ()) for name, make in WHOLE.items()),
    *((f"{name}, whole", make, ()) for name, make in NUMERIC.items()),
]


def design(formula, column, **options):
    data = {**BASE, "k": column}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingRowsWarning)
        return design_from_formula(formula, data, **options)


def same(found, expected):
    """The same numbers, names and groups."""
    assert found.x_names == expected.x_names
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(found.y, expected.y)
    for name in ("weights", "offset", "trials", "rows"):
        one, two = getattr(found, name), getattr(expected, name)
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_array_equal(one, two)
    assert found.n_missing == expected.n_missing
    for one, two in zip(found.terms, expected.terms, strict=True):
        np.testing.assert_array_equal(one.codes, two.codes)
        np.testing.assert_array_equal(one.values, two.values)
        assert [str(v) for v in one.levels] == [str(v) for v in two.levels]


ROLES = {
    "response": ("k ~ x + (1 | g)", {}),
    "covariate": ("y ~ k + (1 | g)", {}),
    "square": ("y ~ I(k**2) + np.log(k + 1) + (1 | g)", {}),
    "square of the response": ("I(k**2) ~ x + (1 | g)", {}),
    "negative": ("y ~ I(3 - k) + I((-k) ** 3) + (1 | g)", {}),
    "slope": ("y ~ x + (k | g)", {}),
    "offset": ("y ~ x + offset(k * 100) + (1 | g)", {"offset": "k"}),
    "weights": ("y ~ x + (1 | g)", {"weights": "k"}),
    "trials": ("cbind(k, 120 - k) ~ x + (1 | g)", {"family_kind": "binomial"}),
}


@pytest.mark.parametrize(
    ("make", "lost"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_numbers(make, lost):
    column = make(NUMBERS, lost)
    plain = [np.nan if i in lost else float(v) for i, v in enumerate(NUMBERS)]
    for formula, options in ROLES.values():
        expected = design(formula, plain, **options)
        same(design(formula, column, **options), expected)
        new = expected.recipe.new_rows({**BASE, "k": column})
        np.testing.assert_array_equal(
            new.X, expected.recipe.new_rows({**BASE, "k": plain}).X
        )
    for name in ("weights", "offset"):
        same(
            design("y ~ x + (1 | g)", plain, **{name: column}),
            design("y ~ x + (1 | g)", plain, **{name: plain}),
        )
    for formula in ("y ~ x + (1 | k)", "y ~ C(k) + (1 | g)", "y ~ x + (1 | g:k)"):
        ints = pd.Series(objects(NUMBERS, lost), dtype="Int64")
        found, expected = design(formula, column), design(formula, ints)
        assert found.x_names == expected.x_names or "." in str(found.x_names)
        np.testing.assert_array_equal(found.X, expected.X)
        np.testing.assert_array_equal(found.terms[0].codes, expected.terms[0].codes)


@pytest.mark.parametrize(
    ("make", "lost"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_numbers_in_arrays(make, lost):
    column = make(NUMBERS, lost)
    plain = [np.nan if i in lost else float(v) for i, v in enumerate(NUMBERS)]
    ones, g = np.ones((N, 1)), {"g": BASE["g"]}
    calls = {
        "y": lambda k: design_from_arrays(k, ones, g),
        "X": lambda k: design_from_arrays(BASE["y"], {"one": ones, "k": k}, g),
        "slope": lambda k: design_from_arrays(
            BASE["y"], ones, g, random_effects={"g": ["1", "k"]}, random_data={"k": k}
        ),
        "group": lambda k: design_from_arrays(BASE["y"], ones, {"k": k}),
        "weights": lambda k: design_from_arrays(BASE["y"], ones, g, weights=k),
        "offset": lambda k: design_from_arrays(BASE["y"], ones, g, offset=k),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingRowsWarning)
        for name, call in calls.items():
            found, expected = call(column), call(plain)
            np.testing.assert_array_equal(found.X, expected.X, name)
            np.testing.assert_array_equal(found.y, expected.y)
            np.testing.assert_array_equal(found.terms[0].codes, expected.terms[0].codes)
            np.testing.assert_array_equal(
                found.terms[0].values, expected.terms[0].values
            )
            for part in ("weights", "offset"):
                if getattr(expected, part) is not None:
                    given = getattr(found, part)
                    np.testing.assert_array_equal(given, getattr(expected, part))


MATRICES = {
    "masked": lambda X: np.ma.masked_equal(np.where(np.isnan(X), -999, X), -999),
    "masked int8": lambda X: np.ma.masked_equal(
        np.where(np.isnan(X), -99, X).astype("int8"), -99
    ),
    "float16": lambda X: X.astype("float16"),
    "objects": lambda X: np.where(np.isnan(X), None, X.astype(object)),
    "lists": lambda X: X.tolist(),
    "Int64 frame": lambda X: pd.DataFrame(X).astype("Int64"),
    "records": lambda X: np.rec.fromarrays(X.T, names="X1,X2,X3"),
    "polars": lambda X: pl.DataFrame(X, schema=["a", "b", "c"]),
}


@pytest.mark.parametrize("make", MATRICES.values(), ids=MATRICES)
def test_matrices(make):
    X = np.column_stack([NUMBERS, NUMBERS[::-1], np.arange(N) % 5]).astype(float)
    X[4, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingRowsWarning)
        expected = design_from_arrays(BASE["y"], X, {"g": BASE["g"]})
        found = design_from_arrays(BASE["y"], make(X), {"g": BASE["g"]})
    assert found.n_missing == 1
    np.testing.assert_array_equal(found.X, expected.X)
    new = found.recipe.new_rows({"X": make(X)}, random=False)
    np.testing.assert_array_equal(new.X, X)


def test_sparse_matrices():
    X = np.column_stack([np.ones(N), np.arange(N) % 3]).astype(float)
    found = design_from_arrays(BASE["y"], scipy.sparse.csc_matrix(X), BASE["g"])
    np.testing.assert_array_equal(found.X, X)


DAYS = [dt.date(2020, 1, 1) + dt.timedelta(int(k)) for k in NUMBERS]
TIMES = [dt.datetime(2020, 1, 1, 12) + dt.timedelta(hours=int(k)) for k in NUMBERS]
TEXTS = [f"n{k:03d}" for k in NUMBERS]
IDS_64 = [int(i) for i in IDS]
LABELS = {
    "text": lambda lost: objects(TEXTS, lost),
    "pandas str": lambda lost: pd.Series(objects(TEXTS, lost), dtype="str"),
    "pandas string": lambda lost: pd.Series(objects(TEXTS, lost), dtype="string"),
    "pandas arrow": lambda lost: pd.Series(
        objects(TEXTS, lost), dtype=pd.ArrowDtype(pa.string())
    ),
    "fixed width": lambda lost: masked(np.array(TEXTS), lost),
    "bytes": lambda lost: masked(np.array(TEXTS, "S"), lost),
    "bytes objects": lambda lost: objects([t.encode() for t in TEXTS], lost),
    "category": lambda lost: pd.Categorical(objects(TEXTS, lost)),
    "ordered, unused": lambda lost: pd.Series(
        pd.Categorical(
            objects(TEXTS, lost), ["a", *sorted(set(TEXTS)), "z"], ordered=True
        )
    ),
    "category of ids": lambda lost: pd.Categorical(objects(IDS_64, lost)),
    "category of tuples": lambda lost: pd.Categorical(
        objects([(k, "t") for k in NUMBERS.tolist()], lost)
    ),
    "polars text": lambda lost: pl.Series(objects(TEXTS, lost).tolist()),
    "polars category": lambda lost: pl.Series(
        objects(TEXTS, lost).tolist(), dtype=pl.Categorical
    ),
    "polars enum": lambda lost: pl.Series(
        objects(TEXTS, lost).tolist(), dtype=pl.Enum(sorted(set(TEXTS)))
    ),
    "arrow text": lambda lost: arrow(TEXTS, pa.large_string(), lost),
    "dates": lambda lost: objects(DAYS, lost),
    "datetimes": lambda lost: objects(TIMES, lost),
    "datetime64": lambda lost: pd.Series(objects(TIMES, lost)).astype("M8[ns]"),
    "masked datetime64": lambda lost: masked(np.array(DAYS, "M8[D]"), lost),
    "zoned": lambda lost: pd.Series(objects(TIMES, lost)).dt.tz_localize("Asia/Tokyo"),
    "polars dates": lambda lost: pl.Series(objects(DAYS, lost).tolist()),
    "arrow dates": lambda lost: arrow(DAYS, pa.date32(), lost),
    "arrow dates of pandas": lambda lost: pd.Series(
        objects(DAYS, lost), dtype=pd.ArrowDtype(pa.date32())
    ),
    "durations": lambda lost: pd.Series(
        objects([dt.timedelta(hours=int(k)) for k in NUMBERS], lost)
    ),
    "periods": lambda lost: pd.Series(
        objects([pd.Period(d, "D") for d in DAYS], lost), dtype="period[D]"
    ),
    "intervals": lambda lost: pd.Series(
        objects([pd.Interval(int(k), int(k) + 1) for k in NUMBERS], lost)
    ),
    "overlapping intervals": lambda lost: pd.Series(
        objects([pd.Interval(int(k), int(k) + 50) for k in NUMBERS], lost)
    ),
    "tuples of several lengths": lambda lost: pd.Series(
        objects([(int(k),) * (1 + int(k) % 3) for k in NUMBERS], lost)
    ),
    "tuples": lambda lost: pd.Series(
        objects([(k, "t") for k in NUMBERS.tolist()], lost)
    ),
    "ids Int64": lambda lost: pd.Series(objects(IDS_64, lost), dtype="Int64"),
    "ids UInt64": lambda lost: pd.Series(
        objects([i + 2**63 for i in IDS_64], lost), dtype="UInt64"
    ),
    "ids uint64": lambda lost: masked(
        np.array([i + 2**63 for i in IDS_64], np.uint64), lost
    ),
    "ids arrow of pandas": lambda lost: pd.Series(
        objects(IDS_64, lost), dtype="int64[pyarrow]"
    ),
    "ids arrow": lambda lost: arrow(IDS_64, pa.int64(), lost),
    "ids polars": lambda lost: pl.Series(objects(IDS_64, lost).tolist()),
    "ids objects": lambda lost: objects(IDS_64, lost),
    "ids list": lambda lost: objects(IDS_64, lost).tolist(),
    "ids decimals": lambda lost: objects([Decimal(i) for i in IDS_64], lost),
    "ids masked": lambda lost: masked(np.array(IDS_64), lost),
    "ids beyond 64 bits": lambda lost: objects([i * 2**70 for i in IDS_64], lost),
    "ids beyond 64 bits, near": lambda lost: objects([i + 2**90 for i in IDS_64], lost),
    "ids close together": lambda lost: masked(
        NUMBERS.astype(np.uint64) + np.uint64(2**63), lost
    ),
    "int8": lambda lost: masked((NUMBERS * 2 - 125).astype(np.int8), lost),
    "arrow dictionary": lambda lost: arrow(
        TEXTS, pa.string(), lost
    ).dictionary_encode(),
}


@pytest.mark.parametrize("lost", [(), LOST], ids=["whole", "missing"])
@pytest.mark.parametrize("make", LABELS.values(), ids=LABELS)
def test_labels(make, lost):
    """One level each, in order of the values, whatever they are made of."""
    column, plain = make(lost), objects(TEXTS, lost)
    formulas = ["y ~ x + (1 | k)", "y ~ x + (1 | g:k)"]
    as_is = make is LABELS["arrow dictionary"]  # keeps the order of its dictionary
    for formula in [*formulas, "y ~ C(k) + (1 | g)"]:
        found, expected = design(formula, column), design(formula, plain)
        if as_is:
            assert found.terms[0].n_levels == expected.terms[0].n_levels
            continue
        np.testing.assert_array_equal(found.X, expected.X)
        np.testing.assert_array_equal(found.terms[0].codes, expected.terms[0].codes)
        assert found.n_missing == len(lost)
    found = design("y ~ x + (1 | k)", column)
    back = found.recipe.new_rows({**BASE, "k": column}).terms[0].codes
    np.testing.assert_array_equal(back < 0, np.isin(range(N), lost))
    np.testing.assert_array_equal(back[back >= 0], found.terms[0].codes)


TRUTHS = {
    "bool": lambda lost: [bool(k % 2) for k in NUMBERS],
    "boolean": lambda lost: pd.Series(
        objects([bool(k % 2) for k in NUMBERS], lost), dtype="boolean"
    ),
    "arrow of pandas": lambda lost: pd.Series(
        objects([bool(k % 2) for k in NUMBERS], lost), dtype="bool[pyarrow]"
    ),
    "masked": lambda lost: masked(NUMBERS % 2 == 1, lost),
    "objects": lambda lost: objects([bool(k % 2) for k in NUMBERS], lost),
    "polars": lambda lost: pl.Series(
        objects([bool(k % 2) for k in NUMBERS], lost).tolist()
    ),
    "arrow": lambda lost: arrow([bool(k % 2) for k in NUMBERS], pa.bool_(), lost),
}


@pytest.mark.parametrize("make", TRUTHS.values(), ids=TRUTHS)
def test_truths(make):
    """A factor as a predictor, 0 and 1 as a response, with or without missing ones."""
    for lost in ((), LOST):
        column, plain = make(lost), np.asarray(NUMBERS % 2 == 1)
        keep = np.flatnonzero(~np.isin(range(N), lost))
        if len(design("y ~ k + (1 | g)", column).y) == N:
            keep = np.arange(N)  # a plain array has no missing values
        data = {name: np.asarray(values)[keep] for name, values in BASE.items()}
        for formula in ("y ~ k + (1 | g)", "k ~ x + (1 | g)", "y ~ x + (1 | k)"):
            expected = design_from_formula(formula, data | {"k": plain[keep]})
            found = design(formula, column)
            assert found.x_names == expected.x_names
            np.testing.assert_array_equal(found.X, expected.X)
            np.testing.assert_array_equal(found.y, expected.y)
            np.testing.assert_array_equal(found.terms[0].codes, expected.terms[0].codes)


ODD = {
    "ragged": ([[1.0, 2.0]] * (N - 1) + [[1.0]], "nested"),
    "nested later": ([1.0] * (N - 1) + [[1.0]], "nested"),
    "objects of lists": (objects([[1.0]] * N), "holds list objects"),
    "dicts": (objects([{}] * N), "holds dict objects"),
    "complex": (np.ones(N, complex), "complex"),
    "complex objects": (objects([1j] * N), "complex"),
    "records": (np.zeros(N, [("a", float), ("b", int)]), "array of records"),
    "matrix": (np.zeros((N, 2)), "2 dimensions"),
    "sparse matrix": (scipy.sparse.eye(N), "2 dimensions"),
    "short": (np.ones(3), "3 (rows|values|elements)"),
    "arrow lists": (pa.array([[1.0]] * N), "nested|list"),
    "polars lists": (pl.Series([[1.0]] * N), "nested"),
    "latin-1": (np.array([b"\xe9"] * N), "UTF-8"),
}


@pytest.mark.parametrize(("column", "text"), ODD.values(), ids=ODD)
def test_what_is_no_column(column, text):
    for formula in ("y ~ k + (1 | g)", "k ~ x + (1 | g)", "y ~ x + (1 | k)"):
        with pytest.raises(DataError, match=text):
            design(formula, column)
    for name in ("weights", "offset"):
        with pytest.raises(DataError, match=text):
            design("y ~ x + (1 | g)", [1.0] * N, **{name: column})


STRANGE = {
    "dictionary of numbers": pa.array(NUMBERS).dictionary_encode(),
    "dictionary of times": pa.array(pd.to_datetime(DAYS)).dictionary_encode(),
    "dictionary of truths": pa.array(NUMBERS > 50),
    "structs": pa.array([{"a": 1}] * N),
    "maps": pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64())),
    "arrow durations": pa.array(np.array(NUMBERS, "m8[s]")),
    "arrow times of day": pa.array(NUMBERS.tolist(), pa.time64("us")),
    "arrow bytes": pa.array([t.encode() for t in TEXTS]),
    "arrow nulls": pa.nulls(N),
    "arrow halves": pa.array(NUMBERS.astype("float16")),
    "arrow months": pa.array([pa.MonthDayNano([1, int(k), 0]) for k in NUMBERS]),
    "arrow views": pa.array(TEXTS, pa.string_view()),
    "arrow runs": pa.RunEndEncodedArray.from_arrays([N], [1]),
    "polars arrays": pl.Series([[1, 2]] * N, dtype=pl.Array(pl.Int64, 2)),
    "polars structs": pl.Series([{"a": 1}] * N),
    "polars objects": pl.Series([object() for _ in range(N)], dtype=pl.Object),
    "raw bytes": np.zeros(N, "V8"),
    "arrays": objects([np.zeros(2)] * N),
    "nothing": objects([None] * N),
    "no times": [pd.NaT] * N,
    "functions": objects([len] * N),
    "NumPy text": np.array(TEXTS, np.dtypes.StringDType()),
    "complex categories": pd.Categorical([1j, 2j] * (N // 2)),
    "intervals": pd.arrays.IntervalArray.from_breaks(np.arange(N + 1)),
    "NumPy's truths": objects([np.bool_(k > 50) for k in NUMBERS]),
    "NumPy's halves": [np.float16(k) for k in NUMBERS],
    "a dict": dict(enumerate(NUMBERS)),
    "a set": set(range(N)),
    "a number": 3.0,
    "a text": "abc",
    "nothing at all": None,
    "zero dimensions": np.array(3.0),
}
STRANGE_ROLES = {
    **{name: ROLES[name] for name in ("response", "covariate", "square", "weights")},
    "group": ("y ~ x + (1 | k)", {}),
    "nested group": ("y ~ x + (1 | g/k)", {}),
    "factor": ("y ~ C(k) + (1 | g)", {}),
    "text": ("k ~ x + (1 | g)", {"family_kind": "binomial"}),
}


@pytest.mark.filterwarnings("ignore::jaxglmm.JaxGLMMWarning")
@pytest.mark.parametrize("column", STRANGE.values(), ids=STRANGE)
def test_strange_columns_are_read_or_refused_with_a_sentence(column):
    good = design_from_formula("y ~ x + (1 | g)", BASE).recipe
    for formula, options in STRANGE_ROLES.values():
        try:
            made = design(formula, column, **options)
        except (DataError, FormulaError, ModelError):  # and none of Python's own
            continue
        assert np.isfinite(made.X).all()
        assert np.isfinite(made.y).all()
    for name in ("x", "g"):
        with contextlib.suppress(DataError):
            good.new_rows({**BASE, name: column}, new_levels="zero")


WRONG = {
    "text": (np.array([["1", "2"]] * N), "text"),
    "text objects": (np.array([["1", "2"]] * N, object), "text '1'"),
    "dates": (np.zeros((N, 2), "M8[D]"), "datetime64"),
    "complex": (np.ones((N, 2), complex), "complex128"),
    "ragged": ([[1.0, 2.0]] * (N - 1) + [[1.0]], "differ in length"),
    "text frame": (pd.DataFrame({"a": ["1"] * N}), "'a' is not numeric: 'a' is text"),
}


@pytest.mark.parametrize(("X", "text"), WRONG.values(), ids=WRONG)
def test_what_is_no_matrix(X, text):
    with pytest.raises(DataError, match=text):
        design_from_arrays(BASE["y"], X, {"g": BASE["g"]})


# Tables ------------------------------------------------------------------------------


def frame():
    return pd.DataFrame({**BASE, "k": NUMBERS.astype("int8")})


TABLES = {
    "polars": lambda d: pl.DataFrame(d.to_dict("list")),
    "arrow": lambda d: pa.Table.from_pandas(d),
    "batch": lambda d: pa.RecordBatch.from_pandas(d),
    "records": lambda d: d.to_records(index=False),
    "lists": lambda d: d.to_dict("list"),
    "rows": lambda d: d.to_dict("records"),
    "series": lambda d: dict(d.items()),
    "series in another order": lambda d: {
        name: column.sample(frac=1, random_state=i) if i else column
        for i, (name, column) in enumerate(d.items())
    },
    "labelled": lambda d: d.set_index(pd.Index([f"r{i}" for i in range(N)])),
    "labels twice": lambda d: d.set_index(pd.Index([0] * N)),
    "many labels": lambda d: d.set_index(
        pd.MultiIndex.from_arrays([[1] * N, range(N)])
    ),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_tables(make):
    formula = "y ~ I(k**2) + x + (1 | g)"
    expected = design_from_formula(formula, frame())
    found = design_from_formula(formula, make(frame()))
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(found.y, expected.y)
    np.testing.assert_array_equal(found.terms[0].codes, expected.terms[0].codes)
    new = expected.recipe.new_rows(make(frame()))
    np.testing.assert_array_equal(new.X, expected.X)


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame(np.ones((6, 3)), columns=["2", "2", "k"]),
        {2: np.ones(6), "2": np.ones(6), "k": np.ones(6)},
        pd.DataFrame({2: np.ones(6), "2": np.ones(6), "k": 1}),
    ],
)
def test_names_that_occur_twice(data):
    with pytest.raises(DataError, match=r"appears (twice|2 times)"):
        design_from_formula("k ~ `2`", data)


# Rows in another order ---------------------------------------------------------------

BESIDE = {
    "weights": ("y ~ x + (1 | g)", {}),
    "offset": ("y ~ x + (1 | g)", {}),
    "trials": ("k ~ x + (1 | g)", {"family_kind": "binomial"}),
}


@pytest.mark.parametrize("name", BESIDE)
def test_rows_are_found_by_their_labels(name):
    formula, options = BESIDE[name]
    data = frame().set_index(pd.Index([f"r{i}" for i in range(N)]))
    given = pd.Series(200.0 + np.arange(N), data.index)
    expected = design_from_formula(formula, data, **{name: given}, **options)
    turned = design_from_formula(
        formula, data, **{name: given.sample(frac=1, random_state=1)}, **options
    )
    same(turned, expected)
    order = data.sample(frac=1, random_state=2)
    sorted_first = design_from_formula(formula, order, **{name: given}, **options)
    np.testing.assert_array_equal(
        getattr(sorted_first, name), given[order.index].to_numpy()
    )
    plain = design_from_formula(formula, data, **{name: given.to_numpy()}, **options)
    same(plain, expected)
    for other in (given.rename(str.upper), given.set_axis(["r1"] * N)):
        with pytest.raises(DataError, match=f"{name}: its row labels are not those"):
            design_from_formula(formula, data, **{name: other}, **options)


def test_rows_of_arrays_are_found_by_their_labels():
    y = pd.Series(BASE["y"], [f"r{i}" for i in range(N)])
    X = pd.DataFrame({"one": 1.0, "x": BASE["x"]}, y.index)
    given = {
        "groups": pd.Series(BASE["g"], y.index, name="g"),
        "random_data": {"k": pd.Series(NUMBERS, y.index)},
        "weights": pd.Series(np.arange(1.0, N + 1), y.index),
        "offset": pd.Series(np.arange(1.0, N + 1), y.index),
    }
    effects = {"random_effects": {"g": ["1", "k"]}}
    expected = design_from_arrays(y, X, **given, **effects)
    same(design_from_arrays(y, X[::-1], **given, **effects), expected)
    for name, value in given.items():
        turned = value["k"][::-1] if name == "random_data" else value[::-1]
        turned = {"k": turned} if name == "random_data" else turned
        changed = given | {name: turned}
        same(design_from_arrays(y, X, **changed, **effects), expected)
    with pytest.raises(DataError, match="X: its row labels are not those of the data"):
        design_from_arrays(y, X.rename(index=str.upper), **given, **effects)


def test_offsets_of_new_rows_are_found_by_their_labels():
    data = frame()
    recipe = design_from_formula("y ~ x", data, offset=data.k.to_numpy()).recipe
    found = recipe.new_rows(data, offset=data.k[::-1]).offset
    np.testing.assert_array_equal(found, data.k)


# Arithmetic --------------------------------------------------------------------------


def test_integers_where_doubles_do_not_do():
    """Labels, look-ups and bits of integers: as integers, with those names."""
    data = frame()
    found = design_from_formula("y ~ C(k) + (1 | g)", data)
    assert found.x_names[1] == "C(k)[T.18]"
    texts = design_from_formula("y ~ k.astype(str) + (1 | g)", data)
    assert texts.x_names[1] == "k.astype(str)[T.103]"
    table = np.arange(200.0) ** 2
    looked = design_from_formula(
        "y ~ I(table[k]) + I(k & 1) + (1 | g)", data, context={"table": table}
    )
    np.testing.assert_array_equal(looked.X[:, 1], NUMBERS**2)
    np.testing.assert_array_equal(looked.X[:, 2], NUMBERS % 2)


def test_large_integers_are_doubles_in_expressions():
    ints = NUMBERS.astype(np.int64) * 10**9
    found = design("y ~ I(k**4) + (1 | g)", ints)
    np.testing.assert_allclose(found.X[:, 1], ints.astype(float) ** 4, rtol=1e-14)


# Text where numbers were meant -------------------------------------------------------

ALMOST = {
    "a dash": ("-", "of which '-' does not read as a number"),
    "thousands": ("1,234.5", "of which '1,234.5' does not read as a number"),
    "blank": (" ", "of which ' ' does not read as a number"),
    "a limit": ("<0.1", "of which '<0.1' does not read as a number"),
}


def text_column(strange, n=60):
    texts = [f"{k / 8}" for k in range(n)]
    texts[7] = strange
    return texts


def partly(texts):
    """As workbooks are read: numbers are numbers, but for one text among them."""
    return [float(t) if re.fullmatch(r"[\d.]+", t) else t for t in texts]


@pytest.mark.parametrize(("strange", "said"), ALMOST.values(), ids=ALMOST)
@pytest.mark.parametrize("kind", [list, partly, pd.Categorical, pl.Series, pa.array])
def test_text_that_was_meant_as_numbers(strange, said, kind):
    """The message names the column, how many values it has, and which are wrong."""
    n = 60
    column, floats = kind(text_column(strange)), np.arange(n) / 8
    data = {"y": floats[::-1] ** 2, "k": column, "g": np.arange(n) % 5, "x": floats}
    said = f"is text with 60 different values, {said}"
    with pytest.warns(
        JaxGLMMWarning, match=re.escape(f"'k' {said}, so it is a factor")
    ):
        linear = design_from_formula("y ~ k + (1 | g)", data)
    with pytest.raises(
        ModelError, match=re.escape("60 fixed effects and 60 rows")
    ) as e:
        check_linear(linear)
    assert f"'k' {said}" in str(e.value)
    with pytest.raises(ModelError, match=re.escape(f"'k' {said}")):
        check_generalised(linear)
    refused = {
        "log(k)": lambda: design_from_formula("y ~ log(k) + (1 | g)", data),
        "response": lambda: design_from_formula("k ~ x + (1 | g)", data),
        "binomial": lambda: design_from_formula(
            "cbind(k, 9 - x) ~ x + (1 | g)", data, family_kind="binomial"
        ),
        "two values": lambda: design_from_formula(
            "k ~ x + (1 | g)", data, family_kind="binomial"
        ),
        "trials": lambda: design_from_formula(
            "x ~ 1 + (1 | g)", data, family_kind="binomial", trials="k"
        ),
        "new data": lambda: design_from_formula("y ~ x", data).recipe.new_rows(
            {"x": column}
        ),
        "X": lambda: design_from_arrays(floats, {"k": column}, data["g"]),
        "y": lambda: design_from_arrays(column, np.ones(n), data["g"]),
    }
    for name in ("weights", "offset"):
        refused[name] = lambda name=name: design_from_formula(
            "y ~ x + (1 | g)", data, **{name: "k"}
        )
        refused[f"{name} beside"] = lambda name=name: design_from_formula(
            "y ~ x + (1 | g)", data, **{name: column}
        )
    for call in refused.values():
        with pytest.raises((DataError, FormulaError), match=re.escape(said)):
            call()


def test_text_that_is_a_factor_is_no_mistake():
    """Codes, names and a few classes of ages: nobody is warned."""
    n = 60
    for labels in (
        ["0-9", "10-19", "20-29", "30+"],
        ["1", "2", "3", "4+"],
        [str(k) for k in range(20)],
        [f"item {k}" for k in range(20)],
    ):
        data = {"y": np.arange(n) % 7, "k": np.resize(labels, n), "g": np.arange(n) % 4}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            design_from_formula("y ~ k + (1 | g)", data)
            design_from_formula("y ~ 1 + (1 | k)", data)


@pytest.mark.filterwarnings("ignore::jaxglmm.JaxGLMMWarning")
def test_text_with_as_many_values_as_rows_takes_no_memory():
    """20,000 indicators of 20,000 rows are three gigabytes; this is refused before."""
    n = 20_000
    data = {"y": np.arange(n) % 7, "k": text_column("n/a", n), "g": np.arange(n) % 4}
    for formula in ("y ~ k + (1 | g)", "y ~ C(k) + (1 | g)", "y ~ 1 + (k | g)"):
        with pytest.raises(ModelError, match=r"is text with 20000 .* 'n/a' does not"):
            design_from_formula(formula, data)
