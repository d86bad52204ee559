"""PSIS, R-hat and effective sample sizes are ArviZ's numbers."""

import warnings

import numpy as np
import pytest
from doors import mcmc_diagnostics as chains
from doors import pareto_smoothing as pareto


@pytest.fixture(scope="module")
def az():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("arviz")


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.5])
def test_pareto_smoothing(az, rng, spread):
    logs = spread * rng.normal(size=2000)
    found = pareto.smooth(logs)
    weights, khat = az.psislw(logs.copy())
    assert found.khat == pytest.approx(float(khat), abs=1e-10)
    np.testing.assert_allclose(np.log(found.weights), np.asarray(weights), atol=1e-9)


def test_log_mean_and_its_error(rng):
    """Normal proposal, wider normal target: the integral is known."""
    x = 1.3 * rng.normal(size=50_000)
    ratio = -0.5 * x**2 + 0.5 * (x / 1.3) ** 2 + np.log(1.3) + 4.0
    found = pareto.smooth(ratio)
    assert abs(found.log_mean - 4.0) < 4 * found.error
    assert found.khat < 0.5


def test_draws_that_are_not_finite_count_as_zero(rng):
    logs = rng.normal(size=500)
    logs[[3, 7]] = np.nan, -np.inf
    found = pareto.smooth(logs)
    assert found.weights[[3, 7]].sum() == 0
    assert found.weights.sum() == pytest.approx(1)
    assert pareto.smooth(np.full(50, np.nan)).khat == np.inf


def test_resampling_keeps_the_weights(rng):
    w = rng.dirichlet(np.ones(50) * 0.3)
    counts = np.bincount(pareto.resample(np.tile(w / 20, 20), 0.5) % 50, minlength=50)
    assert np.abs(counts - 1000 * w).max() < 21


def test_chains(az, rng):
    x = rng.normal(size=(4, 500))
    for t in range(1, 500):  # autocorrelated, one chain elsewhere
        x[:, t] += 0.6 * x[:, t - 1]
    x[0] += 0.3
    assert chains.rhat(x) == pytest.approx(float(az.rhat(x)), rel=1e-9)
    bulk, tail = (float(az.ess(x, method=m)) for m in ("bulk", "tail"))
    assert chains.bulk_ess(x) == pytest.approx(bulk, rel=1e-6)
    assert chains.tail_ess(x) == pytest.approx(tail, rel=1e-6)
    energy = rng.normal(size=(4, 500))
    np.testing.assert_allclose(chains.bfmi(energy), az.bfmi(energy), rtol=1e-9)
