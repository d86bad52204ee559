"""The exact marginal by cross-products is Laplace's of the rows, which is exact too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import (
    Exact,
    GeneralisedProblem,
    Laplace,
    TermColumns,
    Unstructured,
    build_rows,
    conditional,
    crossproducts,
    zeros,
)
from doors import hessian as exact_hessian

from jaxglmm.model.families import Gaussian, Poisson

N, J = 60, 6


def problem_of(kind, family=None, origin=0.0):
    rng = np.random.default_rng(2)
    g, h = rng.permutation(N) % J, rng.integers(0, 4, N)
    x = rng.normal(size=N)
    one, slope = np.ones((N, 1)), np.stack([np.ones(N), x], axis=1)
    terms = {
        "slope": [TermColumns("g", g, slope, J, Unstructured(2))],
        "crossed": [
            TermColumns("g", g, one, J, Unstructured(1)),
            TermColumns("h", h, one, 4, Unstructured(1)),
        ],
    }[kind]
    y = origin + x + rng.normal(size=J)[g] + rng.normal(size=N)
    rows = build_rows(slope, terms)
    weights = np.where(np.arange(N) % 7 == 0, 0.0, 1.0)
    problem = GeneralisedProblem(
        rows.rows,
        rows.X,
        rows.place(y),
        rows.place(rng.uniform(0.5, 2.0, N), 1.0),
        rows.place(weights),
        rows.place(0.1 * x),
        family or Gaussian(),
        tuple(f.covariance for f in rows.factors),
    )
    theta = rng.uniform(0.3, 0.8, problem.m)
    psi = np.concatenate([[origin + 0.3, 1.2], theta, [-0.2]])
    return jax.device_put(problem), jnp.asarray(psi)


@pytest.mark.parametrize("kind", ["slope", "crossed"])
def test_value_score_curvature_and_hessian(kind):
    problem, psi = problem_of(kind)
    zero = zeros(problem)
    found = jax.jit(Exact().derivatives)(problem, psi, zero)
    rows = jax.jit(Laplace().derivatives)(problem, psi, zero)
    np.testing.assert_allclose(found.value, rows.value, rtol=1e-12)
    np.testing.assert_allclose(found.value, Exact().value(problem, psi, zero))
    for name in ("score", "curvature", "scale"):
        own, there = getattr(found, name), getattr(rows, name)
        size = np.abs(there).max()
        np.testing.assert_allclose(own, there, rtol=1e-9, atol=1e-10 * size)
    for a, b in zip(found.u, rows.u, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    H = exact_hessian.hessian(Exact(), problem, psi, found.u)
    twin = exact_hessian.hessian(Laplace(), problem, psi, rows.u)
    np.testing.assert_allclose(H, twin, rtol=1e-8, atol=1e-9 * np.abs(twin).max())


def test_a_far_origin_costs_no_digits():
    """Products with residuals: sums of squares of y would have none left."""
    values = []
    for origin in (0.0, 1e7):
        problem, psi = problem_of("slope", None, origin)
        values.append(conditional(crossproducts(problem.folded()), psi).value)
    np.testing.assert_allclose(*values, rtol=1e-7)


def test_a_variance_of_zero():
    problem, psi = problem_of("crossed")
    psi = psi.at[2].set(0.0)
    found = jax.jit(Exact().derivatives)(problem, psi, zeros(problem))
    step = 1e-5 * np.eye(len(psi))
    value = jax.jit(Exact().value)
    slopes = [
        (value(problem, psi + d, ()) - value(problem, psi - d, ())) / 2e-5 for d in step
    ]
    np.testing.assert_allclose(found.score, slopes, rtol=1e-6, atol=1e-5)


def test_it_is_for_linear_models():
    assert Exact().refusal(problem_of("slope")[0]) is None
    assert "Gaussian" in Exact().refusal(problem_of("slope", Poisson())[0])
