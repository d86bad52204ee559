"""Predictions, slopes and contrasts, where algebra says what they must be."""

import numpy as np
import pandas as pd
import pytest
import twin
from doors import marginal_effects as marginal

import jaxglmm as jg
from jaxglmm import DataError, NotApplicableError


@pytest.fixture(scope="module")
def quadratic(sleepstudy):
    data = sleepstudy.assign(half=np.where(sleepstudy.Days < 5, "early", "late"))
    return twin.make("Reaction ~ Days + I(Days**2) + half + (1 | Subject)", data, [0.9])


def test_slope_of_a_line_is_its_coefficient(sleepstudy):
    fit = twin.make("Reaction ~ Days + (1 | Subject)", sleepstudy, [0.9])
    row = fit.slopes("Days").iloc[0]
    assert row["estimate"] == pytest.approx(fit.coefficients[1], rel=1e-9)
    assert row["std_error"] == pytest.approx(fit.se[1], rel=1e-9)


def test_slope_of_a_parabola(quadratic):
    row = quadratic.slopes("Days").iloc[0]
    L = np.array(
        [{"Days": 1.0, "I(Days ** 2)": 9.0}.get(n, 0.0) for n in _names(quadratic)]
    )
    assert row["estimate"] == pytest.approx(L @ quadratic.coefficients, rel=1e-8)
    expected = np.sqrt(L @ quadratic.estimates.vcov @ L)
    assert row["std_error"] == pytest.approx(expected, rel=1e-8)
    assert row["df"] == 176


def _names(fit):
    return [n.replace("Days**2", "Days ** 2") for n in fit.coefficient_names]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_slopes_of_a_curve_at_every_scale(sleepstudy, scale):
    data = sleepstudy.assign(x=(sleepstudy.Days + 1) * scale)
    fit = twin.make(
        "Reaction ~ np.log(x) + (1 | Subject)", data, [0.9], context={"np": np}
    )
    exact = fit.coefficients[1] * np.mean(1 / data["x"])
    assert fit.slopes("x").loc[0, "estimate"] == pytest.approx(exact, rel=1e-7)


def test_slopes_by_group(quadratic):
    table = quadratic.slopes("Days", by="half")
    assert table["half"].tolist() == ["early", "late"]
    curve = dict(zip(_names(quadratic), quadratic.coefficients, strict=True))
    late = curve["Days"] + 2 * 7 * curve["I(Days ** 2)"]
    assert table["estimate"].iloc[1] == pytest.approx(late, rel=1e-8)


def test_predictions_are_population_means(sleep, quadratic):
    new = pd.DataFrame({"Days": [0.0, 9.0], "half": ["early", "late"]})
    table = quadratic.predictions(new)
    np.testing.assert_allclose(
        table["estimate"], quadratic.predict(new, re="population")
    )
    se = quadratic.predict(new, re="population", se=True)["se"]
    np.testing.assert_allclose(table["std_error"], se)
    means = quadratic.predictions(by="half")
    mean = quadratic.fixed_part[quadratic.augment()["half"] == "late"].mean()
    assert means.set_index("half").loc["late", "estimate"] == pytest.approx(mean)


def test_contrasts_of_one_factor_are_coefficients(machines):
    table = machines.contrasts("Machine")
    assert table["contrast"].tolist() == ["A - B", "A - C", "B - C"]
    b = machines.coefficients
    np.testing.assert_allclose(table["estimate"], [-b[1], -b[2], b[1] - b[2]])
    np.testing.assert_allclose(table["std_error"].iloc[:2], machines.se[1:])
    np.testing.assert_allclose(table["p_value"].iloc[:2], machines.p_values[1:])


@pytest.fixture(scope="module")
def interaction(sleepstudy):
    """An unbalanced covariate and an interaction: the two grids differ."""
    late = np.where(sleepstudy.Days < 3, "early", "late")
    kind = np.where(np.arange(180) % 3 == 0, "u", "v")
    data = sleepstudy.assign(half=late, kind=kind)
    return twin.make("Reaction ~ half * kind + Days + (1 | Subject)", data, [0.9])


def test_grids(interaction):
    b = dict(zip(interaction.coefficient_names, interaction.coefficients, strict=True))
    main, cross = b["kind[T.v]"], b["half[T.late]:kind[T.v]"]
    equal = interaction.contrasts("kind").loc[0, "estimate"]
    observed = interaction.contrasts("kind", grid="observed").loc[0, "estimate"]
    assert equal == pytest.approx(-(main + cross / 2))
    assert observed == pytest.approx(-(main + cross * 0.7))


def test_adjustments():
    table = pd.DataFrame(
        {"p_value": [0.01, 0.04, 0.03], "statistic": [3.0, 2.2, 2.4], "df": [20.0] * 3}
    )
    np.testing.assert_allclose(marginal.adjusted(table, "holm", 3), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(
        marginal.adjusted(table, "bonferroni", 3), [0.03, 0.12, 0.09]
    )


def test_tukey_of_two_levels_is_the_t_test(machines):
    """Of three it lies between the plain p-value and Bonferroni's."""
    table = machines.contrasts("Machine")
    p = table["p_value"].to_numpy()
    two = marginal.adjusted(table.iloc[:1], "tukey", 2)
    np.testing.assert_allclose(two, p[:1], rtol=1e-6)
    three = marginal.adjusted(table, "tukey", 3)
    assert (three > p).all()
    assert (three < 3 * p).all()


def test_messages(machines, quadratic):
    with pytest.raises(NotApplicableError, match="contrasts"):
        machines.slopes("Machine")
    with pytest.raises(DataError, match="'Day' is not a variable"):
        quadratic.slopes("Day")
    with pytest.raises(NotApplicableError, match="'tukey'"):
        quadratic.contrasts("half", adjust="fdr")


@pytest.mark.parametrize("offset", ["o", "array"])
def test_offsets_given_beside_the_formula(offset):
    """An ``offset=`` is no variable of the formula: averages use the rows' own."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.tile(list("abcde"), 12), "o": rng.normal(size=60)})
    data["x"], data["f"] = rng.normal(size=60), np.repeat(list("uvw"), 20)
    data["y"] = rng.normal(size=60) + data.o + (data.g == "a") + (data.g == "b")
    given = data.o.to_numpy() if offset == "array" else offset
    one = jg.lmm("y ~ x + f + (1 | g)", data, offset=given)
    two = jg.lmm("y ~ x + f + offset(o) + (1 | g)", data)
    for ask in (
        lambda fit: fit.predictions(by="f")["estimate"],
        lambda fit: fit.slopes("x")["estimate"],
        lambda fit: fit.contrasts("f")["estimate"],
    ):
        np.testing.assert_allclose(ask(one), ask(two), rtol=1e-6)
