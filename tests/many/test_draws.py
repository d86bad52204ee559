"""Cross-products drawn without rows have the moments of those of simulated rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import TermColumns, Unstructured, build
from doors import bootstrap_responses as draws
from integrate import oracle
from structure import designs

pytestmark = pytest.mark.usefixtures("always_compiled", "double")

S = 20_000
SIGMA = 0.8


def setting(p):
    """Levels of 1, 2, 3, ... rows: some have fewer rows than columns."""
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(7, dtype=np.int32), [1, 1, 2, 3, 5, 8, 10])
    n = len(codes)
    X = rng.normal(size=(n, p))
    Z = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = rng.normal(size=n)
    moments = build(
        y, X, [TermColumns("g", codes, Z, 7, Unstructured(Z.shape[1]))], None
    )
    data = oracle.dense(moments, y, X)
    problem = designs.on_device(moments)
    theta = jnp.array([0.9, -0.4, 0.6])
    beta = jnp.asarray(rng.normal(size=p))
    return moments, data, problem, theta, beta


def drawn(moments, problem, theta, beta):
    """Z'y (S, levels x columns), X'y (S, p), y'y (S,)."""
    sampler = draws.sampler(problem, moments.n)
    (lam,) = (np.asarray(x) for x in problem.lambdas(theta))
    rng = np.random.default_rng(0)
    out = draws.draw(rng, S, sampler, lam, np.asarray(beta), SIGMA)
    (Zy,) = out.Zy
    assert not np.asarray(Zy)[:, :, 7:].any()
    flat = np.asarray(Zy)[:, :, :7].transpose(0, 2, 1).reshape(S, -1)
    return np.column_stack([flat, out.Xy]), np.asarray(out.yy)


@pytest.mark.parametrize("p", [0, 2])
def test_moments(p):
    """Means and covariances of R'y and y'y, R = [Z X], by their standard errors."""
    moments, data, problem, theta, beta = setting(p)
    Ry, yy = drawn(moments, problem, theta, beta)
    lam = [np.asarray(x) for x in problem.lambdas(theta)]
    V = SIGMA**2 * np.asarray(oracle.V(data, lam))
    mean = data.X @ np.asarray(beta)
    R = np.column_stack([data.flat, data.X])

    expected, covariance = R.T @ mean, R.T @ V @ R
    sd = np.sqrt(np.diag(covariance))
    z = (Ry.mean(axis=0) - expected) / (sd / np.sqrt(S))
    assert np.abs(z).max() < 4.5
    found = np.cov(Ry.T)
    error = np.sqrt((np.outer(sd, sd) ** 2 + covariance**2) / S)
    assert np.abs((found - covariance) / error).max() < 5

    variance = 2 * np.sum(V * V) + 4 * mean @ V @ mean
    z = (yy.mean() - np.trace(V) - mean @ mean) / np.sqrt(variance / S)
    assert abs(z) < 4.5
    assert abs(yy.var() / variance - 1) < 0.1
    both = np.array([np.cov(x, yy)[0, 1] for x in Ry.T])
    exact = 2 * R.T @ V @ mean  # third moments about the mean are zero
    error = np.sqrt((sd**2 * variance + exact**2) / S)
    assert np.abs((both - exact) / error).max() < 5


def test_residual_sums_of_squares():
    """RSS of least squares on X and on [X Z] by level, from the drawn moments alone."""
    moments, data, problem, theta, beta = setting(2)
    Ry, yy = drawn(moments, problem, theta, beta)
    lam = [np.asarray(x) for x in problem.lambdas(theta)]
    V = SIGMA**2 * np.asarray(oracle.V(data, lam))
    k = data.flat.shape[1]
    R = np.column_stack([data.flat, data.X])
    for columns in (slice(k, None), slice(None)):
        A = R[:, columns]
        rss = yy - np.einsum(
            "si,ij,sj->s", Ry[:, columns], np.linalg.pinv(A.T @ A), Ry[:, columns]
        )
        P = np.eye(data.n) - A @ np.linalg.pinv(A)
        mean, variance = np.trace(P @ V), 2 * np.sum((P @ V) * (P @ V).T)
        assert abs(rss.mean() - mean) < 4.5 * np.sqrt(variance / S)
        assert abs(rss.var() / variance - 1) < 0.1
        assert rss.min() > 0


def test_draws_depend_on_the_seed_alone():
    moments, _, problem, theta, beta = setting(2)
    (lam,) = (np.asarray(x) for x in problem.lambdas(theta))
    args = (4, draws.sampler(problem, moments.n), lam, np.asarray(beta), SIGMA)
    one, two = (draws.draw(np.random.default_rng(3), *args) for _ in range(2))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(np.unique(one.yy)) == 4
