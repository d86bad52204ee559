"""Responses that fixed and random effects reproduce, or nearly."""

import warnings

import numpy as np
import pytest

import jaxglmm as jg

REPRODUCED = "fixed and random effects together reproduce the response"


def quietly(formula, table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.lmm(formula, table)


def levels(seed, rest):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(30), 10)
    return {"y": rng.normal(0, 1, 30)[g] + rest * rng.normal(size=300), "g": g}


def assert_honest(fit):
    """Numbers that are not finite, and fits without a maximum, are not trusted."""
    assert fit.status.startswith(REPRODUCED)
    assert not fit.converged
    assert fit.certificate.verdict != "trust"
    assert str(fit.summary())


def test_six_rows_without_a_residual():
    y, x = [2.0, 3, 6, 7, 1, 0], [0.0, 1, 2, 3, 1, 0]
    assert_honest(quietly("y ~ x + (1 | g)", {"y": y, "x": x, "g": list("aabbcc")}))


@pytest.mark.parametrize("seed", range(20, 30))
@pytest.mark.parametrize("rest", [1e-7, 3e-8])
def test_a_rest_that_is_rounding(seed, rest):
    assert_honest(quietly("y ~ 1 + (1 | g)", levels(seed, rest)))


@pytest.mark.parametrize("seed", range(12))
def test_small_exact_tables_of_whole_numbers(seed):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(4), 3)
    x = np.arange(12.0) % 5
    y = 2 * x + rng.integers(-5, 5, 4)[g]
    fit = quietly("y ~ x + (1 | g)", {"y": y, "x": x, "g": g})
    if np.isfinite(fit.criterion) and fit.sigma > 1e-6:  # one level mean for all
        return
    assert_honest(fit)


@pytest.mark.parametrize(("rest", "tolerance"), [(1e-6, 2e-2), (1e-5, 2e-4)])
def test_a_small_rest_is_as_exact_as_it_is_said_to_be(rest, tolerance):
    table = levels(1, rest)
    with pytest.warns(jg.ScaleWarning, match="are good to about"):
        fit = jg.lmm("y ~ 1 + (1 | g)", table)
    assert fit.converged
    means = table["y"].reshape(30, 10).mean(axis=1)
    within = table["y"].reshape(30, 10) - means[:, None]
    np.testing.assert_allclose(
        fit.sigma, np.sqrt(np.sum(within**2) / 270), rtol=tolerance
    )


def test_many_perfect_responses():
    tables = [levels(seed, 1e-7) for seed in (21, 22, 23)]
    Y = np.stack([table["y"] for table in tables], axis=1)
    with pytest.warns(jg.ConvergenceWarning, match="3 no residual variance"):
        fits = jg.fit_many(
            "y ~ 1 + (1 | g)", {"g": tables[0]["g"]}, responses=Y, progress=False
        )
    assert not fits.converged.any()
