"""A response of ones is no copy of the intercept: trials and exposures differ."""

import warnings

import numpy as np
import pytest

import jaxglmm as jg


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(*args, **options)


GROUPS = np.arange(40) % 8


@pytest.mark.parametrize("failures", [np.full(40, 9), 5 + np.arange(40) % 3])
def test_one_success_out_of_many(failures):
    data = {"k": np.ones(40), "m": failures, "g": GROUPS}
    fit = quiet("cbind(k, m) ~ 1 + (1|g)", data)
    assert fit.converged
    assert fit.varcorr["g"].sd.iloc[0] < 0.01
    p = 40 / (40 + failures.sum())
    np.testing.assert_allclose(fit.coefficients, np.log(p / (1 - p)), atol=1e-4)


def test_one_event_with_an_exposure():
    t = np.random.default_rng(1).uniform(1, 3, 40)
    data = {"k": np.ones(40), "t": t, "g": GROUPS}
    fit = quiet("k ~ 1 + offset(log(t)) + (1|g)", data, family="poisson")
    np.testing.assert_allclose(fit.coefficients, np.log(40 / t.sum()), atol=1e-4)


def test_successes_are_compared_as_a_proportion():
    """A covariate equal to the counts is none equal to the response."""
    rng = np.random.default_rng(2)
    k = rng.integers(1, 6, 40)
    data = {"k": k, "k2": k, "m": k + rng.integers(1, 9, 40), "g": GROUPS}
    assert quiet("cbind(k, m) ~ k2 + (1|g)", data).converged
    data["share"] = k / (k + data["m"])
    with pytest.raises(jg.ModelError, match="'share' is the response"):
        quiet("cbind(k, m) ~ share + (1|g)", data)
    with pytest.raises(jg.ModelError, match="'k2' is the response"):
        quiet("k ~ k2 + (1|g)", data, family="poisson")
