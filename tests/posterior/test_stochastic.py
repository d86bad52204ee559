"""Variational Bayes by stochastic gradients, against exact answers and other ways."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import _fit, stochastic, variational
from jax.scipy.special import gammaln

import jaxglmm as jg
from jaxglmm.model.families import AbstractFamily

PRIORS = jg.Priors(coefficients=1.5, sd=jg.HalfNormal(1))


class TruncatedPoisson(AbstractFamily):
    """Counts from one on: a family that the library does not know."""

    name: ClassVar[str] = "truncated-poisson"
    default_link: ClassVar[str] = "log"
    padding: ClassVar[float] = 1.0

    def log_density(self, y, eta, phi, trials=1.0):
        mu = jnp.exp(eta)
        return y * eta - mu - gammaln(y + 1) - jnp.log(-jnp.expm1(-mu))


def close(ours, theirs, means=0.12, sds=0.12):
    """Coefficients agree in units of their posterior sd."""
    a, b = ours.posterior.moments, theirs.posterior.moments
    sd, other = np.sqrt(np.diag(a.beta_cov)), np.sqrt(np.diag(b.beta_cov))
    assert np.max(np.abs(a.beta - b.beta) / other) < means
    assert np.max(np.abs(sd / other - 1)) < sds


@pytest.fixture(scope="module")
def cbpp():
    data = jg.datasets.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    return formula, data


@pytest.fixture(scope="module")
def stochastic_fit(cbpp):
    return jg.glmm(*cbpp, method=jg.VB(family="stochastic"), priors=PRIORS)


def test_cbpp(cbpp, stochastic_fit):
    nested = jg.glmm(*cbpp, method=jg.VB(), priors=PRIORS)
    assert stochastic_fit.converged
    close(stochastic_fit, nested)
    error = stochastic_fit.posterior.facts["elbo_error"]
    evidence = jg.glmm(*cbpp, method="nested-laplace", priors=PRIORS)
    # a lower bound, and not a bad one
    bound = stochastic_fit.posterior.elbo
    assert bound < evidence.posterior.log_evidence + 3 * error
    assert bound > evidence.posterior.log_evidence - 0.6


def test_the_same_seed_the_same_answer(cbpp, stochastic_fit):
    again = jg.glmm(*cbpp, method=jg.VB(family="stochastic"), priors=PRIORS)
    np.testing.assert_allclose(
        again.posterior.moments.beta, stochastic_fit.posterior.moments.beta, rtol=1e-9
    )
    assert "stochastic variational Bayes" in str(again.summary())


def test_a_family_of_ones_own():
    rng = np.random.default_rng(7)
    sow = np.repeat(np.arange(30), 10)
    x = rng.normal(size=300)
    y = rng.poisson(np.exp(0.2 + 0.5 * x + 0.4 * rng.normal(size=30)[sow]))
    seen = y > 0
    data = {"y": y[seen], "x": x[seen], "sow": sow[seen]}
    fits = [
        jg.glmm(
            "y ~ x + (1 | sow)",
            data,
            family=TruncatedPoisson(),
            method=method,
            priors=PRIORS,
        )
        for method in (jg.VB(family="stochastic"), jg.VB(), jg.NestedLaplace())
    ]
    for fit in fits[:2]:
        assert fit.converged
        close(fit, fits[2])


def test_the_bound_of_the_structured_family_is_a_function(cbpp):
    """It can be compiled and differentiated, and is flat where VB stops."""
    engine = jg.glmm(*cbpp, method=jg.VB(nested=False), priors=PRIORS).density
    with jax.enable_x64(True):
        found = _fit(engine.posterior, engine.eta, engine.phi, 1e-10, np.int64(200), 20)
        posterior = engine.posterior.folded()

        def bound(beta, y):
            q = variational.GaussianPosterior(beta, found.q.u, found.q.weights, y)
            return variational.elbo(q, posterior, k=20)

        value, (to_beta, to_y) = jax.jit(jax.value_and_grad(bound, argnums=(0, 1)))(
            found.q.beta, found.q.y
        )
    assert float(value) == pytest.approx(float(found.elbo), abs=1e-8)
    assert np.abs(to_beta).max() < 1e-3
    assert np.abs(to_y).max() < 1e-2


def test_the_entropy_is_that_of_the_draws():
    """q is Gaussian: its entropy follows from the covariance of (x, u)."""
    k, J = 2, 3
    guide = stochastic.Guide(
        jnp.array([0.3, -0.2]),
        jnp.array([[0.1, 0.0], [0.4, -0.3]]),
        (jnp.ones((1, J)),),
        (0.2 * jnp.ones((1, k, J)),),
        (jnp.full((1, 1, J), -0.5),),
    )
    frame = stochastic.frame_of(jnp.array([1.0, 2.0]), 4.0 * jnp.eye(k))
    z = jax.random.normal(jax.random.key(0), (20_000, k))
    e = (jax.random.normal(jax.random.key(1), (20_000, 1, J)),)
    x, (u,) = jax.vmap(lambda z, e: stochastic.draw(guide, frame, z, e))(z, e)
    sample = np.concatenate([np.asarray(x), np.asarray(u).reshape(len(x), -1)], 1)
    expected = 0.5 * np.linalg.slogdet(np.cov(sample.T))[1]
    expected += sample.shape[1] * stochastic.LOG_2PI_E / 2
    found = float(stochastic.entropy(guide, frame))
    assert found == pytest.approx(expected, abs=0.05)


def test_nested_belongs_to_the_structured_family():
    with pytest.raises(jg.ModelError, match="nested=True belongs to"):
        jg.VB(family="stochastic", nested=True)
