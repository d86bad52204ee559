"""Functions for NumPy arrays agree with SciPy's and are silent."""

import warnings

import numpy as np
from doors import functions
from scipy import special


def test_expit_needs_no_scipy_and_does_not_overflow():
    x = np.concatenate([np.linspace(-700, 760, 2001), [0.0, np.inf, -np.inf, np.nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = functions(x).expit(x)
    np.testing.assert_allclose(found, special.expit(x), rtol=1e-15)
    assert functions(0.0).expit(0.0) == 0.5
