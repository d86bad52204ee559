"""Simulated residuals and checks: exact under the model, alarmed where it is wrong."""

import dataclasses
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import GeneralisedFit
from doors import simulated_residuals as simulated
from scipy import stats

import jaxglmm as jg

FORMULA = "y ~ x + (1 | g)"


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(*args, **options)


def made(draw, seed=3, n=120):
    """Data with a response drawn from its mean."""
    rng = np.random.default_rng(seed)
    g, x = np.arange(n) % 12, rng.normal(size=n)
    mu = np.exp(0.8 + 0.4 * x + 0.5 * rng.normal(size=12)[g])
    return {"x": x, "g": g, "y": np.asarray(draw(rng, mu), float)}


@pytest.fixture(scope="module")
def counts():
    return quiet(FORMULA, made(lambda r, mu: r.poisson(mu)), family="poisson")


@pytest.fixture(scope="module")
def inflated():
    """Poisson fitted to counts of which a third are zero for another reason."""
    draw = made(lambda r, mu: r.poisson(2 * mu) * (r.uniform(size=120) > 0.35))
    return quiet(FORMULA, draw, family="poisson")


def of_response(fit, y):
    """The fit as it is, beside another response."""
    design = dataclasses.replace(fit.design, y=y)
    return GeneralisedFit(design, fit.estimates, fit.family, fit.marginal)


# Residuals ---------------------------------------------------------------------------


def test_ranks_are_uniform_whatever_the_ties():
    rng = np.random.default_rng(0)
    Y = rng.poisson(1.0, size=(40, 3000)).astype(float)
    scaled = simulated.ranks(Y, simulated.Ties.drawn(rng, Y.shape))
    assert ((scaled > 0) & (scaled < 1)).all()
    # within a column each of 40 intervals is hit once, and the order is kept
    np.testing.assert_array_equal(
        np.sort(np.floor(scaled * 40), axis=0)[:, 0], range(40)
    )
    assert (np.diff(np.take_along_axis(Y, np.argsort(scaled, 0), 0), axis=0) >= 0).all()
    assert stats.kstest(scaled[0], "uniform").pvalue > 0.01


def test_distances_are_those_of_scipy():
    scaled = np.random.default_rng(1).uniform(size=(5, 37)) ** 1.3
    expected = [stats.kstest(row, "uniform").statistic for row in scaled]
    np.testing.assert_allclose(simulated.distances(scaled), expected)


def test_residuals_of_a_good_model(counts):
    found = counts.simulated_residuals(100, seed=4, re="conditional")
    assert found.scaled.shape == (120,)
    np.testing.assert_array_equal(found.predicted, counts.fitted_values)
    again = counts.simulated_residuals(100, seed=4, re="conditional")
    np.testing.assert_allclose(found.scaled, again.scaled, rtol=1e-9)
    other = counts.simulated_residuals(100, seed=5, re="conditional")
    assert abs(found.scaled - other.scaled).max() < 0.7
    # the same thing, exactly: the distribution function at y, ties at random
    y, mu = counts.design.y, counts.fitted_values
    lower, upper = stats.poisson.cdf(y - 1, mu), stats.poisson.cdf(y, mu)
    slack = 4 * np.sqrt(0.25 / 100)
    assert (found.scaled > lower - slack).all()
    assert (found.scaled < upper + slack).all()
    assert "120 rows, 100 draws (conditional)" in repr(found)
    assert "observed" in repr(found.uniformity)


def test_p_values_are_uniform_under_the_model(counts):
    """Data drawn from the fit are one draw among others, levels and all."""
    names = ("uniformity", "dispersion", "zero_share", "outliers")
    p = []
    for y in counts.simulate(150, seed=1):
        found = of_response(counts, y).simulated_residuals(39, seed=int(y.sum()))
        p.append([getattr(found, name).p_value for name in names])
    p = np.array(p)
    for level in (0.1, 0.2, 0.5):
        share = (p[:, :3] <= level + 1e-9).mean(axis=0)
        assert (abs(share - level) < 4 * np.sqrt(level * (1 - level) / 150)).all()
        # few rows are outliers, so that p-values are too large and not too small
        assert (p[:, 3] <= level).mean() < level + 0.1
    textbook = [
        stats.kstest(of_response(counts, y).simulated_residuals(39).scaled, "uniform")
        for y in counts.simulate(60, seed=2)
    ]
    assert np.mean([t.pvalue < 0.05 for t in textbook]) > 0.2  # levels are correlated


def test_level_by_level(counts):
    found = counts.simulated_residuals(100)
    table = found.by("g")
    assert table.index.tolist() == list(range(12))
    assert table["n"].sum() == 120
    assert (table["p_adjusted"] >= table["p_value"]).all()
    labels = np.where(counts.design.variables["x"] > 0, "high", "low")
    assert found.by(labels).index.tolist() == ["high", "low"]
    part = found.scaled[labels == "high"]
    np.testing.assert_allclose(found.by(labels).loc["high", "mean"], part.mean())
    distance = stats.kstest(part, "uniform").statistic
    np.testing.assert_allclose(found.by(labels).loc["high", "statistic"], distance)
    with pytest.raises(jg.NotApplicableError, match="no variable 'h'"):
        found.by("h")
    with pytest.raises(jg.DataError, match=r"shape \(3,\)"):
        found.by([1, 2, 3])


def test_a_group_that_the_model_forgot():
    data = made(lambda r, mu: r.poisson(mu))
    data["f"] = np.array(list("ab"))[np.arange(120) // 60]
    data["y"] = np.where(data["f"] == "b", data["y"] * 3 + 2, data["y"])
    fit = quiet(FORMULA, data, family="nbinom2")
    table = fit.simulated_residuals(200, re="conditional").by(data["f"])
    assert (table["p_adjusted"] < 0.02).all()
    assert table.loc["b", "mean"] > 0.6 > 0.4 > table.loc["a", "mean"]


def test_many_rows_are_not_kept(counts, monkeypatch):
    """In chunks, with the p-values of textbooks where all draws do not fit."""
    whole = counts.simulated_residuals(400, re="conditional")
    monkeypatch.setattr(simulated, "KEPT", 120 * 50)
    found = counts.simulated_residuals(400, re="conditional")
    assert found.draws is None
    assert len(found.spreads) == len(found.zeros) == 401
    assert abs(found.scaled - whole.scaled).max() < 0.75
    np.testing.assert_allclose(found.spreads[0], whole.spreads[0], rtol=0.1)
    assert found.zeros[0] == whole.zeros[0]
    exact = stats.kstest(found.scaled, "uniform")
    np.testing.assert_allclose(found.uniformity.p_value, exact.pvalue)
    assert found.uniformity.method == found.outliers.method == "asymptotic"
    np.testing.assert_allclose(found.outliers.expected, 240 / 401)
    assert found.by("g")["statistic"].between(0, 1).all()
    assert found.dispersion.method == "simulation"


def test_rows_of_weight_zero_do_not_count():
    data = made(lambda r, mu: r.poisson(mu))
    data["y"][:20] = 50.0
    w = np.where(np.arange(120) < 20, 0.0, 1.0)
    fit = quiet(FORMULA, data, family="poisson", weights=w)
    found = fit.simulated_residuals(100)
    assert found.used.sum() == 100
    assert found.draws.shape == (101, 100)
    assert found.uniformity.p_value > 0.05
    assert found.by("g")["n"].sum() == 100
    assert fit.overdispersion(n=0).df == 97
    assert fit.overdispersion(n=0).ratio < 2


# Checks ------------------------------------------------------------------------------


def test_pearson_ratio(counts):
    found = counts.overdispersion(n=100)
    y, mu = counts.design.y, counts.fitted_values
    chisq = np.sum((y - mu) ** 2 / mu)
    np.testing.assert_allclose(
        [found.chisq, found.ratio, found.p_value],
        [chisq, chisq / 117, stats.chi2.sf(chisq, 117)],
    )
    assert found.df == 117
    assert found.p_value > 0.05
    assert found.simulated.p_value > 0.05
    assert "against draws" in repr(found)
    assert counts.overdispersion(n=0).simulated is None


def test_overdispersion_and_zeros_are_found(inflated):
    assert inflated.overdispersion(n=0).p_value < 1e-6
    zeros = inflated.zero_inflation(200)
    np.testing.assert_allclose(zeros.statistic, np.mean(inflated.design.y == 0))
    assert zeros.ratio > 1.5
    assert zeros.p_value == 2 / 201
    checks = inflated.check(200)
    assert not checks.ok
    verdicts = checks.table["verdict"]
    assert "more zeros" in verdicts["zeros"]
    assert "family='nbinom2'" in verdicts["Pearson"]
    assert verdicts["zeros"] in checks
    assert "<table>" in checks.html
    assert checks.residuals.n == 200


def test_too_few_zeros_and_too_little_spread():
    data = made(lambda r, mu: 1 + r.binomial(2, 0.5, 120))
    fit = quiet(FORMULA, data, family="poisson")
    table = fit.check(200).table
    assert "fewer zeros" in table.loc["zeros", "verdict"]
    assert "less spread" in table.loc["dispersion", "verdict"]
    assert "less spread" in table.loc["Pearson", "verdict"]


def test_the_right_model_is_left_alone(counts):
    checks = counts.check()
    assert checks.ok
    assert (checks.table["verdict"] == "ok").all()
    index = ["uniformity", "dispersion", "outliers", "zeros", "Pearson"]
    assert checks.table.index.tolist() == index
    assert "converged; 250 draws from the fit, new random effects" in checks


@pytest.mark.parametrize("family", ["nbinom2", "nbinom1", "gamma", "beta"])
def test_other_families(family):
    draw = {
        "nbinom2": lambda r, mu: r.poisson(r.gamma(2.0, mu / 2)),
        "nbinom1": lambda r, mu: r.poisson(r.gamma(mu, 1.0)),
        "gamma": lambda r, mu: r.gamma(3.0, mu / 3),
        "beta": lambda r, mu: r.beta(mu, 3.0),
    }[family]
    fit = quiet(FORMULA, made(draw), family=family)
    checks = fit.check(100)
    assert (checks.table["verdict"] == "ok").all()
    assert 0.5 < fit.overdispersion(n=0).ratio < 1.5


def test_without_random_effects_and_in_trials():
    data = made(lambda r, mu: r.binomial(50, 1 / (1 + 1 / mu)))
    data["m"] = np.full(120, 50)
    fit = jg.glmm("y ~ x", data, trials="m")
    assert fit.overdispersion(n=0).p_value < 1e-4  # the groups are missing
    assert fit.simulated_residuals(50).re == "no random effects"
    checks = fit.check(200)
    assert "betabinomial" in checks.table.loc["Pearson", "verdict"]


def test_yes_or_no():
    data = made(lambda r, mu: r.uniform(size=120) < 1 / (1 + 1 / mu))
    fit = quiet(FORMULA, data)
    assert fit.check(100).table.index.tolist() == [
        "uniformity",
        "dispersion",
        "outliers",
    ]
    with pytest.raises(jg.NotApplicableError, match="cannot be overdispersed"):
        fit.overdispersion()
    with pytest.raises(jg.NotApplicableError, match="0 and 1"):
        fit.zero_inflation()


def test_what_does_not_apply(counts):
    with pytest.raises(jg.NotApplicableError, match="at least 20"):
        counts.simulated_residuals(5)
    gamma = quiet("y ~ x", made(lambda r, mu: r.gamma(3.0, mu)), family="gamma")
    with pytest.raises(jg.NotApplicableError, match="never exactly zero"):
        gamma.zero_inflation()
    tiny = quiet("y ~ x", {"y": [1, 2, 1], "x": [0, 1, 3]}, family="nbinom2")
    with pytest.raises(jg.NotApplicableError, match="no degree"):
        tiny.overdispersion(n=0)


def test_linear_models():
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", jg.datasets.load("sleepstudy"))
    checks = fit.check(100)
    assert checks.table.index.tolist() == ["uniformity", "dispersion", "outliers"]
    assert checks.ok


def test_after_pickling_and_saving(counts, tmp_path):
    counts.save(tmp_path / "fit")
    here = counts.simulated_residuals(50)
    for again in (pickle.loads(pickle.dumps(counts)), jg.load(tmp_path / "fit")):
        found = again.simulated_residuals(50).scaled
        np.testing.assert_allclose(found, here.scaled, rtol=1e-9)
        tables = again.check(50).table, counts.check(50).table
        pd.testing.assert_frame_equal(*tables, rtol=1e-9)


def test_a_linear_fit_with_a_little_more_spread_than_its_draws_is_checked():
    sleep = jg.datasets.load("sleepstudy")
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    checks = fit.check()
    assert checks.residuals.dispersion.ratio > 1
    assert checks.ok
