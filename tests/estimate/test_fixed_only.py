"""Models without random effects against iterated least squares written out here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import GeneralisedProblem, build_rows, integrator
from doors import estimate_generalised as estimate
from doors import hessian as exact
from scipy import optimize, special, stats

from jaxglmm.model.families import family_from


def problem_of(y, X, family, trials=1.0, weights=1.0, offset=0.0):
    rows = build_rows(X, [])
    eta, phi = family.start(y, None if np.ndim(trials) == 0 else trials)
    problem = GeneralisedProblem(
        rows.rows,
        rows.X,
        rows.place(y, family.padding),
        rows.place(trials, 1.0),
        rows.place(weights),
        rows.place(offset),
        family,
        (),
    )
    return jax.device_put(problem), rows, rows.place(eta), phi


def fit(case):
    problem, rows, eta, phi = case
    marginal = integrator()
    found = estimate.fit_compiled(marginal, problem, eta, phi, 1e-12, 100)
    H = exact.hessian(marginal, problem, found.psi, found.u)
    inverse = np.linalg.inv(rows.R)
    p = problem.p
    beta = inverse @ np.asarray(found.psi[:p])
    vcov = inverse @ np.linalg.inv(np.asarray(H) / 2)[:p, :p] @ inverse.T
    return found, beta, np.sqrt(np.diag(vcov))


def irls(y, X, inverse, slope, variance, start, offset=0.0, weights=1.0):
    """Fisher scoring; y a proportion where the family is binomial."""
    eta = start
    for _ in range(100):
        mu, d = inverse(eta), slope(eta)
        w = weights * d**2 / variance(mu)
        XW = X * w[:, None]
        beta = np.linalg.solve(X.T @ XW, XW.T @ (eta - offset + (y - mu) / d))
        eta = offset + X @ beta
    return beta, np.sqrt(np.diag(np.linalg.inv(X.T @ XW)))


@pytest.fixture(scope="module")
def design():
    rng = np.random.default_rng(3)
    x = rng.normal(size=60)
    return rng, np.column_stack([np.ones(60), x, x**2 * 40 + 500])


def test_poisson_with_offset_and_weights(design):
    rng, X = design
    offset = np.log(rng.uniform(0.5, 20, 60))
    weights = rng.integers(0, 3, 60).astype(float)
    y = rng.poisson(np.exp(0.3 + 0.4 * X[:, 1] + offset)).astype(float)
    found, beta, errors = fit(
        problem_of(y, X, family_from("poisson"), 1.0, weights, offset)
    )
    expected, se = irls(
        y, X, np.exp, np.exp, lambda mu: mu, np.log(y + 0.5), offset, weights
    )
    assert int(found.status) == 0
    assert found.u == ()
    assert beta == pytest.approx(expected, rel=1e-7)
    assert errors == pytest.approx(se, rel=1e-6)
    mu = np.exp(offset + X @ expected)
    assert -found.criterion / 2 == pytest.approx(
        weights @ stats.poisson.logpmf(y, mu), abs=1e-8
    )
    assert np.asarray(found.eta)[:60] == pytest.approx(np.log(mu), abs=1e-6)


def test_binomial_probit(design):
    """A link that is not canonical: estimates by Fisher's steps, observed errors."""
    rng, X = design
    m = rng.integers(1, 12, 60).astype(float)
    y = rng.binomial(m.astype(int), special.ndtr(-0.5 + 0.7 * X[:, 1])).astype(float)
    family = type(family_from("binomial"))("probit")
    found, beta, errors = fit(problem_of(y, X, family, m))
    expected, _ = irls(
        y / m,
        X,
        special.ndtr,
        stats.norm.pdf,
        lambda mu: mu * (1 - mu),
        special.ndtri((y + 0.5) / (m + 1)),
        weights=m,
    )
    assert int(found.status) == 0
    assert beta == pytest.approx(expected, rel=1e-6)

    def loss(b):
        return -np.sum(stats.binom.logpmf(y, m, special.ndtr(X @ b)))

    assert found.criterion / 2 == pytest.approx(loss(expected), abs=1e-8)
    scale = np.array([1e-4, 1e-4, 1e-6])
    H = numerical_hessian(loss, expected, scale)
    assert errors == pytest.approx(np.sqrt(np.diag(np.linalg.inv(H))), rel=1e-3)


def test_gamma_with_its_dispersion(design):
    rng, X = design
    mu = np.exp(1 + 0.3 * X[:, 1])
    y = rng.gamma(3.0, mu / 3.0)
    found, beta, _ = fit(problem_of(y, X, family_from("gamma")))
    one = np.ones(60)
    expected, _ = irls(y, X, np.exp, np.exp, lambda mu: mu**2, np.log(y), weights=one)
    mu = np.exp(X @ expected)

    def loss(log_shape):
        shape = np.exp(log_shape)
        return -np.sum(stats.gamma.logpdf(y, shape, scale=mu / shape))

    best = optimize.minimize_scalar(loss, (0.0, 1.0, 3.0), tol=1e-12)
    assert int(found.status) == 0
    assert beta == pytest.approx(expected, rel=1e-5)
    assert found.criterion / 2 == pytest.approx(best.fun, abs=1e-7)


def test_no_fixed_effects_either():
    y = np.random.default_rng(0).gamma(2.0, 0.5, 40)
    found, beta, _ = fit(problem_of(y, np.zeros((40, 0)), family_from("gamma")))
    assert beta.shape == (0,)
    assert int(found.status) == 0
    loss = optimize.minimize_scalar(
        lambda a: -np.sum(stats.gamma.logpdf(y, np.exp(a), scale=np.exp(-a))),
        (0.0, 0.5, 2.0),
    ).fun
    assert float(found.criterion) / 2 == pytest.approx(loss, abs=1e-7)


def numerical_hessian(f, x, step):
    k = len(x)
    H = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            a, b = np.eye(k)[i] * step, np.eye(k)[j] * step
            change = f(x + a + b) - f(x + a - b) - f(x - a + b) + f(x - a - b)
            H[i, j] = change / (4 * step[i] * step[j])
    return H


def test_rows_without_factors_spread_nothing():
    rows = build_rows(np.ones((5, 1)), [])
    assert rows.factors == ()
    assert rows.back(rows.place(np.arange(5.0))) == pytest.approx(np.arange(5.0))
    assert np.ndim(jnp.asarray(rows.rows.spread(()))) == 0
