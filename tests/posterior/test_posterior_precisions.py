"""Weights of Bayesian linear mixed models: sigma^2 / weight is a row's variance."""

import numpy as np
import pytest
from doors import loo
from scipy import stats

import jaxglmm as jg

SCALES = (1.0, 1e-9, 1e10)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(6), 10)
    x, w = rng.normal(size=60), rng.uniform(0.2, 5, 60)
    y = x + rng.normal(size=6)[g] + rng.normal(size=60) / np.sqrt(w)
    return {"y": y, "x": x, "g": g, "w": w}


@pytest.fixture(scope="module")
def fits(data):
    """The mode's approximation, weights of three sizes."""
    return [
        jg.lmm("y ~ x + (1 | g)", data, weights=c * data["w"], method="map")
        for c in SCALES
    ]


def test_a_factor_of_the_weights_changes_sigma_alone(fits):
    one = fits[0]
    for c, fit in zip(SCALES, fits, strict=True):
        assert fit.converged
        np.testing.assert_allclose(fit.coefficients, one.coefficients, rtol=1e-6)
        np.testing.assert_allclose(fit.se, one.se, rtol=1e-6)
        assert fit.varcorr["g"].sd.iloc[0] == pytest.approx(one.varcorr["g"].sd.iloc[0])
        root = np.sqrt(c)
        assert fit.posterior.moments.dispersion["sigma"] == pytest.approx(
            root * one.posterior.moments.dispersion["sigma"], rel=1e-6
        )
        assert fit.criterion == pytest.approx(one.criterion, abs=1e-5)
        prior = fit.priors.dispersion[0]
        assert prior.scale == pytest.approx(root * one.priors.dispersion[0].scale)


def test_the_mode_is_near_the_maximum_of_the_likelihood(data, fits):
    """Weights that multiplied log densities would put sigma elsewhere."""
    best = jg.lmm("y ~ x + (1 | g)", data, weights="w", reml=False)
    mode = fits[0].posterior.moments.dispersion["sigma"]
    assert mode == pytest.approx(best.sigma, rel=0.08)
    np.testing.assert_allclose(fits[0].se[1], best.se[1], rtol=0.1)


def test_densities_of_rows(data, fits):
    fit = fits[1]
    draws = np.arange(3)
    eta = loo.predictors(fit, draws)
    sigma = fit.posterior.draws.dispersion["sigma"][:3, None]
    sd = sigma / np.sqrt(1e-9 * data["w"])
    np.testing.assert_allclose(
        loo.row_log_likelihood(fit, draws), stats.norm.logpdf(data["y"], eta, sd)
    )


def test_new_responses_vary_as_the_weights_say(data, fits):
    for c, fit in zip(SCALES[:2], fits, strict=False):
        Y = fit.simulate(400, seed=1, re="conditional")
        spread = Y.std(axis=0) * np.sqrt(data["w"])
        assert spread.mean() == pytest.approx(
            fits[0].posterior.moments.dispersion["sigma"], rel=0.1
        )
        assert np.ptp(np.log(spread)) < 1.0, c


def test_rows_of_weight_zero_have_draws(data):
    w = np.where(np.arange(60) < 3, 0.0, data["w"])
    fit = jg.lmm("y ~ x + (1 | g)", data, weights=w, method="map")
    assert fit.nobs == 57
    assert fit.simulate(2, seed=1).shape == (2, 60)
    assert np.isfinite(fit.fitted_values).all()
    assert len(fit.loo().khat) == 57
