"""The exact criterion, its score and its information, against n x n matrices.

The score and the average information are written by hand: STYLE asks that each stands
next to autodiff of the dense criterion, at random points, near the boundary and under
padding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import assemble, design_from_formula, exact
from integrate import oracle
from numerics.tolerance import assert_close
from scipy.linalg import block_diag, null_space
from scipy.stats import multivariate_normal
from structure import designs

import jaxglmm as jg

LAYOUTS = (
    "slopes",
    "terms",
    "wide",
    "nested",
    "crossed",
    "crossed-sparse",
    "crossed-wide-sparse",
)
FIXED = {
    "slopes": (0, 1, 7, 28),
    "wide": (0, 7, 28),
    "nested": (1, 7),
    "crossed-sparse": (0, 7, 28),
}
CASES = [(name, 2, (False, True)) for name in LAYOUTS]
CASES += [(name, p, (True,)) for name, ps in FIXED.items() for p in ps]
EVERY = pytest.mark.parametrize(("name", "p", "remls"), CASES)


class Static:
    """Rows as constants of a compiled program."""

    def __init__(self, data):
        self.data = data


@functools.cache
def setting(name, p, padded=True, weighted=True):
    layout = designs.BY_NAME[name]
    rows = designs.rows(layout, padded=padded, p=p, weighted=weighted)
    moments = rows.moments(layout.structure)
    problem = designs.on_device(moments)
    return rows, problem, Static(oracle.dense(moments, rows.y, rows.X))


def points(problem):
    """Random thetas; near the boundary; with columns of exactly zero."""
    rng = np.random.default_rng(5)
    random = designs.thetas(problem.covariances, rng)
    near = designs.thetas(problem.covariances, rng, 0)
    near = np.where(near == 0, 1e-3, near)
    return {"random": random, "near": near}


@functools.partial(jax.jit, static_argnums=2)
def derivatives(problem, theta, remls):
    """(value, score, curvature, scale) by every criterion."""
    return [exact.profiled_derivatives(problem, theta, reml) for reml in remls]


@functools.partial(jax.jit, static_argnums=(2, 3))
def twin(problem, theta, remls, rows, sigma2=None):
    """Value and autodiff gradient of the dense criterion over theta."""

    def d(theta, reml):
        V = oracle.V(rows.data, problem.lambdas(theta))
        if sigma2 is None:
            return oracle.profiled(rows.data, V, reml)
        return oracle.deviance(rows.data, V, jnp.log(sigma2), reml)

    return [jax.value_and_grad(d)(theta, reml) for reml in remls]


def average_information(data, lam, covariances, sigma2):
    """y'P V_a P V_b P y / sigma^2 and y'P V_a P y / sigma^2."""
    P = oracle.projector(data, np.asarray(oracle.V(data, lam)))
    Py = P @ data.y
    moved = np.stack([Va @ Py for Va in oracle.along_lambda(data, lam, covariances)])
    return moved @ P @ moved.T / sigma2, moved @ Py / sigma2


@EVERY
def test_score_and_information(name, p, remls):
    _, problem, rows = setting(name, p)
    data = rows.data
    lost = 4 if len(problem.B) > 1 else 1.5  # traces of several factors divide
    for where, theta in points(problem).items():
        theta = jnp.asarray(theta)
        found = derivatives(problem, theta, remls)
        expected = twin(problem, theta, remls, rows)
        lam = [np.asarray(x) for x in problem.lambdas(theta)]
        V = np.asarray(oracle.V(data, lam))
        for reml, ours, theirs in zip(remls, found, expected, strict=True):
            what = f"{where}, reml {reml}: "
            value, score, curvature, scale = ours
            assert_close(value, theirs[0], what + "value", 1)
            assert_close(score, theirs[1], what + "score", lost)
            N = data.n - p if reml else data.n
            s2 = float(oracle.parts(data, V)[3]) / N
            info, tv = average_information(data, lam, problem.covariances, s2)
            info = info - np.outer(tv, tv) / N
            bend = at_boundary(data, V, problem.covariances, s2, reml)
            assert_close(curvature, info + bend, what + "curvature", lost)
            assert_close(scale, 1 + np.diag(info), what + "scale", 2)


def at_boundary(data, V, covariances, s2, reml):
    """2 (G+)_ii' where j = j', with dd = tr(G dSigma)."""
    inverse, P = np.linalg.inv(V), oracle.projector(data, V)
    t = P @ data.y
    middle = (P if reml else inverse) - np.outer(t, t) / s2
    blocks = []
    for z, covariance in zip(data.Z, covariances, strict=True):
        G = np.einsum("njq,nm,mjr->qr", z, middle, z)
        values, vectors = np.linalg.eigh(G)
        plus = vectors * np.maximum(values, 0) @ vectors.T
        i, j = np.array(covariance.entries).T
        blocks.append(2 * plus[np.ix_(i, i)] * np.equal.outer(j, j))
    return block_diag(*blocks)


@pytest.mark.parametrize("name", ["slopes", "wide", "crossed"])
def test_at_a_fixed_sigma(name):
    _, problem, rows = setting(name, 2)
    data = rows.data
    theta = jnp.asarray(points(problem)["random"])
    s2 = 0.6
    at = jax.jit(lambda x: exact.derivatives(problem, problem.lambdas(x), s2, True))(
        theta
    )
    ((_, gradient),) = twin(problem, theta, (True,), rows, s2)
    assert_close(at.score, gradient, "score", 4 if len(problem.B) > 1 else 1.5)
    lam = [np.asarray(x) for x in problem.lambdas(theta)]
    info, tv = average_information(data, lam, problem.covariances, s2)
    assert_close(at.info, info, "information", 2)
    assert_close(at.tv, tv, "tv", 2)


@pytest.mark.parametrize("name", ["slopes", "wide", "nested"])
def test_score_at_exact_zeros(name):
    """A column of zeros is stationary: its score is zero, the others' is right."""
    _, problem, rows = setting(name, 2)
    rng, remls = np.random.default_rng(9), (False, True)
    for zero in (0, 1):
        theta = jnp.asarray(designs.thetas(problem.covariances, rng, zero))
        found = derivatives(problem, theta, remls)
        for ours, theirs in zip(found, twin(problem, theta, remls, rows), strict=True):
            assert np.isfinite(ours[2]).all()
            assert_close(ours[0], theirs[0], "value", 4)
            assert_close(ours[1], theirs[1], "score", 5.5)


@pytest.mark.parametrize("name", ["slopes", "wide", "nested", "crossed"])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_criterion_is_the_density_of_the_response(name, padded):
    """ML: N(X beta, sigma^2 V); REML: of error contrasts K'y, K'X = 0, K'K = I.

    In the coordinates of the user, constants, weights and all.
    """
    rows, problem, static = setting(name, 2, padded)
    data = static.data
    theta = points(problem)["random"]
    lam = [np.asarray(x) for x in problem.lambdas(jnp.asarray(theta))]
    found = derivatives(problem, jnp.asarray(theta), (False, True))
    root = np.sqrt(rows.weights)
    half = data.flat @ oracle.big_lambda(data, lam) / root[:, None]
    V = half @ half.T + np.diag(1 / rows.weights)

    inverse = np.linalg.inv(V)
    X, y = rows.X, rows.y
    beta = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ y)
    r2 = (y - X @ beta) @ inverse @ (y - X @ beta)
    ml = -2 * multivariate_normal(X @ beta, V * r2 / len(y)).logpdf(y)
    ours = found[0][0] + problem.constant
    np.testing.assert_allclose(ours, ml, rtol=1e-11)

    K = null_space(X.T)
    df = len(y) - X.shape[1]
    contrasts = multivariate_normal(None, K.T @ V @ K * r2 / df).logpdf(K.T @ y)
    reml = -2 * contrasts + np.linalg.slogdet(X.T @ X)[1]
    ours = found[1][0] + problem.constant_reml
    np.testing.assert_allclose(ours, reml, rtol=1e-11)


@pytest.mark.parametrize("name", ["slopes", "crossed"])
def test_deviance_at_its_sigma_is_the_profiled_criterion(name):
    _, problem, rows = setting(name, 2)
    data = rows.data
    lam = problem.lambdas(jnp.asarray(points(problem)["random"]))
    V = oracle.V(data, lam)
    r2 = oracle.parts(data, V)[3]
    for reml in (False, True):
        N = float(exact.degrees(problem, reml))
        assert data.n - 2 * reml == N
        at = exact.deviance(problem, lam, jnp.log(r2 / N), reml)
        assert_close(at, exact.profiled(problem, lam, reml), "profiled", 1)
        off = exact.deviance(problem, lam, jnp.asarray(0.3), reml)
        assert_close(off, oracle.deviance(data, V, 0.3, reml), "elsewhere", 1)


SLEEPSTUDY_FIXED = [
    [45.4123, 35.9377, 6.3560],
    [35.9377, 465.740, 203.997],
    [6.3560, 203.997, 963.959],
]
SLEEPSTUDY_PROFILED = [
    [40.8873, 31.5176, -14.5296],
    [31.5176, 461.4227, 183.5965],
    [-14.5296, 183.5965, 867.5617],
]


def test_hessian_with_sigma_fixed_and_with_sigma_profiled():
    """Two programs print the two of them: they are not to be confused.

    sleepstudy by ML, in lme4's theta (intercept and slope as they are in the data).
    """
    formula = "Reaction ~ Days + (Days | Subject)"
    design = design_from_formula(formula, jg.datasets.load("sleepstudy"))
    moments = assemble.moments(design)
    problem = designs.on_device(moments)
    (factor,) = moments.factors
    optimum = jnp.array([0.929225398, 0.018165677, 0.222645421])

    def internal(theta):
        """T Lambda, not triangular: every criterion takes any square root of Sigma."""
        lam = jnp.array([[1.0, 0.0], [0.0, 0.0]]) * theta[0]
        lam = lam.at[1, 0].set(theta[1]).at[1, 1].set(theta[2])
        sigma = factor.T @ lam @ lam.T @ factor.T.T
        return (jnp.linalg.cholesky(sigma),)

    at = exact.profiled(problem, internal(optimum), False)
    np.testing.assert_allclose(at + problem.constant, 1751.939344463, rtol=1e-9)

    def profiled(theta):
        return exact.profiled(problem, internal(theta), False)

    s2 = exact.marginal(problem, internal(optimum)).r2 / problem.n

    def fixed(theta):
        return exact.deviance(problem, internal(theta), jnp.log(s2), False)

    for f, expected in [(profiled, SLEEPSTUDY_PROFILED), (fixed, SLEEPSTUDY_FIXED)]:
        H = jax.jit(jax.hessian(f))(optimum)
        np.testing.assert_allclose(H, expected, rtol=2e-5, atol=2e-3)
