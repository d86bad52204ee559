"""Laplace and quadrature for generalised models: values, scores and Hessians on cbpp.

References: -2 log-likelihoods of cbpp by lme4 (Laplace 184.05256374, 25 nodes
183.96673807 with all constants), standard errors from the Hessian over all parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import (
    GeneralisedProblem,
    build_rows,
    design_from_formula,
    integrator,
    laplace,
)
from doors import assemble_columns as columns
from doors import estimate_generalised as estimate
from doors import hessian as exact

import jaxglmm as jg
from jaxglmm.model.families import family_from


def problem_of(formula, data, family):
    """A GeneralisedProblem, the way back, and where to start."""
    family = family_from(family)
    design = design_from_formula(formula, data, family_kind=family.family_kind)
    trials = np.ones(design.n) if design.trials is None else design.trials
    rows = build_rows(design.X, columns(design))
    eta, phi = family.start(design.y, trials)
    problem = GeneralisedProblem(
        rows.rows,
        rows.X,
        rows.place(design.y, family.padding),
        rows.place(trials, 1.0),
        rows.place(1.0),
        rows.place(0.0),
        family,
        tuple(f.covariance for f in rows.factors),
    )
    return jax.device_put(problem), rows, jnp.asarray(rows.place(eta)), jnp.asarray(phi)


@pytest.fixture(scope="module")
def cbpp():
    with jax.enable_x64(True):
        data = jg.datasets.load("cbpp")
        formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        yield problem_of(formula, data, "binomial")


def fit(case, nodes=1):
    problem, _, eta, phi = case
    marginal = integrator("observed", nodes)
    return marginal, estimate.fit_compiled(
        marginal, problem, eta, phi, jnp.asarray(1e-10), jnp.asarray(100)
    )


@pytest.mark.parametrize(("nodes", "expected"), [(1, 184.05256374), (25, 183.96673807)])
def test_cbpp(cbpp, nodes, expected):
    with jax.enable_x64(True):
        _, found = fit(cbpp, nodes)
    assert int(found.status) == 0
    assert float(found.criterion) == pytest.approx(expected, abs=2e-8)


def test_estimates_and_errors(cbpp):
    problem, rows, _, _ = cbpp
    with jax.enable_x64(True):
        marginal, found = fit(cbpp)
        H = np.asarray(exact.hessian(marginal, problem, found.psi, found.u))
    inverse = np.linalg.inv(rows.R)
    beta = inverse @ np.asarray(found.psi)[:4]
    cov = inverse @ (2 * np.linalg.inv(H))[:4, :4] @ inverse.T
    assert beta == pytest.approx(
        [-1.39853211, -0.99233280, -1.12867213, -1.58031395], rel=1e-6
    )
    assert np.sqrt(np.diag(cov)) == pytest.approx(
        [0.2324720, 0.3066425, 0.3266379, 0.4274364], rel=3e-6
    )


def test_score_and_hessian_are_those_of_autodiff(cbpp):
    problem = cbpp[0]
    with jax.enable_x64(True):
        psi = jnp.asarray([-2.0, 0.1, -0.2, -0.4, 0.8])
        zero = estimate.zeros(problem)
        at = laplace.laplace(problem, psi, zero)

        def value(x):
            return -2 * laplace.log_marginal(problem, x, zero)

        gradient = jax.grad(value)(psi)
        H = exact.hessian(integrator(), problem, psi, at.u)
        assert np.asarray(at.score) == pytest.approx(np.asarray(gradient), abs=1e-10)
        assert np.asarray(H) == pytest.approx(
            np.asarray(jax.hessian(value)(psi)), abs=1e-9
        )


def test_gaussian_is_exact():
    """Laplace of a Gaussian response is the exact marginal."""
    sleep = jg.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (1 | Subject)"
    exact = jg.lmm(formula, sleep, reml=False)
    with jax.enable_x64(True):
        problem, rows, _, _ = problem_of(formula, sleep, "gaussian")
        phi = {
            name: problem.family.dispersion(jnp.asarray([value]))
            for name, value in (("zero", 0.0), ("one", 1.0))
        }
        name = next(iter(phi["zero"]))
        ratio = float(phi["one"][name] / phi["zero"][name])
        target = exact.sigma if abs(ratio - np.e) < 1e-9 else exact.sigma**2
        log_phi = np.log(target / float(phi["zero"][name]))
        psi = np.concatenate(
            [rows.R @ exact.coefficients, exact.theta * exact.sigma, [log_phi]]
        )
        found = laplace.log_marginal(problem, jnp.asarray(psi), estimate.zeros(problem))
    assert float(found) == pytest.approx(exact.log_likelihood, abs=1e-8)
