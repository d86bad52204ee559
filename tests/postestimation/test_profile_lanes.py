"""Profiles in lanes: the fits of one value after the other, and many models at once."""

import functools
import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from doors import FISHER, LOG, PLAIN, Profile, in_lanes, profile_linear
from doors import curves_alone as one_by_one
from doors import profile_generalised as generalised_profile
from doors import root_search as march

import jaxglmm as jg

pytestmark = pytest.mark.filterwarnings("ignore::jaxglmm.SingularFitWarning")

FORMULA = "y ~ x + (x | g)"
J, ROWS = 10, 6


@functools.cache
def frame():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "g": np.repeat([f"g{k}" for k in range(J)], ROWS),
            "x": np.tile(np.linspace(-1, 1, ROWS), J),
            "z": rng.normal(size=J * ROWS),
        }
    )


@functools.cache
def responses(D=40):
    """Variances from nothing to large, many units; three are bad, one lacks rows."""
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(J), ROWS)
    x = frame()["x"].to_numpy()[:, None]
    sd = rng.choice([0.0, 0.2, 1.0, 5.0], size=(2, D))
    b = rng.normal(size=(J, 2, D)) * sd
    Y = 3 + x + b[codes, 0] + b[codes, 1] * x + rng.normal(size=(J * ROWS, D))
    Y *= 10.0 ** rng.integers(-3, 4, D)
    Y[:, 0] = 7.0
    Y[3, 10] = np.inf
    Y[:, 20] = 1 + 2 * frame()["x"]
    Y[[4, 17], 30] = np.nan
    return Y


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return function(*args, **options)


@functools.cache
def together():
    return quiet(jg.fit_many, FORMULA, frame(), responses=responses())


def limits_of(table, dataset):
    part = table[table["dataset"] == dataset].set_index("term")
    return part[["conf_low", "conf_high"]]


def assert_same(ours, theirs, size, rtol=1e-6):
    theirs = theirs.loc[ours.index].to_numpy()
    np.testing.assert_allclose(ours.to_numpy(), theirs, rtol=rtol, atol=rtol * size)


# One model ----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 14, 27])
def test_lanes_are_the_fits_of_one_value_after_the_other(k):
    """Singular fits, correlations of one, limits of zero among them."""
    fit = together()[k]
    ours = fit.confint(method="profile")
    with jax.enable_x64(True):
        alone = profile_linear.one(fit)
        theirs = Profile(one_by_one(alone)).intervals()
    assert_same(ours, theirs, fit.sigma, 2e-6)


def test_independent_terms_weights_and_an_offset():
    data = frame().assign(
        y=responses()[:, 3],
        w=np.random.default_rng(3).uniform(0.5, 2, J * ROWS),
        o=np.linspace(0, 1, J * ROWS),
    )
    formula = "y ~ x + z + (1 | g) + (0 + x | g)"
    fit = quiet(jg.lmm, formula, data, weights="w", offset="o")
    with jax.enable_x64(True):
        alone = profile_linear.one(fit)
        theirs = Profile(one_by_one(alone)).intervals(0.9)
    assert_same(fit.confint(method="profile", level=0.9), theirs, fit.sigma, 2e-6)


def test_curves_are_drawn_from_points_on_both_sides():
    fit = together()[7]
    table = fit.profile().zeta
    for _, part in table.groupby("parameter"):
        assert (np.diff(part["zeta"]) > -1e-6).all()
        assert part["zeta"].min() < -0.5 < 0.5 < part["zeta"].max()
    curve = fit.profile("sigma").curves["sigma"]
    np.testing.assert_allclose(curve.zeta(curve.meets(1.3)), 1.3, atol=1e-6)


# Many models --------------------------------------------------------------------------


def test_many_models():
    fits = together()
    table = fits.confint(method="profile")
    assert table.columns.tolist() == [
        "dataset",
        "effect",
        "term",
        "estimate",
        "conf_low",
        "conf_high",
        "status",
    ]
    assert len(table) == 40 * 6
    for k in (0, 10, 20):
        assert limits_of(table, k).isna().all(axis=None)
        assert (table.loc[table["dataset"] == k, "status"] != 0).all()
    for k in (1, 4, 13, 22, 30, 35):  # 30 has missing rows
        fit = quiet(fits.__getitem__, k)
        theirs = fit.confint(method="profile")
        theirs.columns = ["conf_low", "conf_high"]
        assert_same(limits_of(table, k), theirs, fit.sigma)
    # estimates are those of the fits, by REML
    rows = table[table["term"] == "sigma"]
    np.testing.assert_array_equal(rows["estimate"], fits.sigma)


def test_some_parameters_of_some_models():
    fits = together()
    part = fits[[4, 22, 1]]
    few = part.confint(0.8, "profile", which=["x", "sigma"])
    assert few["term"].tolist() == ["x", "sigma"] * 3
    whole = fits.confint(0.8, "profile")
    for row, k in enumerate([4, 22, 1]):
        mine = few[few["dataset"] == row].set_index("term")
        theirs = limits_of(whole, k).loc[["x", "sigma"]]
        np.testing.assert_allclose(mine[["conf_low", "conf_high"]], theirs, rtol=1e-7)
    beta = fits.confint(0.8, "profile", which="beta")
    assert set(beta["term"]) == {"(Intercept)", "x"}
    with pytest.raises(jg.NotApplicableError, match="there is no parameter 'a'"):
        fits.confint(method="profile", which="a")


def test_data_sets_with_designs_of_their_own():
    rng = np.random.default_rng(5)
    parts = []
    for d in range(6):
        levels = 4 + d
        n = levels * 5
        g, x = np.repeat(np.arange(levels), 5), rng.normal(size=n)
        b = rng.normal(size=(levels, 2))
        y = 1 + x + b[g, 0] + b[g, 1] * x + rng.normal(size=n)
        parts.append(pd.DataFrame({"d": d, "g": g, "x": x, "y": y}))
    data = pd.concat(parts, ignore_index=True)
    fits = quiet(jg.fit_many, FORMULA, data, by="d")
    table = fits.confint(method="profile")
    for k in (0, 3, 5):
        fit = quiet(fits.__getitem__, k)
        theirs = fit.confint(method="profile")
        assert_same(limits_of(table, k), theirs, fit.sigma)


def test_crossed_factors_are_profiled_alone():
    data = frame().assign(h=np.tile(list("abc"), J * ROWS // 3))
    rng = np.random.default_rng(6)
    Y = responses()[:, [1, 3]] + rng.normal(size=3)[pd.factorize(data["h"])[0], None]
    fits = quiet(jg.fit_many, "y ~ x + (1 | g) + (1 | h)", data, responses=Y)
    table = fits.confint(method="profile", which="x")
    fit = quiet(fits.__getitem__, 1)
    theirs = fit.confint(method="profile").loc[["x"]]
    assert_same(limits_of(table, 1), theirs, fit.sigma)


def test_draws_have_no_data():
    draws = quiet(together()[5].bootstrap, 20)
    with pytest.raises(jg.NotApplicableError, match="not at hand"):
        draws.confint(method="profile")


# The search ---------------------------------------------------------------------------


def test_searches_side_by_side():
    """Curves with and without a slope, on all scales, with plateaus, ends and gaps."""
    estimate = np.array([2.0, 2.0, 0.9, 1.0, 0.0, 2.0])
    scales = [PLAIN, LOG, FISHER, PLAIN, PLAIN, LOG]
    ends = (
        np.array([-np.inf, 0.0, -1.0, -np.inf, 0.0, 0.0]),
        np.array([np.inf, np.inf, 1.0, np.inf, np.inf, np.inf]),
    )
    points = march.Points(estimate, np.full(6, 0.1), ends, scales)
    rows = np.arange(6)

    def evaluate(which, x):
        away = x - points.centre[which]
        zeta = 2 * away + np.where(which == 0, 0.3 * away**3, 0.0)
        slope = np.where(which == 0, 2 + 0.9 * away**2, np.nan)
        zeta = np.where((which == 3) & (away > 0), 1.5 * np.tanh(away), zeta)
        zeta = np.where((which == 5) & (away > 1.5), np.nan, zeta)
        return zeta, slope

    for target in (-1.96, 0.7):
        found = march.meet(points.rows(np.full(6, target)), evaluate)
        reached, _ = evaluate(rows, found)
        # zero is an end that comes before zeta is so low
        hits = np.array([True, True, True, True, target > 0, True])
        np.testing.assert_allclose(reached[hits], target, atol=1e-6)
        if target < 0:
            assert points.value(None, found)[4] == 0.0
    level = march.meet(points.rows(np.full(6, 1.96)), evaluate)
    assert points.value(None, level)[3] == np.inf


# Generalised models -------------------------------------------------------------------


@functools.cache
def counts():
    """The shapes of ``test_fit_many_generalised``: negative binomial."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame(
        {"g": np.repeat(np.arange(12), 5), "x": rng.normal(size=60).round(2)}
    )
    sd = np.array([0.0, 0.3, 1.0, 1.0, 0.5, 0.5])
    eta = 1.2 + 0.4 * data["x"].to_numpy()[:, None]
    eta = eta + (rng.normal(size=(12, 6)) * sd)[data["g"]]
    Y = rng.negative_binomial(3.0, 3.0 / (3.0 + np.exp(eta))).astype(float)
    Y[4, 1] = -1.0
    Y[::7, 3] = np.nan
    return data, Y


def test_many_generalised_models():
    """With a dispersion parameter and missing rows."""
    data, Y = counts()
    fits = quiet(
        jg.fit_many, "y ~ x + (1 | g)", data, responses=Y, family="nbinom2", tol=1e-10
    )
    table = fits.confint(method="profile")
    assert limits_of(table, 1).isna().all(axis=None)
    for k in (0, 2, 3, 5):
        fit = quiet(fits.__getitem__, k)
        with jax.enable_x64(True):
            theirs = Profile(one_by_one(generalised_profile.one(fit))).intervals()
        theirs.columns = ["conf_low", "conf_high"]
        assert_same(limits_of(table, k), theirs, 1.0, 2e-6)


def test_slopes_of_counts_in_lanes():
    """Correlations beside small variances, where the sign of an entry could turn."""
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(12), 5), rng.normal(size=60)
    b = rng.normal(size=(12, 2)) * [0.6, 0.2]
    y = rng.poisson(np.exp(1 + 0.3 * x + b[g, 0] + (b[g, 1] + 0.2 * b[g, 0]) * x))
    data = {"y": y, "x": x, "g": g}
    fit = quiet(jg.glmm, "y ~ x + (x | g)", data, family="poisson", tol=1e-10)
    with jax.enable_x64(True):
        ours = Profile(in_lanes(generalised_profile.lanes(fit))).intervals()
        theirs = Profile(one_by_one(generalised_profile.one(fit))).intervals()
    assert_same(ours, theirs, 1.0, 2e-6)


def test_generalised_data_sets_with_designs_of_their_own():
    data, Y = counts()
    long = pd.concat(
        [data.assign(y=Y[:, k], d=k)[data["g"] < 12 - k] for k in (0, 4, 5)],
        ignore_index=True,
    )
    fits = quiet(
        jg.fit_many, "y ~ x + (1 | g)", long, by="d", family="poisson", tol=1e-10
    )
    table = fits.confint(method="profile")
    for row, k in enumerate((0, 4, 5)):
        fit = quiet(fits.__getitem__, row)
        theirs = fit.confint(method="profile")
        assert_same(limits_of(table, k), theirs, 1.0)
