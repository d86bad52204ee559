"""Fits as models of the package marginaleffects: its numbers are ours."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import NotApplicableError

me = pytest.importorskip("marginaleffects")
pl = pytest.importorskip("polars")
OLD = int(pl.__version__.split(".")[0]) < 2
works = pytest.mark.skipif(not OLD, reason="marginaleffects 0.6 needs polars below 2")
pytestmark = [
    pytest.mark.extras,
    # of the package's own imports and settings
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def sleep():
    return jg.lmm(
        "Reaction ~ poly(Days, 2) + (Days | Subject)", jg.datasets.load("sleepstudy")
    )


@pytest.fixture(scope="module")
def herds():
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    return jg.glmm(formula, jg.datasets.load("cbpp"))


@pytest.fixture(scope="module")
def ticks():
    formula = "TICKS ~ YEAR * cHEIGHT + (1 | BROOD)"
    return jg.glmm(formula, jg.datasets.load("grouseticks"), family="nbinom2")


def equal(theirs, ours, names=("estimate", "std_error"), rtol=1e-6):
    for name in names:
        np.testing.assert_allclose(theirs[name].to_numpy(), ours[name], rtol=rtol)


@works
def test_average_predictions(herds, ticks):
    equal(
        me.avg_predictions(herds.to_marginaleffects(), by="period").sort("period"),
        herds.predictions(by="period"),
    )
    equal(
        me.avg_predictions(ticks.to_marginaleffects("link"), by="YEAR").sort("YEAR"),
        ticks.predictions(by="YEAR", type="link"),
    )


@works
def test_comparisons_with_a_first_level(herds):
    found = me.avg_comparisons(herds.to_marginaleffects(), variables="period")
    own = herds.contrasts("period", grid="observed").iloc[:3]
    np.testing.assert_allclose(found["estimate"].to_numpy(), -own["estimate"])
    np.testing.assert_allclose(found["std_error"].to_numpy(), own["std_error"])
    np.testing.assert_allclose(found["p_value"].to_numpy(), own["p_value"], rtol=1e-6)


@works
def test_slopes_of_bases_and_interactions(sleep, ticks):
    found = me.avg_slopes(sleep.to_marginaleffects(), variables="Days", eps_vcov=1.0)
    equal(found, sleep.slopes("Days"))
    found = me.avg_slopes(
        ticks.to_marginaleffects(), variables="cHEIGHT", by="YEAR"
    ).sort("YEAR")
    own = ticks.slopes("cHEIGHT", by="YEAR")
    equal(found, own, ["estimate"])
    equal(found, own, ["std_error"], rtol=5e-3)  # by differences of steps there


@works
def test_grids_hypotheses_and_robust_covariances(sleep, ticks):
    model = sleep.to_marginaleffects()
    new = {"Days": [0.0, 5.0]}
    found = me.predictions(model, newdata=me.datagrid(model, **new))
    own = sleep.predict(new, re="population", se=True)
    np.testing.assert_allclose(found["estimate"].to_numpy(), own["fit"])
    np.testing.assert_allclose(found["std_error"].to_numpy(), own["se"], rtol=1e-6)
    p = len(sleep.coefficients)
    found = me.hypotheses(model, hypothesis=np.eye(p)[:, [1]])
    assert found["estimate"][0] == pytest.approx(sleep.coefficients[1])
    robust = me.avg_predictions(ticks.to_marginaleffects(), by="YEAR", vcov="CR0")
    own = ticks.with_vcov("CR0").predictions(by="YEAR")
    equal(robust.sort("YEAR"), own, rtol=1e-4)


@works
def test_offsets_count_and_responses_are_no_predictors(rng):
    n = 120
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "time": rng.uniform(1, 3, n),
            "g": np.repeat(np.arange(12), 10),
        }
    )
    data["y"] = rng.poisson(data["time"] * np.exp(0.3 * data["x"]))
    fit = jg.glmm("y ~ x + offset(log(time)) + (1 | g)", data, family="poisson")
    model = fit.to_marginaleffects()
    equal(me.avg_predictions(model), fit.predictions(by=[]), rtol=1e-5)
    herd = jg.datasets.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    found = me.avg_comparisons(jg.glmm(formula, herd).to_marginaleffects())
    assert set(found["term"]) == {"period"}


@works
def test_compats_results_go_where_statsmodels_go():
    pytest.importorskip("statsmodels")
    from jaxglmm.compat.statsmodels import MixedLM

    sleep = jg.datasets.load("sleepstudy")
    found = MixedLM.from_formula("Reaction ~ Days", sleep, groups="Subject").fit()
    own = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    table = me.avg_slopes(found, variables="Days")
    assert table["estimate"][0] == pytest.approx(own.coefficients[1], rel=1e-6)
    assert table["std_error"][0] == pytest.approx(own.se[1], rel=5e-3)


@pytest.mark.skipif(OLD, reason="this polars serves marginaleffects")
def test_a_polars_that_it_does_not_know(sleep):
    with pytest.raises(NotApplicableError, match="polars<2"):
        sleep.to_marginaleffects()


def test_refusals(sleep):
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    data = pd.DataFrame({"y": rng.integers(1, 4, 60), "x": x})
    with pytest.raises(NotApplicableError, match="thresholds"):
        jg.clm("y ~ x", data).to_marginaleffects()
    zero = jg.glmm("y ~ x", data.assign(y=data["y"] - 1), family="poisson", zi="~ 1")
    with pytest.raises(NotApplicableError, match="several linear predictors"):
        zero.to_marginaleffects()
    with pytest.raises(NotApplicableError, match="posterior"):
        jg.lmm("y ~ x", data, method="nested-laplace").to_marginaleffects()
    with pytest.raises(NotApplicableError, match="'link'"):
        sleep.to_marginaleffects("probs")
