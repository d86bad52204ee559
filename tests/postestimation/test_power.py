"""Power by simulation, larger designs, and studies without data."""

import warnings

import matplotlib
import numpy as np
import pytest
from choice_cases import made
from doors import clopper_pearson
from scipy import stats

import jaxglmm as jg

matplotlib.use("Agg")


def within_error(found, expected):
    """Whether a simulated share is within four standard errors of what it should be."""
    error = np.sqrt(expected * (1 - expected) / found.n)
    return abs(found.power - expected) < 4 * error


def balanced(J=12, times=6):
    return {"g": np.repeat(np.arange(J), times), "x": np.tile(np.arange(times), J)}


VALUES = {"(Intercept)": 2.0, "x": 0.25, "sd_(Intercept)|g": 2.0, "sigma": 1.0}


@pytest.fixture(scope="module")
def study():
    return jg.design("y ~ x + (1 | g)", balanced(), VALUES)


# The share ----------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [0.0, 0.15, 0.25])
def test_power_of_a_balanced_study_is_that_of_the_noncentral_t(study, effect):
    found = study.assume({"x": effect}).power("x", 2000, seed=1)
    x = np.tile(np.arange(6), 12)
    df = 72 - 12 - 1
    away = effect * np.sqrt(np.sum((x - x.mean()) ** 2))
    edge = stats.t.ppf(0.975, df)
    expected = stats.nct.sf(edge, df, away) + stats.nct.cdf(-edge, df, away)
    assert within_error(found, expected)
    assert found.effect == effect
    assert found.failed == 0


def test_p_values_are_those_of_single_fits():
    fit = made("sleepstudy")
    found = fit.power("Days", 20, seed=5)
    (own,) = np.random.SeedSequence(5).spawn(1)
    Y = fit.simulate(20, seed=own)
    for i in (0, 7, 19):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.SingularFitWarning)
            again = fit.refit(Y[i])
        assert found.p_values[i] == pytest.approx(again.p_values[1], rel=1e-4)


def test_likelihood_ratios_are_those_of_comparisons():
    fit = made("sleepstudy")
    found = fit.power("Days", 5, method="lrt", seed=2)
    (own,) = np.random.SeedSequence(2).spawn(1)
    data = jg.datasets.load("sleepstudy").assign(Reaction=fit.simulate(5, own)[3])
    big = jg.lmm("Reaction ~ Days + (Days | Subject)", data, reml=False)
    small = jg.lmm("Reaction ~ 1 + (Days | Subject)", data, reml=False)
    assert found.p_values[3] == pytest.approx(big.compare(small).p_value, rel=1e-4)


def test_methods_agree_where_they_must(study):
    t = study.power("x", 40, seed=3).p_values
    for method in ("kenward-roger", "KR"):
        np.testing.assert_allclose(
            study.power("x", 40, method=method, seed=3).p_values, t, rtol=1e-4
        )
    z = study.power("x", 40, method="z", seed=3).p_values
    assert (z < t).all()


def test_equal_seeds_give_equal_numbers(study):
    one, two = study.power("x", 100, seed=9), study.power("x", 100, seed=9)
    assert np.array_equal(one.p_values, two.p_values)
    assert not np.array_equal(one.p_values, study.power("x", 100, seed=8).p_values)


def test_limits_are_exact():
    assert clopper_pearson(0, 20, 0.95)[0] == 0.0
    assert clopper_pearson(20, 20, 0.95)[1] == 1.0
    low, high = clopper_pearson(7, 20, 0.9)
    assert stats.binom.sf(6, 20, low) == pytest.approx(0.05)
    assert stats.binom.cdf(7, 20, high) == pytest.approx(0.05)


def test_the_answer_shows_itself(study):
    found = study.power("x", 200)
    low, high = found.limits
    assert low < found.power < high
    wide = found.interval(0.99)
    assert wide[0] < low
    assert "200 simulations of 72 rows, 12 g" in repr(found)


def test_terms_of_several_coefficients_have_likelihood_ratios():
    fit = made("machines_slopes")
    found = fit.power("Machine", 20)
    assert found.method == "lrt"
    assert np.isnan(found.effect)
    (own,) = np.random.SeedSequence(0).spawn(1)
    again = fit.refit(fit.simulate(5, own)[2])
    for method, ddf in (("t", "satterthwaite"), ("kr", "kenward-roger")):
        p = fit.power("Machine", 5, method=method, seed=0).p_values[2]
        known = again.anova(ddf=ddf).loc["Machine", "p_value"]
        assert p == pytest.approx(known, rel=1e-4)


def test_counts_under_no_effect_have_the_level_of_the_test():
    plan = balanced(30, 4)
    values = {"(Intercept)": 1.5, "sd_(Intercept)|g": 0.3}
    study = jg.design("y ~ x + (1 | g)", plan, values, family="poisson")
    found = study.power("x", 1000, seed=4)
    assert found.method == "z"
    assert within_error(found, 0.05)
    ratio = study.power("x", 300, method="lrt", seed=4)
    assert within_error(ratio, 0.05)


def test_binomial_fits_and_their_trials():
    fit = made("cbpp")
    found = fit.power("period[T.2]", 300, assume={"period[T.2]": -0.9})
    assert 0.6 < found.power < 1.0
    joint = fit.power("period", 50)
    assert joint.method == "lrt"
    assert joint.power > 0.9


def test_weights_and_offsets_stay():
    data = jg.datasets.load("sleepstudy")
    w = np.where(np.arange(180) % 10 == 3, 0.0, 1.0 + np.arange(180) % 3)
    fit = jg.lmm(
        "Reaction ~ Days + (1 | Subject)", data, weights=w, offset=np.arange(180.0)
    )
    found = fit.power("Days", 20, seed=1)
    (own,) = np.random.SeedSequence(1).spawn(1)
    again = fit.refit(fit.simulate(20, own)[4])
    assert found.p_values[4] == pytest.approx(again.p_values[1], rel=1e-4)
    assert found.rows == 162


# Larger designs -----------------------------------------------------------------------


def test_new_levels_have_the_rows_of_levels_there_are():
    data = jg.datasets.load("sleepstudy")
    fit = made("sleepstudy")
    more = fit.extend("Subject", 25)
    d = more.model.design
    assert (d.n, d.terms[0].n_levels) == (250, 25)
    np.testing.assert_array_equal(d.X[180:190], fit.design.X[:10])
    assert d.terms[0].levels[18] == f"{fit.design.terms[0].levels[0]}+1"
    Y = more.simulate(3000, seed=1)
    block = np.cov(Y[:, 180:190].T)
    Z = d.terms[0].values[:10]
    psi = np.asarray(fit.varcorr["Subject"].cov)
    V = Z @ psi @ Z.T + fit.sigma**2 * np.eye(10)
    np.testing.assert_allclose(block, V, atol=0.15 * V.max())
    between = np.corrcoef(Y[:, 0], Y[:, 180])[0, 1]  # a copy is another subject
    assert abs(between) < 0.08
    assert fit.extend("Subject", 5).model.design.n == 50
    assert len(data) == fit.design.n  # nothing of the fit has changed


def test_factors_inside_are_new_with_their_level_and_crossed_ones_stay():
    fit = made("machines")
    d = fit.extend("Worker", 15).model.design
    levels = {t.factor: t.n_levels for t in d.terms}
    assert levels == {"Worker": 15, "Worker:Machine": 45}
    crossed = made("penicillin").extend("plate", 30).model.design
    assert {t.factor: t.n_levels for t in crossed.terms} == {"plate": 30, "sample": 6}


def test_rows_within_levels():
    d = made("sleepstudy").extend(within="Subject", n=14).model.design
    assert d.n == 18 * 14
    np.testing.assert_array_equal(d.X[10:14, 1], [0, 1, 2, 3])
    with pytest.raises(jg.NotApplicableError, match="cannot be told"):
        made("sleepstudy").extend(within="Subject", n=1)


def test_rows_of_a_table():
    plan = {"Subject": np.repeat(np.arange(9), 3), "Days": np.tile([0, 5, 20], 9)}
    more = made("sleepstudy").extend(data=plan)
    d = more.model.design
    assert d.terms[0].n_levels == 9
    np.testing.assert_array_equal(d.X[:3, 1], [0, 5, 20])
    assert more.power("Days", 50).power > 0.5
    herds = {"herd": np.repeat(np.arange(8), 4), "period": np.tile([*"1234"], 8)}
    herds["trials"] = np.full(32, 25)
    trials = made("cbpp").extend(data=herds)
    assert (trials.model.design.trials == 25).all()
    assert trials.simulate(200, seed=1).max() > 15


def test_what_cannot_be_extended_says_so():
    fit = made("sleepstudy")
    for given in ({}, {"along": "Subject"}, {"along": "Subject", "data": {}, "n": 3}):
        with pytest.raises(jg.NotApplicableError, match="takes along="):
            fit.extend(**given)
    with pytest.raises(jg.NotApplicableError, match="no grouping factor"):
        fit.extend("Days", 20)
    with pytest.raises(jg.NotApplicableError, match="n=1"):
        fit.extend("Subject", 1)
    data = jg.datasets.load("sleepstudy")
    other = jg.lmm("Reaction ~ Days", data, residual="ar1(Days | Subject)")
    with pytest.raises(jg.NotApplicableError, match="independent"):
        other.extend("Subject", 30)


# Curves -------------------------------------------------------------------------------


def test_a_curve_is_what_its_studies_are(study):
    curve = jg.power_curve(study, "x", "g", [24, 6, 12], n_simulations=600, seed=1)
    assert curve.sizes == (6, 12, 24)
    assert [p.groups["g"] for p in curve.powers] == [6, 12, 24]
    assert [p.rows for p in curve.powers] == [36, 72, 144]
    for size, found in zip(curve.sizes, curve.powers, strict=True):
        df = size * 6 - size - 1
        away = 0.25 * np.sqrt(size * np.sum((np.arange(6) - 2.5) ** 2))
        edge = stats.t.ppf(0.975, df)
        expected = stats.nct.sf(edge, df, away) + stats.nct.cdf(-edge, df, away)
        assert within_error(found, expected)
    table = curve.table
    assert table.index.name == "levels of g"
    assert (table["conf_low"] < table["power"]).all()
    assert 6 <= curve.size_for(0.8) <= 24
    few = study.assume({"x": 0.0}).power_curve("x", "g", [6, 12], n_simulations=50)
    assert np.isnan(few.size_for(0.8))
    ratio = study.power_curve("x", "g", [6, 12], n_simulations=100, method="lrt")
    assert ratio.powers[0].failed == 0


def test_curves_of_rows_and_of_effects(study):
    rows = study.power_curve("x", within="g", sizes=[6, 12], n_simulations=100)
    assert [p.rows for p in rows.powers] == [72, 144]
    effects = study.power_curve("x", effect=[0.0, 0.5], n_simulations=100)
    assert [p.effect for p in effects.powers] == [0.0, 0.5]
    assert effects.powers[0].power < 0.2 < 0.9 < effects.powers[1].power
    crossed = made("penicillin")
    with pytest.raises(jg.NotApplicableError, match="no coefficient"):
        crossed.power_curve("dose", "plate", [10])
    for given in ({"along": "g"}, {}, {"along": "g", "effect": [1.0]}):
        with pytest.raises(jg.NotApplicableError, match="power_curve"):
            study.power_curve("x", **given)


def test_generalised_curves_by_gaps():
    fit = made("cbpp")
    values = {"period[T.2]": -0.7}
    curve = fit.power_curve(
        "period[T.2]", "herd", [8, 30], n_simulations=300, assume=values
    )
    alone = fit.extend("herd", 30).assume(values).power("period[T.2]", 300, seed=7)
    assert within_error(curve.powers[1], min(max(alone.power, 0.01), 0.99))
    assert curve.powers[0].power < curve.powers[1].power


def test_the_figure_of_a_curve(study):
    import matplotlib.pyplot as plt

    curve = study.power_curve("x", "g", [6, 12], n_simulations=60)
    ax = curve.plot()
    assert ax.get_title(loc="left") == "Power of x"
    assert ax.get_xlabel() == "levels of g"
    _, given = plt.subplots()
    assert curve.plot(ax=given, wanted=None) is given
    plt.close("all")


# Assumed parameters -------------------------------------------------------------------


def test_parameters_at_other_values():
    fit = made("sleepstudy")
    given = {"Days": 3.0, "sigma": 10.0, "sd_Days|Subject": 2.0}
    given["cor_Days.(Intercept)|Subject"] = -0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit.extend("Subject", 18).assume(given).model
    assert model.fixef["Days"] == 3.0
    assert model.sigma == pytest.approx(10.0)
    sd = model.varcorr["Subject"].sd
    np.testing.assert_allclose(sd, [fit.varcorr["Subject"].sd.iloc[0], 2.0])
    corr = np.asarray(model.varcorr["Subject"].corr)
    assert corr[0, 1] == pytest.approx(-0.5)
    assert fit.fixef["Days"] != 3.0
    counts = jg.design(
        "y ~ 1 + (1 | g)",
        balanced(),
        {"sd_(Intercept)|g": 0.1, "phi": 2.0, "(Intercept)": 2.0},
        family="nbinom2",
    )
    assert counts.assume({"phi": 5.0}).model.dispersions["phi"] == pytest.approx(5.0)
    y = counts.simulate(4000, seed=0)
    assert y.mean() == pytest.approx(np.exp(2.005), rel=0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Dyas": 1.0}, "did you mean|Days"),
        ({"Days": np.nan}, "no number"),
        ({"sigma": -1.0}, "must be positive"),
        ({"sd_Days|Subject": -1.0}, "negative"),
        ({"cor_Days.(Intercept)|Subject": 1.5}, "no distribution"),
        ([1.0], "dict by name"),
    ],
)
def test_values_that_cannot_be(values, message):
    with pytest.raises(jg.NotApplicableError, match=message):
        made("sleepstudy").power("Days", 10, assume=values)


def test_a_study_without_data_has_the_moments_it_was_given():
    plan = balanced(400, 3)
    values = {"(Intercept)": 1.0, "x": 2.0, "sigma": 0.5}
    values |= {"sd_(Intercept)|g": 1.5, "sd_x|g": 0.7, "cor_x.(Intercept)|g": 0.4}
    study = jg.design("y ~ x + (x | g)", plan, values)
    y = study.simulate(1, seed=2)[0]
    fit = jg.lmm("y ~ x + (x | g)", plan | {"y": y})
    assert fit.fixef["x"] == pytest.approx(2.0, abs=0.15)
    assert fit.sigma == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(fit.varcorr["g"].sd, [1.5, 0.7], rtol=0.15)
    assert repr(study) == "<Study of y ~ x + (x | g): 1200 rows, 400 g>"


def test_designs_that_are_not_told_enough():
    with pytest.raises(jg.NotApplicableError, match=r"missing for sd_\(Intercept\)"):
        jg.design("y ~ x + (1 | g)", balanced(), {"sigma": 1.0})
    with pytest.raises(jg.NotApplicableError, match="no parameter"):
        jg.design("y ~ x + (1 | g)", balanced(), VALUES | {"z": 1.0})
    with pytest.raises(jg.FormulaError, match="is to be a name"):
        jg.design("cbind(a, b) ~ x + (1 | g)", balanced(), VALUES, family="binomial")
    with pytest.raises(jg.ModelError, match="no random effects"):
        jg.design("y ~ x", balanced(), {"sigma": 1.0})
    yes = jg.design(
        "y ~ x + (1 | g)",
        balanced(),
        {"x": 0.5, "sd_(Intercept)|g": 0.5},
        family="binomial",
        trials=5,
    )
    assert yes.power("x", 50).n == 50
    assert set(np.unique(yes.simulate(50, seed=0))) == set(range(6))


def test_tests_that_there_are_not():
    fit = made("sleepstudy")
    with pytest.raises(jg.NotApplicableError, match="no coefficient or term"):
        fit.power("Weeks")
    with pytest.raises(jg.NotApplicableError, match="linear models"):
        made("cbpp").power("period[T.2]", method="t")
    with pytest.raises(jg.NotApplicableError, match="whole term"):
        made("cbpp").power("period[T.2]", method="lrt")
    with pytest.raises(jg.NotApplicableError, match="one coefficient"):
        made("cbpp").power("period", method="z")
    with pytest.raises(jg.NotApplicableError, match="REML"):
        made("machines").power("Machine", method="kr")
    with pytest.raises(jg.NotApplicableError, match="n_simulations=0"):
        fit.power("Days", 0)
    with pytest.raises(jg.NotApplicableError, match="alpha"):
        fit.power("Days", alpha=5)
    with pytest.raises(jg.JaxGLMMError, match="method"):
        fit.power("Days", method="wald")
    with pytest.raises(jg.NotApplicableError, match="maximum likelihood"):
        jg.power_curve("fit", "x", "g", [1])
