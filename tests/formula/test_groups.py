"""Grouping factors: codes, levels and their types, nesting."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from doors import (
    GroupCoding,
    _datasets,
    as_table,
    combine,
    design_from_formula,
    factorize,
    find,
    jsonable,
    match,
    pack_group,
    unpack_group,
)
from formula.frames import table
from hypothesis import given, settings
from hypothesis import strategies as st

LABELS = {
    "ints": [3, 1, 2, 1],
    "far ints": [3_000_000_000, -5, 7, -5],
    "unsigned": np.array([250, 3, 250, 7], np.uint8),
    "floats": [2.5, 1.0, 2.5, -1.0],
    "texts": ["b", "a", "c", "a"],
    "numpy texts": np.array(["b", "a", "c", "a"]),
    "bools": np.array([True, False, True, True]),
    "categories": pd.Categorical(["b", "a", "b", "c"], categories=["c", "b", "x", "a"]),
    "dates": pd.to_datetime(["2024-02-01", "2024-01-01", "2024-02-01", "2023-01-01"]),
    "nullable": pd.array([3, 1, 2, 1], dtype="Int64"),
    "mixed": [1, "b", 2, "b"],
}
LEVELS = {
    "ints": [1, 2, 3],
    "far ints": [-5, 7, 3_000_000_000],
    "unsigned": [3, 7, 250],
    "floats": [-1.0, 1.0, 2.5],
    "texts": ["a", "b", "c"],
    "numpy texts": ["a", "b", "c"],
    "bools": [False, True],
    "categories": ["c", "b", "a"],
    "nullable": [1, 2, 3],
    "mixed": [1, 2, "b"],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(kind):
    labels = LABELS[kind]
    frame = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0], "g": labels})
    term = design_from_formula("y ~ 1 + (1 | g)", frame).terms[0]
    assert term.codes.dtype == np.int32
    assert [str(v) for v in term.levels[term.codes]] == [
        str(v) for v in frame.g.to_numpy()
    ]
    if kind in LEVELS:
        assert term.levels.tolist() == LEVELS[kind]


def test_ints_stay_ints_beside_missing_ones():
    frame = pd.DataFrame(
        {"y": [1.0, 2, 3, 4], "g": pd.array([3, None, 2, 2], dtype="Int64")}
    )
    with pytest.warns(UserWarning, match=r"g \(1\)"):
        design = design_from_formula("y ~ 1 + (1 | g)", frame)
    assert design.terms[0].levels.tolist() == [2, 3]
    assert design.terms[0].levels.dtype.kind == "i"


def test_nested():
    frame = pd.DataFrame(
        {
            "y": np.arange(6.0),
            "batch": ["B", "A", "A", "B", "A", "B"],
            "cask": [1, 1, 2, 2, 1, 10],
        }
    )
    fine, coarse = design_from_formula("y ~ 1 + (1 | batch/cask)", frame).terms
    assert (fine.factor, coarse.factor) == ("cask:batch", "batch")
    assert fine.levels.tolist() == ["1:A", "1:B", "2:A", "2:B", "10:B"]
    assert fine.levels[fine.codes].tolist() == [
        "1:B", "1:A", "2:A", "2:B", "1:A", "10:B",
    ]  # fmt: skip
    swapped = design_from_formula("y ~ 1 + (1 | batch:cask)", frame).terms[0]
    assert swapped.levels.tolist() == ["A:1", "A:2", "B:1", "B:2", "B:10"]


def test_terms_on_one_factor_share_codes():
    terms = design_from_formula("y ~ x + (x + z || g)", table()).terms
    assert [t.label for t in terms] == ["g", "g.1", "g.2"]
    assert [t.names for t in terms] == [("(Intercept)",), ("x",), ("z",)]
    assert terms[0].codes is terms[2].codes


def test_factor_columns():
    data = table()
    one = design_from_formula("y ~ a + (a || g)", data).terms
    assert [t.names for t in one] == [("(Intercept)",), ("a[p]", "a[q]", "a[r]")]
    full = design_from_formula("y ~ a + (0 + a | g)", data).terms[0]
    np.testing.assert_array_equal(full.values.sum(axis=1), 1.0)
    contrasts = design_from_formula("y ~ a + (a | g)", data).terms[0]
    assert contrasts.names == ("(Intercept)", "a[T.q]", "a[T.r]")
    diagonal = design_from_formula("y ~ a + diag(0 + a | g)", data).terms[0]
    assert (diagonal.covariance, diagonal.values.shape) == ("diag", (60, 3))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=30))
def test_codes_invert(labels):
    values = np.array(labels)
    for kind in (values, values.astype(float), values.astype(str).astype(object)):
        codes, levels = factorize(kind)
        np.testing.assert_array_equal(levels[codes], kind)
        assert levels.tolist() == sorted(set(kind.tolist()))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.permutations(range(24)))
def test_permuting_rows_permutes_the_design(order):
    data = table(24)
    formula = "y ~ a * x + (x | g) + (1 | h/b)"
    one = design_from_formula(formula, data)
    other = design_from_formula(formula, data.iloc[list(order)])
    np.testing.assert_array_equal(other.X, one.X[list(order)])
    for s, t in zip(one.terms, other.terms, strict=True):
        np.testing.assert_array_equal(t.codes, s.codes[list(order)])
        np.testing.assert_array_equal(t.levels, s.levels)


MATCHES = [
    ([308, 309], ["309", "308", "x"], [1, 0, -1]),
    (["308", "309"], [309, 308, 1], [1, 0, -1]),
    ([308, 309], [309.0, 308.5], [1, -1]),
    (["a", "b"], ["b", "c"], [1, -1]),
    ([False, True], [1, 0], [-1, -1]),
    ([False, True], ["True"], [1]),
    ([1.5, 2.0], ["2", "1.5"], [1, 0]),
]


@pytest.mark.parametrize(("levels", "labels", "places"), MATCHES)
def test_match(levels, labels, places):
    as_array = [
        np.array(v, dtype=object) if isinstance(v[0], str) else np.array(v)
        for v in (levels, labels)
    ]
    assert match(*as_array).tolist() == places


# Numbers of levels beyond the types of integers --------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int64", "uint64"])
@pytest.mark.parametrize("tenths", [0, 4, 10])
def test_integers_over_the_whole_range_of_their_type(dtype, tenths):
    """Differences of 8 bits are no 8-bit numbers."""
    info = np.iinfo(dtype)
    span = min(200, int(info.max) - int(info.min))
    start = int(info.min) + tenths * (int(info.max) - int(info.min) - span) // 10
    values = np.array([start + k for k in (*range(span), 3, 150)], dtype)
    codes, levels = factorize(values)
    assert levels.dtype == values.dtype
    np.testing.assert_array_equal(levels, np.unique(values))
    np.testing.assert_array_equal(levels[codes], values)


@pytest.mark.parametrize("size", [7, 2**16, 2**31 - 1])
def test_products_of_many_levels(size):
    """Of five parts, whose product of levels is beyond 64 bits."""
    r = np.random.default_rng(size)
    parts = [r.choice(r.integers(0, size, 3), 200).astype(np.int32) for _ in range(5)]
    codes, table = combine(parts, [size] * 5)
    rows = np.stack(parts, axis=1)
    expected, place = np.unique(rows, axis=0, return_inverse=True)
    np.testing.assert_array_equal(table, expected)
    np.testing.assert_array_equal(codes, place.ravel())
    coding = GroupCoding("g", tuple("abcde"), (np.arange(3),) * 5, table[:50], table)
    known = find(coding.combinations, parts, [size] * 5)
    np.testing.assert_array_equal(known, np.where(codes < 50, codes, -1))
    lost = [np.where(np.arange(200) == 7, -1, part) for part in parts]
    assert find(table, lost, [size] * 5)[7] == -1


def test_nested_keys_that_are_unique_each():
    """262,144 rows: five factors of 2 and 65,536 levels, and their labels."""
    m = 2**18
    i = np.arange(m) // 4
    data = {"top": np.arange(m) // 2 % 2, "y": np.arange(m) % 3.0}
    data |= dict.fromkeys("abcd", i)
    design = design_from_formula("y ~ 1 + (1 | top:a:b:c:d)", data)
    term = design.terms[0]
    assert term.n_levels == m // 2
    np.testing.assert_array_equal(term.codes, (data["top"] * m // 4) + i)
    assert term.levels[[0, 1, -1]].tolist() == [
        *("0:0:0:0:0", "0:1:1:1:1", "1:65535:65535:65535:65535"),
    ]
    new = {name: values[::5] for name, values in data.items()}
    again = design.recipe.new_rows(new).terms[0].codes
    np.testing.assert_array_equal(again, term.codes[::5])
    new["d"] = np.roll(new["d"], 100)
    assert (design.recipe.new_rows(new).terms[0].codes == -1).all()


def test_combinations_of_older_files():
    """They hold mixed-radix numbers in place of the codes of the parts."""
    data = table()
    coding = design_from_formula("y ~ x + (1 | g:h:a)", data).recipe.groups["g:h:a"]
    saved = pack_group(coding)
    numbers = np.zeros(len(coding.levels), np.int64)
    for j, levels in enumerate(coding.part_levels):
        numbers = numbers * len(levels) + coding.combinations[:, j]
    old = unpack_group(saved | {"combinations": jsonable.pack(numbers)})
    np.testing.assert_array_equal(old.combinations, coding.combinations)


def test_data_sets_by_two_columns_of_many_levels():
    k = np.arange(70_000)
    codes, labels = _datasets(as_table({"a": k, "b": k[::-1]}), ["a", "b"])
    assert len(labels) == 70_000
    np.testing.assert_array_equal(codes, k)


# Times -------------------------------------------------------------------------------

DAYS = pd.date_range("2020-01-01", periods=4)
MOMENTS = pd.date_range("2020-01-01 06:30", periods=4, freq="6h")
SPANS = pd.timedelta_range("1h", periods=4, freq="90min")
SAME_DAYS = {
    "timestamps": DAYS,
    "seconds": DAYS.to_numpy().astype("M8[s]"),
    "days": DAYS.to_numpy().astype("M8[D]"),
    "dates": list(DAYS.date),
    "polars": pl.Series(list(DAYS.date)),
    "arrow": pa.array(list(DAYS.date)),
    "text": [str(d.date()) for d in DAYS],
    "text with the time": [str(d) for d in DAYS],
    "ISO 8601": [d.isoformat() for d in DAYS],
    "categories": pd.Categorical([str(d.date()) for d in DAYS]),
    "categories of times": pd.Categorical(DAYS),
    "zoned": DAYS.tz_localize("UTC"),
}
SAME_MOMENTS = {
    "timestamps": MOMENTS,
    "nanoseconds": MOMENTS.to_numpy().astype("M8[ns]"),
    "seconds": MOMENTS.to_numpy().astype("M8[s]"),
    "objects": np.array(list(MOMENTS.to_pydatetime()), object),
    "polars": pl.Series(list(MOMENTS.to_pydatetime())),
    "text": [str(d) for d in MOMENTS],
    "ISO 8601": [f"{d.isoformat()}.000" for d in MOMENTS],
    "with a zone": [f"{d.isoformat()}Z" for d in MOMENTS],
    "elsewhere": MOMENTS.tz_localize("UTC").tz_convert("Asia/Tokyo"),
}
SAME_SPANS = {
    "timedeltas": SPANS,
    "seconds": SPANS.to_numpy().astype("m8[s]"),
    "objects": list(SPANS.to_pytimedelta()),
    "text": [str(d) for d in SPANS],
    "polars": pl.Series(list(SPANS.to_pytimedelta())),
}


def textual(labels):
    return isinstance(next(iter(labels)), str)


@pytest.mark.parametrize("kinds", [SAME_DAYS, SAME_MOMENTS, SAME_SPANS])
def test_times_are_the_same_label_in_any_form(kinds):
    """As groups and as factors, whatever the fit saw and the new data hold."""
    y = np.random.default_rng(0).normal(size=8)
    g = np.repeat([1, 2], 4)
    turn = [2, 0, 3, 1]
    for fitted in kinds.values():
        column = pd.Series(fitted) if isinstance(fitted, list) else fitted
        twice = np.tile(np.arange(4), 2)
        if isinstance(column, pa.Array):
            column = column.take(pa.array(twice))
        elif isinstance(column, pd.Series):
            column = column.iloc[twice].to_numpy()
        else:
            column = column[twice]
        data = {"y": y, "when": column, "g": g}
        design = design_from_formula("y ~ C(when) + (1 | when) + (1 | g:when)", data)
        for form in kinds.values():
            if textual(fitted) and textual(form) and list(fitted) != list(form):
                continue  # texts are labels of their own, dates or not
            values = pl.Series(form).to_list() if isinstance(form, pl.Series) else form
            values = values.to_pylist() if isinstance(values, pa.Array) else values
            new = {"when": pd.Series(values).iloc[turn].to_numpy(), "g": [1, 2, 1, 2]}
            if isinstance(values, pd.DatetimeIndex) and values.tz is not None:
                new["when"] = values[turn]
            found = design.recipe.new_rows(new)
            assert found.terms[0].codes.tolist() == turn
            assert found.terms[1].codes.tolist() == [2, 4, 3, 5]
            np.testing.assert_array_equal(found.X, design.X[turn])


def test_texts_that_are_no_times_stay_apart():
    times = DAYS.to_numpy()
    labels = np.array(["2020-01-02", "02.01.2020", "x", "2020-01", None], object)
    assert match(times, labels).tolist() == [1, -1, -1, 0, -1]
    texts = np.array(["2020-01-01", "2020-01-01 00:00", "2020-01-02"], object)
    assert match(texts, times).tolist() == [0, 2, -1, -1]


NAMES = {
    "days": (DAYS, "2020-01-02"),
    "moments": (MOMENTS, "2020-01-01T12:30:00"),
    "fractions": (DAYS + pd.Timedelta("1.5s"), "2020-01-02T00:00:01.5"),
    "spans": (SPANS, "0 days 02:30:00"),
    "whole days": (pd.timedelta_range("1D", periods=4), "2 days"),
    "dates": (pd.Series(list(DAYS.date)), "2020-01-02"),
    "months": (pd.Series(pd.period_range("2020-01", periods=4, freq="M")), "2020-02"),
}


@pytest.mark.parametrize(("column", "name"), NAMES.values(), ids=NAMES)
def test_names_of_times(column, name):
    data = {"y": np.arange(4.0), "when": column}
    found = design_from_formula("y ~ 0 + C(when)", data).x_names
    assert found[1] == f"C(when)[{name}]"
    if len(set(found)) == 4:
        summed = design_from_formula("y ~ C(when, Sum)", data).x_names
        assert summed[2] == f"C(when, Sum)[S.{name}]"
