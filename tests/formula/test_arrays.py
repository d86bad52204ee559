"""Arrays to a design: names, defaults, checks and new rows."""

import json
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from doors import design_from_arrays, design_from_formula, recipe_from_dict
from formula.frames import table

from jaxglmm import DataError, MissingRowsWarning, ModelError


@pytest.fixture
def parts():
    """y, X with an intercept, groups, slopes."""
    data = table()
    X = np.column_stack([np.ones(60), data.x, data.z])
    return data.y.to_numpy(), X, {"g": data.g, "h": data.h.to_numpy()}, data


def test_equals_the_formula(parts):
    y, X, groups, data = parts
    design = design_from_arrays(
        y,
        X,
        groups,
        random_effects={"g": ["1", "time"]},
        random_data={"time": data.x},
        weights=data.w,
        offset=data.z.tolist(),
    )
    formula = design_from_formula(
        "y ~ x + z + (x | g) + (1 | h)", data, weights="w", offset="z"
    )
    np.testing.assert_array_equal(design.X, formula.X)
    np.testing.assert_array_equal(design.weights, formula.weights)
    np.testing.assert_array_equal(design.offset, formula.offset)
    assert design.x_names == ("(Intercept)", "X1", "X2")
    assert [t.names for t in design.terms] == [
        ("(Intercept)", "time"),
        ("(Intercept)",),
    ]
    for s, t in zip(design.terms, formula.terms, strict=True):
        np.testing.assert_array_equal(s.codes, t.codes)
        np.testing.assert_array_equal(s.values, t.values)
        assert s.levels.tolist() == t.levels.tolist()
    assert [t.columns for t in design.fixed_terms] == [(0,), (1,), (2,)]
    assert design.fixed_terms[0].variables == frozenset()


NAMES = [
    (lambda X: X, ("(Intercept)", "X1", "X2")),
    (lambda X: X.tolist(), ("(Intercept)", "X1", "X2")),
    (lambda X: X[:, 1:], ("X1", "X2")),
    (lambda X: X[:, 1], ("X1",)),
    (lambda X: X[:, [1, 0]], ("X1", "(Intercept)")),
    (lambda X: 3 * X[:, [0]], ("X1",)),
    (lambda X: pd.DataFrame(X), ("(Intercept)", "X1", "X2")),
    (lambda X: pd.DataFrame(X, columns=["const", "a", "b"]), ("(Intercept)", "a", "b")),
    (lambda X: pd.DataFrame(X, columns=["one", "a", "b"]), ("one", "a", "b")),
    (lambda X: pd.Series(X[:, 1], name="a"), ("a",)),
    (lambda X: {"one": X[:, 0], "a": X[:, 1] > 0}, ("one", "a")),
]


@pytest.mark.parametrize(("make", "names"), NAMES)
def test_names(parts, make, names):
    y, X, groups, _ = parts
    assert design_from_arrays(y, make(X), groups).x_names == names


def test_polars_and_series(parts):
    pl = pytest.importorskip("polars")
    y, X, groups, _ = parts
    frame = pl.DataFrame({"one": X[:, 0], "a": X[:, 1]})
    labels = pl.DataFrame({"g": groups["g"].to_numpy()})
    design = design_from_arrays(pl.Series("out", y), frame, labels)
    assert design.x_names == ("one", "a")
    assert design.response == "out"
    assert design.terms[0].levels.tolist() == list(range(300, 306))


def test_groups_of_every_make(parts):
    y, X, groups, data = parts
    for given, name in [
        (groups["g"], "g"),
        (groups["g"].to_numpy(), "group"),
        (groups["g"].tolist(), "group"),
        (data[["g"]], "g"),
        ({"g": pd.Categorical(data.g)}, "g"),
    ]:
        design = design_from_arrays(y, X, given)
        assert [t.label for t in design.terms] == [name]
        assert design.terms[0].n_levels == 6


def test_slopes_from_columns_of_X(parts):
    y, X, groups, _ = parts
    frame = pd.DataFrame(X, columns=["one", "x", "z"])
    design = design_from_arrays(y, frame, groups, random_effects={"g": ["1", "x"]})
    np.testing.assert_array_equal(design.terms[0].values, X[:, :2])
    assert design.terms[1].names == ("(Intercept)",)
    alone = design_from_arrays(y, X, groups, random_effects={"g": "X1"})
    assert alone.terms[0].names == ("X1",)


def test_correlated(parts):
    y, X, groups, data = parts
    effects = {"g": ["1", "x"], "h": ["1", "x"]}
    slopes = {"x": data.x}
    for correlated, expected in [
        (True, ["us", "us"]),
        (False, ["diag", "diag"]),
        ({"h": False}, ["us", "diag"]),
    ]:
        design = design_from_arrays(
            y,
            X,
            groups,
            random_effects=effects,
            random_data=slopes,
            correlated=correlated,
        )
        assert [t.covariance for t in design.terms] == expected


def test_missing(parts):
    y, X, groups, data = parts
    y, X = y.copy(), X.copy()
    y[0] = np.nan
    X[1, 2] = np.nan
    h = data.h.astype(object)
    h[2] = None
    time = data.x.copy()
    time[3] = np.nan
    groups = {"g": data.g, "h": h}
    keywords = {"random_effects": {"g": ["1", "t"]}, "random_data": {"t": time}}
    with pytest.warns(MissingRowsWarning) as seen:
        design = design_from_arrays(y, X, groups, **keywords)
    assert "y (1), X[X2] (1), h (1), t (1)" in str(seen[0].message)
    assert seen[0].filename == __file__
    assert (design.n, design.n_missing, design.rows[0]) == (56, 4, 4)
    with pytest.raises(DataError, match="4 of 60 rows have missing values"):
        design_from_arrays(y, X, groups, **keywords, missing="raise")


def test_dependent_columns(parts):
    y, X, groups, _ = parts
    X = np.column_stack([X, X @ [1, 2, 3]])
    with pytest.warns(UserWarning, match="depends on others: 'X3'"):
        design = design_from_arrays(y, X, groups)
    assert design.x_names == ("(Intercept)", "X1", "X2")
    np.testing.assert_array_equal(design.recipe.sum_coded(), X)
    np.testing.assert_array_equal(
        design.recipe.new_rows({"X": X[:3], "groups": {}}).X, design.X[:3]
    )


@pytest.mark.parametrize("how", ["itself", "pickle", "json"])
def test_new_rows(parts, how):
    y, X, groups, data = parts
    frame = pd.DataFrame(X, columns=["(Intercept)", "x", "z"])
    design = design_from_arrays(
        y,
        frame,
        groups,
        random_effects={"g": ["1", "x", "time"]},
        random_data={"time": data.w},
    )
    recipe = design.recipe
    if how == "pickle":
        recipe = pickle.loads(pickle.dumps(recipe))
    if how == "json":
        saved = json.loads(json.dumps(recipe.to_dict()))
        recipe = recipe_from_dict(saved, variables=design.variables)
        np.testing.assert_array_equal(recipe.sum_coded(), X)
    rows = slice(5, 9)
    arguments = {
        "X": X[rows],
        "groups": {"g": data.g[rows].astype(str), "h": data.h[rows]},
        "random_data": {"time": data.w[rows]},
    }
    as_table = data[["x", "z", "g", "h"]][rows].assign(time=data.w[rows])
    for new in (arguments, arguments | {"X": frame[rows]}, as_table):
        found = recipe.new_rows(new)
        np.testing.assert_array_equal(found.X, X[rows])
        for s, t in zip(design.terms, found.terms, strict=True):
            np.testing.assert_array_equal(t.codes, s.codes[rows])
            np.testing.assert_array_equal(t.values, s.values[rows])
    population = recipe.new_rows({"X": X[rows]})
    assert (population.terms[0].codes == -1).all()
    assert recipe.new_rows({"X": X[rows]}, random=False).terms == ()


NEW = [
    ({"X": np.ones((2, 2))}, "X has shape (2, 2), expected 3 columns"),
    ({"X": np.ones((2, 3)), "group": {}}, "unknown entry 'group'"),
    ({"X": np.ones((2, 3)), "groups": {"g": [300]}}, "'g' has 1 rows, X has 2"),
    ({"X": np.ones((2, 3)), "groups": {"g": [300, 301]}}, "lack the slope 'time'"),
    ({"x": [1.0]}, "lack the column 'X1'"),
]


@pytest.mark.parametrize(("new", "text"), NEW)
def test_new_rows_that_do_not_fit(parts, new, text):
    y, X, groups, data = parts
    design = design_from_arrays(
        y, X, groups, random_effects={"g": ["1", "time"]}, random_data={"time": data.w}
    )
    with pytest.raises(DataError) as caught:
        design.recipe.new_rows(new)
    assert text in str(caught.value)


def test_offset_of_new_rows(parts):
    y, X, groups, data = parts
    recipe = design_from_arrays(y, X, groups, offset=data.w).recipe
    with pytest.raises(DataError, match="pass offset="):
        recipe.new_rows({"X": X})
    new = {"X": X, "offset": data.w}
    np.testing.assert_array_equal(recipe.new_rows(new).offset, data.w)


ones = np.ones(60)

# changed argument -> (error, text)
BAD = [
    (
        {"y": ones[:2], "X": ones[:2], "groups": {"g": [1, 2]}},
        "at least 3 observations, got 2",
    ),
    ({"y": "y ~ x"}, "y must be an array"),
    ({"y": None}, "y must be an array"),
    ({"y": np.ones((60, 2))}, "y must be one column"),
    ({"y": np.where(ones > 0, np.inf, 0)}, "'y' is infinite in 60 rows"),
    ({"y": ["a", "b"] * 30}, "family='binomial'"),
    ({"X": None}, "X is None"),
    ({"X": np.ones((59, 2))}, "X has 59 rows, expected 60 (matching y)"),
    ({"X": np.ones((60, 2, 2))}, "X must have 2 dimensions"),
    ({"X": [["a"]] * 60}, "X is not numeric"),
    ({"X": pd.DataFrame({"a": ["t"] * 60})}, "X: column 'a' is not numeric"),
    ({"X": np.full(60, np.inf)}, "infinite in 60 rows"),
    ({"groups": {}}, "at least one grouping factor is required"),
    ({"groups": None}, "groups must be a dict"),
    ({"groups": {"g": [1, 2, 3]}}, "groups['g'] has 3 elements, expected 60"),
    ({"groups": {"g": ones}}, "'g' has only 1 level"),
    ({"random_effects": ["1"]}, "random_effects must be a dict"),
    ({"random_effects": {"k": ["1"]}}, "'k' is not in groups; available: 'g', 'h'"),
    ({"random_effects": {"g": []}}, "random_effects['g'] is empty"),
    ({"random_effects": {"g": ["1", "1"]}}, "repeats a term"),
    (
        {"random_effects": {"g": ["1", "tme"]}, "random_data": {"time": ones}},
        "slope 'tme' needs its values in random_data",
    ),
    (
        {"random_effects": {"g": ["time"]}, "random_data": {"time": [1, 2]}},
        "random_data['time'] has 2 elements, expected 60",
    ),
    (
        {"random_effects": {"g": ["time"]}, "random_data": {"time": ["a"] * 60}},
        "random_data['time'] is not numeric",
    ),
    ({"random_data": 3}, "random_data must be a dict"),
    ({"weights": ones[:3]}, "weights has 3 values for 60 rows: it must have length 60"),
    ({"offset": ones[:3]}, "offset has 3 values for 60 rows: it must have length 60"),
    ({"weights": "w"}, "no table to look it up in"),
    ({"weights": -ones}, "weights must not be negative"),
    ({"weights": 0 * ones}, "all weights are zero"),
    ({"correlated": {"k": False}}, "'k' is not in groups"),
]


@pytest.mark.parametrize(("change", "text"), BAD, ids=[b[1] for b in BAD])
def test_messages(parts, change, text):
    y, X, groups, _ = parts
    with pytest.raises((DataError, ModelError)) as caught:
        design_from_arrays(**{"y": y, "X": X, "groups": groups, **change})
    assert text in str(caught.value)


@pytest.mark.parametrize("kind", [pl.Series, pa.array, pd.Series, list])
def test_labels_without_a_dict(kind):
    g = [f"g{k}" for k in np.arange(12) % 3]
    design = design_from_arrays(np.arange(12.0) ** 2, np.ones(12), kind(g))
    assert design.terms[0].factor == "group"
    assert design.terms[0].codes.tolist() == [0, 1, 2] * 4
    if kind is pl.Series:
        named = design_from_arrays(np.arange(12.0), np.ones(12), pl.Series("site", g))
        assert named.terms[0].factor == "site"
