"""Every structure of random effects, through formulas, against dense formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from doors import (
    Laplace,
    assemble,
    design_from_formula,
    exact,
    fitting_generalised,
    information,
    laplace,
    on_host,
)
from doors import estimate_generalised as estimate
from integrate import oracle
from numerics.tolerance import assert_close
from scipy.optimize import minimize

import jaxglmm as jg
from jaxglmm.model.families import Poisson

J, TIMES = 14, 4
PLACES = np.array([[0.0, 0.0], [1.0, 0.4], [0.2, 2.0], [1.5, 1.5]])
CLOCK = np.array([0.0, 1.5, 2.0, 5.0])
TERMS = {
    "homdiag": ("homdiag(0 + f | g)", [0.9]),
    "cs": ("cs(0 + f | g)", [0.9, 1.2, 0.6, 1.1, 0.8]),
    "homcs": ("cs(0 + f | g, hom=True)", [0.8, -0.3]),
    "ar1": ("ar1(f | g)", [0.8, 0.9]),
    "hetar1": ("ar1(0 + f | g, het=True)", [0.9, 1.2, 0.6, 1.1, -0.7]),
    "toep": ("toep(0 + f | g)", [0.9, 1.2, 0.6, 1.1, 0.5, 0.3, -0.4]),
    "homtoep": ("homtoep(0 + f | g)", [0.9, 0.5, 0.3, -0.4]),
    "ou": ("ou(0 + t | g)", [0.9, 0.3]),
    "exp": ("exp(0 + x1 + x2 | g)", [0.9, -0.2]),
    "gau": ("gau(numFactor(x1, x2) + 0 | g)", [0.9, -0.2]),
    "mat": ("mat(0 + x1 + x2 | g)", [0.9, -0.2, -0.3]),
    "rr": ("rr(0 + f | g, d=2)", [0.8, 0.5, -0.4, 0.3, 0.7, 0.2, -0.3]),
    "beside": ("ar1(0 + f | g) + (1 | g)", [0.8, 0.9, 0.6]),
}
EVERY = pytest.mark.parametrize("kind", TERMS)


@functools.cache
def table():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(J), 2 * TIMES)
    f = np.tile(np.repeat(np.arange(TIMES), 2), J)
    own = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(*[np.arange(TIMES)] * 2)))
    x = rng.normal(size=len(g))
    eta = 0.5 * x + (rng.normal(size=(J, TIMES)) @ own.T)[g, f]
    keep = rng.uniform(size=len(g)) < 0.85
    return pd.DataFrame(
        {
            "y": 1 + eta + 0.6 * rng.normal(size=len(g)),
            "count": rng.poisson(np.exp(0.3 + 0.5 * eta)).astype(float),
            "x": x,
            "f": pd.Categorical(f.astype(str)),
            "t": CLOCK[f],
            "x1": PLACES[f, 0],
            "x2": PLACES[f, 1],
            "g": g,
        }
    )[keep]


def design(kind, response="y"):
    return design_from_formula(f"{response} ~ x + {TERMS[kind][0]}", table())


@functools.cache
def linear(kind):
    with jax.enable_x64(True):
        own = design(kind)
        moments = assemble.moments(own)
        (factor,) = moments.factors
        data = oracle.dense(moments, own.y, own.X)
        covariance = factor.covariance

        def V(theta):
            return oracle.V_of_sigma(data, [sigma_of(covariance, theta)])

        return moments, assemble.problem(moments), data, V


def sigma_of(covariance, theta):
    """Sigma by its definition: standard deviations and correlations."""
    blocks = getattr(covariance, "blocks", None)
    if blocks is not None:
        parts, at = [], 0
        for block in blocks:
            parts.append(sigma_of(block, theta[at : at + block.m]))
            at += block.m
        return jax.scipy.linalg.block_diag(*parts)
    if not hasattr(covariance, "correlation"):
        lam = jnp.zeros((covariance.q, covariance.q))
        lam = lam.at[covariance.at].set(jnp.stack(list(covariance.values(theta))))
        return lam @ lam.T
    n, own = covariance.n_sd, covariance.correlation
    packed = own.entries(own.natural(list(theta[n:])))
    column, row = np.triu_indices(covariance.q)
    R = jnp.zeros((covariance.q,) * 2).at[row, column].set(packed)
    R = R.at[column, row].set(packed)
    sd = jnp.broadcast_to(theta[:n], (covariance.q,))
    return sd[:, None] * R * sd[None]


@EVERY
@pytest.mark.parametrize("reml", [True, False])
def test_linear_value_score_and_information(kind, reml):
    _, problem, data, V = linear(kind)
    theta = np.array(TERMS[kind][1])
    assert problem.m == len(theta)
    with on_host():
        value, score, curvature, scale = exact.profiled_derivatives(
            problem, theta, reml
        )

    def twin(x):
        return oracle.profiled(data, V(x), reml)

    assert_close(value, twin(theta), "value", 1)
    gradient = jax.grad(twin)(jnp.asarray(theta))
    np.testing.assert_allclose(score, gradient, rtol=1e-8, atol=1e-8)
    s2 = oracle.parts(data, V(theta))[3] / exact.degrees(problem, reml)
    P = oracle.projector(data, np.asarray(V(theta)))
    slopes = np.moveaxis(np.asarray(jax.jacfwd(V)(jnp.asarray(theta))), -1, 0)
    moved = slopes @ (P @ data.y)
    info = moved @ P @ moved.T / s2
    tv = moved @ (P @ data.y) / s2
    info = info - np.outer(tv, tv) / exact.degrees(problem, reml)
    np.testing.assert_allclose(scale, 1 + np.diag(info), rtol=1e-8)
    assert np.linalg.eigvalsh(np.asarray(curvature) - info).min() > -1e-8


@EVERY
def test_linear_exact_hessian(kind):
    _, problem, data, V = linear(kind)
    at = np.append(TERMS[kind][1], 0.2)

    def twin(v):
        return oracle.deviance(data, V(v[:-1]), v[-1], True)

    found = information.curvature(problem, at[:-1], np.exp(at[-1]), True)
    gradient, hessian = jax.grad(twin)(at), jax.hessian(twin)(at)
    np.testing.assert_allclose(found.score, gradient, rtol=1e-8, atol=1e-8)
    size = np.abs(hessian).max()
    np.testing.assert_allclose(found.hessian, hessian, rtol=1e-7, atol=1e-8 * size)


@EVERY
def test_kenward_and_rogers_matrices(kind):
    """V's derivatives in the parameters that the covariance names, by differences."""
    _, problem, data, _ = linear(kind)
    theta, s2 = np.array(TERMS[kind][1]), 1.3
    (covariance,) = problem.covariances
    E, bend = covariance.curves(theta, s2)
    found = information.components(problem, theta, np.float64(s2), (E,), (bend,))
    G = s2 * np.asarray(sigma_of(covariance, jnp.asarray(theta)))
    n = len(data.y)

    def spread(x):
        return np.asarray(oracle.V_of_sigma(data, [jnp.asarray(x)])) - np.eye(n)

    V = spread(G) + s2 * np.eye(n)
    slopes = [spread(x) for x in E] + [np.eye(n)]
    inverse = np.linalg.inv(V)
    X = data.X
    left = [X.T @ inverse @ s @ inverse for s in slopes]
    for a, s in enumerate(slopes):
        np.testing.assert_allclose(found.P[a], -left[a] @ X, atol=1e-9)
        for b, t in enumerate(slopes):
            Q = left[a] @ V @ inverse @ t @ inverse @ X
            np.testing.assert_allclose(found.Q[a, b], (Q + Q.T) / 2, atol=1e-8)
            K = np.trace(inverse @ s @ inverse @ t)
            np.testing.assert_allclose(found.K[a, b], K, rtol=1e-8, atol=1e-7)
            if bend is not None and max(a, b) < len(E):
                R = X.T @ inverse @ spread(bend[a, b]) @ inverse @ X
                np.testing.assert_allclose(found.R[a, b], R, atol=1e-9)


@pytest.mark.parametrize("kind", [k for k in TERMS if k not in ("beside",)])
def test_natural_parameters_have_these_derivatives(kind):
    _, problem, _, _ = linear(kind)
    (covariance,) = problem.covariances
    theta, s2 = np.array(TERMS[kind][1]), 1.3
    E, bend = covariance.curves(theta, s2)
    if not covariance.has_own:
        lam = np.sqrt(s2) * theta
        build, x = lambda v: covariance.matrix(v) @ covariance.matrix(v).T, lam
    else:
        sd, natural = covariance.natural(s2 * np.asarray(sigma_of(covariance, theta)))
        n = len(sd)

        def build(v):
            own = covariance.from_natural(np.concatenate([np.sqrt(v[:n]), v[n:]]))
            return np.asarray(sigma_of(covariance, own))

        x = np.concatenate([sd**2, natural])
    eye = np.eye(len(x)) * 1e-4
    for a, step in enumerate(eye):
        slope = (build(x + step) - build(x - step)) / 2e-4
        np.testing.assert_allclose(E[a], slope, atol=2e-6)
        for b, other in enumerate(eye):
            if bend is None:
                continue
            both = build(x + step + other) - build(x + step - other)
            both = both - build(x - step + other) + build(x - step - other)
            np.testing.assert_allclose(bend[a, b], both / 4e-8, atol=2e-5)


@pytest.mark.parametrize("kind", ["cs", "ar1", "toep", "ou", "rr", "beside"])
def test_laplace_score_and_hessian(kind):
    engine = fitting_generalised.build(design(kind, "count"), Poisson(), Laplace())
    problem = engine.base
    psi = np.array([0.3, 0.2, *TERMS[kind][1]])
    zero = estimate.zeros(problem)
    at = laplace.laplace(problem, psi, zero)
    step = 1e-5

    def value(x):
        return float(-2 * laplace.log_marginal(problem, x, zero))

    assert float(at.value) == pytest.approx(value(psi), abs=1e-8)
    for a, unit in enumerate(np.eye(len(psi))):
        slope = (value(psi + step * unit) - value(psi - step * unit)) / (2 * step)
        assert float(at.score[a]) == pytest.approx(slope, abs=2e-5)


def same(a, b, **tolerance):
    assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(a.coefficients, b.coefficients, rtol=1e-6)


def test_special_cases():
    """No correlation, one level, two columns: other words for the same models."""
    data = table()
    one = data[data["f"] == "1"].reset_index(drop=True)
    one["f"] = pd.Categorical(["1"] * len(one))
    plain = jg.lmm("y ~ x + (1 | g)", one)
    for word in ("cs", "ar1", "toep", "homdiag", "hetar1", "rr"):
        same(jg.lmm(f"y ~ x + {word}(0 + f | g)", one), plain)
    same(jg.lmm("y ~ x + ou(t | g)", one), plain)
    two = data[data["f"].isin(["0", "1"])].reset_index(drop=True)
    two["f"] = pd.Categorical(two["f"].astype(str))
    full = jg.lmm("y ~ x + us(0 + f | g)", two)
    for word in ("cs", "hetar1", "toep"):
        same(jg.lmm(f"y ~ x + {word}(0 + f | g)", two), full)
    same(jg.lmm("y ~ x + homdiag(0 + f | g)", data), jg.lmm("y ~ x + (1 | g:f)", data))
    same(
        jg.lmm("y ~ x + homcs(0 + f | g)", data),
        jg.lmm("y ~ x + (1 | g) + (1 | g:f)", data),
    )
    same(jg.lmm("y ~ x + exp(t | g)", data), jg.lmm("y ~ x + ou(0 + t | g)", data))


def test_whole_steps_are_positions():
    """Numbers stand as far apart as they say; a step that no row has is one too."""
    data = table()
    data["step"] = data["f"].astype(int)
    factor = jg.lmm("y ~ x + ar1(0 + f | g)", data)
    same(jg.lmm("y ~ x + ar1(0 + step | g)", data), factor)
    gap = data[data["f"] != "1"].copy()
    gap["f"] = pd.Categorical(gap["f"].astype(str))
    steps = jg.lmm("y ~ x + ar1(0 + step | g)", gap)
    own = steps.varcorr["g"].parameters["cor"]
    assert own > jg.lmm("y ~ x + ar1(0 + f | g)", gap).varcorr["g"].parameters["cor"]


def test_kenward_roger_is_that_of_a_plain_model():
    data = table()
    a = jg.lmm("y ~ x + homdiag(0 + f | g)", data).coefficient_table("kenward-roger")
    b = jg.lmm("y ~ x + (1 | g:f)", data).coefficient_table("kenward-roger")
    np.testing.assert_allclose(a["df"], b["df"], rtol=1e-5)
    np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=1e-6)


def scattered(kind, G, n, reach, seed):
    """Positions anywhere in a square of ten, a smooth surface a group, and noise."""
    rng, parts = np.random.default_rng(seed), []
    for g in range(G):
        at = rng.uniform(0, 10, (n, 2)).round(3)
        root = np.linalg.cholesky(surface(kind, at, reach) + 1e-8 * np.eye(n))
        eta = root @ rng.normal(size=n)
        y, c = eta + 0.5 * rng.normal(size=n), rng.poisson(np.exp(eta))
        parts.append(pd.DataFrame(dict(g=g, x=at[:, 0], z=at[:, 1], y=y, c=c)))
    return pd.concat(parts, ignore_index=True)


def surface(kind, at, reach):
    d = np.sqrt(((at[:, None] - at[None]) ** 2).sum(-1)) / reach
    return np.exp(-d if kind == "exp" else -(d**2))


@pytest.mark.parametrize(
    ("kind", "G", "n", "reach"),
    [("exp", 4, 15, 2), ("gau", 10, 6, 6), ("exp", 1, 60, 6)],
)
def test_the_best_range_of_scattered_positions_is_found(kind, G, n, reach):
    """At the distance of the nearest two the criterion is flat."""
    data = scattered(kind, G, n, reach, 7)
    blocks = [
        (d[["x", "z"]].to_numpy(), d["y"].to_numpy()) for _, d in data.groupby("g")
    ]

    def deviance(logs):
        sd, own, noise = np.exp(logs)
        total, one, both, two = len(data) * np.log(2 * np.pi), 0.0, 0.0, 0.0
        for at, y in blocks:
            V = sd**2 * surface(kind, at, own) + noise**2 * np.eye(len(y))
            L = np.linalg.cholesky(V + 1e-10 * np.eye(len(y)))
            o, r = np.linalg.solve(L, np.ones(len(y))), np.linalg.solve(L, y)
            total += 2 * np.log(np.diag(L)).sum()
            one, both, two = one + o @ o, both + o @ r, two + r @ r
        return total + two - both**2 / one

    within = [(-8, 4), (-5, 6), (-8, 4)]
    best = min(
        minimize(deviance, [0, np.log(r), -0.7], method="L-BFGS-B", bounds=within).fun
        for r in (0.3, 1, 3, 8)
    )
    fit = jg.lmm(f"y ~ 1 + {kind}(x + z + 0 | g)", data, reml=False)
    assert -2 * fit.log_likelihood < best + 1e-4


@pytest.mark.parametrize(
    ("kind", "G", "n", "reach"), [("exp", 3, 12, 3), ("gau", 6, 6, 5)]
)
def test_of_counts_as_well(kind, G, n, reach):
    data = scattered(kind, G, n, reach, 3)
    formula = f"c ~ 1 + {kind}(x + z + 0 | g)"
    fit = jg.glmm(formula, data, family="poisson")
    for other in (0.5, 2.0, 6.0):
        start = {f"sd_{kind}|g": 0.8, f"range_{kind}|g": other}
        again = jg.glmm(formula, data, family="poisson", start=start)
        assert fit.log_likelihood > again.log_likelihood - 1e-6
