"""Laplace and quadrature in lanes are those of one fit, lane by lane."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import (
    GeneralisedProblem,
    LaneRows,
    Split,
    TermColumns,
    Unstructured,
    apart,
    build_rows,
    distinct,
    integrator,
    laplace,
    quadrature,
)
from doors import generalised_lanes as generalised
from doors import laplace_derivatives as point
from doors import laplace_derivatives_lanes as lanes_point

from jaxglmm.model.families import Binomial, Gamma, NegativeBinomial, Poisson

pytestmark = pytest.mark.usefixtures("always_compiled")

L = 3
FAMILIES = {
    "binomial": Binomial(),
    "probit": Binomial("probit"),
    "poisson": Poisson(),
    "nbinom2": NegativeBinomial(),
    "gamma": Gamma("log"),
}


@functools.cache
def setting(name, q):
    rng = np.random.default_rng(8)
    family = FAMILIES[name]
    J, rows = 8, 4
    codes = np.repeat(np.arange(J, dtype=np.int32), rows)
    n = len(codes)
    x = rng.normal(size=n)
    X = np.column_stack([np.ones(n), x])
    Z = X[:, :q]
    data = build_rows(X, [TermColumns("g", codes, Z, J, Unstructured(Z.shape[1]))])
    trials = np.full(n, 5.0) if family.family_kind == "binomial" else np.ones(n)
    draws = {
        "binomial": lambda: rng.binomial(5, 0.4, size=n),
        "probit": lambda: rng.binomial(5, 0.4, size=n),
        "gamma": lambda: rng.gamma(2.0, size=n),
    }
    Y = np.stack(
        [draws.get(name, lambda: rng.poisson(2.0, size=n))() for _ in range(L)]
    )
    Y = Y.T.astype(float)
    weights, offset = rng.uniform(0.5, 1.5, n), 0.1 * rng.normal(size=n)
    problems = [
        jax.device_put(
            GeneralisedProblem(
                data.rows,
                data.X,
                data.place(y, family.padding),
                data.place(trials, 1.0),
                data.place(weights),
                data.place(offset),
                family,
                tuple(f.covariance for f in data.factors),
            )
        ).folded()
        for y in Y.T
    ]
    folded = problems[0]
    shape = folded.y.shape

    def last(x):
        return jnp.asarray(x).reshape(*x.shape[: x.ndim - len(shape)], *shape)[
            ..., None
        ]

    d = LaneRows(
        last(folded.X),
        None if q == 1 else last(folded.rows.z[0]),
        jnp.stack([p.y for p in problems], axis=-1),
        last(folded.trials),
        last(folded.weights),
        last(folded.offset),
        family,
    )
    covariance = data.factors[0].covariance
    k = 2 + covariance.m + family.n_phi
    psi = 0.4 * rng.normal(size=(k, L)) + 0.3
    u = 0.3 * rng.normal(size=(q, shape[1], L))
    return d, problems, Split(2, covariance, family.n_phi), psi, u


def single(name, q, k, hessian="observed"):
    _, problems, _, psi, u = setting(name, q)
    problem = problems[k]
    mode = (jnp.asarray(u[:, None, :, k]),)
    terms = point.terms_of(problem, hessian)
    x = jnp.asarray(psi[:, k])
    return problem, terms, x, mode


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_points_are_those_of_one_fit(name, q):
    d, _, split, psi, u = setting(name, q)
    exact = jnp.ones(L, bool)
    found = lanes_point.evaluate(d, split, jnp.asarray(psi), jnp.asarray(u), exact)
    change = 0.01 * jnp.asarray(psi)
    follow = lanes_point.moved(split, found, change)
    for k in range(L):
        problem, terms, x, mode = single(name, q, k)
        at = point.evaluate(problem, terms, x, mode, True)
        for name_of, mine in (
            ("value", found.value[k]),
            ("score", found.score[:, k]),
            ("curvature", found.curvature[:, :, k]),
            ("scale", found.scale[:, k]),
            ("nu", found.nu[k]),
        ):
            np.testing.assert_allclose(
                mine, getattr(at, name_of), rtol=1e-9, atol=1e-9, err_msg=name_of
            )
        (there,) = point.moved(problem, at, change[:, k])
        np.testing.assert_allclose(follow[:, :, k], there[:, 0], atol=1e-10)


def test_expected_information():
    """The other matrix in the determinant, as lme4 has it."""
    d, _, split, psi, u = setting("probit", 1)
    exact = jnp.ones(L, bool)
    found = lanes_point.evaluate(
        d, split, jnp.asarray(psi), jnp.asarray(u), exact, "expected"
    )
    for k in range(L):
        problem, terms, x, mode = single("probit", 1, k, "expected")
        at = point.evaluate(problem, terms, x, mode, True, "expected")
        np.testing.assert_allclose(found.value[k], at.value, rtol=1e-10)
        np.testing.assert_allclose(found.score[:, k], at.score, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "q"), [("binomial", 1), ("nbinom2", 1), ("poisson", 2)]
)
def test_quadrature_is_that_of_one_fit(name, q):
    d, _, split, psi, _ = setting(name, q)
    modes = []
    for k in range(L):
        problem, _, x, start = single(name, q, k)
        beta, theta, phi = problem.split(x)
        lam = problem.lambdas(theta)
        modes.append(laplace.find_mode(problem, beta, lam, phi, start).u[0][:, 0])
    u = jnp.stack(modes, axis=-1)
    exact = jnp.ones(L, bool)
    at = lanes_point.evaluate(d, split, jnp.asarray(psi), u, exact)
    value, score = quadrature.improve_lanes(d, split, jnp.asarray(psi), at, u, 5)
    for k in range(L):
        problem, terms, x, _ = single(name, q, k)
        mode = (u[:, None, :, k],)
        here = point.evaluate(problem, terms, x, mode, True)
        better = quadrature.improve(problem, terms, x, here, mode, 5)
        np.testing.assert_allclose(value[k], better.value, rtol=1e-11)
        np.testing.assert_allclose(score[:, k], better.score, atol=1e-8)


@pytest.mark.parametrize("kind", ["observed", "expected"])
@pytest.mark.parametrize(
    ("name", "q"),
    [("binomial", 1), ("probit", 2), ("nbinom2", 1), ("nbinom2", 2), ("gamma", 1)],
)
def test_the_hessian_is_that_of_forward_mode(name, q, kind):
    d, _, split, psi, u = setting(name, q)
    if name == "nbinom2":
        d = with_distinct_values(d)
    psi, u = 0.5 * jnp.asarray(psi), jnp.asarray(u)
    for _ in range(30):
        u = generalised._nearer(d, split, psi, u)
    marginal = integrator(hessian=kind)
    score, H = generalised._hessian(marginal, d, split, psi, u)
    plain, there = generalised.by_forward_mode(marginal, d, split, psi, u)
    np.testing.assert_allclose(score, plain, atol=1e-8)
    np.testing.assert_allclose(H, there, rtol=1e-9, atol=1e-8)


def with_distinct_values(d, find=distinct):
    found = find(np.asarray(d.y), np.asarray(d.weights), 4)
    return dataclasses.replace(d, **jax.tree.map(jnp.asarray, found))


@pytest.mark.parametrize(("find", "size"), [(distinct, 16), (apart, 16)])
def test_few_values_are_a_sum_over_the_rows(find, size):
    d, _, split, psi, u = setting("nbinom2", 1)
    exact = jnp.ones(L, bool)
    plain = lanes_point.evaluate(d, split, jnp.asarray(psi), jnp.asarray(u), exact)
    few = with_distinct_values(d, find)
    assert len(few.tails if few.values is None else few.values) == size
    found = lanes_point.evaluate(few, split, jnp.asarray(psi), jnp.asarray(u), exact)
    for name in ("value", "score", "curvature"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(plain, name), rtol=1e-11, err_msg=name
        )
