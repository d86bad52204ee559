"""Balanced one-way layouts: every estimate has a formula.

REML: sigma^2 = MSE, sigma_a^2 = (MSA - MSE) / k. ML: MSA times (J - 1) / J in place.
Where that is negative the variance is zero, and sigma^2 comes from the total.
"""

import numpy as np
import pytest

import jaxglmm as jg

J, K = 12, 5
TIGHT = {"rtol": 1e-9}


def layout(rng, between, origin=100.0, unit=3.0):
    y = between * np.repeat(rng.normal(size=J), K) + rng.normal(size=J * K)
    return origin + unit * y, np.repeat([f"level {i}" for i in range(J)], K)


def squares(y):
    table = y.reshape(J, K)
    MSA = K * np.var(table.mean(axis=1), ddof=1)
    MSE = np.mean(np.var(table, axis=1, ddof=1))
    return MSA, MSE


def log_density(y, mean, variance, sigma2, reml):
    """-2 log-likelihood: eigenvalues sigma2 + K variance (J times) and sigma2."""
    table = y.reshape(J, K)
    top = sigma2 + K * variance
    within = np.sum((table - table.mean(axis=1, keepdims=True)) ** 2)
    between = K * np.sum((table.mean(axis=1) - mean) ** 2)
    n = len(y)
    d = J * np.log(top) + (n - J) * np.log(sigma2) + within / sigma2 + between / top
    if not reml:
        return d + n * np.log(2 * np.pi)
    return d + (n - 1) * np.log(2 * np.pi) + np.log(n / top)  # X'V^-1X = n / top


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("between", [0.6, 3.0])
@pytest.mark.parametrize(("origin", "unit"), [(100.0, 3.0), (1e6, 1e-3)])
def test_interior(reml, between, origin, unit, rng):
    y, g = layout(rng, between, origin, unit)
    MSA, MSE = squares(y)
    expected = ((MSA if reml else MSA * (J - 1) / J) - MSE) / K
    assert expected > 0
    fit = jg.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g}, reml=reml)
    assert fit.converged
    assert not fit.is_singular
    np.testing.assert_allclose(fit.coefficients, [y.mean()], **TIGHT)
    # where the origin is 1e9 units away, the data themselves have 7 digits
    rtol = 1e-9 if origin < 1e3 else 1e-7
    np.testing.assert_allclose(fit.sigma**2, MSE, rtol=rtol)
    np.testing.assert_allclose(fit.theta, [np.sqrt(expected / MSE)], rtol=rtol)
    top = MSE + K * expected
    np.testing.assert_allclose(fit.se, [np.sqrt(top / len(y))], rtol=rtol)
    np.testing.assert_allclose(
        fit.criterion, log_density(y, y.mean(), expected, MSE, reml), rtol=rtol
    )
    means = y.reshape(J, K).mean(axis=1) - y.mean()
    shrunk = K * expected / top * means
    b = fit.ranef["g"].loc[[f"level {i}" for i in range(J)]].to_numpy()[:, 0]
    np.testing.assert_allclose(b, shrunk, atol=rtol * 10 * np.abs(shrunk).max())
    if reml:  # the variance of the mean is MSA / n, on J - 1 degrees of freedom
        np.testing.assert_allclose(fit.df_satterthwaite, [J - 1], rtol=1e-6)


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_singular(reml, rng):
    y, g = layout(rng, 0.0)
    table = y.reshape(J, K)
    table -= 0.9 * (table.mean(axis=1, keepdims=True) - table.mean())  # means too near
    y = table.ravel()
    MSA, MSE = squares(y)
    assert MSA < MSE
    with pytest.warns(jg.SingularFitWarning):
        fit = jg.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g}, reml=reml)
    assert fit.converged
    assert fit.is_singular
    assert fit.theta[0] == 0.0
    total = np.sum((y - y.mean()) ** 2) / (len(y) - reml)
    np.testing.assert_allclose(fit.sigma**2, total, **TIGHT)
    np.testing.assert_allclose(fit.se, [np.sqrt(total / len(y))], **TIGHT)
    np.testing.assert_allclose(
        fit.criterion, log_density(y, y.mean(), 0.0, total, reml), **TIGHT
    )
    assert not fit.ranef["g"].to_numpy().any()


def test_the_edge_between_the_two(rng):
    """MSA = MSE: the optimum lies on the boundary, with a flat criterion."""
    y, g = layout(rng, 0.0)
    table = y.reshape(J, K)
    MSA, MSE = squares(y)
    means = table.mean(axis=1, keepdims=True) - table.mean()
    y = (table + (np.sqrt(MSE / MSA) - 1) * means).ravel()
    with pytest.warns(jg.SingularFitWarning):
        fit = jg.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g})
    expected = log_density(y, y.mean(), 0.0, MSE, True)
    np.testing.assert_allclose(fit.criterion, expected, **TIGHT)
    assert fit.theta[0] < 1e-2
