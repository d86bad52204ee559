"""Proportions with zeros and ones: ordered beta and one-inflated beta."""

import numpy as np
import pandas as pd
import pytest
from doors import Composed, on_host

import jaxglmm as jg
from jaxglmm.model.families import FAMILIES, nested_derivatives

CASES = {
    "ordbeta": [(1.5, -1.7, 0.7), (0.9, -4.0, 0.1), (3.0, 2.0, -2.0)],
    "one_inflated_beta": [(1.0, -1.0), (0.9, 2.0)],
}
GRID = [(name, phi) for name, some in CASES.items() for phi in some]


@pytest.mark.parametrize(("name", "phi"), GRID)
def test_derivatives_are_those_of_the_density(name, phi):
    family, phi = FAMILIES[name](), np.array(phi)
    rng = np.random.default_rng(3)
    eta = np.concatenate([rng.normal(size=60) * 2, [-30.0, 30.0]])
    y = family.simulate(rng, family.parameters(eta), phi)
    y[:3] = 0.5, 1.0, 1e-3
    with on_host():
        auto = nested_derivatives(lambda t: family.log_density(y, t, phi), eta)
        own = family.derivatives(y, eta, phi)
        assert (np.asarray(family.expected_weight(eta, phi)) > 0).all()
    for a, b in zip(own, auto, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "phi"), GRID)
def test_the_distribution_adds_up(name, phi):
    """Density, distribution function, mean, variance, draws and information."""
    family, phi, eta = FAMILIES[name](), np.array(phi), np.float64(0.4)
    mu = family.parameters(eta)

    t, w = np.polynomial.legendre.leggauss(2000)
    t = (t + 1) * np.pi / 4
    y = np.sin(t) ** 2  # the ends of the density are no longer steep
    atoms = np.array(family.atoms)
    both = np.concatenate([y, atoms])
    with on_host():
        l, s, *_ = family.derivatives(both, np.full(len(both), eta), phi)
        found = family.expected_weight(np.array([eta]), phi)
    weight = np.concatenate([w * np.pi / 4 * np.sin(2 * t), np.ones(len(atoms))])
    f = np.exp(l) * weight

    near = {"rtol": 1e-4}
    np.testing.assert_allclose(f.sum(), 1.0, **near)
    centre = float(family.mean_of(mu, phi))
    np.testing.assert_allclose(f @ both, centre, **near)
    np.testing.assert_allclose(family.at(phi).mean(eta), centre)
    spread = family.variance(mu, phi)
    np.testing.assert_allclose(f @ (both - centre) ** 2, spread, **near)
    np.testing.assert_allclose(f @ (both <= 0.6), family.cdf(0.6, mu, phi), rtol=2e-3)
    assert family.cdf(1.0, mu, phi) == 1.0
    np.testing.assert_allclose(f[-1], 1 - family.below(1.0, mu, phi), rtol=1e-9)
    np.testing.assert_allclose(found, f @ s**2, rtol=1e-3)
    draws = family.simulate(np.random.default_rng(1), np.full(40_000, mu), phi)
    assert abs(draws.mean() - centre) < 5 * np.sqrt(spread / 40_000)


def test_cutoffs_are_functions_of_two_parameters():
    family, phi = FAMILIES["ordbeta"](), np.array([1.5, -1.7, 0.7])
    values = np.asarray(family.natural(phi))
    np.testing.assert_allclose(values[1:], [-1.7, -1.7 + np.exp(0.7)])
    held, other = family.holding(2, phi)
    assert other[2] == values[2]
    zero_one = Composed(family, disp=True)
    for own, at in ((family, phi), (held, other), (zero_one, phi[1:])):
        natural = np.asarray(own.natural(at))
        np.testing.assert_allclose(own.from_natural(natural), at)
        step = 1e-6 * np.eye(len(at))
        slopes = [(own.natural(at + e) - own.natural(at - e)) / 2e-6 for e in step]
        J = own.natural_jacobian(at)
        np.testing.assert_allclose(J, np.transpose(slopes), rtol=1e-6, atol=1e-9)
        if own is not zero_one:
            rise = np.log(np.abs(np.linalg.det(J)))
            np.testing.assert_allclose(own.log_natural_slope(at), rise)
    y, eta = np.array([0.0, 0.3, 1.0]), np.array([0.2, -0.3, 1.0])
    with on_host():
        same = [f.log_density(y, eta, x) for f, x in ((family, phi), (held, other))]
    np.testing.assert_allclose(*same, rtol=1e-12)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(30), 12)
    x = rng.normal(size=len(g))
    eta = 0.2 + 0.6 * x + 0.5 * rng.normal(size=30)[g]
    ordered, ones = FAMILIES["ordbeta"](), FAMILIES["one_inflated_beta"]()
    y = ordered.simulate(rng, ordered.parameters(eta), np.array([1.5, -1.5, 1.1]))
    up = ones.simulate(rng, ones.parameters(eta), np.array([1.5, -1.0]))
    both = np.where(rng.uniform(size=len(g)) < 0.2, 0.0, up)
    return pd.DataFrame({"y": y, "up": up, "both": both, "x": x, "g": g})


def test_an_ordered_beta_model(rows):
    fit = jg.glmm("y ~ x + (1 | g)", rows, family="ordbeta")
    assert fit.converged
    assert list(fit.dispersions) == ["phi", "lower_cutoff", "upper_cutoff"]
    assert np.isfinite(fit.tidy(effects="ran_pars")["std_error"].astype(float)).all()
    residuals = fit.resid("quantile")
    assert abs(residuals.mean()) < 0.15
    assert abs(residuals.std() - 1) < 0.12
    assert abs(fit.resid("pearson").std() - 1) < 0.1
    near = fit.predict(re="population", interval="prediction", level=0.8)
    assert ((near["lower"] >= 0) & (near["upper"] <= 1)).all()
    assert (near["lower"] == 0).any()
    assert (near["upper"] == 1).any()


def test_residuals_of_one_inflated_beta_are_those_of_the_parts(rows):
    fit = jg.glmm("up ~ x + (1 | g)", rows, family="one_inflated_beta")
    for kind in ("quantile", "pearson"):
        residuals = fit.resid(kind)
        assert abs(residuals.mean()) < 0.15
        assert abs(residuals.std() - 1) < 0.12
    np.testing.assert_allclose(fit.resid("response"), rows["up"] - fit.fitted_values)


def test_zeros_and_ones_beside_beta_are_parts_of_their_own(rows):
    """The likelihood falls apart: zeros, ones among the rest, and beta."""
    family = "zero_one_inflated_beta"
    both = jg.glmm("both ~ x + (1 | g)", rows, family=family, zi="~ x")
    rest = rows[(rows["both"] > 0) & (rows["both"] < 1)]
    beta = jg.glmm("both ~ x + (1 | g)", rest, family="beta")
    zeros = rows.assign(zero=(rows["both"] == 0) * 1.0)
    share = jg.glmm("zero ~ x", zeros, family="binomial")
    top = (rows["both"] == 1)[rows["both"] > 0]
    p = top.mean()
    ones = len(top) * (p * np.log(p) + (1 - p) * np.log(1 - p))
    total = beta.log_likelihood + share.log_likelihood + ones
    np.testing.assert_allclose(both.log_likelihood, total, atol=1e-6)
    np.testing.assert_allclose(both.dispersions["oi"], p, rtol=1e-5)
    own = list(both.fixef["cond"].values())
    np.testing.assert_allclose(own, beta.coefficients, atol=1e-4)
    assert abs(both.resid("quantile").std() - 1) < 0.1


def test_responses_that_are_none_of_theirs(rows):
    formula = "y ~ x + (1 | g)"
    for change, family, error, match in (
        (lambda y: np.clip(y, 0.01, 0.99), "ordbeta", jg.DataError, "family='beta'"),
        (lambda y: 100 * y, "ordbeta", jg.DataError, "Percentages"),
        (np.round, "ordbeta", jg.DataError, "family='binomial'"),
        (lambda y: y, "one_inflated_beta", jg.DataError, "zi='~ 1'"),
        (lambda y: np.clip(y, 0.01, 0.99), "one_inflated_beta", jg.DataError, "beta"),
        (lambda y: y, "beta", jg.DataError, "family='ordbeta'"),
        (lambda y: 0 * y, "ordbeta", jg.ModelError, "constant"),
    ):
        with pytest.raises(error, match=match):
            jg.glmm(formula, rows.assign(y=change(rows["y"])), family=family)
