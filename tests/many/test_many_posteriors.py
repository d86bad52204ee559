"""Many posteriors at once, and whether they are calibrated."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxglmm as jg

FORMULA = "y ~ period + (1 | herd)"
PRIORS = jg.Priors(
    coefficients=1.0, intercept=jg.Normal(-1, 1), sd=jg.HalfNormal(1), centered=False
)
D = 200


@pytest.fixture(scope="module")
def cbpp():
    return jg.datasets.load("cbpp")


@pytest.fixture(scope="module")
def simulated(cbpp):
    """Parameters from the prior (D, 5), counts from the model (56, D)."""
    rng = np.random.default_rng(3)
    periods = (cbpp["period"].to_numpy()[:, None] == ["2", "3", "4"]).astype(float)
    beta = np.column_stack([rng.normal(-1, 1, D), rng.normal(0, 1, (D, 3))])
    sd = np.abs(rng.normal(0, 1, D))
    codes = np.unique(cbpp["herd"].astype(str), return_inverse=True)[1]
    b = sd[:, None] * rng.normal(size=(D, 15))
    eta = beta[:, :1] + beta[:, 1:] @ periods.T + b[:, codes]
    y = rng.binomial(cbpp["size"].to_numpy(int), 1 / (1 + np.exp(-eta)))
    return np.column_stack([beta, sd]), y.T


def fits_of(cbpp, Y, method, **options):
    return jg.fit_many(
        FORMULA,
        cbpp,
        responses=Y,
        family="binomial",
        trials="size",
        method=method,
        priors=PRIORS,
        progress=False,
        **options,
    )


@pytest.fixture(scope="module")
def fits(cbpp, simulated):
    return fits_of(cbpp, simulated[1], jg.NestedLaplace(draws=400))


@pytest.mark.mcmc
def test_simulation_based_calibration(fits, simulated):
    """Ranks of the truth are uniform, parameter by parameter (Talts et al. 2018)."""
    ranks = fits.ranks(simulated[0])
    assert ranks.shape == (D, 5)
    p = [stats.kstest(column, "uniform").pvalue for column in ranks.T]
    assert min(p) > 0.005
    inside = (fits.lower < simulated[0]) & (simulated[0] < fits.upper)
    assert inside.mean() == pytest.approx(
        0.95, abs=4 * np.sqrt(0.0475 / (5 * D)) + 0.01
    )
    # the test has power: a posterior that is half as wide is found out
    centre = fits.mean[:, None]
    narrow = (fits.draws - centre) / 2 + centre
    rough = (narrow < simulated[0][:, None]).mean(axis=1)
    assert max(stats.kstest(c, "uniform").pvalue for c in rough.T[:4]) < 0.005


def test_each_is_the_fit_alone(fits, cbpp, simulated):
    data = cbpp.assign(y=simulated[1][:, 7])
    one = jg.glmm(
        FORMULA,
        data,
        trials="size",
        method=jg.NestedLaplace(draws=400),
        priors=PRIORS,
    )
    np.testing.assert_allclose(fits.coefficients[7], one.coefficients, atol=1e-10)
    np.testing.assert_allclose(fits.se[7], one.se, atol=1e-10)
    assert fits.log_evidence[7] == pytest.approx(one.log_evidence, abs=1e-9)
    np.testing.assert_allclose(fits[7].coefficients, fits.coefficients[7], rtol=1e-9)
    assert fits.khat[7] == pytest.approx(one.khat, abs=1e-9)
    table = fits.tidy(conf_int=True)
    assert len(table) == 5 * D
    assert (table["conf_low"] < table["estimate"]).all()
    assert list(fits.frame()) == list(fits.names)
    assert "200 of 200 converged" in repr(fits)


def test_a_bad_data_set_leaves_the_others(cbpp, simulated, fits):
    Y = simulated[1][:, :3].astype(float)
    Y[:, 1] = 1e6  # more than the trials
    Y[4, 2] = np.nan
    with pytest.warns(jg.ConvergenceWarning, match="1 of 3"):
        three = fits_of(cbpp, Y, jg.NestedLaplace(draws=400))
    assert three.converged.tolist() == [True, False, True]
    assert np.isnan(three.mean[1]).all()
    assert list(three.errors) == [1]
    np.testing.assert_allclose(three.mean[0], fits.mean[0], atol=1e-10)
    assert np.isfinite(three.mean[2]).all()  # a row less


def test_data_sets_of_a_table(cbpp):
    both = pd.concat([cbpp.assign(copy=k) for k in "ab"], ignore_index=True)
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    many = jg.fit_many(formula, both, by="copy", family="binomial", method="map")
    one = jg.glmm(formula, cbpp, method="map")
    np.testing.assert_allclose(many.coefficients[0], many.coefficients[1], atol=1e-12)
    np.testing.assert_allclose(many["b"].coefficients, one.coefficients, atol=1e-8)
    with pytest.raises(KeyError, match="labels"):
        many["c"]


def test_refusals(cbpp, simulated, fits):
    Y = simulated[1][:, :2]
    with pytest.raises(jg.NotApplicableError, match="one model at a time"):
        fits_of(cbpp, Y, "nuts")
    with pytest.raises(jg.ModelError, match="file="):
        fits_of(cbpp, Y, "map", file="table")
    with pytest.raises(jg.ModelError, match="needs a Bayesian method"):
        fits_of(cbpp, Y, "laplace")
    with pytest.raises(jg.DataError, match=r"\(200, 5\)"):
        fits.ranks(np.zeros((3, 5)))
