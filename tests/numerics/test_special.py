"""Special functions against SciPy, and their derivatives against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import numerics_special as special
from scipy import special as scipy

Z = np.geomspace(1e-300, 1e12, 500)


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def test_lgamma():
    found = special.lgamma(jnp.asarray(Z))
    np.testing.assert_allclose(found, scipy.gammaln(Z), rtol=2e-14, atol=4e-14)


def test_stirling_error():
    z = Z[(Z > 1e-3) & (Z < 1e3)]
    true = scipy.gammaln(z) - ((z - 0.5) * np.log(z) - z + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(special.stirling_error(np.log(z)), true, atol=2e-12)
    far = np.geomspace(1e3, 1e300, 50)
    found = special.stirling_error(np.log(far))
    np.testing.assert_allclose(found, 1 / (12 * far), rtol=1e-6, atol=1e-100)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_derivatives_of_the_stirling_error(order):
    t = jnp.linspace(-20, 20, 401)
    step = 1e-4

    def f(t):
        return special.stirling_error(t, order - 1)

    slope = (8 * (f(t + step) - f(t - step)) - f(t + 2 * step) + f(t - 2 * step)) / (
        12 * step
    )
    found = special.stirling_error(t, order)
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(t), found, rtol=1e-14)


def test_the_two_branches_meet():
    t = np.log(10.0) + np.array([-1e-13, 1e-13])
    for order in range(6):
        below, above = special.stirling_error(t, order)
        np.testing.assert_allclose(below, above, rtol=1e-9, atol=1e-11)


def test_trigamma():
    z = np.geomspace(1e-100, 1e10, 300)
    np.testing.assert_allclose(
        special.trigamma(jnp.asarray(z)), scipy.polygamma(1, z), rtol=1e-13
    )


def test_log_ndtr():
    x = np.linspace(-60, 12, 700)
    found = special.log_ndtr(jnp.asarray(x))
    np.testing.assert_allclose(found, scipy.log_ndtr(x), rtol=1e-13)
    f = special.log_ndtr
    for order in (1, 2, 3):
        g = special.log_ndtr(jnp.asarray(x), order)
        np.testing.assert_allclose(jax.vmap(jax.grad(f))(jnp.asarray(x)), g, rtol=1e-12)
        f = jax.grad(f)
    fourth = jax.vmap(jax.grad(f))(jnp.asarray(x))
    step = 1e-4
    third = [special.log_ndtr(jnp.asarray(x + k * step), 3) for k in (1, -1)]
    slope = (third[0] - third[1]) / (2 * step)
    np.testing.assert_allclose(fourth, slope, rtol=1e-4, atol=1e-8)


def test_log1mexp():
    x = np.geomspace(1e-300, 700, 300)
    np.testing.assert_allclose(
        special.log1mexp(jnp.asarray(x)), np.log(-np.expm1(-x)), rtol=1e-12, atol=1e-15
    )
    t = np.linspace(-600, 3, 300)
    np.testing.assert_allclose(
        special.log1mexp_exp(jnp.asarray(t)),
        np.log(-np.expm1(-np.exp(t))),
        rtol=1e-13,
        atol=1e-15,
    )
