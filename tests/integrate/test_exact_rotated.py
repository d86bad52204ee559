"""Lanes whose rows are independent: value and derivatives against a dense criterion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import RotatedDesign, _places
from doors import exact_rotated as crit
from doors import rotated_PLACES as PLACES

N, P, L = 20, 3, 5


def design(zero):
    """zero: rows without an effect."""
    rng = np.random.default_rng(5)
    X = np.linalg.qr(rng.normal(size=(N, P)))[0].T
    s = rng.gamma(2.0, size=N)
    s[:zero] = 0.0
    t = _places(s)
    W = 1 / (1 + t[:, None] * s)
    WX = W[:, None] * X
    root = np.linalg.inv(np.linalg.cholesky(WX @ X.T))
    dets = -np.log(W).sum(axis=1), -2 * np.linalg.slogdet(root)[1]
    XX = np.stack([X[a] * X[b] for a in range(P) for b in range(a + 1)])
    made = RotatedDesign(X, XX, s, t, W, WX.reshape(-1, N), root, *dets)
    return made, rng.normal(size=(N, L))


def dense(d, y, x, reml):
    """-2 log-likelihood of one response, in full matrices."""
    h = jnp.sin(x) ** 2
    V = jnp.diag(1 - h + h * d.s)
    X = d.X.T
    inverse = jnp.linalg.inv(V)
    Q = X.T @ inverse @ X
    beta = jnp.linalg.solve(Q, X.T @ inverse @ y)
    r = y - X @ beta
    k = N - P if reml else N
    out = jnp.linalg.slogdet(V)[1] + k * (
        1 + jnp.log(2 * jnp.pi) + jnp.log(r @ inverse @ r / k)
    )
    return out + (jnp.linalg.slogdet(Q)[1] if reml else 0.0)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("zero", [0, 4])
def test_value_score_and_curvature(reml, zero):
    d, E = design(zero)
    x = np.linspace(0.1, 1.4, L)
    k = N - P if reml else N
    here = crit.marginal(d, jnp.asarray(E), jnp.asarray(E * E), x, k, reml)
    f = lambda x, y: dense(d, y, x, reml)  # noqa: E731
    each = [
        jnp.array([g(a, y) for a, y in zip(x, E.T, strict=True)])
        for g in (f, jax.grad(f), jax.grad(jax.grad(f)))
    ]
    np.testing.assert_allclose(here.value, each[0], rtol=1e-12)
    np.testing.assert_allclose(here.score, each[1], rtol=1e-9, atol=1e-9)
    found = here.curvature - here.tv**2 / k
    np.testing.assert_allclose(found, each[2], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("reml", [True, False])
def test_at_the_places(reml):
    """Up to a constant a lane; the variances are those of 1 + t s there."""
    d, E = design(2)
    k = N - P if reml else N
    E = jnp.asarray(E)
    values = crit.at_places(d, E, E * E, k, reml)
    assert values.shape == (PLACES, L)
    for g in (0, PLACES // 2, PLACES - 1):
        x = np.full(L, np.arctan(np.sqrt(d.t[g])))
        there = crit.marginal(d, E, E * E, x, k, reml).value
        constant = k * (1 + np.log(2 * np.pi) - np.log(k))
        np.testing.assert_allclose(values[g] + constant, there, rtol=1e-10)
