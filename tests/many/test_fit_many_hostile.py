"""Data that cannot be used: a status for one data set, a clear error for all."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import _status
from doors import collection_alone as alone
from doors import linear_columns as columns

import jaxglmm as jg

FORMULA = "y ~ x + (1 | g)"
J, ROWS, D = 8, 5, 4
N = J * ROWS
FAMILIES = ("gaussian", "poisson")


@functools.cache
def setting(family):
    """The design, and (n, D) responses that are all right."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(np.arange(J), ROWS)})
    data["x"] = np.tile(np.arange(float(ROWS)), J)
    Y = 1 + data["x"].to_numpy()[:, None] + rng.normal(size=(J, D))[data["g"]]
    Y += rng.normal(size=(N, D))
    if family == "poisson":
        Y = rng.poisson(np.exp(0.3 * Y)).astype(float)
    return data, Y


@functools.cache
def clean(family):
    data, Y = setting(family)
    return jg.fit_many(FORMULA, data, responses=Y, family=family)


def spoiled(family, column):
    Y = setting(family)[1].copy()
    Y[:, 1] = column(Y[:, 1])
    return Y


def at(place, value):
    def change(y):
        y = y.copy()
        y[place] = value
        return y

    return change


def assert_others_are_untouched(fits, family, bad=1):
    others = [k for k in range(len(fits)) if k != bad]
    expected = clean(family)
    for name in ("coefficients", "se", "sd", "log_likelihood"):
        np.testing.assert_allclose(
            getattr(fits, name)[others], getattr(expected, name)[others], rtol=1e-12
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (at(3, np.inf), _status.BAD_VALUES),
        (at([3, 5], [np.nan, -np.inf]), _status.BAD_VALUES),
        (lambda y: np.full(N, np.nan), _status.TOO_FEW),
        (lambda y: np.zeros(N), _status.CONSTANT),
        (at(slice(ROWS, None), np.nan), _status.TOO_FEW),
    ],
    ids=["infinite", "infinite and missing", "missing", "constant", "one level"],
)
def test_one_bad_response(family, change, status):
    data, _ = setting(family)
    with pytest.warns(jg.ConvergenceWarning, match="4 fits, 3 converged"):
        fits = jg.fit_many(
            FORMULA, data, responses=spoiled(family, change), family=family
        )
    assert fits.status.tolist() == [0, status, 0, 0]
    assert np.isnan(fits.frame().to_numpy()[1]).all()
    assert np.isnan(fits.p_values[1]).all()
    assert_others_are_untouched(fits, family)
    assert status_alone(fits, 1) == status


def status_alone(fits, i):
    """What a fit of its own says of data set i."""
    return alone(fits.source, columns(fits.source.design), i)[-1]


def test_a_response_that_is_a_predictor_says_so_alone_too():
    data, _ = setting("gaussian")
    Y = spoiled("gaussian", lambda y: 2 * data["x"].to_numpy() - 3)
    with pytest.warns(jg.ConvergenceWarning, match="fixed effects reproduce"):
        fits = jg.fit_many(FORMULA, data, responses=Y)
    assert fits.status[1] == status_alone(fits, 1) == _status.EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_responses_that_are_all_bad(family):
    data, Y = setting(family)
    with pytest.warns(jg.ConvergenceWarning, match="0 converged.*4 too few rows"):
        fits = jg.fit_many(FORMULA, data, responses=np.nan * Y, family=family)
    assert np.isnan(fits.coefficients).all()
    assert "4 too few rows or levels" in fits.summary()
    assert fits.tidy()["estimate"].isna().all()


def test_numbers_out_of_range_are_quiet():
    data, Y = setting("gaussian")
    with pytest.warns(jg.ConvergenceWarning, match="0 converged"):
        fits = jg.fit_many(FORMULA, data, responses=1e200 * Y)
    assert np.isnan(fits.coefficients).all()


def test_masked_values_are_missing():
    data, Y = setting("gaussian")
    masked = np.ma.masked_array(Y, mask=np.zeros(Y.shape, bool))
    masked[3, 1] = np.ma.masked
    holes = Y.copy()
    holes[3, 1] = np.nan
    a, b = (jg.fit_many(FORMULA, data, responses=y) for y in (masked, holes))
    np.testing.assert_allclose(a.coefficients, b.coefficients, rtol=1e-9)
    assert not np.array_equal(a.coefficients[1], clean("gaussian").coefficients[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("weights", np.inf, _status.BAD_VALUES),
        ("weights", -1.0, _status.BAD_VALUES),
        ("weights", np.nan, 0),
        ("offset", np.inf, _status.BAD_VALUES),
        ("offset", np.nan, 0),
    ],
)
def test_weights_and_offsets_of_one_response(family, name, value, status):
    data, Y = setting(family)
    given = np.full(Y.shape, 1.0 if name == "weights" else 0.0)
    given[3, 1] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.ConvergenceWarning)
        fits = jg.fit_many(FORMULA, data, responses=Y, family=family, **{name: given})
    assert fits.status.tolist() == [0, status, 0, 0]
    if status == 0:  # a row less
        holes = Y.copy()
        holes[3, 1] = np.nan
        less = jg.fit_many(FORMULA, data, responses=holes, family=family)
        np.testing.assert_allclose(fits.coefficients, less.coefficients, rtol=1e-8)


@pytest.mark.parametrize(
    ("responses", "text"),
    [
        (np.zeros((20, 3)), r"\(20, 3\), but the data have 40 rows"),
        (np.zeros((N, 3, 2)), "3 dimensions"),
        (3.0, "0 dimensions"),
        ([[1.0, 2.0], [3.0]], "differ in length"),
        ({"a": [1.0, 2.0], "b": [3.0]}, "same length"),
        (np.zeros((N, 2), complex), "real numbers, not complex128"),
        (np.zeros((N, 2), "M8[D]"), "real numbers, not datetime64"),
    ],
)
def test_responses_that_are_refused(responses, text):
    data, _ = setting("gaussian")
    with pytest.raises(jg.DataError, match=text):
        jg.fit_many(FORMULA, data, responses=responses)


def test_rows_in_another_order():
    """Rows are matched by position: labels that say otherwise are not ignored."""
    data, Y = setting("gaussian")
    named = data.set_index(pd.Index([f"s{k}" for k in range(N)]))
    frame = pd.DataFrame(Y, index=named.index)
    for other in (frame[::-1], frame.rename(index=str.upper)):
        with pytest.raises(jg.DataError, match=r"responses\.loc\[data\.index\]"):
            jg.fit_many(FORMULA, named, responses=other)
    for same in (frame[::-1].loc[named.index], frame.reset_index(drop=True)):
        fits = jg.fit_many(FORMULA, named, responses=same)
        expected = clean("gaussian").theta
        np.testing.assert_allclose(fits.theta, expected, rtol=1e-9, atol=1e-9)


def test_names_that_occur_twice():
    data, Y = setting("gaussian")
    twice = pd.DataFrame(Y, columns=["a", "a", "b", "c"])
    fits = jg.fit_many(FORMULA, data, responses=twice)
    with pytest.raises(KeyError, match="2 data sets are called 'a', at the positions"):
        fits["a"]
    assert fits[1].sigma == pytest.approx(fits.sigma[1], rel=1e-8)


# Data sets of a table -----------------------------------------------------------------


def table(family):
    data, Y = setting(family)
    e = np.where(data["x"] < 2.5, "a", "b")
    return data.assign(y=Y[:, 0], e=e)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["y", "x"])
def test_infinite_values_are_the_data_sets_own_matter(family, name):
    good, bad = table(family), table(family)
    bad[name] = bad[name].astype(float)
    bad.loc[4, name] = np.inf
    assert bad["e"][4] == "b"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        expected = jg.fit_many(FORMULA, good, by="e", family=family)
        by = jg.fit_many(FORMULA, bad, by="e", family=family)
        parts = [part for _, part in bad.groupby("e")]
        listed = jg.fit_many(FORMULA, parts, family=family)
    for fits in (by, listed):
        assert fits.status.tolist() == [0, _status.BAD_VALUES]
        np.testing.assert_allclose(
            fits.coefficients[0], expected.coefficients[0], rtol=1e-8
        )
        assert np.isnan(fits.coefficients[1]).all()
        with pytest.raises(jg.DataError, match="infinite"):
            fits[1]
    every = bad.assign(**{name: np.inf})
    with pytest.raises(jg.DataError, match="every data set has infinite values"):
        jg.fit_many(FORMULA, every, by="e", family=family)


def test_labels_that_are_missing():
    whole = table("gaussian")
    holes = whole.copy()
    holes.loc[[1, 7], "e"] = None
    with pytest.warns(jg.MissingRowsWarning, match="2 of 40 rows"):
        fits = jg.fit_many(FORMULA, holes, by="e")
    assert fits.labels.tolist() == ["a", "b"]
    less = jg.fit_many(FORMULA, whole.drop([1, 7]), by="e")
    np.testing.assert_allclose(fits.coefficients, less.coefficients, rtol=1e-10)
    with pytest.raises(jg.DataError, match="missing everywhere"):
        jg.fit_many(FORMULA, whole.assign(e=None), by="e")
    with pytest.raises(jg.DataError, match="by= is empty"):
        jg.fit_many(FORMULA, whole, by=[])
    with pytest.raises(jg.DataError, match="no column 'q'"):
        jg.fit_many(FORMULA, whole, by="q")


def test_one_data_set_and_one_that_is_too_small():
    whole = table("gaussian")
    one = jg.fit_many(FORMULA, whole.assign(e="only"), by="e")
    assert one.labels.tolist() == ["only"]
    assert one.converged.all()
    with pytest.warns(jg.ConvergenceWarning, match="2 too few rows"):
        fits = jg.fit_many(FORMULA, [whole, whole.iloc[:1], whole.iloc[:0]])
    assert fits.status.tolist() == [0, _status.TOO_FEW, _status.TOO_FEW]
