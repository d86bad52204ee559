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


def test_weights_of_a_gaussian_response_without_random_effects_are_precisions():
    """R 4.2.2: ``lm(y ~ x, weights = w)`` and ``glm(y ~ x, gaussian, weights = w)``."""
    x = np.array([-1.2, 0.3, 0.8, 1.9, -0.4, 0.1, 2.2, -1.7])
    y = np.array([0.1, 1.2, 1.0, 2.4, 0.9, 0.6, 1.8, -0.5])
    w = np.array([0.5, 2, 1, 4, 0.25, 3, 1.5, 0.8])
    data = {"x": x, "y": y, "g": np.arange(8) % 2}
    fit = jg.glmm("y ~ x", data, family="gaussian", weights=w)
    np.testing.assert_allclose(fit.log_likelihood, -3.05760897874155, rtol=1e-10)
    np.testing.assert_allclose(fit.aic, 12.11521795748310, rtol=1e-10)
    np.testing.assert_allclose(
        fit.coefficients, [0.747152508895960, 0.723402254165817], rtol=1e-7
    )
    # sums of squares as weighted, draws and intervals by each row's own variance
    np.testing.assert_allclose(np.sum(fit.resid("pearson") ** 2), 8.0, rtol=1e-6)
    spread = np.std(fit.simulate(4_000, seed=1), axis=0)
    np.testing.assert_allclose(spread, fit.sigma / np.sqrt(w), rtol=0.06)
    limits = fit.predict(interval="prediction")
    width = (limits["upper"] - limits["lower"]).to_numpy()
    half = 1.959964 * np.hypot(fit.sigma / np.sqrt(w), fit.predict(se=True)["se"])
    np.testing.assert_allclose(width / 2, half, rtol=1e-4)
    np.testing.assert_allclose(fit.refit(y).log_likelihood, fit.log_likelihood)
    # of another size, and the linear mixed model that contains it
    other = jg.glmm("y ~ x", data, family="gaussian", weights=1e8 * w)
    np.testing.assert_allclose(other.log_likelihood, fit.log_likelihood)
    np.testing.assert_allclose(other.se, fit.se, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        mixed = jg.lmm("y ~ x + (1 | g)", data, weights=w, reml=False)
    assert jg.anova(fit, mixed).statistic >= -1e-8
    with pytest.raises(jg.ComparisonError, match="prior weights"):
        jg.anova(jg.glmm("y ~ x", data, family="gaussian"), mixed)
