"""Families with a model of zeros or dispersion: derivatives, moments, draws."""

import jax
import numpy as np
import pytest
from doors import Composed, gradients, host

from jaxglmm.model.families import family_from

N = 30
NAMES = ("poisson", "nbinom2", "nbinom1", "gaussian", "gamma", "beta", "binomial")
KINDS = ((True, False), (False, True), (True, True))
CASES = [
    (name, zi, disp)
    for name in NAMES
    for zi, disp in KINDS
    if not disp or family_from(name).n_phi
]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def response(name, rng):
    y = {
        "gamma": rng.gamma(2.0, 1.0, N),
        "beta": rng.beta(2.0, 3.0, N),
        "gaussian": rng.normal(size=N),
        "binomial": rng.integers(0, 2, N).astype(float),
    }.get(name, rng.poisson(1.5, N).astype(float))
    y[::4] = 0.0
    return y


def somewhere(name, zi, disp):
    rng = np.random.default_rng(0)
    family = Composed(family_from(name), zi, disp)
    y = response(name, rng)
    if not family.has_zeros:
        y = np.where(y == 0, family.padding, y)
    eta = rng.normal(size=(len(family.predictors), N))
    return family, y, eta, rng.normal(size=family.n_phi)


@pytest.mark.parametrize(("name", "zi", "disp"), CASES)
def test_derivatives_are_those_of_the_density(name, zi, disp):
    family, y, eta, phi = somewhere(name, zi, disp)
    with host.on_host(60.0):
        found = family.derivatives(y, eta, phi)
        l, one, two, three = gradients(lambda x: family.log_density(y, x, phi), eta)
    for own, twin in zip(found, (l, one, -two, -three), strict=True):
        np.testing.assert_allclose(own, twin, rtol=1e-9, atol=1e-12)


def test_a_program_has_the_same_derivatives():
    family, y, eta, phi = somewhere("nbinom2", True, True)
    found = jax.jit(family.derivatives)(y, eta, phi)
    with host.on_host(60.0):
        in_numpy = family.derivatives(y, eta, phi)
    for own, twin in zip(found, in_numpy, strict=True):
        np.testing.assert_allclose(own, twin, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("zeta", [-800.0, -30.0, 0.0, 30.0, 800.0])
def test_zeros_are_exact_far_out(zeta):
    """p at zero is the base, at one a row of zeros; nothing overflows."""
    family = Composed(family_from("poisson"), zi=True)
    y, eta = np.array([0.0, 3.0]), np.array([[0.5, 0.5], [zeta, zeta]])
    with host.on_host(60.0):
        l, s, w, w1 = family.derivatives(y, eta, np.zeros(0))
        base = family_from("poisson").derivatives(y, eta[0], np.zeros(0))
    for part in (l, s, w, w1):
        assert np.isfinite(part).all()
    if zeta <= -30:
        np.testing.assert_allclose(l, base[0], rtol=1e-12)
        np.testing.assert_allclose(s[0], base[1], rtol=1e-12)
    if zeta >= 30:
        assert abs(l[0]) < 1e-12
        np.testing.assert_allclose(l[1], base[0][1] - zeta, rtol=1e-12)


@pytest.mark.parametrize(("name", "zi", "disp"), CASES)
def test_moments_are_those_of_draws(name, zi, disp):
    family = Composed(family_from(name), zi, disp)
    eta = np.array([0.3, -0.4, 0.8])[: len(family.predictors)]
    eta = np.repeat(eta[:, None], 200_000, axis=1)
    phi = np.full(family.n_phi, 0.7)
    mu = family.parameters(eta)
    y = family.simulate(np.random.default_rng(1), mu, phi)
    se = np.sqrt(family.variance(mu, phi)[0] / len(y))
    assert abs(y.mean() - family.mean(eta)[0]) < 5 * se
    np.testing.assert_allclose(np.var(y), family.variance(mu, phi)[0], rtol=0.05)
    for at in (0.0, 0.4, 1.0):
        share = np.mean(y <= at)
        np.testing.assert_allclose(family.cdf(at, mu, phi)[0], share, atol=0.006)
        share = np.mean(y < at)
        np.testing.assert_allclose(family.below(at, mu, phi)[0], share, atol=0.006)


@pytest.mark.parametrize("zi", [False, True])
@pytest.mark.parametrize("log_size", [-3.0, 0.3, 8.0, 30.0])
def test_formulas_in_the_dispersion_are_derivatives(zi, log_size):
    """Of the rows without what eta does not enter, which is zero where y is."""
    plain = family_from("nbinom2")
    family = Composed(plain, True, False) if zi else plain
    rng = np.random.default_rng(1)
    y, phi, one = response("nbinom2", rng), np.array([log_size]), np.ones(1)
    eta = 2 * rng.normal(size=(2, N) if zi else N)

    def coupled(x):
        return family.coupled_derivatives(y, eta, x)

    def slope(x):
        return jax.jvp(lambda z: coupled(z)[0], (x,), (one,))[1]

    assert family.knows_phi
    found = family.by_phi(y, eta, phi)
    here, moved = jax.jvp(coupled, (phi,), (one,))
    own = (*found.plain, found.dl[0], found.ds[0], found.dw[0], found.info[0][0])
    twin = (*here, *moved[:3], -jax.jvp(slope, (phi,), (one,))[1])
    for a, b in zip(own, twin, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    whole = family.kernel_derivatives(y, eta, phi)
    np.testing.assert_allclose(
        whole[0], here[0] + family.log_separable(y, phi), rtol=1e-9, atol=1e-12
    )
    for a, b in zip(whole[1:], here[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
