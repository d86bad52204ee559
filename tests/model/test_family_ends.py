"""Residuals where the mean is at the end of its range: nothing over nothing is zero."""

import warnings

import numpy as np
import pytest

import jaxglmm as jg

CASES = [
    (jg.Binomial(), [0.0, 1.0], [0.0, 1.0], 1.0),
    (jg.Binomial(), [0.0, 5.0], [0.0, 1.0], np.array([3.0, 5.0])),
    (jg.Poisson(), [0.0, 0.0], [0.0, 0.0], 1.0),
    (jg.NegativeBinomial(), [0.0, 0.0], [0.0, 0.0], 1.0),
]


@pytest.mark.parametrize(("family", "y", "mu", "trials"), CASES)
def test_a_row_that_is_fitted_perfectly(family, y, mu, trials):
    phi = np.zeros(family.n_phi)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for of in (family.pearson_residuals, family.deviance_residuals):
            found = of(np.array(y), np.array(mu), phi, trials)
            np.testing.assert_array_equal(found, 0.0)


def test_a_row_that_is_impossible_has_lost_everything():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = jg.Binomial().unit_deviance(np.array([1.0]), np.array([0.0]), np.zeros(0))
    assert np.isinf(one).all()
