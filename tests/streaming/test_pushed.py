"""Sums by SQL are those of the rows."""

import numpy as np
import pytest
from streaming_cases import assert_same, table

import jaxglmm as jg

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

MODELS = [
    ("y ~ x + z + f + (x | g)", {}),
    ("y ~ x * f + (x || g)", {"weights": "w"}),
    ("y ~ x * z + (1 | k/g)", {"reml": False}),
    ("y ~ 0 + f + offset(x) + (0 + x | g)", {"offset": "z"}),
    ("y ~ x + (x | g) + (1 | h)", {"weights": "w"}),
    ("y ~ x + (f | k)", {}),
    ("y ~ x + t + (1 | f:h)", {}),
]


@pytest.fixture
def data():
    found = table()
    found["t"] = found["h"] > 3
    found.loc[::97, "x"] = np.nan
    found.loc[5::301, "f"] = None
    found.loc[3::500, "w"] = 0.0
    return found


@pytest.mark.filterwarnings("ignore::jaxglmm.MissingRowsWarning")
@pytest.mark.parametrize(("formula", "options"), MODELS, ids=[m for m, _ in MODELS])
def test_the_same_as_in_memory(data, formula, options):
    outside = jg.lmm(formula, duckdb.from_df(data), **options)
    assert "SQL" in outside.plan.method
    assert_same(outside, jg.lmm(formula, data, **options))


@pytest.mark.filterwarnings("ignore::jaxglmm.MissingRowsWarning")
def test_expressions_are_read_in_batches(data):
    formula = "y ~ np.log(z) + (1 | g)"
    outside = jg.lmm(formula, duckdb.from_df(data))
    assert "SQL" not in outside.plan.method
    assert_same(outside, jg.lmm(formula, data))


def test_names_that_need_quotes(data):
    data = data.dropna().rename(columns={"x": 'the "x"', "g": "group by"})
    formula = 'y ~ `the "x"` + (1 | `group by`)'
    outside = jg.lmm(formula, duckdb.from_df(data))
    assert "SQL" in outside.plan.method
    assert_same(outside, jg.lmm(formula, data))


def test_values_that_cannot_be_used(data):
    data = data.dropna()
    with pytest.raises(jg.DataError, match="'x' is infinite"):
        jg.lmm("y ~ x + (1 | g)", duckdb.from_df(data.assign(x=np.inf)))
    with pytest.raises(jg.DataError, match="negative"):
        jg.lmm("y ~ x + (1 | g)", duckdb.from_df(data.assign(w=-1.0)), weights="w")
    with pytest.raises(jg.ModelError, match="constant"):
        jg.lmm("y ~ x + (1 | g)", duckdb.from_df(data.assign(y=2.0)))
    with pytest.raises(jg.DataError, match="no rows"):
        jg.lmm("y ~ x + (1 | g)", duckdb.from_df(data).filter("x > 1e9"))
    with pytest.raises(jg.DataError, match="no row is complete"):
        jg.lmm("y ~ x + (1 | g)", duckdb.from_df(data.assign(x=np.nan)))
