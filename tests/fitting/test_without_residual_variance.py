"""Structured effects, one row each, whose covariance is all that there is."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

G, T = 25, 6


@pytest.mark.parametrize("seed", range(4))
def test_the_end_is_the_model_of_correlated_residuals(seed):
    """Where the residual variance is estimated as zero; elsewhere a higher maximum."""
    rng = np.random.default_rng(seed)
    g, v = np.repeat(np.arange(G), T), np.tile(np.arange(T), G)
    S = 0.6 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    e = rng.normal(size=(G, T)) @ np.linalg.cholesky(S).T
    x = rng.normal(size=G * T)
    data = pd.DataFrame({"g": g, "v": v, "f": v.astype(str), "x": x})
    data["y"] = 1 + x + e[g, v]
    fit = jg.lmm("y ~ x + ar1(0 + f | g)", data)
    end = jg.lmm("y ~ x", data, residual="ar1(v | g)")
    assert fit.converged, fit.status
    assert fit.log_likelihood > end.log_likelihood - 1e-4
    if fit.sigma < 1e-2:
        assert fit.log_likelihood < end.log_likelihood + 1e-4
        np.testing.assert_allclose(fit.coefficients, end.coefficients, rtol=1e-4)
        np.testing.assert_allclose(fit.se, end.se, rtol=1e-3)
        rho = end.residual_parameters["estimate"]["rho|Residual"]
        assert fit.varcorr["g"].corr.iloc[0, 1] == pytest.approx(rho, abs=1e-3)
    fits = jg.fit_many("y ~ x + ar1(0 + f | g)", data, responses=data[["y"]])
    assert fits.converged.all()
