"""Grouping factors: codes, levels and their types, nesting."""

import numpy as np
import pandas as pd
import pytest
from formula.frames import table
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxglmm.formula import design_from_formula
from jaxglmm.formula.levels import factorize, match

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
