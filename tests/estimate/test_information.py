"""Derivatives at an optimum against autodiff and textbook formulas, n x n."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import host_curves, information
from integrate import oracle
from numerics.tolerance import assert_close
from structure import designs

NAMES = ("slopes", "wide", "nested", "crossed-sparse")
S2 = 0.7


@functools.cache
def setting(name, p=2):
    layout = designs.BY_NAME[name]
    rows = designs.rows(layout, padded=True, p=p, weighted=True)
    moments = rows.moments(layout.structure)
    return designs.on_device(moments), oracle.dense(moments, rows.y, rows.X), moments


def theta(problem, zero=None):
    found = designs.thetas(problem.covariances, np.random.default_rng(2), zero)
    return jnp.asarray(found)


def numpy_lambdas(problem, x):
    return [np.asarray(lam) for lam in problem.lambdas(x)]


def cut(x, factors):
    """Levels that exist, of one array (..., J) a factor."""
    pairs = zip(x, factors, strict=True)
    return [np.asarray(a)[..., : f.n_levels] for a, f in pairs]


def stacked(x, factors):
    """Effects (q, K, J) a factor as rows of Z' (m, K)."""
    parts = [a.transpose(2, 0, 1) for a in cut(x, factors)]
    return np.concatenate([a.reshape(-1, a.shape[2]) for a in parts])


@pytest.mark.parametrize(
    ("name", "reml", "p"),
    [*[(name, True, 2) for name in NAMES], ("slopes", False, 2), ("slopes", True, 0)],
)
def test_curvature(name, reml, p):
    problem, data, _ = setting(name, p)
    at = theta(problem)
    v = jnp.append(at, jnp.log(S2))

    def deviance(v):
        V = oracle.V(data, problem.lambdas(v[:-1]))
        return oracle.deviance(data, V, v[-1], reml)

    def vcov(v):
        inverse = jnp.linalg.inv(oracle.V(data, problem.lambdas(v[:-1])))
        return jnp.exp(v[-1]) * jnp.linalg.inv(data.X.T @ inverse @ data.X)

    found = information.curvature(problem, at, jnp.asarray(S2), reml)
    H = jax.jit(jax.hessian(deviance))(v)
    assert_close(found.hessian, H, "hessian", 5 if len(problem.B) > 1 else 2)
    assert found.vcov.shape == (p, p)
    assert found.dvcov.shape == (p, p, len(v))
    if p:
        assert_close(found.vcov, vcov(v), "vcov", 2)
        jacobian = jax.jit(jax.jacfwd(vcov))(v)
        assert_close(found.dvcov, jacobian, "dvcov", 2)


def dense_components(problem, data, at):
    """C, P, Q, K of Kenward and Roger by their definitions."""
    V = S2 * np.asarray(oracle.V(data, numpy_lambdas(problem, at)))
    inverse = np.linalg.inv(V)
    G = oracle.components(data, problem.covariances)
    moved = [inverse @ g for g in G]
    X = data.X
    C = X.T @ inverse @ X
    P = np.stack([-X.T @ m @ inverse @ X for m in moved])
    Q = np.array([[X.T @ a @ b @ inverse @ X for b in moved] for a in moved])
    K = np.array([[np.sum(a * b.T) for b in moved] for a in moved])
    return {"C": C, "P": P, "Q": (Q + Q.swapaxes(2, 3)) / 2, "K": K}


def slopes(problem, at):
    return host_curves(np.asarray(at), problem.covariances, S2)


@pytest.mark.parametrize("name", [*NAMES, "terms"])
@pytest.mark.parametrize("zero", [None, 0], ids=["inside", "singular"])
def test_components(name, zero):
    problem, data, _ = setting(name)
    at = theta(problem, zero)
    found = information.components(problem, at, jnp.asarray(S2), *slopes(problem, at))
    assert not np.asarray(found.R).any()
    for key, expected in dense_components(problem, data, at).items():
        assert_close(getattr(found, key), expected, key, 2)


@pytest.mark.parametrize("name", ["nested", "crossed-sparse"])
def test_components_of_many_levels(name, monkeypatch):
    """Without Z'V^-1Z in full: from derivatives of its traces."""
    problem, data, _ = setting(name)
    monkeypatch.setattr(information, "MOST_DENSE", 0)
    inner = information.components.__wrapped__
    fresh = jax.jit(lambda *args: inner(*args))
    at = theta(problem)
    found = fresh(problem, at, jnp.asarray(S2), *slopes(problem, at))
    for key, expected in dense_components(problem, data, at).items():
        assert_close(getattr(found, key), expected, key, 3)
    singular = theta(problem, 0)  # divides by Lambda, so only near
    found = fresh(problem, singular, jnp.asarray(S2), *slopes(problem, singular))
    for key, expected in dense_components(problem, data, singular).items():
        assert_close(getattr(found, key), expected, key, 7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("zero", [None, 0], ids=["inside", "singular"])
def test_conditional(name, zero):
    """Blocks of Lambda M^-1 Lambda', and how the modes fall as beta rises."""
    problem, data, moments = setting(name)
    at = theta(problem, zero)
    found = information.conditional(problem, at)
    Lam = oracle.big_lambda(data, numpy_lambdas(problem, at))
    Z = data.flat
    M = Lam.T @ Z.T @ Z @ Lam + np.eye(len(Lam))
    full = Lam @ np.linalg.inv(M) @ Lam.T
    K = stacked(found.K, moments.factors)
    assert_close(K, full @ Z.T @ data.X, "K", 1)
    start = 0
    for D, f in zip(cut(found.D, moments.factors), moments.factors, strict=True):
        rows = start + np.arange(f.n_levels * f.q).reshape(-1, f.q)
        blocks = full[rows[:, :, None], rows[:, None, :]]
        assert_close(D, blocks.transpose(1, 2, 0), f.name, 1)
        start += f.n_levels * f.q


@pytest.mark.parametrize("name", NAMES)
def test_leverages(name, rng):
    problem, data, moments = setting(name)
    at = theta(problem)
    w = []
    for B, f in zip(problem.B, moments.factors, strict=True):
        own = rng.normal(size=(f.q, 4, B.shape[-1]))
        own[..., f.n_levels :] = 0
        w.append(jnp.asarray(own))
    square, cross = information.leverages(problem, at, tuple(w))
    Lam = oracle.big_lambda(data, numpy_lambdas(problem, at))
    Z, flat = data.flat, stacked(w, moments.factors)
    M = Lam.T @ Z.T @ Z @ Lam + np.eye(len(Lam))
    full = Lam @ np.linalg.inv(M) @ Lam.T
    assert_close(square, np.diag(flat.T @ full @ flat), "square", 1)
    assert_close(cross, flat.T @ full @ Z.T @ data.X, "cross", 1)


@pytest.mark.parametrize("name", NAMES)
def test_along_any_direction_of_sigma(name, rng):
    """Score by autodiff of the dense deviance in Sigma, average information by hand."""
    problem, data, _ = setting(name)
    lam = problem.lambdas(theta(problem))
    m = 3
    changes = []
    for x in lam:
        A = rng.normal(size=(m, len(x), len(x)))
        changes.append(jnp.asarray(A + A.transpose(0, 2, 1)))
    found = information.along(problem, lam, jnp.asarray(S2), tuple(changes))
    sigma = [x @ x.T for x in lam]

    def deviance(t):
        moved = [
            s + jnp.tensordot(t, c, axes=1) for s, c in zip(sigma, changes, strict=True)
        ]
        V = oracle.V_of_sigma(data, moved)
        return oracle.deviance(data, V, jnp.log(S2), False)

    twin = jax.jit(jax.value_and_grad(deviance))
    value, score = twin(jnp.zeros(m))
    assert_close(found.value, value, "value", 1)
    assert_close(found.score, score, "score", 4 if len(lam) > 1 else 2)
    V = np.asarray(oracle.V(data, lam))
    Py = oracle.projector(data, V) @ data.y
    zero = [np.zeros_like(s) for s in sigma]
    moved = []
    for a in range(m):
        own = [np.asarray(c[a]) for c in changes]
        Va = np.asarray(oracle.V_of_sigma(data, own) - oracle.V_of_sigma(data, zero))
        moved.append(Va @ Py)
    moved = np.stack(moved)
    info = moved @ oracle.projector(data, V) @ moved.T / S2
    assert_close(found.info, info, "info", 2)
    assert_close(found.tv, moved @ Py / S2, "tv", 2)
    r2 = float(oracle.parts(data, V)[3])
    assert_close(found.r2_ratio, r2 / S2, "r2", 1)
