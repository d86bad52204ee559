"""Many responses of models with several predictors: lanes are single fits."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from doors import ModelSource, Responses, choose, response_rows
from doors import many_generalised as generalised
from doors import many_plan as plan
from doors import profile_generalised as profile

import jaxglmm as jg

pytestmark = pytest.mark.usefixtures("double")

J, ROWS, L = 12, 8, 3
rng = np.random.default_rng(1)
X = rng.normal(size=J * ROWS)
G = np.repeat(np.arange(J), ROWS)


def counts(seed):
    own = np.random.default_rng(seed)
    y = own.poisson(np.exp(1.2 + 0.4 * X + 0.5 * own.normal(size=J)[G]))
    return np.where(own.random(len(X)) < 0.25, 0, y)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + (1 | g)", {"family": "poisson", "zi": "~ x"}),
        ("y ~ x + offset(x) + (1 | g)", {"family": "nbinom2", "dispersion": "~ x"}),
    ],
)
def test_lanes_are_single_fits(formula, options):
    Y = np.stack([counts(k) for k in range(L)], axis=1).astype(float)
    data = pd.DataFrame({"x": X, "g": G, "y": Y[:, 0]})
    fit = jg.glmm(formula, data, **options)
    given = fit.design.weights, fit.design.offset, fit.design.trials
    how = fit.marginal, fit.family, 1e-9
    source = ModelSource(fit.design, Responses(Y, len(X)), None, *given, *how)
    assert generalised.suits(source)
    (stage,) = plan.plan(source, "cpu").stages
    assert isinstance(stage.engine, generalised.GeneralisedLanes)
    devices = choose("cpu", 1.0)
    rows = response_rows.ResponseRows(source, False, devices)
    engine = generalised.GeneralisedLanes(rows, devices)
    table = engine.fit(np.arange(L), 200)
    p = len(engine.columns.coefficients)
    for k in range(L):
        one = jg.glmm(formula, data.assign(y=Y[:, k]), **options)
        np.testing.assert_allclose(
            table[k, :p], one.estimates.beta, rtol=1e-8, atol=1e-8
        )
        se = np.asarray(one.se)
        np.testing.assert_allclose(table[k, p : 2 * p], se, rtol=1e-7)
        assert table[k, -1] == 0


def test_bootstraps_of_several_predictors():
    data = pd.DataFrame({"x": X, "g": G, "y": counts(0)})
    fit = jg.glmm("y ~ x + (1 | g)", data, family="poisson", zi="~ 1")
    fits = fit.bootstrap(n=4, seed=1)
    assert [*fits.frame().columns[:3]] == ["(Intercept)", "x", "zi~(Intercept)"]
    assert np.isfinite(fits.frame()).to_numpy().all()


@pytest.mark.slow
def test_profiles_in_lanes_are_those_one_by_one():
    data = pd.DataFrame({"x": X, "g": G, "y": counts(0)})
    found = []
    for lanes in (True, False):
        with mock.patch.object(profile, "suits", lambda source, use=lanes: use):
            fit = jg.glmm("y ~ x + (1 | g)", data, family="poisson", zi="~ 1")
            found.append(fit.confint(method="profile"))
    np.testing.assert_allclose(*found, atol=1e-4)
