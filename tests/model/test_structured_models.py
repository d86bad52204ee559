"""Models whose covariance is nonlinear in theta, against dense formulas and autodiff.

The structure lives beside this file: no part of the package knows it.
"""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from doors import (
    LaneRows,
    Maximise,
    assemble,
    covariances,
    design_from_formula,
    exact,
    fitting_generalised,
    generalised_lanes,
    information,
    integrator,
    laplace,
    laplace_derivatives,
    linear_lanes,
    marginal,
    shared_design,
    tree_at,
)
from doors import estimate_generalised as estimate
from doors import fitting_linear as fitting
from doors import hessian as exact_hessian
from doors import laplace_derivatives_lanes as lanes
from integrate import oracle
from model.compound_symmetry import CompoundSymmetry
from numerics.tolerance import assert_close
from scipy.optimize import minimize

from jaxglmm.model.families import Poisson

J, TIMES, L = 14, 3, 2
THETA = np.array([0.9, 1.2, 0.6, 0.8])
ELSEWHERE = np.array([0.7, -1.1, 0.9, -0.4])


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    """Its row in the table, as a new file of the package would add it.

    Compiled in a hurry: every program here runs on a few numbers, once or twice.
    """
    monkeypatch.setitem(covariances.REGISTRY, "toy", lambda q, _: CompoundSymmetry(q))
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def table():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(J), 2 * TIMES)
    f = np.tile(np.repeat(np.arange(TIMES), 2), J)
    sd, shared = np.array([1.0, 1.6, 0.7]), rng.normal(size=J)
    own = 0.8 * shared[:, None] + 0.6 * rng.normal(size=(J, TIMES))
    x = rng.normal(size=len(g))
    eta = 0.5 * x + (own * sd)[g, f]
    return pd.DataFrame(
        {
            "y": 1 + eta + rng.normal(size=len(g)),
            "count": rng.poisson(np.exp(0.3 + 0.5 * eta)).astype(float),
            "x": x,
            "f": pd.Categorical(f.astype(str)),
            "g": g,
        }
    )


def design(response="y", kind="toy", data=None):
    data = table() if data is None else data
    formula = f"{response} ~ x + us(0 + f | g)"
    found = design_from_formula(formula, data)
    (term,) = found.terms
    return replace(found, terms=(replace(term, covariance=kind),))


def dense_of(moments, own):
    data = oracle.dense(moments, own.y, own.X)
    (factor,) = moments.factors

    def V(theta):
        return oracle.V_of_sigma(data, [jnp.array(factor.covariance.sigma(theta))])

    return data, V


@functools.cache
def linear():
    with jax.enable_x64(True):
        own = design()
        moments = assemble.moments(own)
        return (
            moments,
            jax.device_put(assemble.problem(moments)),
            *dense_of(moments, own),
        )


@pytest.mark.parametrize("theta", [THETA, ELSEWHERE])
@pytest.mark.parametrize("reml", [True, False])
def test_linear_value_score_and_curvature(theta, reml):
    _, problem, data, V = linear()
    theta = jnp.asarray(theta)
    assert problem.m == len(theta) < len(problem.covariances[0].entries)
    value, score, curvature, scale = exact.profiled_derivatives(problem, theta, reml)

    def twin(x):
        return oracle.profiled(data, V(x), reml)

    assert_close(value, twin(theta), "value", 1)
    assert_close(score, jax.grad(twin)(theta), "score", 2)
    s2 = oracle.parts(data, V(theta))[3] / exact.degrees(problem, reml)
    P = oracle.projector(data, np.asarray(V(theta)))
    slopes = np.moveaxis(np.asarray(jax.jacfwd(V)(theta)), -1, 0)
    moved = slopes @ (P @ data.y)
    info = moved @ P @ moved.T / s2
    tv = moved @ (P @ data.y) / s2
    info = info - np.outer(tv, tv) / exact.degrees(problem, reml)
    assert_close(scale, 1 + np.diag(info), "information", 2)
    assert np.linalg.eigvalsh(np.asarray(curvature) - info).min() > -1e-8


@pytest.mark.parametrize("reml", [True, False])
def test_linear_exact_hessian(reml):
    """Over (theta, log sigma^2), off the optimum: Lambda's second derivative counts."""
    _, problem, data, V = linear()
    at = jnp.append(jnp.asarray(THETA), 0.2)

    def twin(v):
        return oracle.deviance(data, V(v[:-1]), v[-1], reml)

    found = information.curvature(problem, at[:-1], jnp.exp(at[-1]), reml)
    assert_close(found.score, jax.grad(twin)(at), "score", 2)
    assert_close(found.hessian, jax.hessian(twin)(at), "Hessian", 3)


@pytest.mark.parametrize("reml", [True, False])
def test_linear_lanes(reml):
    """Value, score, curvature, and what the exact Hessian gives, lane by lane."""
    moments, problem, _, _ = linear()
    (covariance,) = problem.covariances
    rows, groups = jax.device_put(shared_design.rows(moments))
    y = table()["y"].to_numpy()
    sums = shared_design.prepare(rows, np.stack([y, y[::-1]], axis=1)).sums
    theta = jnp.asarray(np.stack([THETA, ELSEWHERE], axis=1))
    value, score, H, D = linear_lanes._derivatives(
        groups, sums, theta, covariance, reml
    )
    at = marginal(groups, sums, list(theta), covariance)
    back = jnp.asarray(moments.fixed.R_inverse[..., None])
    told = linear_lanes._inference(groups, theta, at, back, covariance, reml)
    df, se = told.df, told.se
    for k, response in enumerate((y, y[::-1])):
        own = jax.device_put(assemble.problem(moments.respond(response)))
        found = exact.profiled_derivatives(own, theta[:, k], reml)
        here = (value[k], score[:, k], H[:, :, k], D[:, k])
        for a, b, what in zip(here, found, ("d", "score", "H", "D"), strict=True):
            # Jacobi rotations are stopped early: the curvature is a stand-in
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=what)
        exact_one = information.curvature(own, theta[:, k], jnp.asarray(np.nan), reml)
        inverse = np.linalg.inv(exact_one.hessian)
        R = moments.fixed.R_inverse
        C = np.einsum("ij,jk,ik->i", R, exact_one.vcov, R)
        slope = np.einsum("ij,jka,ik->ia", R, exact_one.dvcov, R)
        if np.linalg.eigvalsh(exact_one.hessian)[0] > 0:
            spread = np.einsum("ia,ab,ib->i", slope, inverse, slope)
            np.testing.assert_allclose(df[:, k], C**2 / spread, rtol=1e-6)
        np.testing.assert_allclose(se[:, k] ** 2, C, rtol=1e-8)


@functools.cache
def counts():
    with jax.enable_x64(True):
        return fitting_generalised.build(design("count"), Poisson(), integrator())


def test_laplace_score_and_hessian():
    problem = counts().base
    psi = jnp.asarray([0.3, 0.2, *THETA])
    zero = estimate.zeros(problem)

    def value(x):
        return -2 * laplace.log_marginal(problem, x, zero)

    at = laplace.laplace(problem, psi, zero)
    assert_close(at.value, value(psi), "value", 1)
    np.testing.assert_allclose(at.score, jax.grad(value)(psi), atol=1e-8)
    H = exact_hessian.hessian(integrator(), problem, psi, at.u)
    np.testing.assert_allclose(H, jax.hessian(value)(psi), atol=1e-7)
    assert np.linalg.eigvalsh(at.curvature).min() > 0


def test_the_mode_moves_with_theta():
    problem = counts().base
    folded = problem.folded()
    psi = jnp.asarray([0.3, 0.2, *THETA])
    zero = estimate.zeros(problem)
    at = laplace.laplace(problem, psi, zero)
    terms = laplace_derivatives.terms_of(folded)
    point = laplace_derivatives.evaluate(folded, terms, psi, at.u)
    step = 1e-5 * jnp.asarray([1.0, -1.0, 2.0, 1.0, -1.0, 3.0])
    (ahead,) = laplace_derivatives.moved(folded, point, step)
    (there,) = laplace.laplace(problem, psi + step, at.u).u
    np.testing.assert_allclose(ahead, there, atol=5e-9)


def test_laplace_lanes():
    """Points, moves of the mode and exact Hessians are those of one fit."""
    problem = counts().base.folded()
    (covariance,) = problem.covariances
    shape = problem.y.shape

    def last(x):
        x = jnp.asarray(x)
        return x.reshape(*x.shape[: x.ndim - len(shape)], *shape)[..., None]

    d = LaneRows(
        last(problem.X),
        last(problem.rows.z[0]),
        jnp.stack([problem.y, jnp.roll(problem.y, 1, axis=-1)], axis=-1),
        last(jnp.broadcast_to(problem.trials, shape)),
        last(problem.weights),
        last(jnp.broadcast_to(problem.offset, shape)),
        problem.family,
    )
    split = lanes.Split(2, covariance, 0)
    psi = jnp.asarray(np.stack([[0.3, 0.2, *THETA], [0.1, 0.4, *ELSEWHERE]], axis=1))
    rng = np.random.default_rng(0)
    u = jnp.asarray(0.2 * rng.normal(size=(TIMES, shape[-1], L)))
    both = jnp.ones(L, bool)
    found = lanes.evaluate(d, split, psi, u, both)
    step = 1e-2 * jnp.asarray(rng.normal(size=psi.shape))
    moved = lanes.moved(split, found, step)
    marginal = integrator()
    modes = [
        laplace.laplace(_with(counts().base, k), psi[:, k], estimate.zeros(problem)).u
        for k in range(L)
    ]
    at_modes = jnp.stack([m[0][:, 0] for m in modes], axis=-1)
    _, H = generalised_lanes._hessian(marginal, d, split, psi, at_modes)
    for k in range(L):
        own = _with(counts().base, k)
        folded = own.folded()
        terms = laplace_derivatives.terms_of(folded)
        one = laplace_derivatives.evaluate(
            folded, terms, psi[:, k], (u[:, None, :, k],)
        )
        assert_close(found.value[k], one.value, "value", 1)
        assert_close(found.score[:, k], one.score, "score", 2)
        np.testing.assert_allclose(
            found.curvature[:, :, k], one.curvature, rtol=1e-6, atol=1e-6
        )
        (there,) = laplace_derivatives.moved(folded, one, step[:, k])
        np.testing.assert_allclose(moved[:, :, k], there[:, 0], atol=1e-9)
        expected = exact_hessian.hessian(marginal, own, psi[:, k], modes[k])
        np.testing.assert_allclose(H[:, :, k], expected, atol=1e-6)


def _with(problem, k):
    """The problem of one lane."""
    folded = problem.folded().y
    y = jnp.roll(folded, k, axis=-1).reshape(problem.y.shape)
    return tree_at(lambda p: p.y, problem, y)


def dense_optimum(criterion, start):
    compiled = jax.jit(jax.value_and_grad(criterion))
    return minimize(
        lambda x: tuple(np.asarray(v, float) for v in compiled(jnp.asarray(x))),
        start,
        jac=True,
        method="BFGS",
        options={"gtol": 1e-8},
    )


@pytest.mark.parametrize("reml", [True, False])
def test_a_linear_fit_is_the_dense_optimum(reml):
    own = design()
    engine = fitting.build(own, Maximise(reml))
    fitted, criterion = engine.fit()
    moments, _, data, V = linear()
    best = dense_optimum(lambda x: oracle.profiled(data, V(x), reml), THETA)
    assert int(fitted.status) == 0
    assert float(fitted.criterion) == pytest.approx(best.fun, abs=1e-7)
    found = fitting.estimates(engine, own, fitted, criterion)
    (factor,) = moments.factors
    (lam,) = found.lam
    T = np.diag(factor.T_inverse)
    sigma = np.array(factor.covariance.sigma(best.x))
    expected = T[:, None] * sigma * T[None]
    np.testing.assert_allclose(lam @ lam.T, expected, rtol=2e-4)
    assert len(found.theta) == TIMES + 1
    again = CompoundSymmetry(TIMES).matrix(found.theta)
    np.testing.assert_allclose(again, lam, rtol=1e-10)
    back = fitting.internal_lambdas(moments.factors, found.lam)
    np.testing.assert_allclose(
        CompoundSymmetry(TIMES).matrix(back), factor.T @ lam, rtol=1e-10
    )


def test_two_columns_are_unstructured():
    """With one correlation in all, the two structures are one model."""
    data = table()
    some = data[data["f"] != "2"].reset_index(drop=True)
    some["f"] = pd.Categorical(some["f"].astype(str))
    found = [
        fitting.build(design("y", kind, some), Maximise(True)).fit()[1]
        for kind in ("toy", "us")
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-8)


def test_a_generalised_fit_is_the_dense_optimum():
    engine = counts()
    fitted = engine.fit()
    problem, zero = engine.base, estimate.zeros(engine.base)

    def criterion(x):
        return -2 * laplace.log_marginal(problem, x, zero)

    best = dense_optimum(criterion, np.array([0.3, 0.2, *THETA]))
    assert int(fitted.status) == 0
    assert float(fitted.criterion) == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(np.abs(fitted.psi), np.abs(best.x), atol=2e-3)
