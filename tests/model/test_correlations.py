"""Every correlation: one matrix by its definition, positive definite, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import model_correlations as c
from doors import on_host
from scipy import linalg, special

TIMES = ((0.3,), (1.0,), (2.5,), (2.9,))
PLACES = ((0.0, 0.0), (1.0, 0.4), (0.2, 2.0), (1.5, 1.5), (3.0, 0.1))


def apart(places):
    x = np.array(places)
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))


def arma(q, phi, theta):
    """From the moving average of infinite order."""
    psi = np.append(1.0, (phi + theta) * phi ** np.arange(400))
    cov = [psi[: len(psi) - k] @ psi[k:] for k in range(q)]
    return linalg.toeplitz(np.array(cov) / cov[0])


def matern(d, r, nu):
    x = np.where(d > 0, d, 1.0) / r
    out = x**nu * special.kv(nu, x) / (2 ** (nu - 1) * special.gamma(nu))
    return np.where(d > 0, out, 1.0)


def neighbours(rho):
    q = len(rho) + 1
    R = np.eye(q)
    for i in range(q):
        for j in range(i):
            R[i, j] = R[j, i] = np.prod(rho[j:i])
    return R


rho = np.array([0.5, -0.2, 0.1])
CASES = {
    "cs": (c.Exchangeable(4), [-0.2], np.full((4, 4), -0.2) + 1.2 * np.eye(4)),
    "ar1": (c.Autoregressive(4), [-0.6], linalg.toeplitz((-0.6) ** np.arange(4.0))),
    "ar1 of two": (c.Autoregressive(2), [0.3], np.array([[1, 0.3], [0.3, 1]])),
    "arma11": (c.MovingAverage(4), [0.7, -0.3], arma(4, 0.7, -0.3)),
    "toep": (c.Toeplitz(4), [0.5, -0.2, -0.3], linalg.toeplitz([1, 0.5, -0.2, -0.3])),
    "ad": (c.Antedependence(4), list(rho), neighbours(rho)),
    "ou": (c.ExponentialKernel(TIMES), [1.4], np.exp(-apart(TIMES) / 1.4)),
    "exp": (c.ExponentialKernel(PLACES), [0.8], np.exp(-apart(PLACES) / 0.8)),
    "gau": (c.GaussianKernel(PLACES), [0.8], np.exp(-((apart(PLACES) / 0.8) ** 2))),
    "mat": (c.MaternKernel(PLACES), [0.6, 1.3], matern(apart(PLACES), 0.6, 1.3)),
    "mat rough": (c.MaternKernel(TIMES), [9.0, 0.21], matern(apart(TIMES), 9.0, 0.21)),
    "mat smooth": (c.MaternKernel(TIMES), [0.2, 7.5], matern(apart(TIMES), 0.2, 7.5)),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def tril(R):
    column, row = np.triu_indices(R.shape[-1])
    return R[..., row, column]


@EVERY
def test_the_definition(case):
    own, natural, R = case
    np.testing.assert_allclose(own.matrix(natural), R, atol=2e-14)
    assert own.q == len(R)
    assert own.n == len(natural)


@EVERY
def test_natural_numbers_are_on_the_whole_line(case):
    own, natural, R = case
    z = own.free(natural)
    np.testing.assert_allclose(own.natural(z), natural, rtol=1e-12)
    np.testing.assert_allclose(own.fitted(own.matrix(natural)), natural, rtol=1e-7)
    lanes = [np.array([x, 0.3, -2.0]) for x in z]
    many = own.matrix(own.natural(lanes))
    np.testing.assert_allclose(many[0], R, atol=2e-14)
    assert (np.linalg.eigvalsh(many) > 0).all()


@EVERY
@pytest.mark.parametrize("host", [True, False])
def test_derivatives(case, host):
    """By duals in NumPy and by JAX, against differences and nested forward mode."""
    own, natural, R = case
    z = np.array([float(x) for x in own.free(natural)])

    def packed(x):
        return own.entries(own.natural(list(x)))

    with jax.enable_x64(True):
        first = jax.jacfwd(packed)(jnp.asarray(z))
        second = jax.jacfwd(jax.jacfwd(packed))(jnp.asarray(z))
        if host:
            with on_host():
                found = own.derivatives(list(z))
        else:
            found = own.derivatives(list(jnp.asarray(z)))
    np.testing.assert_allclose(found[0], tril(R), atol=2e-14)
    np.testing.assert_allclose(np.array(found[1]).T, first, atol=1e-12)
    bend = np.moveaxis(
        np.array([[np.asarray(x) for x in row] for row in found[2]]), 2, 0
    )
    np.testing.assert_allclose(bend, second, atol=1e-11)
    step = 1e-5
    for a in range(own.n):
        move = step * np.eye(own.n)[a]
        slope = (np.asarray(packed(z + move)) - np.asarray(packed(z - move))) / (
            2 * step
        )
        np.testing.assert_allclose(found[1][a], slope, atol=1e-8)


def test_positions_between():
    """A new position among the old: the matrix of all is of the same kind."""
    for own, natural, _ in (CASES["ar1"], CASES["exp"], CASES["mat"], CASES["toep"]):
        R, x = own.matrix(natural), own.positions
        np.testing.assert_allclose(own.between(natural, x[:2], x), R[:2], atol=1e-14)
    own = c.Autoregressive(3)
    np.testing.assert_allclose(
        own.between([-0.5], np.array([[5.0]]), own.positions),
        [[(-0.5) ** 5, 0.5**4, (-0.5) ** 3]],
    )


def test_ends():
    """Beyond the lowest correlation of a compound symmetry nothing is positive."""
    own = c.Exchangeable(5)
    lowest = own.natural([np.array(-60.0)])[0]
    assert lowest == pytest.approx(-0.25)
    assert np.linalg.eigvalsh(own.matrix([-0.25]))[0] == pytest.approx(0, abs=1e-14)
    assert own.natural([np.array(0.0)])[0] == pytest.approx(0, abs=1e-15)
    assert c.Exchangeable(2).natural([np.array(0.0)])[0] == 0
    for case in CASES.values():
        for rho in (1.0, -1.0):
            z = case[0].free([rho] * case[0].n)
            assert np.isfinite(z).all()
