"""Means over normal predictors against closed forms and adaptive integration."""

import itertools

import numpy as np
import pytest
from doors import averages
from scipy import integrate, special, stats

from jaxglmm import NotApplicableError
from jaxglmm.model.families import Binomial, Gamma, Gaussian, Poisson

ETA = np.array([-9.0, -1.3, 0.0, 0.7, 4.0])


def integral(function, eta, sd):
    """E f(eta + sd Z) by adaptive integration, cut where f turns."""
    turns = [(t - eta) / sd for t in (-30, -4, -1, 0, 1, 4, 30)]
    cuts = sorted({*(float(np.clip(t, -12, 12)) for t in turns), -12.0, 0.0, 12.0})
    parts = [
        integrate.quad(
            lambda z: function(eta + sd * z) * stats.norm.pdf(z), a, b, epsabs=1e-15
        )[0]
        for a, b in itertools.pairwise(cuts)
    ]
    return sum(parts)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
@pytest.mark.parametrize("sd", [0.1, 1.0, 4.0, 60.0])
def test_probabilities(link, sd):
    family = Binomial(link)
    found = averages.over_normal(family, ETA, np.full(5, sd))
    exact = [integral(lambda t: float(family.mean(t)), eta, sd) for eta in ETA]
    np.testing.assert_allclose(found.value, exact, rtol=1e-8, atol=1e-13)
    rise = [integral(lambda t: float(family.link.slope(t)), eta, sd) for eta in ETA]
    np.testing.assert_allclose(found.by_eta, rise, rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize(
    "link", ["logit", "probit", "cloglog", "cauchit", "log", "sqrt"]
)
def test_derivatives(link):
    family = Poisson(link) if link in ("log", "sqrt") else Binomial(link)
    eta, sd = np.array([-1.0, 0.4, 2.0]), np.array([0.5, 1.5, 3.0])
    found = averages.over_normal(family, eta, sd)
    step = 1e-5

    def value(shift, widen):
        return averages.over_normal(family, eta + shift, sd + widen).value

    by_eta = (value(step, 0) - value(-step, 0)) / (2 * step)
    by_sd = (value(0, step) - value(0, -step)) / (2 * step)
    np.testing.assert_allclose(found.by_eta, by_eta, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.by_sd, by_sd, rtol=1e-7, atol=1e-10)


def test_closed_forms():
    """The log-normal mean, the probit's attenuation, the square's variance."""
    sd = np.array([0.0, 0.3, 1.0, 2.0, 0.5])
    log = averages.over_normal(Poisson(), ETA, sd)
    np.testing.assert_allclose(log.value, np.exp(ETA + sd**2 / 2))
    probit = averages.over_normal(Binomial("probit"), ETA, sd)
    np.testing.assert_allclose(probit.value, special.ndtr(ETA / np.sqrt(1 + sd**2)))
    np.testing.assert_allclose(
        averages.over_normal(Poisson("sqrt"), ETA, sd).value, ETA**2 + sd**2
    )
    identity = averages.over_normal(Gaussian(), ETA, sd)
    np.testing.assert_array_equal(identity.value, ETA)
    np.testing.assert_array_equal(identity.by_sd, 0)


def test_the_trapezoidal_rule_and_gauss_hermite_agree():
    """With many nodes; the closed form of the probit lies between them."""
    z, w = np.polynomial.hermite_e.hermegauss(180)
    for link in ("logit", "cloglog"):
        family = Binomial(link)
        hermite = np.asarray(family.mean(ETA[:, None] + 0.8 * z)) @ (w / w.sum())
        found = averages.over_normal(family, ETA, np.full(5, 0.8))
        np.testing.assert_allclose(found.value, hermite, rtol=1e-11)
    family = Binomial("probit")
    rule = averages._by_quadrature(family, ETA, np.full(5, 0.8))
    closed = averages.over_normal(family, ETA, np.full(5, 0.8))
    np.testing.assert_allclose(rule[0], closed.value, rtol=1e-10)
    np.testing.assert_allclose(rule[2], closed.by_sd, rtol=1e-9, atol=1e-15)


def test_no_spread_and_no_number():
    eta, sd = np.array([0.5, np.nan, 0.5]), np.array([0.0, 1.0, np.nan])
    found = averages.over_normal(Binomial(), eta, sd)
    np.testing.assert_allclose(found.value[0], special.expit(0.5), rtol=1e-15)
    assert found.by_sd[0] == pytest.approx(0, abs=1e-16)
    assert np.isnan(found.value[1:]).all()


def test_a_mean_that_does_not_exist():
    with pytest.raises(NotApplicableError, match=r"row 1: 2, standard deviation 0\.5"):
        averages.over_normal(
            Gamma("inverse"), np.array([9.0, 2.0]), np.array([0.5] * 2)
        )
    far = averages.over_normal(Gamma("inverse"), np.array([20.0]), np.array([0.5]))
    # 1/eta (1 + s^2/eta^2 + 3 s^4/eta^4 + ...)
    ratio = (0.5 / 20) ** 2
    series = (1 + ratio + 3 * ratio**2 + 15 * ratio**3) / 20
    np.testing.assert_allclose(far.value, series, rtol=1e-9)


class Truncated(Poisson):
    """Counts above zero: a mean that is not the inverse link."""

    def mean(self, eta):
        mu = np.exp(eta)
        return mu / -np.expm1(-mu)


def test_a_family_with_a_mean_of_its_own():
    family = Truncated()
    found = averages.over_normal(family, np.array([0.2]), np.array([0.7]))
    exact = integral(lambda t: float(family.mean(t)), 0.2, 0.7)
    np.testing.assert_allclose(found.value, exact, rtol=1e-9)
    step = 1e-6
    rise = (family.mean(0.2 + step) - family.mean(0.2 - step)) / (2 * step)
    np.testing.assert_allclose(averages.slope(family, np.array([0.2])), rise, rtol=1e-7)
