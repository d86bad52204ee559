"""Posteriors of models with several linear predictors."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import jaxglmm as jg
from jaxglmm._errors import NotApplicableError
from jaxglmm.density.posterior import log_rows
from jaxglmm.runtime.precision import double_precision

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


def test_what_is_for_one_predictor_says_so(fit, data):
    formula, options = ZI
    for ask in (fit.predict, lambda: fit.predict(data.head()), fit.loo, fit.simulate):
        with pytest.raises(NotApplicableError, match="one linear predictor"):
            ask()
    with pytest.raises(NotApplicableError, match="this model has 2: cond, zi"):
        jg.glmm(formula, data, method="vb", **options)
    with pytest.raises(NotApplicableError, match="one linear predictor"):
        fit.r2()
