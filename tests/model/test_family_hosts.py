"""What families do on the host: checks, starts, residuals, draws, latent variances."""

import jax.numpy as jnp
import numpy as np
import pytest
from doors import AbstractFamily
from scipy import integrate, stats

import jaxglmm as jg
from jaxglmm.model.families import FAMILIES, family_from

# categories have no mean to go by: test_cumulative
NAMES = [
    name for name in FAMILIES if name not in ("bernoulli", "cumulative", "multinomial")
]


SHARES = ("beta", "ordbeta", "one_inflated_beta")  # proportions


def setting(name):
    """A family, a mean, a dispersion and trials, all plain."""
    family = family_from(name)
    probability = family.family_kind == "binomial" or name in SHARES
    mu = 0.3 if probability else 2.5
    trials = 12.0 if family.family_kind == "binomial" else 1.0
    phi = np.full(family.n_phi, 0.4)
    if name == "t":
        phi[1] = np.log(9.0)
    return family, mu, phi, trials


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_moments(name, rng):
    family, mu, phi, trials = setting(name)
    family = jg.StudentT(df=9) if name == "student" else family
    y = family.simulate(rng, np.full(40_000, mu), phi, trials)
    size = trials if family.family_kind == "binomial" else 1.0
    variance = family.variance(mu, phi, trials)
    assert y.dtype == np.float64
    mean = size * family.mean_of(mu, phi)  # of truncated counts above what mu is
    assert abs(y.mean() - mean) < 5 * np.sqrt(variance / len(y))
    spread = (y - mean) ** 2
    assert abs(spread.mean() - variance) < 5 * spread.std() / np.sqrt(len(y))
    pearson = family.pearson_residuals(y, np.full(len(y), mu), phi, trials)
    assert abs(pearson.std() - 1) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_distribution_function(name, rng):
    """Randomised quantile residuals are uniform."""
    family, mu, phi, trials = setting(name)
    y = family.simulate(rng, np.full(4000, mu), phi, trials)
    mean = np.full(len(y), mu)
    high = family.cdf(y, mean, phi, trials)
    low = family.below(y, mean, phi, trials)
    u = low + rng.uniform(size=len(y)) * (high - low)
    assert stats.kstest(u, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_distribution_function_sums_the_density(name):
    family, mu, phi, trials = setting(name)
    eta = float(family.link.link(np.float64(mu)))

    def density(y):
        y = np.atleast_1d(np.asarray(y, float))
        return np.exp(family._log_density(y, np.full(len(y), eta), phi, trials))

    if family.discrete:
        y = np.arange(0.0 if family.has_zeros else 1.0, 13.0)
        np.testing.assert_allclose(
            family.cdf(y, mu, phi, trials), density(y).cumsum(), rtol=1e-9
        )
        return
    points = np.array([0.2, 0.6]) if name in SHARES else np.array([1.0, 4.0])
    grid = np.linspace(*points, 2001)
    total = integrate.simpson(density(grid), x=grid)
    np.testing.assert_allclose(
        total, np.diff(family.cdf(points, mu, phi, trials))[0], rtol=1e-8
    )


def test_distribution_functions_far_towards_the_limits():
    y, mu = np.array([0.0, 3.0, 8.0]), np.array([1.0, 2.5, 9.0])
    poisson = stats.poisson.cdf(y, mu)
    for kind, phi in ((2, 40.0), (1, -40.0)):
        family = jg.NegativeBinomial(kind=kind)
        np.testing.assert_allclose(family.cdf(y, mu, [phi]), poisson, rtol=1e-9)
    binomial = stats.binom.cdf(y, 12, 0.3)
    found = jg.BetaBinomial().cdf(y, np.full(3, 0.3), [40.0], 12)
    np.testing.assert_allclose(found, binomial, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_deviances(name, rng):
    family, mu, phi, trials = setting(name)
    mean = np.full(60, mu)
    y = family.simulate(rng, mean, phi, trials)
    closed = family.unit_deviance(y, mean, phi, trials)
    searched = AbstractFamily.unit_deviance(family, y, mean, phi, trials)
    np.testing.assert_allclose(closed, searched, rtol=1e-6, atol=1e-7)
    residuals = family.deviance_residuals(y, mean, phi, trials)
    np.testing.assert_allclose(residuals**2, closed, atol=1e-12)
    size = trials if family.family_kind == "binomial" else 1.0
    away = np.abs(residuals) > 1e-6
    expected = size * family.mean_of(mean, phi)
    assert (np.sign(residuals[away]) == np.sign(y - expected)[away]).all()


def test_deviances_at_the_edge():
    zero = np.zeros(2)
    mu = np.array([0.5, 2.0])
    for family in (jg.Poisson(), jg.NegativeBinomial(), jg.NegativeBinomial(kind=1)):
        phi = np.zeros(family.n_phi)
        found = family.unit_deviance(zero, mu, phi)
        loss = -2 * family._log_density(zero, np.log(mu), phi, 1.0)
        np.testing.assert_allclose(found, loss, rtol=1e-6)
    p = np.array([0.2, 0.7])
    found = jg.Binomial().unit_deviance(np.array([0.0, 4.0]), p, np.zeros(0), 4.0)
    np.testing.assert_allclose(found, [-8 * np.log(0.8), -8 * np.log(0.7)])


def test_latent_variances_after_nakagawa():
    mu = np.array([0.2, 1.5])
    one = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}
    for link, value in one.items():
        for kind in (jg.Binomial, jg.BetaBinomial):
            np.testing.assert_allclose(
                kind(link).latent_variance(np.array([0.2, 0.5]), [0.0]), value
            )
    with pytest.raises(jg.NotApplicableError, match="no variance"):
        jg.Binomial("cauchit").latent_variance(mu, [])
    poisson = jg.Poisson()
    np.testing.assert_allclose(poisson.latent_variance(mu, []), np.log(1 + 1 / mu))
    np.testing.assert_allclose(poisson.latent_variance(mu, [], method="delta"), 1 / mu)
    from scipy.special import polygamma

    np.testing.assert_allclose(
        poisson.latent_variance(mu, [], method="trigamma"), polygamma(1, mu)
    )
    np.testing.assert_allclose(jg.Poisson("sqrt").latent_variance(mu, []), 0.25)
    phi = np.array([np.log(2.0)])
    np.testing.assert_allclose(
        jg.NegativeBinomial().latent_variance(mu, phi), np.log(1 + 1 / mu + 0.5)
    )
    np.testing.assert_allclose(
        jg.NegativeBinomial().latent_variance(mu, phi, method="trigamma"),
        polygamma(1, 1 / (1 / mu + 0.5)),
    )
    np.testing.assert_allclose(jg.Gamma().latent_variance(mu, phi), np.log(3.0))
    np.testing.assert_allclose(
        jg.Gamma().latent_variance(mu, phi, method="trigamma"), polygamma(1, 0.5)
    )
    np.testing.assert_allclose(jg.Gaussian().latent_variance(mu, phi), 4.0)
    with pytest.raises(jg.ModelError, match="'lognormal', 'delta', 'trigamma'"):
        poisson.latent_variance(mu, [], method="nonsense")


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_finite_and_near(name, rng):
    family, mu, phi, trials = setting(name)
    y = family.simulate(rng, np.full(300, mu), phi, trials)
    m = np.full(300, trials) if family.family_kind == "binomial" else None
    eta, start = family.start(y, m)
    assert eta.shape == (300,)
    assert start.shape == (family.n_phi,)
    assert np.isfinite(eta).all()
    assert np.isfinite(start).all()
    # the spread of the response is part of it: within a factor of ten of the truth
    assert (np.abs(start - phi) < 2.5).all()
    family.check(y, m)


def test_dispersions_are_named():
    assert jg.Poisson().dispersion(np.zeros(0)) == {}
    assert jg.Poisson().sigma(np.zeros(0)) == 1.0
    assert jg.NegativeBinomial().dispersion([np.log(3)]) == {"phi": pytest.approx(3)}
    assert jg.Gamma().sigma(np.log([0.25])) == pytest.approx(0.5)
    assert jg.InverseGaussian().sigma(np.log([0.25])) == pytest.approx(0.5)
    assert jg.Gaussian().dispersion([0.0]) == {"sigma": 1.0}


def test_student_without_a_variance():
    assert jg.StudentT(df=2).variance(0.0, [0.0]) == np.inf


Y = np.array
OUT = [
    ("poisson", Y([1, 2.5, 3]), None, jg.DataError, "whole counts"),
    ("poisson", Y([1, 2.5, 3]), None, jg.DataError, "one value, 2.5 (row 1)"),
    ("poisson", Y([1, 2.5, 3]), None, jg.DataError, "offset=log(exposure)"),
    ("nbinom2", Y([1, -2, -3, -4, -5.0]), None, jg.DataError, "negative values: 4 val"),
    ("nbinom1", Y([1, -2, -3, -4, -5.0]), None, jg.DataError, "first -2 (row 1), -3"),
    ("poisson", Y([0.0, 0, 0]), None, jg.ModelError, "every count is zero"),
    ("poisson", Y([0.0, np.nan]), None, jg.DataError, "not finite"),
    (
        "poisson",
        Y([0.0, 1]),
        Y([1.0, 1]),
        jg.DataError,
        "not 'poisson'",
    ),
    ("gamma", Y([1.0, 0.0, 2]), None, jg.DataError, "greater than zero"),
    ("inversegaussian", Y([1.0, -1.0, 2]), None, jg.DataError, "-1 (row 1)"),
    ("gamma", Y([1.0, 1, 1]), None, jg.ModelError, "constant (1)"),
    ("gaussian", Y([1.0, 1, 1]), None, jg.ModelError, "constant (1)"),
    ("student", Y([1.0, np.inf, 1]), None, jg.DataError, "not finite"),
    ("beta", Y([0.5, 1.0, 0.0]), None, jg.DataError, "strictly between 0 and 1"),
    (
        "beta",
        Y([0.5, 1.0, 0.0]),
        None,
        jg.DataError,
        "them 1 (row 1), 0 (row 2)",
    ),
    ("binomial", Y([0.0, 1, 2]), None, jg.DataError, "cbind(successes, failures)"),
    ("binomial", Y([0.0, 0.5]), None, jg.DataError, "Proportions need their trials"),
    ("binomial", Y([0.0, 0]), None, jg.ModelError, "all failures"),
    ("binomial", Y([3.0, 3]), Y([3.0, 3]), jg.ModelError, "all successes"),
    ("binomial", Y([3.0, 3]), Y([2.0, 3]), jg.DataError, "row 0 has 3 of 2"),
    ("binomial", Y([3.0, 0]), Y([3.0, 0]), jg.DataError, "successes + failures > 0"),
    ("binomial", Y([3.0, 0]), Y([3.5, 1]), jg.DataError, "positive whole number"),
    ("betabinomial", Y([1.0, 0]), None, jg.ModelError, "one trial a row"),
    ("betabinomial", Y([1.0, 0]), Y([1.0, 1]), jg.ModelError, "family='binomial'"),
]


@pytest.mark.parametrize(("name", "y", "trials", "error", "text"), OUT)
def test_texts_of_checks(name, y, trials, error, text):
    with pytest.raises(error) as caught:
        family_from(name).check(y, trials)
    assert text in str(caught.value)


def test_checks_count_rows_as_the_user_does():
    with pytest.raises(jg.DataError, match=r"row 7"):
        jg.Poisson().check(np.array([1.0, -1.0]), rows=np.array([3, 7]))


def test_variances_are_the_same_inside_and_outside():
    for name in NAMES:
        family, mu, phi, trials = setting(name)
        inside = family.variance(jnp.array(mu), jnp.array(phi), trials)
        np.testing.assert_allclose(inside, family.variance(mu, phi, trials), rtol=1e-12)
