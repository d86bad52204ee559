"""Random slopes whose mean is not in the fixed effects: Newton's method gets there.

Criteria are lme4's, by bobyqa and nloptwrap with tight tolerances, the lower of both.
"""

import numpy as np
import pytest
from doors import _status, newton

import jaxglmm as jg

GROUPS, TIMES = 20, 8
SLOPES = "y ~ 1 + (t | g)"


def growth(seed=1, mean=50.0, intercepts=1.0):
    """Lines whose slopes have ``mean``, as columns."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(GROUPS), TIMES), np.tile(np.arange(TIMES * 1.0), GROUPS)
    slopes = rng.normal(mean, 1, GROUPS)
    levels = intercepts * rng.normal(size=GROUPS)
    y = slopes[g] * t + levels[g] + rng.normal(size=len(g))
    return {"y": y, "t": t, "g": g}


@pytest.mark.parametrize(
    ("mean", "reml", "criterion"),
    [
        (50.0, True, 731.895017),
        (50.0, False, 731.200319),
        (5.0, True, 640.378764),
        (500.0, True, 823.961702),
        (500.0, False, 823.267003),
    ],
)
def test_the_optimum_is_found_in_a_moderate_number_of_steps(mean, reml, criterion):
    fit = jg.lmm(SLOPES, growth(mean=mean), reml=reml)
    assert fit.converged
    np.testing.assert_allclose(fit.criterion, criterion, atol=2e-6)
    assert fit.n_iter < 80
    assert fit.estimates.decrement < 1e-8


def test_a_model_is_no_worse_than_one_inside_it():
    table = growth()
    full, part = jg.lmm(SLOPES, table), jg.lmm("y ~ 1 + (t || g)", table)
    assert full.criterion < part.criterion - 1.9
    assert jg.anova(part, full).statistic > 1.9


def test_without_intercepts_the_covariance_is_singular_and_found():
    with pytest.warns(jg.SingularFitWarning):
        fit = jg.lmm(SLOPES, growth(intercepts=0.0))
    assert fit.converged
    np.testing.assert_allclose(fit.criterion, 696.002788, atol=2e-6)


@pytest.mark.parametrize(
    ("reml", "criterion"), [(True, 1828.33997), (False, 1831.00097)]
)
def test_no_fixed_intercept(reml, criterion):
    sleep = jg.datasets.load("sleepstudy")
    fit = jg.lmm("Reaction ~ 0 + Days + (Days | Subject)", sleep, reml=reml)
    assert fit.converged
    np.testing.assert_allclose(fit.criterion, criterion, atol=1e-5)


def test_arrays_and_many_responses_find_the_same():
    tables = [growth(seed) for seed in (1, 2, 3)]
    t, g = tables[0]["t"], tables[0]["g"]
    alone = [jg.lmm(SLOPES, table) for table in tables]
    arrays = jg.lmm(
        tables[0]["y"],
        np.ones((len(g), 1)),
        {"g": g},
        random_effects={"g": ["1", "t"]},
        random_data={"t": t},
    )
    np.testing.assert_allclose(arrays.criterion, alone[0].criterion, atol=1e-7)
    Y = np.stack([table["y"] for table in tables], axis=1)
    many = jg.fit_many(SLOPES, {"t": t, "g": g}, responses=Y, progress=False)
    assert many.converged.all()
    found = [fit.log_likelihood for fit in alone]
    np.testing.assert_allclose(many.log_likelihood, found, atol=1e-6)


def test_what_is_said_to_be_left_is_about_what_is_left():
    table = growth()
    with pytest.warns(jg.ConvergenceWarning, match="max_iter=12 with about"):
        early = jg.lmm(SLOPES, table, max_iter=12)
    left = early.criterion - jg.lmm(SLOPES, table).criterion
    assert early.n_iter == 12
    assert not early.converged
    assert left / 10 < early.estimates.decrement < 10 * left


@pytest.mark.slow
def test_beside_a_second_factor():
    table = growth()
    rng = np.random.default_rng(5)
    table["h"] = rng.integers(0, 7, len(table["g"]))
    table["y"] = table["y"] + rng.normal(size=7)[table["h"]]
    fit = jg.lmm("y ~ 1 + (t | g) + (1 | h)", table, reml=False)
    assert fit.converged
    np.testing.assert_allclose(fit.criterion, 746.509369, atol=2e-6)


def _creeping(step):
    """f = |x|^2 / 2 with a stand-in Hessian that is too large by 1 / ``step``."""

    def evaluate(x):
        return (x @ x) / 2, x, np.eye(len(x)) / step, np.ones(len(x))

    return evaluate


@pytest.mark.parametrize("step", [0.5, 0.1, 0.02])
def test_slow_convergence_is_not_taken_for_the_end(step):
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        found = newton.minimise(_creeping(step), jnp.ones(2), 1e-8, 5000)
    assert int(found.status) == _status.CONVERGED
    assert float(found.x @ found.x) / 2 < 1e-8
