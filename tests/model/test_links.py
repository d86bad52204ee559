"""Links: inverses, slopes and logarithms, on host and device, far into the tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import LINKS, Link, link_from
from scipy import special

import jaxglmm as jg

MIDDLE = np.linspace(-4, 4, 33)
DOMAIN = {
    "logit": MIDDLE,
    "probit": MIDDLE,
    "cloglog": np.linspace(-8, 2, 33),
    "loglog": np.linspace(-2, 8, 33),
    "cauchit": MIDDLE * 10,
    "log": MIDDLE,
    "sqrt": np.linspace(0.1, 9, 33),
    "identity": MIDDLE,
    "inverse": np.linspace(0.1, 9, 33),
    "1/mu^2": np.linspace(0.1, 9, 33),
}


@pytest.mark.parametrize("name", list(LINKS))
def test_there_and_back(name):
    link, eta = link_from(name), DOMAIN[name]
    mu = link.inverse(eta)
    assert isinstance(mu, np.ndarray)
    np.testing.assert_allclose(link.link(mu), eta, rtol=1e-9, atol=1e-12)
    device = link.inverse(jnp.asarray(eta))
    assert isinstance(device, jax.Array)
    np.testing.assert_allclose(device, mu, rtol=1e-13)
    np.testing.assert_allclose(link.link(device), eta, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", list(LINKS))
def test_slopes(name):
    link, eta = link_from(name), jnp.asarray(DOMAIN[name])
    slope = jax.vmap(jax.grad(link.inverse))(eta)
    np.testing.assert_allclose(link.slope(eta), slope, rtol=1e-10)
    np.testing.assert_allclose(link.slope(np.asarray(eta)), slope, rtol=1e-10)
    np.testing.assert_allclose(link.log_slope(eta), np.log(np.abs(slope)), rtol=1e-9)


@pytest.mark.parametrize("name", list(LINKS))
def test_jets_of_the_logarithms(name):
    link, eta = link_from(name), jnp.asarray(DOMAIN[name])
    for jet, function in (
        (link.log_jet, link.log_inverse),
        (link.log_complement_jet, link.log_complement),
    ):
        f = function
        for part in jet(eta, 3).parts:
            np.testing.assert_allclose(part, jax.vmap(f)(eta), rtol=1e-7, atol=1e-9)
            f = jax.grad(f)
        np.testing.assert_allclose(jet(eta, 0).value, function(eta), rtol=1e-13)


def test_logarithms_in_the_tails():
    eta = jnp.array([-700.0, -40.0, 40.0, 700.0])
    logit, probit, cloglog, cauchit = (
        link_from(name) for name in ("logit", "probit", "cloglog", "cauchit")
    )
    np.testing.assert_allclose(
        logit.log_inverse(eta), -np.logaddexp(0, -eta), rtol=1e-14, atol=0
    )
    np.testing.assert_allclose(
        probit.log_inverse(eta[:2]), special.log_ndtr(eta[:2]), rtol=1e-14
    )
    np.testing.assert_allclose(
        probit.log_complement(-eta[:2]), special.log_ndtr(eta[:2]), rtol=1e-14
    )
    np.testing.assert_allclose(cloglog.log_inverse(eta), [-700, -40, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(
        cauchit.log_inverse(eta[:2]), np.log(np.arctan(-1 / eta[:2]) / np.pi)
    )
    np.testing.assert_allclose(cauchit.inverse(np.array([-1e200])), [1e-200 / np.pi])


@pytest.mark.parametrize("name", list(LINKS))
def test_the_inverse_is_quiet_and_never_nan_inside(name):
    link = link_from(name)
    eta = np.array([1e-300, 1.0, 700.0, 1e5])
    if name not in ("sqrt", "inverse", "1/mu^2"):
        eta = np.append(-eta, eta)
    assert not np.isnan(link.inverse(eta)).any()
    assert not np.isnan(np.asarray(link.inverse(jnp.asarray(eta)))).any()


def test_outside_the_domain():
    for name, eta in (("inverse", -1.0), ("1/mu^2", -1.0), ("identity", -1.0)):
        link = link_from(name)
        assert link.log_inverse(jnp.array(eta)) == -np.inf
        assert jax.grad(link.log_inverse)(jnp.array(eta)) == 0
    assert link_from("log").log_complement(jnp.array(0.5)) == -np.inf
    assert jax.grad(link_from("log").log_complement)(jnp.array(0.5)) == 0


def test_links_by_name():
    assert link_from("1/mu2").name == "1/mu^2"
    assert link_from(" LOGIT ").name == "logit"
    assert repr(link_from("log")) == "Log()"
    assert link_from(type(link_from("log"))).name == "log"
    with pytest.raises(
        jg.ModelError, match="unknown link 'logloss'; there are 'logit'"
    ):
        link_from("logloss")


class Scaled(Link):
    """mu = 100 p."""

    name = "percent"

    def inverse(self, eta):
        return 100 / (1 + jnp.exp(-eta))

    def link(self, mu):
        return np.log(mu / (100 - mu))

    def slope(self, eta):
        p = 1 / (1 + jnp.exp(-eta))
        return 100 * p * (1 - p)


def test_a_link_of_ones_own():
    family = jg.Poisson(link=Scaled())
    y, eta = np.array([10.0, 60.0]), np.array([-2.0, 0.5])
    log = jg.Poisson()
    mu = np.asarray(family.mean(eta))
    np.testing.assert_allclose(
        family.log_density(y, eta, np.zeros(0)),
        log.log_density(y, np.log(mu), np.zeros(0)),
        rtol=1e-12,
    )
    s = family.derivatives(y, eta, np.zeros(0))[1]
    np.testing.assert_allclose(s, (y / mu - 1) * np.asarray(family.link.slope(eta)))
