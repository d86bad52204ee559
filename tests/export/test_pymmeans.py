"""Fits as models of the package pymmeans: its numbers are ours."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import ArgumentError, NotApplicableError

pymmeans = pytest.importorskip("pymmeans")
pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of patsy
]


@pytest.fixture(scope="module")
def machines():
    data = jg.datasets.load("Machines")
    return jg.lmm("score ~ Machine + (1 | Worker)", data)


@pytest.fixture(scope="module")
def ticks():
    formula = "TICKS ~ cHEIGHT * YEAR + (1 | BROOD)"
    return jg.glmm(formula, jg.datasets.load("grouseticks"), family="nbinom2")


def equal(theirs, ours, estimate="estimate", rtol=1e-8):
    np.testing.assert_allclose(theirs[estimate], ours["estimate"], rtol=rtol)
    np.testing.assert_allclose(theirs["SE"], ours["std_error"], rtol=rtol)


def test_means_and_pairs_of_a_linear_model(machines):
    found = pymmeans.emmeans(machines.to_pymmeans(), "Machine")
    equal(found.frame, machines.means("Machine").table, "emmean")
    assert np.isinf(found.frame["df"]).all()
    own = machines.means("Machine", df=46)
    found = pymmeans.emmeans(machines.to_pymmeans(df=46), "Machine")
    equal(found.frame, own.table, "emmean")
    np.testing.assert_allclose(found.frame["lower_cl"], own.table["conf_low"])
    pairs, ours = pymmeans.pairs(found).frame, own.pairs().table
    equal(pairs, ours)
    np.testing.assert_allclose(pairs["p_value"], ours["p_value"], rtol=1e-3, atol=1e-12)


def test_means_of_responses(ticks):
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    herds = jg.glmm(formula, jg.datasets.load("cbpp"))
    found = pymmeans.emmeans(herds.to_pymmeans(), "period", type="response").frame
    own = herds.means("period", type="response").table
    equal(found, own, "emmean")
    np.testing.assert_allclose(found["upper_cl"], own["conf_high"])
    link = pymmeans.emmeans(ticks.to_pymmeans(), "YEAR")
    ratios = pymmeans.regrid_response(pymmeans.pairs(link)).frame
    own = ticks.means("YEAR", type="response").pairs().table
    np.testing.assert_allclose(ratios["ratio"], own["estimate"], rtol=1e-8)


def test_columns_in_another_order_and_coding(ticks):
    """Patsy has those of factors first, those of numbers last."""
    info = ticks.to_pymmeans()
    assert [n.count("cHEIGHT") for n in info.param_names] == [0, 0, 0, 1, 1, 1]
    equal(
        pymmeans.emtrends(info, "YEAR", var="cHEIGHT").frame,
        ticks.trends("cHEIGHT", "YEAR").table,
        "cHEIGHT.trend",
    )
    own = ticks.joint_tests().set_index("term")
    found = pymmeans.joint_tests(info).set_index("term").loc[own.index]
    # chi-squared there, where df are infinite
    np.testing.assert_allclose(found["statistic"], own["statistic"] * own["num_df"])
    np.testing.assert_allclose(found["p_value"], own["p_value"], rtol=1e-6)


def test_offsets_and_missing_rows(rng):
    n = 90
    data = pd.DataFrame({"f": list("abc") * 30, "g": np.repeat(np.arange(9), 10)})
    data["time"] = rng.uniform(1, 3, n)
    data["y"] = rng.poisson(data["time"] * np.exp(np.sin(data["g"]))) + 0.0
    data.loc[4, "y"] = np.nan
    formula = "y ~ f + offset(log(time)) + (1 | g)"
    with pytest.warns(jg.MissingRowsWarning):
        fit = jg.glmm(formula, data, family="poisson")
    info = fit.to_pymmeans()
    assert len(info.data) == n - 1
    found = pymmeans.emmeans(info, "f", type="response").frame
    seen = data.drop(index=4)
    rates = np.exp(
        fit.means("f").table["estimate"] - fit.means("f").table["estimate"][0]
    )
    np.testing.assert_allclose(found["emmean"] / found["emmean"][0], rates)
    mean = np.exp(fit.coefficients[0] + np.log(seen["time"]).mean())
    assert found["emmean"][0] == pytest.approx(mean)


def test_refusals(machines, ticks):
    sleep = jg.datasets.load("sleepstudy")
    curve = jg.lmm("Reaction ~ poly(Days, 2) + (1 | Subject)", sleep)
    with pytest.raises(NotApplicableError, match="does not read"):
        curve.to_pymmeans()
    days = sleep["Days"].to_numpy(float)
    arrays = jg.lmm(sleep["Reaction"], days[:, None], groups=sleep["Subject"])
    with pytest.raises(NotApplicableError, match="of arrays"):
        arrays.to_pymmeans()
    with pytest.raises(ArgumentError, match="df='KR'"):
        machines.to_pymmeans(df="KR")
    with pytest.raises(NotApplicableError, match="linear models"):
        ticks.to_pymmeans(df=10)
    with pytest.raises(NotApplicableError, match=r"to_pymmeans\(\): this posterior"):
        jg.lmm("Reaction ~ Days", sleep, method="nested-laplace").to_pymmeans()
