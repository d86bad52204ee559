"""Slopes where differences are not simply central: ends, infinities, factors."""

import numpy as np
import pytest
import twin
from doors import stencil

import jaxglmm as jg


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    x = rng.normal(size=240)
    return {
        "y": np.sin(x) + rng.normal(size=240) + np.repeat(rng.normal(size=20), 12),
        "x": x,
        "positive": np.abs(x),
        "zeros": np.abs(np.round(x, 1)),
        "wide": np.exp(3 * x),
        "year": np.arange(240) % 3 + 2000,
        "t": np.tile(["a", "b", "c"], 80),
        "g": np.repeat(np.arange(20), 12),
    }


def _by_hand(fit, table, name, derivative):
    """Mean slope from the derivative of each column, by names."""
    return float(fit.coefficients @ derivative(table[name], fit.coefficient_names))


SPLINES = ("bs(x, df=4)", "bs(x, df=5, degree=2)", "ns(x, df=3)", "poly(x, 3)")


@pytest.mark.parametrize("spline", SPLINES)
def test_splines_have_slopes_up_to_the_ends_of_the_data(table, spline):
    fit = twin.make(f"y ~ {spline} + (1 | g)", table, [0.9])
    found = fit.slopes("x").loc[0, "estimate"]
    x, h = table["x"], 1e-4
    inner = np.clip(x, x.min() + h, x.max() - h)  # the slope is continuous
    up, down = (fit.predict({"x": inner + s}, re="population") for s in (h, -h))
    assert found == pytest.approx(np.mean(up - down) / (2 * h), rel=1e-4)
    at_end = fit.slopes("x", {"x": [x.max()]}).loc[0, "estimate"]
    one, two = (fit.predict({"x": [x.max() - s]}, re="population") for s in (0, 1e-6))
    assert at_end == pytest.approx((one - two)[0] / 1e-6, rel=1e-3)


def test_splines_by_group_and_in_generalised_models(table):
    fit = twin.make("y ~ bs(x, df=4) * t + (1 | g)", table, [0.9])
    assert fit.slopes("x", by="t")["estimate"].notna().all()
    counts = {**table, "k": np.random.default_rng(2).poisson(2.0, 240)}
    other = jg.glmm("k ~ bs(x, df=4)", counts, family="poisson")
    row = other.slopes("x").iloc[0]
    assert np.isfinite([row["estimate"], row["std_error"]]).all()


@pytest.mark.parametrize("power", [1, 3])
def test_a_curve_far_below_the_spread_of_its_variable(table, power):
    data = {**table, "wide": table["wide"] ** power}
    fit = twin.make("y ~ log(wide) + (1 | g)", data, [0.9])
    exact = fit.coefficients[1] * np.mean(1 / data["wide"])
    assert fit.slopes("wide").loc[0, "estimate"] == pytest.approx(exact, rel=1e-6)


def test_a_root_near_zero(table):
    fit = twin.make("y ~ sqrt(positive) + (1 | g)", table, [0.9])
    exact = fit.coefficients[1] * np.mean(0.5 / np.sqrt(table["positive"]))
    assert fit.slopes("positive").loc[0, "estimate"] == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("column", ["sqrt(zeros)", "I(zeros**0.9)", "np.cbrt(zeros)"])
def test_an_infinite_slope_is_said(table, column):
    fit = twin.make(f"y ~ {column} + (1 | g)", table, [0.9], context={"np": np})
    count = int((table["zeros"] == 0).sum())
    if column == "np.cbrt(zeros)":  # defined on both sides, where it is infinite too
        found = fit.slopes("zeros", {"zeros": [1.0]})["estimate"].iloc[0]
        assert found == pytest.approx(fit.coefficients[1] / 3, rel=1e-7)
        return
    with pytest.raises(jg.NotApplicableError, match=f"infinite in {count} of 240 rows"):
        fit.slopes("zeros")
    inside = {"zeros": table["zeros"][table["zeros"] > 0]}
    assert np.isfinite(fit.slopes("zeros", inside)["estimate"]).all()


def test_one_side_where_the_other_has_no_value(table):
    fit = twin.make("y ~ I(zeros**1.5) + (1 | g)", table, [0.9])
    exact = fit.coefficients[1] * np.mean(1.5 * np.sqrt(table["zeros"]))
    assert fit.slopes("zeros").loc[0, "estimate"] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("term", ["C(year)", "factor(year)", "year + C(year)"])
@pytest.mark.filterwarnings("ignore::jaxglmm.RankDeficientWarning")
def test_a_factor_has_contrasts(table, term):
    fit = twin.make(f"y ~ {term} + x + (1 | g)", table, [0.9])
    with pytest.raises(
        jg.NotApplicableError, match=r"as a factor.*contrasts\('year'\)"
    ):
        fit.slopes("year")
    assert fit.slopes("x").loc[0, "estimate"] == pytest.approx(fit.fixef["x"], rel=1e-9)


def test_a_stencil_is_central_where_that_serves():
    x = np.linspace(-1, 1, 7)
    found = stencil("x", x, lambda v: np.column_stack([v, v**2]), (-1, 1), True)
    assert len(found.points) == 2
    np.testing.assert_allclose((found.points[0] + found.points[1]) / 2, x, atol=1e-12)
