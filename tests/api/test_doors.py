"""The same data through every door: what is missing, large, small or in another order.

Each table holds one thing that is awkward; the fit is that of its harmless form.
"""

import functools
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from doors import PoissonBayesMixedGLM, mixedlm_formula

import jaxglmm as jg
from jaxglmm.compat.statsmodels.api import MixedLM
from jaxglmm.compat.statsmodels.formula.api import mixedlm

FORMULA = "y ~ x + (1 | g)"
J, ROWS = 8, 5
N = J * ROWS
LOST = 3
MASK = np.arange(N) == LOST


@functools.cache
def harmless():
    """A table, its responses, and the fit without row ``LOST``."""
    r = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(np.arange(J), ROWS)})
    data["x"] = np.tile(np.arange(float(ROWS)), J)
    data["y"] = 1 + data.x + r.normal(size=J)[data.g] + r.normal(size=N)
    data["w"] = r.uniform(0.5, 2, N)
    return data


@functools.cache
def expected(weights=False):
    data = harmless()[~MASK]
    return jg.lmm(FORMULA, data, weights="w" if weights else None).coefficients


def masked(name):
    """A column whose value under the mask would spoil everything."""
    values = harmless()[name].to_numpy().copy()
    values[LOST] = 7 if name == "g" else -999
    return np.ma.array(values, mask=MASK)


def quiet(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.MissingRowsWarning)
        return call()


def table(name):
    data = {k: harmless()[k].to_numpy() for k in harmless()}
    return data | {name: masked(name)}


def design(x):
    one = np.ones(N)
    if isinstance(x, np.ma.MaskedArray):
        return np.ma.column_stack([one, x])
    return np.column_stack([one, x])


def arrays(name):
    d = table(name)
    weights = d["w"] if name == "w" else None
    return jg.lmm(d["y"], design(d["x"]), {"g": d["g"]}, weights=weights)


def many(name):
    d = table(name)
    Y = np.ma.column_stack([d["y"], d["y"]])
    weights = d["w"] if name == "w" else None
    return jg.fit_many(FORMULA, d, responses=Y, weights=weights)[0]


def by(name):
    d = table(name)
    twice = {k: np.ma.concatenate([v, v]) for k, v in d.items()}
    weights = twice.pop("w")
    twice["b"] = np.repeat([0, 1], N)
    fits = jg.fit_many(FORMULA, twice, by="b", weights=weights if name == "w" else None)
    return fits[1]


DOORS = {
    "table": lambda name: jg.lmm(
        FORMULA, table(name), weights="w" if name == "w" else None
    ),
    "beside": lambda name: jg.lmm(
        FORMULA,
        {k: v for k, v in table(name).items() if k != "w"},
        weights=table(name)["w"] if name == "w" else None,
    ),
    "arrays": arrays,
    "fit_many(responses=)": many,
    "fit_many(by=)": by,
}


@pytest.mark.parametrize("name", ["y", "x", "g", "w"])
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_masked_values_are_missing(door, name):
    fit = quiet(lambda: door(name))
    np.testing.assert_allclose(fit.coefficients, expected(name == "w"), rtol=1e-6)


@pytest.mark.parametrize("name", ["y", "x", "g"])
def test_masked_values_are_missing_in_statsmodels_classes(name):
    """Which complain of missing values, and drop them where that is asked for."""
    d = table(name)
    calls = (
        lambda **o: mixedlm("y ~ x", d, groups="g", **o),
        lambda **o: MixedLM(d["y"], design(d["x"]), groups=d["g"], **o),
    )
    for call in calls:
        with pytest.raises(jg.DataError, match="1 of 40 rows have missing values"):
            call()
        found = quiet(lambda call=call: call(missing="drop").fit())
        np.testing.assert_allclose(found.fe_params, expected(), rtol=1e-6)


def test_refits_by_labels_and_with_masked_values():
    data = harmless().set_index(pd.Index([f"r{i}" for i in range(N)]))
    fit = jg.lmm(FORMULA, data)
    again = fit.refit(data.y[::-1])
    np.testing.assert_allclose(again.coefficients, fit.coefficients, rtol=1e-8)
    with pytest.raises(jg.DataError, match="the response: its row labels are not"):
        fit.refit(data.y.rename(str.upper))
    with pytest.raises(jg.DataError, match="not finite"):
        fit.refit(masked("y"))


def test_new_data_in_another_order():
    data = harmless()
    fit = jg.lmm(FORMULA, data)
    new = {"x": data.x, "g": data.g[::-1]}
    np.testing.assert_array_equal(fit.predict(new), fit.predict(data))
    found = fit.predictions(new)
    np.testing.assert_allclose(found["estimate"], fit.predictions(data)["estimate"])
    with pytest.raises(jg.DataError, match="has 39 rows"):
        fit.predictions({"x": data.x, "g": data.g[1:]})
    with pytest.raises(jg.DataError, match="its row labels are not those"):
        fit.predict({"x": data.x, "g": data.g.set_axis(range(1, N + 1))})


RESPONSES = {
    "nullable": lambda Y: pd.DataFrame(Y).convert_dtypes(),
    "objects": lambda Y: Y.astype(object),
    "lists": lambda Y: Y.tolist(),
    "polars": lambda Y: pl.DataFrame(Y).with_columns(pl.all().fill_nan(None)),
    "arrow": lambda Y: pa.table({str(j): pa.array(Y[:, j]) for j in (0, 1)}),
    "dict": lambda Y: {"a": Y[:, 0], "b": list(Y[:, 1])},
    "masked": lambda Y: np.ma.masked_invalid(Y),
    "masked dict": lambda Y: {"a": np.ma.masked_invalid(Y[:, 0]), "b": Y[:, 1]},
}


@pytest.mark.parametrize("make", RESPONSES.values(), ids=RESPONSES)
def test_responses_of_any_make(make):
    data = harmless()
    Y = np.column_stack([data.y, data.y])
    Y[LOST, 0] = np.nan
    fits = jg.fit_many(FORMULA, data, responses=make(Y))
    np.testing.assert_allclose(fits.coefficients[0], expected(), rtol=1e-6)


@pytest.mark.parametrize("make", [lambda Y: Y.astype(str), pd.DataFrame])
def test_responses_of_text(make):
    Y = np.column_stack([harmless().y, harmless().y]).astype(str)
    with pytest.raises(jg.DataError, match="text"):
        jg.fit_many(FORMULA, harmless(), responses=make(Y))


def test_weights_of_many_fits_are_found_by_their_labels():
    data = harmless()
    Y = np.column_stack([data.y, data.y])
    twice = pd.concat([data, data], ignore_index=True).assign(b=np.repeat([0, 1], N))
    turned = data.w.sample(frac=1, random_state=1)
    fit = jg.lmm(FORMULA, data, weights=turned)
    one = jg.fit_many(FORMULA, data, responses=Y, weights=turned)
    two = jg.fit_many(FORMULA, twice, by="b", weights=twice.w[::-1])
    for fits in (one, two):
        np.testing.assert_allclose(fits.coefficients[1], fit.coefficients, rtol=1e-6)
    np.testing.assert_array_equal(fit.design.weights, data.w)


@pytest.mark.parametrize("shape", [(), (N,), (N, 2)])
def test_infinite_trials(shape):
    k = (harmless().y > 3).to_numpy(float)
    trials = np.full(shape, np.inf) if shape == () else np.ones(shape)
    if shape:
        trials[(4, *([0] * (len(shape) - 1)))] = np.inf
    call = functools.partial(
        jg.fit_many,
        FORMULA,
        harmless(),
        responses=np.column_stack([k, k]),
        family="binomial",
        trials=trials,
    )
    if len(shape) < 2:
        with pytest.raises(jg.DataError, match="trials must be finite"):
            call()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        fits = call()
    assert fits.status[0] != 0
    assert np.isnan(fits.coefficients[0]).all()
    assert np.isfinite(fits.coefficients[1]).all()


def test_components_of_many_levels(monkeypatch):
    """Cells that are counted where their number is beyond 64 bits have their names."""
    data = harmless().assign(a=np.arange(N) % 4, b=np.arange(N) // 7 % 3)
    call = functools.partial(
        mixedlm, "y ~ x", data, groups="g", vc_formula={"v": "0 + C(a):C(b)"}
    )
    one = call().exog_vc
    monkeypatch.setattr(mixedlm_formula, "RADIX", 1)
    two = call().exog_vc
    assert two.colnames == one.colnames
    for a, b in zip(one.mats[0], two.mats[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_averages_by_a_factor_of_tuples():
    data = harmless()
    tuples = pd.Series([(k % 3, "t") for k in range(N)])
    fit = jg.lmm("y ~ C(k) + (1 | g)", {**data, "k": tuples})
    found = fit.predictions(by="k")
    assert found["k"].tolist() == [(0, "t"), (1, "t"), (2, "t")]
    text = jg.lmm("y ~ C(k) + (1 | g)", {**data, "k": tuples.astype(str)})
    expected = text.predictions(by="k")["estimate"]
    np.testing.assert_allclose(found["estimate"], expected, rtol=1e-8)


def test_rows_of_statsmodels_classes_are_found_by_their_labels():
    data = harmless().assign(k=(harmless().y > 3).astype(int))
    turned = data.sample(frac=1, random_state=3)
    one = mixedlm("y ~ x", data, groups=data.g)
    np.testing.assert_array_equal(
        mixedlm("y ~ x", data, groups=turned.g).groups, one.groups
    )
    plain = mixedlm("y ~ x", data.set_axis(data.index + 1000), groups=data.g)
    np.testing.assert_array_equal(plain.groups, one.groups)
    formulas = ("k ~ x", {"g": "0 + C(g)"})
    for name in ("weights", "offset", "exposure"):
        call = functools.partial(
            PoissonBayesMixedGLM.from_formula, *formulas, data=data
        )
        one, two = (call(**{name: w})._data for w in (data.w, turned.w))
        np.testing.assert_array_equal(two.offset, one.offset)
        np.testing.assert_array_equal(two.weights, one.weights)
