"""Checks of many models: what the single fit's checks say, and what refits say."""

import dataclasses
import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import simulated_residuals as simulated

import jaxglmm as jg

J, ROWS, D = 12, 5, 6
N = J * ROWS
COUNTS = "y ~ x + (1 | g)"


@functools.cache
def frame():
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "g": np.repeat(np.arange(J), ROWS),
            "x": rng.normal(size=N).round(2),
            "w": rng.uniform(0.5, 2, N),
        }
    )


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return function(*args, **options)


@functools.cache
def linear():
    rng = np.random.default_rng(4)
    b = rng.normal(size=(J, D))
    Y = 1 + frame()["x"].to_numpy()[:, None] + b[frame()["g"]] + rng.normal(size=(N, D))
    Y[:, 2] = 5.0
    Y[[3, 9], 3] = np.nan
    return quiet(
        jg.fit_many, "y ~ x + (x | g)", frame(), responses=Y, weights="w", offset="x"
    )


@functools.cache
def counts():
    """Poisson; the last two with more spread, or more zeros, than it has."""
    rng = np.random.default_rng(5)
    mu = np.exp(1 + 0.4 * frame()["x"].to_numpy()[:, None])
    mu = mu * np.exp(0.3 * rng.normal(size=(J, D))[frame()["g"]])
    Y = rng.poisson(mu).astype(float)
    Y[:, 4] = rng.negative_binomial(1.0, 1 / (1 + mu[:, 4]))
    Y[:, 5] = rng.poisson(2 * mu[:, 5]) * (rng.uniform(size=N) > 0.4)
    return quiet(jg.fit_many, COUNTS, frame(), responses=Y, family="poisson")


@pytest.mark.parametrize("make", [linear, counts])
def test_as_a_single_fit_with_the_same_seed(make):
    fits = make()
    table = fits.check(60, seed=3)
    kinds = 4 if make is counts else 3
    assert len(table) == D * kinds
    for k in (0, 3, 5):
        fit = quiet(fits.__getitem__, k)
        ours = table[table["dataset"] == k].set_index("check")
        theirs = fit.simulated_residuals(60, seed=3).tests().loc[ours.index]
        for name in ("observed", "expected", "p_value"):
            # a draw may change its rank where estimates differ by rounding
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-12)
    pd.testing.assert_frame_equal(table, fits.check(60, seed=3))
    other = fits.check(60, seed=4)
    assert (table["p_value"] != other["p_value"]).any()


def test_what_is_wrong_is_found():
    table = counts().check(200)

    def of(check, column):
        return table.loc[table["check"] == check, column].to_numpy()

    spread, zeros = of("dispersion", "p_value"), of("zeros", "p_value")
    assert min(*spread[:4], *zeros[:4]) > 0.01
    assert spread[4] < 0.02
    assert zeros[5] < 0.02
    assert (of("zeros", "p_adjusted") >= zeros).all()


def test_a_model_without_a_fit_has_no_checks():
    table = linear().check(40)
    bad = table[table["dataset"] == 2]
    assert np.isnan(bad["p_value"].to_numpy()).all()
    assert np.all(bad["status"].to_numpy() != 0)
    assert set(table["check"]) == {"uniformity", "dispersion", "outliers"}


def test_data_sets_with_designs_of_their_own():
    data = frame().assign(y=counts().source.responses.take(np.array([0]))[:, 0])
    data["d"] = np.where(data["g"] < 5, "a", "b")
    fits = quiet(jg.fit_many, COUNTS, data, by="d", family="poisson")
    table = fits.check(40)
    fit = quiet(fits.__getitem__, 1)
    ours = table[table["dataset"] == "b"].set_index("check")
    theirs = fit.simulated_residuals(40).tests().loc[ours.index]
    np.testing.assert_allclose(ours["p_value"], theirs["p_value"])


def test_what_does_not_apply():
    with pytest.raises(jg.NotApplicableError, match="at least 20"):
        counts().check(5)
    with pytest.raises(jg.NotApplicableError, match=r"fits\[i\]"):
        counts().check(re="conditional")
    with pytest.raises(jg.NotApplicableError, match="not at hand"):
        dataclasses.replace(counts(), source=None).check()


def test_ranks_of_counts_and_of_ties_among_reals():
    """One sort by a sum is the sort by value and then by the tie."""
    rng = np.random.default_rng(7)
    whole = rng.poisson(1.0, (30, 9)).astype(float)
    for Y in (whole, whole / 3, rng.normal(size=(30, 9))):
        ties = simulated.Ties.drawn(rng, Y.shape)
        order = np.lexsort((ties.order, Y), axis=0)
        expected = np.empty(Y.shape)
        np.put_along_axis(expected, order, np.arange(30.0)[:, None], axis=0)
        found = simulated.ranks(Y, ties)
        np.testing.assert_allclose(found, (expected + ties.place) / 30)


# Refits of one model ------------------------------------------------------------------


def test_draws_that_are_fitted_themselves():
    fits = counts()
    good, spread, zeros = (quiet(fits.__getitem__, k) for k in (1, 4, 5))
    found = good.overdispersion(99, seed=1, refit=True).simulated
    assert found is not None
    assert found.method == "refits"
    assert found.p_value > 0.02
    np.testing.assert_allclose(found.statistic, np.sum(good.resid("pearson") ** 2))
    # fitted draws leave as much as the data do; draws as they are leave more
    assert 0.8 < found.ratio < 1.25
    again = good.overdispersion(99, seed=1, refit=True).simulated
    assert again == found
    wide = spread.overdispersion(99, refit=True).simulated
    assert wide is not None
    assert wide.p_value <= 0.02
    assert zeros.zero_inflation(99, refit=True).p_value <= 0.02
    share = good.zero_inflation(99, refit=True)
    assert share.p_value > 0.02
    assert share.statistic == np.mean(good.design.y == 0)


def test_lanes_and_single_refits_are_the_same(monkeypatch):
    from doors import refits

    fit = quiet(counts().__getitem__, 0)
    lanes = refits.refitted(fit, 20, 1, None)
    monkeypatch.setattr(refits, "_in_lanes", lambda *args: None)
    alone = refits.refitted(fit, 20, 1, None)
    np.testing.assert_allclose(lanes.eta, alone.eta, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(lanes.Y, alone.Y)
