"""What the data cannot tell is NaN, whichever columns were dropped."""

import warnings

import numpy as np
import pandas as pd
import pytest
from doors import drop_dependent

import jaxglmm as jg

pytestmark = [
    pytest.mark.filterwarnings("ignore::jaxglmm.RankDeficientWarning"),
    pytest.mark.filterwarnings("ignore::jaxglmm.SingularFitWarning"),
]


def _without_a_cell():
    """Crossed factors without the cell (A, r1)."""
    rng = np.random.default_rng(7)
    time = np.tile(np.repeat(list("ABCD"), 20), 3)
    data = pd.DataFrame({"time": time, "lake": np.repeat(["e", "r1", "r2"], 80)})
    data["b"] = rng.integers(0, 10, 240)
    data = data[(data.time != "A") | (data.lake != "r1")].reset_index(drop=True)
    data["y"] = rng.normal(size=220) + rng.normal(size=10)[data.b]
    data["k"] = (data.y > 0).astype(int)
    return data


@pytest.fixture(scope="module")
def lakes():
    return _without_a_cell()


ORDERS = ("ABCD", "BACD", "DCBA")


def _fit(data, order, formula="y ~ time*lake + (1|b)"):
    time = pd.Categorical(data.time, categories=list(order))
    return jg.lmm(formula, data.assign(time=time))


@pytest.fixture(scope="module")
def fits(lakes):
    return [_fit(lakes, order) for order in ORDERS]


def _quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.NotEstimableWarning)
        return make()


@pytest.mark.parametrize("grid", ["equal", "observed"])
def test_contrasts_do_not_depend_on_the_dropped_column(fits, grid):
    for fit in fits:
        with pytest.warns(jg.NotEstimableWarning, match="2 of 3 contrasts are not est"):
            table = fit.contrasts("lake", grid=grid)
        told = table["estimate"].notna().tolist()
        assert told == [False, True, False]  # e - r2 alone, as emmeans
        assert table.iloc[[0, 2], 1:].isna().all(axis=None)
        first = _quietly(lambda: fits[0].contrasts("lake", grid=grid))
        np.testing.assert_allclose(table.iloc[1, 1:3], first.iloc[1, 1:3], 1e-5)


def test_a_parametrisation_by_cells_agrees(lakes, fits):
    cells = _fit(lakes, "ABCD", "y ~ 0 + time:lake + (1|b)")
    mine = _quietly(lambda: cells.contrasts("lake"))
    theirs = _quietly(lambda: fits[0].contrasts("lake"))
    np.testing.assert_allclose(mine.iloc[:, 1:3], theirs.iloc[:, 1:3], rtol=1e-5)


@pytest.mark.parametrize("re", ["population", "conditional", "marginal"])
def test_new_data_in_the_empty_cell(fits, re):
    new = {"time": ["A", "B", "A"], "lake": ["r1", "r1", "e"], "b": [1, 1, 1]}
    for fit in fits:
        with pytest.warns(jg.NotEstimableWarning, match="1 of 3 rows is not estimable"):
            table = fit.predict(new, re=re, se=True, interval="prediction")
        assert table.iloc[0].isna().all()
        assert table.iloc[1:].notna().all(axis=None)
        expected = _quietly(lambda: fits[0].predict(new, re=re))
        np.testing.assert_allclose(table["fit"], expected, rtol=1e-5)


def test_means_and_rows_of_tables(fits):
    for fit in fits:
        with pytest.warns(jg.NotEstimableWarning, match="1 of 3 predictions is not"):
            means = fit.predictions(by="lake", grid="equal")
        assert means["estimate"].isna().tolist() == [False, True, False]
        rows = {"time": ["A", "C"], "lake": ["r1", "r1"]}
        table = _quietly(lambda fit=fit, rows=rows: fit.predictions(rows))
        assert table["estimate"].isna().tolist() == [True, False]
        assert fit.predictions(by="lake")["estimate"].notna().all()  # what occurred


def test_hypotheses(fits):
    told = [n for n in fits[0].coefficient_names if n == "lake[T.r2]"]
    assert np.isfinite(fits[0].test(told[0]).p)
    with pytest.warns(jg.NotEstimableWarning, match="rows of L"):
        result = fits[0].test("lake[T.r1]")  # of r1 and e at time A
    assert np.isnan([result.p, result.F, result.estimate[0]]).all()
    assert "not estimable" in repr(result)
    assert np.isfinite(fits[1].test("lake[T.r1]").p)  # at time B
    note = " ".join(fits[0].warnings)
    assert "Not estimable" in note
    assert "lake[T.r1]" in note


def test_saved_and_copied_fits_know_it(fits, tmp_path):
    fits[0].save(tmp_path / "a.fit")
    for other in (jg.load(tmp_path / "a.fit"), fits[0].copy()):
        table = _quietly(lambda other=other: other.contrasts("lake"))
        assert table["estimate"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize("type", ["response", "link"])
@pytest.mark.parametrize("re", ["population", "marginal"])
def test_generalised(lakes, type, re):
    fit = jg.glmm("k ~ time*lake + (1|b)", lakes)
    table = _quietly(lambda: fit.contrasts("lake", type=type, re=re))
    assert table["estimate"].isna().tolist() == [True, False, True]
    new = {"time": ["A", "B"], "lake": ["r1", "r1"], "b": [1, 1]}
    rows = _quietly(lambda: fit.predict(new, re=re, type=type, interval="confidence"))
    assert rows.iloc[0].isna().all()
    assert rows.iloc[1].notna().all()


@pytest.mark.parametrize("shift", [0.0, 1.7e9])
def test_slopes_along_copies_of_a_column(shift):
    data = jg.datasets.load("sleepstudy")
    data = data.assign(x=data.Days + shift, twice=2 * data.Days + 1, late=data.Days > 4)
    fit = jg.lmm("Reaction ~ x + twice + late + (1|Subject)", data)
    for name in ("x", "twice"):
        with pytest.warns(jg.NotEstimableWarning, match="slopes"):
            assert fit.slopes(name).isna()["estimate"].all()
    assert fit.contrasts("late")["estimate"].notna().all()
    along = {"x": [shift + 3.0], "twice": [7.0], "late": [False]}
    off = {"x": [shift + 3.0], "twice": [8.0], "late": [False]}
    assert np.isfinite(fit.predict(along, re="population")).all()
    assert np.isnan(_quietly(lambda: fit.predict(off, re="population"))).all()


@pytest.mark.parametrize("first", ["x", "twice"])
@pytest.mark.parametrize("type", [2, 3])
def test_a_term_that_others_determine_has_no_test(first, type):
    data = jg.datasets.load("sleepstudy")
    data = data.assign(x=data.Days + 1e6, twice=2 * data.Days, z=np.arange(180) % 7.0)
    second = {"x": "twice", "twice": "x"}[first]
    fit = jg.lmm(f"Reaction ~ {first} + {second} + z + (1|Subject)", data)
    alone = jg.lmm("Reaction ~ Days + z + (1|Subject)", data).anova(type)
    table = fit.anova(type)
    assert table.loc[first, "num_df"] == 0
    assert np.isnan(table.loc[first, "sum_sq"])
    np.testing.assert_allclose(table.loc["z"], alone.loc["z"], rtol=1e-5)


def test_type_two_tests_respect_the_empty_cell(fits, lakes):
    one, two = fits[0].anova(2), fits[1].anova(2)
    np.testing.assert_allclose(one, two, rtol=1e-4)
    both = jg.lmm("y ~ time + lake + (1|b)", lakes, reml=False)
    smaller = jg.lmm("y ~ time + (1|b)", lakes, reml=False)
    assert one.loc["lake", "num_df"] == both.npar - smaller.npar


def test_arrays(lakes):
    x = np.arange(220) % 11.0
    X = np.column_stack([np.ones(220), x, 3 * x - 1, lakes.k])
    fit = jg.lmm(lakes.y, X, {"b": lakes.b})
    good, bad = [1, 2.0, 5.0, 0], [1, 2.0, 6.0, 0]
    found = _quietly(lambda: fit.predict({"X": [good, bad]}, re="population"))
    assert np.isfinite(found).tolist() == [True, False]
    assert np.isfinite(fit.test([0, 0, 1.0]).p)
    assert np.isnan(_quietly(lambda: fit.test([0, 1.0, 0])).p)


def test_one_data_set_of_many(lakes):
    """Its own rows have a hole that all rows together do not have."""
    whole = pd.concat([lakes, lakes.assign(time="B", lake="r1").iloc[:1]])
    whole = pd.concat([whole, whole.assign(time="A", lake="r1").iloc[:2]])
    whole = whole.reset_index(drop=True)
    Y = np.vstack([np.resize(whole.y, len(whole))] * 2)
    hole = ((whole.time == "A") & (whole.lake == "r1")).to_numpy()
    Y[0, hole] = np.nan
    fits = jg.fit_many("y ~ time*lake + (1|b)", whole, responses=Y.T)
    told = [
        _quietly(lambda i=i: fits[i].contrasts("lake"))["estimate"].notna().tolist()
        for i in range(2)
    ]
    assert told == [[False, True, False], [True, True, True]]


@pytest.mark.parametrize("arrays", [False, True])
def test_rows_of_weight_zero_tell_nothing(lakes, arrays):
    weights = np.where(lakes.lake == "r2", 0.0, 1.0)
    X = np.column_stack([np.ones(220), lakes.lake == "r1", lakes.lake == "r2"])
    by_arrays, by_formula = (lakes.y, X, {"b": lakes.b}), ("y ~ lake + (1|b)", lakes)
    with pytest.warns(jg.RankDeficientWarning, match="dropped 1 column"):
        fit = jg.lmm(*(by_arrays if arrays else by_formula), weights=weights)
    assert np.isfinite(fit.coefficients).all()
    new = {"X": X[[0, -1]]} if arrays else {"lake": ["e", "r2"]}
    found = _quietly(lambda: fit.predict(new, re="population"))
    assert np.isfinite(found).tolist() == [True, False]
    half = jg.lmm("y ~ lake + (1|b)", lakes[lakes.lake != "r2"])
    assert found[0] == pytest.approx(half.fixef["(Intercept)"], rel=1e-6)


def test_the_null_space_is_one():
    rng = np.random.default_rng(0)
    B = rng.normal(size=(50, 3)) * [1.0, 1e6, 1e-6] + [0.0, 1e9, 5.0]
    X = np.column_stack([np.ones(50), B, B @ [1.0, 2e-6, 3e6], 4 * B[:, 1] - 7])
    _, _, kept, dropped, missing = drop_dependent(X, tuple("abcdef"))
    assert kept == (0, 1, 2, 3)
    assert dropped == ("e", "f")
    assert not missing.inestimable(X).any()
    assert not missing.inestimable(X[:1] - X[1:2]).any()
    moved = X[:3] + np.eye(6)[[1, 4, 5]] * [[1.0], [1.0], [1e6]]
    assert missing.inestimable(moved).all()
    again = X[:, list(kept)] @ missing.combination()
    np.testing.assert_allclose(again, X[:, 4:], rtol=1e-6)
