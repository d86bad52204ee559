"""Prediction limits against brute-force mixtures of the families' distributions."""

import numpy as np
import pytest
from doors import prediction_predictive as predictive
from scipy import optimize, special, stats

from jaxglmm.model.families import (
    Beta,
    BetaBinomial,
    Binomial,
    Gamma,
    Gaussian,
    InverseGaussian,
    NegativeBinomial1,
    NegativeBinomial2,
    Poisson,
    StudentT,
)

ETA, SD = np.array([-0.5, 0.4, 1.6]), np.array([0.0, 0.5, 1.2])
GRID = np.linspace(-9, 9, 6001)
WEIGHTS = stats.norm.pdf(GRID) / stats.norm.pdf(GRID).sum()


def mixture(family, phi, eta, sd, trials):
    """The distribution function on a fine grid of predictors."""
    mu = np.asarray(family.mean(eta + sd * GRID), float)

    def F(y):
        return float(
            np.asarray(family.cdf(np.full(6001, y), mu, phi, trials)) @ WEIGHTS
        )

    return F


@pytest.mark.parametrize(
    ("family", "phi"),
    [
        (Gamma(), [-1.0]),
        (InverseGaussian(), [-0.5]),
        (Beta(), [2.0]),
        (Gaussian(), [0.3]),
        (Gaussian("log"), [-1.0]),
        (StudentT(), [0.0]),
    ],
)
def test_continuous(family, phi):
    phi = np.array(phi)
    low, high = predictive.limits(family, phi, ETA, SD, np.ones(3), 0.9)
    for row in range(3):
        F = mixture(family, phi, ETA[row], SD[row], 1.0)
        assert F(low[row]) == pytest.approx(0.05, abs=1e-6)
        assert F(high[row]) == pytest.approx(0.95, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "phi", "trials"),
    [
        (Poisson(), [], 1.0),
        (Poisson("sqrt"), [], 1.0),
        (NegativeBinomial2(), [0.2], 1.0),
        (NegativeBinomial1(), [0.5], 1.0),
        (Binomial(), [], 1.0),
        (Binomial("cloglog"), [], 12.0),
        (BetaBinomial(), [1.0], 9.0),
    ],
)
def test_counts(family, phi, trials):
    """The smallest counts that hold the tails."""
    phi = np.array(phi)
    low, high = predictive.limits(family, phi, ETA, SD, np.full(3, trials), 0.9)
    for row in range(3):
        F = mixture(family, phi, ETA[row], SD[row], trials)
        for p, y in ((0.05, low[row]), (0.95, high[row])):
            assert F(y) >= p - 1e-6
            assert y == 0 or F(y - 1) < p + 1e-6


def test_a_normal_model_is_the_normal_interval():
    low, high = predictive.limits(
        Gaussian(), np.array([np.log(2.0)]), ETA, SD, np.ones(3), 0.95
    )
    half = special.ndtri(0.975) * np.sqrt(SD**2 + 4)
    np.testing.assert_allclose(high, ETA + half, rtol=1e-8)
    np.testing.assert_allclose(low, ETA - half, rtol=1e-8)


@pytest.mark.parametrize(("centre", "sigma"), [(1e9, 1.0), (0.0, 1e-9), (-1e-3, 1e6)])
def test_any_unit(centre, sigma):
    low, high = predictive.limits(
        Gaussian(),
        np.array([np.log(sigma)]),
        np.array([centre]),
        np.array([sigma]),
        np.ones(1),
        0.95,
    )
    half = special.ndtri(0.975) * np.sqrt(2) * sigma
    np.testing.assert_allclose(high - low, 2 * half, rtol=1e-5)


def test_large_and_small_counts():
    """Noise that is narrow against the predictor's; nothing to be expected."""
    eta, sd = np.array([np.log(1e6), np.log(1e5), -30.0]), np.array([0.5, 0.0, 0.1])
    low, high = predictive.limits(Poisson(), np.zeros(0), eta, sd, np.ones(3), 0.95)
    z = special.ndtri(0.975)
    np.testing.assert_allclose(high[0], 1e6 * np.exp(0.5 * z), rtol=5e-3)
    np.testing.assert_allclose(low[0], 1e6 * np.exp(-0.5 * z), rtol=5e-3)
    assert high[1] == stats.poisson.ppf(0.975, 1e5)
    assert low[1] == stats.poisson.ppf(0.025, 1e5)
    assert high[2] == 0


def test_rows_without_numbers_and_without_trials():
    low, high = predictive.limits(
        Binomial(),
        np.zeros(0),
        np.array([np.nan, 0.0, 0.0, 0.0]),
        np.array([1.0, np.nan, 1.0, 1.0]),
        np.array([5.0, 5.0, 0.0, np.nan]),
        0.95,
    )
    np.testing.assert_array_equal(low, [np.nan, np.nan, 0, np.nan])
    np.testing.assert_array_equal(high, [np.nan, np.nan, 0, np.nan])
    empty = predictive.limits(Poisson(), np.zeros(0), *np.zeros((3, 0)), 0.95)
    assert [len(x) for x in empty] == [0, 0]


class Silent(Gamma):
    """Knows how to draw, but not its distribution function."""

    cdf = Gamma.__mro__[2].cdf


def test_a_family_without_a_distribution_function_is_drawn_from():
    phi = np.array([-1.0])
    found = predictive.limits(Silent(), phi, ETA, SD, np.ones(3), 0.9)
    again = predictive.limits(Silent(), phi, ETA, SD, np.ones(3), 0.9)
    exact = predictive.limits(Gamma(), phi, ETA, SD, np.ones(3), 0.9)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_allclose(found, exact, rtol=0.06)


def test_quantiles_of_one_row_by_root_finding():
    """A row on its own, with SciPy's distribution and root finder."""
    low, _ = predictive.limits(
        Gamma(), np.array([0.0]), np.array([0.0]), np.array([0.0]), np.ones(1), 0.95
    )
    exact = optimize.brentq(lambda y: stats.expon.cdf(y) - 0.025, 1e-6, 1)
    np.testing.assert_allclose(low, exact, rtol=1e-8)


def test_predictors_without_a_mean_are_left_out():
    """Given a positive predictor, where the link is the inverse; else nothing."""
    family, phi = Gamma("inverse"), np.array([-1.0])
    eta, sd = np.array([1.0, -0.2, -5.0]), np.array([0.7, 0.5, 0.01])
    low, high = predictive.limits(family, phi, eta, sd, np.ones(3), 0.8)
    for row in range(2):
        at = eta[row] + sd[row] * GRID
        w = np.where(at > 0, WEIGHTS, 0)
        mu = 1 / np.where(at > 0, at, 1.0)
        for p, y in ((0.1, low[row]), (0.9, high[row])):
            F = family.cdf(np.full(6001, y), mu, phi) @ w / w.sum()
            assert pytest.approx(p, abs=2e-3) == F
    assert np.isnan([low[2], high[2]]).all()
