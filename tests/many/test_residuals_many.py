"""Many data sets with correlated residuals: each is what it is alone."""

import numpy as np
import pandas as pd
import pytest
from doors import ragged_residuals

import jaxglmm as jg

pytestmark = pytest.mark.usefixtures("always_compiled")

SUBJECTS, VISITS = 24, 3


def trial():
    rng = np.random.default_rng(4)
    subject = np.repeat(np.arange(SUBJECTS), VISITS)
    visit = np.tile(np.arange(VISITS), SUBJECTS)
    x = rng.normal(size=len(subject))
    y = x + rng.normal(size=SUBJECTS)[subject] + rng.normal(size=len(subject))
    data = pd.DataFrame({"y": y, "x": x, "subject": subject, "visit": visit})
    return data[rng.random(len(data)) > 0.1].reset_index(drop=True)


@pytest.mark.parametrize("structure", ["us", "ar1"])
def test_responses_are_what_they_are_alone(structure):
    data = trial()
    residual = f"{structure}(visit | subject)"
    fit = jg.lmm("y ~ x", data, residual=residual)
    Y = fit.simulate(5, seed=1).T
    Y[3, 4] = np.nan
    fits = jg.fit_many("y ~ x", data, responses=Y, residual=residual)
    for i in range(5):
        rows = ~np.isnan(Y[:, i])
        own = data[rows].assign(y=Y[rows, i])
        one = jg.lmm("y ~ x", own, residual=residual)
        np.testing.assert_allclose(fits.coefficients[i], one.coefficients, rtol=1e-6)
        np.testing.assert_allclose(fits.df[i], one.denominator_df, rtol=1e-5)
        ours = fits.log_likelihood[i]
        np.testing.assert_allclose(ours, one.log_likelihood, rtol=1e-9)
        found = fits.frame().iloc[i]
        for name, value in one.dispersions.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4)


def test_data_sets_of_one_table_may_share_labels():
    data = trial()
    both = pd.concat([data.assign(set=k, y=data["y"] * (k + 1)) for k in range(2)])
    residual = "ar1(visit | subject)"
    fits = jg.fit_many("y ~ x", both, by="set", residual=residual)
    one = jg.lmm("y ~ x", data, residual=residual)
    np.testing.assert_allclose(fits.coefficients[0], one.coefficients, rtol=1e-6)
    np.testing.assert_allclose(fits.coefficients[1], 2 * one.coefficients, rtol=1e-5)
    assert fits[1].structure == "ar1"
    twice = pd.concat([both, both.iloc[:1]])
    with pytest.warns(jg.ConvergenceWarning):
        some = jg.fit_many("y ~ x", twice, by="set", residual=residual)
    assert some.converged.tolist() == [False, True]


def test_a_response_that_cannot_be_fitted_has_a_status():
    data = trial()
    Y = np.stack([data["y"], np.ones(len(data)), 3 * data["x"]], axis=1)
    with pytest.warns(jg.ConvergenceWarning):
        fits = jg.fit_many("y ~ x", data, responses=Y, residual="cs(1 | subject)")
    assert fits.converged.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("y ~ x", "us(visit | arm / subject)"),
        ("y ~ x + (1 | subject)", "ar1(visit | subject)"),
    ],
)
def test_lanes_of_one_table_are_what_they_are_alone(formula, residual, monkeypatch):
    """Beside them data sets without a visit, twice at one, and without an answer."""
    data, rng = trial(), np.random.default_rng(8)
    data["arm"] = np.where(data["subject"] % 2, "p", "q")
    sets = []
    for k in range(11):
        own = data[rng.random(len(data)) > 0.1 * (k > 2)].assign(set=k)
        sets.append(own.assign(y=own["y"] + rng.normal(size=len(own))))
    sets[1] = sets[1][sets[1]["visit"] < 2]
    sets[3] = pd.concat([sets[3], sets[3].iloc[:1]])
    sets[5] = sets[5].assign(y=1.0)
    table = pd.concat(sets)
    with pytest.warns(jg.JaxGLMMWarning):
        loop = jg.fit_many(formula, table, by="set", residual=residual)
    monkeypatch.setattr(ragged_residuals, "WORTH", 2)
    called = []
    real = ragged_residuals._lanes
    monkeypatch.setattr(
        ragged_residuals, "_lanes", lambda *a: called.append(1) or real(*a)
    )
    with pytest.warns(jg.JaxGLMMWarning):
        fits = jg.fit_many(formula, table, by="set", residual=residual)
    assert called
    assert fits.status.tolist() == loop.status.tolist()
    assert not fits.converged[[3, 5]].any()
    assert fits.converged.sum() >= 8
    np.testing.assert_allclose(fits.frame(), loop.frame(), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(fits.df, loop.df, rtol=1e-4)
    np.testing.assert_allclose(fits.log_likelihood, loop.log_likelihood, rtol=1e-9)
