"""Prior weights of a generalised model: frequencies, in whatever draws from the fit."""

import warnings

import numpy as np
import pytest

import jaxglmm as jg


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(*args, **options)


def table(n=120, times=4):
    rng = np.random.default_rng(102)
    g, x = rng.integers(0, 12, n), rng.normal(size=n)
    eta = 0.5 + 0.3 * x + rng.normal(0, 0.5, 12)[g]
    return {"k": rng.poisson(np.exp(eta)), "x": x, "g": g}, rng.integers(1, times, n)


@pytest.fixture(scope="module")
def pair():
    """A fit with frequencies, and of the rows themselves."""
    data, w = table()
    weighted = quiet("k ~ x + (1|g)", data, weights=w, family="poisson")
    rows = {name: np.repeat(v, w) for name, v in data.items()}
    return weighted, quiet("k ~ x + (1|g)", rows, family="poisson"), w


def test_a_row_of_weight_w_is_w_rows(pair):
    weighted, rows, w = pair
    np.testing.assert_allclose(weighted.criterion, rows.criterion, rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", jg.PriorWeightsWarning)
        ours, theirs = (f.bootstrap(60) for f in (weighted, rows))
        np.testing.assert_allclose(
            ours.coefficients, theirs.coefficients, rtol=1e-4, atol=1e-6
        )
        residuals = weighted.simulated_residuals(60)
        assert len(residuals) == w.sum()
        np.testing.assert_allclose(
            residuals.scaled, rows.simulated_residuals(60).scaled
        )
        ours, theirs = (f.overdispersion(60) for f in (weighted, rows))
        assert ours.df == theirs.df == w.sum() - 3
        np.testing.assert_allclose(ours.chisq, theirs.chisq, rtol=1e-6)
        np.testing.assert_allclose(ours.simulated.p_value, theirs.simulated.p_value)
        zeros = (f.zero_inflation(60).statistic for f in (weighted, rows))
        np.testing.assert_allclose(*zeros)
        ours, theirs = (f.check(60).table for f in (weighted, rows))
        np.testing.assert_allclose(
            ours["p_value"].astype(float), theirs["p_value"].astype(float), rtol=1e-5
        )


def test_one_draw_a_row_says_that_it_is_one(pair):
    weighted, rows, _ = pair
    with pytest.warns(jg.PriorWeightsWarning, match="ignores the prior weights"):
        assert weighted.simulate(2, seed=1).shape == (2, 120)
    with warnings.catch_warnings():
        warnings.simplefilter("error", jg.PriorWeightsWarning)
        rows.simulate(2, seed=1)


def test_weights_that_count_nothing_are_left_out_and_said_so():
    """Then Pearson's statistic is of single rows, as the draws are."""
    data, w = table()
    fit = quiet("k ~ x + (1|g)", data, weights=9.5 * np.ones(120), family="poisson")
    with pytest.warns(jg.PriorWeightsWarning, match="check"):
        checks = fit.check(60)
    assert checks.table.loc["Pearson", "observed"] < 2
    with pytest.warns(jg.PriorWeightsWarning, match="bootstrap"):
        fit.bootstrap(2)
    data["t"] = np.random.default_rng(1).gamma(2.0, size=120)
    fit = quiet("t ~ x + (1|g)", data, weights=w, family="gamma")
    with pytest.warns(jg.PriorWeightsWarning, match="gamma"):
        fit.simulated_residuals(60)


def test_trials_and_frequencies_together():
    data, w = table()
    data["m"] = data["k"] + 3
    options = {"trials": data["m"], "family": "binomial"}
    fit = quiet("k ~ x + (1|g)", data, weights=w, **options)
    found = fit.overdispersion(40)
    assert found.df == w.sum() - 3
    assert len(fit.simulated_residuals(40)) == w.sum()
    # weights of zero and one only say which rows count
    used = np.where(np.arange(120) < 5, 0, 1)
    fit = quiet("k ~ x + (1|g)", data, weights=used, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", jg.PriorWeightsWarning)
        assert fit.simulate(1, seed=1).shape == (1, 120)
