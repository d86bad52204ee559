"""Families that data push to an end of their range: they stop there and say so."""

import warnings

import numpy as np
import pytest
from doors import search_steps

import jaxglmm as jg
from jaxglmm.model.families import FAMILIES

N, J = 200, 20
FORMULA = "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    g, x = np.arange(N) % J, rng.normal(size=N)
    eta = 0.7 + 0.4 * x + 0.4 * rng.normal(size=J)[g]
    return {"g": g, "x": x, "counts": rng.poisson(np.exp(eta)) * 1.0, "eta": eta}


@pytest.mark.filterwarnings("ignore::jaxglmm.DispersionWarning")
def test_counts_are_a_tweedie_of_the_smallest_power(rows):
    fit = jg.glmm(FORMULA, rows | {"y": rows["counts"]}, family="tweedie")
    poisson = jg.glmm(FORMULA, rows | {"y": rows["counts"]}, family="poisson")
    assert fit.converged
    assert fit.dispersions["power"] == pytest.approx(1.01)
    np.testing.assert_allclose(fit.coefficients, poisson.coefficients, atol=0.02)
    errors = fit.tidy(effects="ran_pars").set_index("term")["std_error"]
    assert np.isnan(errors["power"])
    assert errors["phi"] > 0


@pytest.mark.filterwarnings("ignore::jaxglmm.DispersionWarning")
def test_gaussian_residuals_are_t_of_endless_degrees(rows):
    rng = np.random.default_rng(4)
    y = rows["eta"] + rng.uniform(-1, 1, N)
    fit = jg.glmm(FORMULA, rows | {"y": y}, family="t")
    gaussian = jg.lmm(FORMULA, rows | {"y": y}, method="ml")
    assert fit.converged
    assert fit.dispersions["df"] > 1e5
    assert fit.log_likelihood == pytest.approx(gaussian.log_likelihood, abs=1e-4)
    np.testing.assert_allclose(fit.coefficients, gaussian.coefficients, atol=1e-4)


@pytest.mark.filterwarnings("ignore::jaxglmm.DispersionWarning")
@pytest.mark.parametrize("name", ["genpois", "compois"])
def test_poisson_counts_lose_nothing(rows, name):
    fit = jg.glmm(FORMULA, rows | {"y": rows["counts"]}, family=name)
    poisson = jg.glmm(FORMULA, rows | {"y": rows["counts"]}, family="poisson")
    assert fit.converged
    assert 0 <= fit.log_likelihood - poisson.log_likelihood < 3
    np.testing.assert_allclose(fit.coefficients, poisson.coefficients, atol=0.05)


def edges(rng):
    """Responses that push a parameter of a family to an end of its range."""
    n = 80
    x = rng.normal(size=n)
    mu = np.exp(1 + 0.3 * x)
    flat = rng.permutation(np.linspace(-1, 1, n))
    few = rng.negative_binomial(0.3, 0.3 / (0.3 + mu)) * 1.0
    return {
        "df up": (x + flat, "t", "'gaussian'"),
        "alpha up": (x + rng.exponential(size=n), "skew_normal", "sharp edge"),
        "alpha low": (x - rng.exponential(size=n), "skew_normal", "sharp edge"),
        "power up": (rng.gamma(3, mu / 3), "tweedie", "'gamma'"),
        "power low": (rng.poisson(mu) * 1.0, "tweedie", "'poisson'"),
        "phi up": (few, "compois", "'nbinom2'"),
    } | {"x": x}


ENDS = [f"{name} up" for name in ("df", "alpha", "power", "phi")]
ENDS += ["alpha low", "power low"]


@pytest.mark.parametrize("which", ENDS)
def test_an_end_is_said_by_name(which):
    cases = edges(np.random.default_rng(0))
    y, family, remedy = cases[which]
    name, end = which.split()
    with pytest.warns(jg.DispersionWarning, match=f"{name} = .* at the {end}") as found:
        fit = jg.glmm("y ~ x", {"y": y, "x": cases["x"]}, family=family)
    assert len(found) == 1
    assert remedy in str(found[0].message)
    low, high = fit.family.phi_range
    assert (fit.estimates.phi >= low).all()
    assert (fit.estimates.phi <= high).all()


def test_an_end_beside_a_model_of_dispersion():
    cases = edges(np.random.default_rng(0))
    data = {"y": cases["df up"][0], "x": cases["x"]}
    with pytest.warns(jg.DispersionWarning, match=r"df = .* upper end"):
        jg.glmm("y ~ x", data, family="t", dispersion="~ x")


@pytest.mark.parametrize("family", ["t", "skew_normal"])
def test_inside_the_range_nothing_is_said(rows, family):
    rng = np.random.default_rng(4)
    y = rows["eta"] + (rng.standard_t(4, N) if family == "t" else rng.gamma(2, 1, N))
    with warnings.catch_warnings():
        warnings.simplefilter("error", jg.DispersionWarning)
        jg.glmm("y ~ x", rows | {"y": y}, family=family)


def test_what_is_stopped():
    family = FAMILIES["tweedie"]()
    (_, low), (_, high) = family.phi_range
    psi = np.array([0.3, 0.5, low])
    for slope, stays in ((1.0, True), (-1.0, False)):
        found = search_steps.stopped(family, psi, np.array([1.0, 1.0, slope]))
        assert np.asarray(found).tolist() == [False, False, stays]
    found = search_steps.stopped(family, np.array([0.3, 0.5, high]), -np.ones(3))
    assert np.asarray(found).tolist() == [False, False, True]
    assert search_steps.stopped(FAMILIES["nbinom2"](), psi, psi) is None
    assert family.at_end(psi[1:]).tolist() == [False, True]
