"""Posteriors of models with several linear predictors."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from doors import double_precision, log_rows
from scipy import special, stats

import jaxglmm as jg
from jaxglmm import NotApplicableError

J, ROWS = 12, 10
ZI = "y ~ x + (1 | g)", {"family": "poisson", "zi": "~ 1"}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(J), ROWS), rng.normal(size=J * ROWS)
    y = rng.poisson(np.exp(1.2 + 0.4 * x + 0.5 * rng.normal(size=J)[g]))
    y = np.where(rng.random(len(x)) < 0.25, 0, y)
    return pd.DataFrame({"y": y, "x": x, "g": g})


@pytest.fixture(scope="module")
def fit(data):
    formula, options = ZI
    return jg.glmm(formula, data, method=jg.NestedLaplace(draws=500), **options)


def test_the_posterior_is_around_the_maximum(fit, data):
    formula, options = ZI
    most = jg.glmm(formula, data, **options)
    away = fit.posterior.draws.beta.mean(axis=0) - most.estimates.beta
    assert (np.abs(away) < 0.3 * np.asarray(most.se)).all()
    assert fit.posterior.facts["nodes"] == 1
    assert fit.certificate is not None


@double_precision
def test_the_density_of_the_rows(fit, data):
    """At parameters of our own, by SciPy."""
    density = fit.density
    x = np.array([0.3, -0.2, 0.4, np.log(0.6)])
    u = np.random.default_rng(0).normal(size=density.data.factors[0].n_levels)
    padded = np.zeros((1, 1, density.posterior.problem.rows.sizes[0]))
    padded[0, 0, : len(u)] = u
    rows = log_rows(density.posterior, jnp.asarray(x), (jnp.asarray(padded),))
    beta = density.beta(x)
    eta = fit.design.X[:, :2] @ beta[:2] + 0.6 * u[data["g"]]
    p = special.expit(beta[2])
    mass = (1 - p) * stats.poisson.pmf(data["y"], np.exp(eta)) + p * (data["y"] == 0)
    np.testing.assert_allclose(jnp.sum(rows), np.log(mass).sum(), rtol=1e-12)


def test_rows_from_the_draws(fit):
    """Types of ``predict`` by the draws, written out."""
    new = {"x": [0.0, 1.0], "g": [3, 3]}
    draws = fit.posterior.draws
    mean = np.exp(draws.beta[:, :2] @ np.array([[1.0, 1.0], [0.0, 1.0]]))
    p = special.expit(draws.beta[:, 2:])
    ask = {"re": "population", "interval": "confidence"}
    for type, expected in (
        ("response", (1 - p) * mean),
        ("conditional", mean),
        ("zprob", p + 0 * mean),
        ("zlink", special.logit(p) + 0 * mean),
        ("link", np.log(mean)),
    ):
        found = fit.predict(new, type=type, **ask)
        np.testing.assert_allclose(found["fit"], expected.mean(axis=0), rtol=1e-12)
        upper = np.quantile(expected, 0.975, axis=0)
        np.testing.assert_allclose(found["upper"], upper, rtol=1e-12)
    # over new levels: E exp(b) = exp(sd^2 / 2)
    more = np.exp(draws.sd["g"] ** 2 / 2)
    found = fit.predict(new, re="marginal")
    np.testing.assert_allclose(found, ((1 - p) * mean * more).mean(axis=0), rtol=1e-7)
    own = np.exp(fit.posterior.effects("g")[:, 3])
    found = fit.predict(new, re="conditional")
    np.testing.assert_allclose(found, ((1 - p) * mean * own).mean(axis=0), rtol=1e-12)
    averages = fit.predictions(new, by="x")
    population = fit.predict(new, re="population")
    np.testing.assert_allclose(averages["estimate"], population, rtol=1e-12)


def test_new_data_and_checks(fit, data):
    drawn = fit.simulate(200, seed=1)
    zeros = (drawn == 0).mean()
    assert abs(zeros - (data["y"] == 0).mean()) < 0.06
    assert fit.predict(data.head(), interval="prediction")["upper"].min() >= 1
    np.testing.assert_allclose(fit.residuals, data["y"] - fit.fitted_values)
    assert fit.resid("quantile", seed=2).std() == pytest.approx(1, abs=0.15)
    assert fit.check().ok
    assert fit.loo().elpd < 0


def test_arviz_has_all_groups(fit):
    tree = fit.to_arviz(draws=50)
    logs = np.asarray(tree["log_likelihood"]["y"])
    assert logs.shape[-1] == J * ROWS
    assert np.isfinite(logs).all()
    simulated = np.asarray(tree["posterior_predictive"]["y"])
    assert 0.1 < (simulated == 0).mean() < 0.6


def test_what_a_model_has_not_is_refused(fit, data):
    formula, options = ZI
    with pytest.raises(NotApplicableError, match="has no dispersion parameter"):
        fit.predict(type="disp")
    with pytest.raises(NotApplicableError, match="this model has 2: cond, zi"):
        jg.glmm(formula, data, method=jg.VB(nested=True), **options)
    with pytest.raises(NotApplicableError, match="one linear predictor"):
        fit.r2()


def test_variational_bayes_is_stochastic_where_rows_have_several_predictors(fit, data):
    formula, options = ZI
    found = jg.glmm(formula, data, method=jg.VB(draws=500), **options)
    assert found.method == "stochastic variational Bayes"
    ours, others = found.posterior.draws.beta, fit.posterior.draws.beta
    away = np.abs(ours.mean(axis=0) - others.mean(axis=0)) / others.std(axis=0)
    assert away.max() < 0.3
