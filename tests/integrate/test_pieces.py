"""Rows visited in pieces give what they give at once, and what is not there counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from doors import (
    PaddedRows,
    build_rows,
    design_from_formula,
    integrator,
    pieces,
    start_generalised,
)
from doors import assemble_columns as columns
from doors import fitting_generalised as engine
from doors import laplace_derivatives as point
from doors import rows_of_design as build_rows_module

import jaxglmm as jg
from jaxglmm.model.families import family_from

N = 1_201  # padded to 1,280


def frame():
    """Rows of levels of very different size, so that these are not padded."""
    rng = np.random.default_rng(8)
    g = np.where(rng.uniform(size=N) < 0.6, 0, rng.integers(0, 12, N))
    x = rng.normal(size=N)
    eta = 0.2 + 0.3 * x + 0.5 * rng.normal(size=12)[g]
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "count": rng.poisson(np.exp(eta)),
            "yes": (rng.uniform(size=N) < 0.5).astype(int),
            "size": rng.gamma(2.0, np.exp(eta)),
        }
    )


def problem(response, family, sparing=False):
    family = family_from(family)
    formula = f"{response} ~ x + (x | g)"
    design = design_from_formula(formula, frame(), family_kind=family.family_kind)
    data = build_rows(design.X, columns(design))
    own = tuple(f.covariance for f in data.factors)
    made = engine.problem_of(design, family, data, own, sparing)
    assert not isinstance(made.rows, PaddedRows)
    eta, phi = family.start(design.y, None)
    return jax.device_put(made), jnp.asarray(data.place(eta)), jnp.asarray(phi)


def evaluated(problem, eta, phi, hessian):
    """Start, and everything of a point away from it."""

    @jax.jit
    def run(problem, eta, phi):
        psi, u = start_generalised.start(problem, eta, phi)
        u = jax.tree.map(lambda x: x + 0.3, u)
        terms = None
        at = point.evaluate(problem, terms, psi, u, jnp.asarray(False), hessian)
        return psi, at.value, at.score, at.curvature, at.scale, at.nu, at.level, at.mode

    return run(problem, eta, phi)


@pytest.fixture
def in_pieces(monkeypatch):
    def turn_on():
        monkeypatch.setattr(pieces, "LEAST", 128)

    return turn_on


CASES = [
    ("count", "poisson", "observed", True),
    ("count", "nbinom2", "observed", True),
    ("yes", jg.Binomial(link="cauchit"), "observed", False),
    ("yes", jg.Binomial(link="probit"), "expected", True),
    ("size", jg.Gamma(link="log"), "observed", False),
]


@pytest.mark.parametrize(("response", "family", "hessian", "sparing"), CASES)
def test_the_same_in_pieces(response, family, hessian, sparing, in_pieces):
    whole = problem(response, family)
    assert pieces.count(whole[0]) == 1
    expected = evaluated(*whole, hessian)
    cut = problem(response, family, sparing)
    in_pieces()
    assert pieces.count(cut[0]) == 10
    found = evaluated(*cut, hessian)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        size = np.max(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11 * size)


def test_pieces_divide_the_rows_and_outnumber_the_levels():
    made = problem("count", "poisson")[0]
    for n in (131_072, 147_456, 1_048_576, 11 * 2**17, 2**23):
        rows = jax.ShapeDtypeStruct((n,), np.float64)
        for levels in (8, 65_536, 2**20):
            long = jax.tree.map(lambda x: x, made)
            object.__setattr__(long, "y", rows)
            object.__setattr__(long.rows, "sizes", (levels,))
            k = pieces.count(long)
            assert n % k == 0
            assert k == 1 or n // k >= max(pieces.LEAST, pieces.A_LEVEL * levels)


@pytest.mark.filterwarnings("ignore::jaxglmm.SingularFitWarning")
def test_a_long_fit_is_that_of_rows_at_once(monkeypatch, in_pieces):
    """The whole call and what is asked after it: absent columns take no place."""
    data, formula = frame().iloc[: N - 1], "count ~ x + (1 | g)"
    options = {"family": "poisson", "method": jg.Laplace()}
    expected = jg.glmm(formula, data, **options)
    monkeypatch.setattr(engine, "LARGE_ROWS", 1_000)
    monkeypatch.setattr(build_rows_module, "LARGE_ROWS", 1_000)
    in_pieces()
    found = jg.glmm(formula, data, **options)
    base = found.engine.base
    assert np.shares_memory(found.engine.data.rows.z[0], found.engine.data.X)
    assert base.trials.shape == base.offset.shape == (1,)
    assert base.weights.dtype == bool
    back = data["count"].to_numpy()[::-1].copy()

    def asked(fit):
        yield fit.log_likelihood
        yield fit.se
        yield fit.fitted_values
        yield fit.resid("deviance")
        yield fit.predict(se=True, interval="confidence").to_numpy()
        yield fit.predict(interval="prediction").to_numpy()
        yield fit.simulate(2, seed=1)
        yield fit.refit(back).log_likelihood
        yield fit.confint(method="profile").to_numpy()
        yield fit.ranef_cov["g"]
        yield fit.r2().conditional
        yield fit.simulated_residuals(20).scaled

    for k, (a, b) in enumerate(zip(asked(found), asked(expected), strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8, err_msg=str(k))
    options["method"] = jg.AGQ(3)
    again = jg.glmm(formula, data, **options)
    monkeypatch.setattr(engine, "LARGE_ROWS", 10**9)
    monkeypatch.setattr(build_rows_module, "LARGE_ROWS", 10**9)
    plain = jg.glmm(formula, data, **options)
    np.testing.assert_allclose(again.log_likelihood, plain.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(again.se, plain.se, rtol=1e-6)


def test_beyond_laplace_takes_rows_at_once():
    """Quadrature needs the rows of its point."""
    made, eta, phi = problem("count", "poisson")
    psi, u = start_generalised.start(made, eta, phi)
    marginal = integrator()
    at = marginal.at(made, marginal.terms(made), psi, u)
    assert at.eta is not None
    assert at.rows is not None
