"""Ranks of the truth are uniform: models of several predictors, and of categories."""

import pytest

from benchmarks import calibration

D = 40
UNLIKELY = 0.002  # ten tests a kind, of fixed seeds


@pytest.mark.slow
@pytest.mark.mcmc
@pytest.mark.parametrize("kind", calibration.KINDS)
def test_posteriors_are_calibrated(kind):
    """Simulation-based calibration (Talts et al. 2018), and that it has power."""
    drawn = calibration.KINDS[kind](D, 7)
    fits = drawn.posteriors(200)
    assert fits.converged.all()
    truth = drawn.truth
    assert calibration.least(fits.ranks(truth)) > UNLIKELY

    def of(draws):
        return calibration.least((draws < truth[:, None]).mean(axis=1))

    middle = fits.mean[:, None]
    assert of(middle + (fits.draws - middle) / 2) < UNLIKELY  # too sure
    assert of(middle + 3 * (fits.draws - middle)) < UNLIKELY  # not sure enough
    shift = fits.draws.std(axis=1, keepdims=True)
    assert of(fits.draws + shift) < UNLIKELY
