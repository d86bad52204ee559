"""Probabilities of ordered categories and their derivatives, against sixty digits."""

from decimal import Decimal as D

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import Ends, Logit, filter_jit, jvp_rows, logit, on_host, upper
from model import decimals

import jaxglmm as jg
from jaxglmm import ModelError
from jaxglmm.model.families import nested_derivatives

LINKS = ("logit", "probit", "cloglog", "loglog", "cauchit")
STRUCTURES = ("flexible", "symmetric", "symmetric2", "equidistant")
FAR = {
    "logit": (-300.0, -40.0, -3.0, 0.2, 1.7, 40.0, 300.0),
    "probit": (-30.0, -9.0, -2.0, 0.2, 1.7, 9.0, 30.0),
    "cloglog": (-36.0, -3.0, 0.2, 1.7, 40.0),
    "loglog": (-40.0, -1.7, 0.2, 3.0, 36.0),
    "cauchit": (-1e6, -30.0, -2.0, 0.2, 1.7, 1e3, 1e6),
}


@pytest.mark.parametrize("link", LINKS)
def test_against_sixty_digits(link):
    K = 4
    family = jg.Cumulative(link, categories=K)
    phi = np.array([0.4, -0.7, 0.9])
    theta = [D(float(t)) for t in family.theta(phi)]
    eta, y = (x.ravel() for x in np.meshgrid(FAR[link], np.arange(float(K))))
    with jax.enable_x64(True):
        found = filter_jit(family.derivatives)(y, eta, jnp.asarray(phi))
        value = np.asarray(family.log_density(y, eta, jnp.asarray(phi)))
    found = np.stack(found, axis=1)
    density = decimals.cumulative(theta)
    for i, row in enumerate(found):
        true = np.array(decimals.derivatives(density, y[i], eta[i], 0, 1, link))
        # derivatives lose what cancels in those before them, and what eta rounds
        size = np.abs(true[1:]).max() * np.array([0, 1, 1, 1]) + 1e-300
        allowed = 1e-9 * np.abs(true) + 1e-11 * size + 1e-14
        assert (np.abs(row - true) <= allowed).all(), (y[i], eta[i], row, true)
        assert value[i] == pytest.approx(true[0], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_derivatives_by_autodiff(link, structure):
    """In eta, and in the threshold parameters against differences of probabilities."""
    rng = np.random.default_rng(3)
    K, n = 5, 60
    family = jg.Cumulative(link, structure, categories=K)
    y, eta = rng.integers(0, K, n).astype(float), 1.5 * rng.normal(size=n)
    phi = 0.4 * rng.normal(size=family.n_phi)
    with on_host():
        closed = family.derivatives(y, eta, phi)
        auto = nested_derivatives(lambda t: family.log_density(y, t, phi), eta)
        units = np.eye(len(phi))
        moved = [
            jvp_rows(lambda x: family.log_density(y, eta, x), (phi,), (unit,))[1]
            for unit in units
        ]
    for a, b in zip(closed, auto, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)

    def log_p(x):
        return np.log(family.probabilities(eta, x)[np.arange(n), y.astype(int)])

    slopes = [(log_p(phi + d) - log_p(phi - d)) / 2e-5 for d in 1e-5 * units]
    np.testing.assert_allclose(moved, slopes, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("K", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_thresholds_and_what_is_reported(structure, K):
    if K == 2 and structure != "flexible":
        with pytest.raises(ModelError, match="at least 3 categories; the response has"):
            jg.Cumulative(thresholds=structure).of_levels((1, 2))
        return
    family = jg.Cumulative(thresholds=structure).of_levels(tuple(range(1, K + 1)))
    phi = np.linspace(-0.5, 0.6, family.n_phi)
    theta = family.theta(phi)
    assert len(theta) == K - 1
    assert (np.diff(theta) > 0).all()
    named = family.dispersion(phi)
    assert len(named) == family.n_phi
    gaps = np.diff(theta)
    if structure == "flexible":
        assert named == dict(zip(family.threshold_names, theta.tolist(), strict=True))
        assert family.threshold_names[0] == "1|2"
    if structure.startswith("symmetric"):
        np.testing.assert_allclose(gaps, gaps[::-1])
    if structure == "symmetric2":
        np.testing.assert_allclose(theta, -theta[::-1], atol=1e-15)
        np.testing.assert_allclose(list(named.values()), theta[theta > 1e-12])
    if structure == "symmetric" and K > 3:
        m = (K - 1) // 2
        top = theta[m + 1 :] - theta[m]
        spacing = [v for k, v in named.items() if k.startswith("spacing")]
        np.testing.assert_allclose(spacing, top)
    if structure == "equidistant":
        np.testing.assert_allclose(gaps, named["spacing"])
        assert named["threshold.1"] == pytest.approx(theta[0])
    step = 1e-6 * np.eye(family.n_phi)
    for f, jacobian in (
        (family.theta, family.theta_jacobian(phi)),
        (family.natural, family.natural_jacobian(phi)),
    ):
        slopes = [(f(phi + d) - f(phi - d)) / 2e-6 for d in step]
        np.testing.assert_allclose(jacobian, np.transpose(slopes), atol=1e-8)


@pytest.mark.parametrize("link", LINKS)
def test_probabilities_draws_and_distribution(link):
    family = jg.Cumulative(link).of_levels(("low", "middle", "high"))
    phi = np.array([-0.3, 0.2])
    eta = np.array([-2.0, 0.0, 1.5])
    P = family.probabilities(eta, phi)
    np.testing.assert_allclose(P.sum(axis=1), 1.0, rtol=1e-14)
    with jax.enable_x64(True):
        for k in range(3):
            l = family.log_density(np.full(3, float(k)), eta, jnp.asarray(phi))
            np.testing.assert_allclose(np.exp(l), P[:, k], rtol=1e-13)
    np.testing.assert_allclose(family.cdf(1, eta, phi), P[:, :2].sum(axis=1))
    rng = np.random.default_rng(1)
    drawn = family.simulate(rng, np.repeat(eta, 20000), phi).reshape(3, -1)
    share = np.stack([(drawn == k).mean(axis=1) for k in range(3)], axis=1)
    np.testing.assert_allclose(share, P, atol=0.015)


def test_refusals():
    with pytest.raises(ModelError, match="does not suit"):
        jg.Cumulative("log")
    with pytest.raises(ModelError, match="is not one of 'flexible'"):
        jg.Cumulative(thresholds="free")
    with pytest.raises(ModelError, match="names a category twice"):
        jg.Cumulative(levels=["a", "a"])
    with pytest.raises(ModelError, match="categories in their order"):
        jg.Cumulative(levels="abc")


def test_density_at_the_upper_end_of_the_logistic_distribution():
    """From the exponentials that log P has, as from the density's own logarithm."""
    b = np.repeat([-60.0, -3.0, 0.0, 0.5, 40.0], 4)
    d = np.tile([1e-9, 0.3, 2.0, 50.0], 5)
    yes = np.ones(len(b), bool)
    for below, above in ((yes, yes), (~yes, yes), (yes, ~yes)):
        with jax.enable_x64(True):
            ends = Ends(b + d, b, np.log(d), below, above)
            l = logit(ends, 3).value
            found, one, two = map(np.asarray, upper(Logit(), ends, l))
            density = np.asarray(jnp.exp(Logit().log_slope(ends.a) - l))
        plain = np.where(above, density, 0.0)
        np.testing.assert_allclose(found, plain, rtol=1e-12)
        np.testing.assert_allclose(one, -np.tanh(ends.a / 2), atol=1e-15)
        np.testing.assert_allclose(two, 0.5 * (3 * one**2 - 1), rtol=1e-12)
