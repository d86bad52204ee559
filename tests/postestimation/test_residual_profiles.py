"""Profile likelihood of models with a residual structure, against plain searches."""

import numpy as np
import pandas as pd
import pytest
from doors import least, parameters_of, profile, reordered, with_method
from scipy import optimize

import jaxglmm as jg

J, T = 24, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(6)
    g, t = np.repeat(np.arange(J), T), np.tile(np.arange(T), J)
    R = 0.6 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    e = (rng.normal(size=(J, T)) @ np.linalg.cholesky(R).T * [1.0, 1.3, 0.8]).ravel()
    x = rng.normal(size=J * T)
    frame = pd.DataFrame({"g": g, "t": t, "x": x, "y": 2 + 0.5 * x + e, "h": g // 4})
    frame["y"] += 0.7 * rng.normal(size=J // 4)[frame["h"]]
    frame["arm"] = np.where(g % 2, "a", "b")
    frame["visit"] = pd.Categorical([f"v{i}" for i in t])
    return frame.drop(index=[4, 17, 40]).reset_index(drop=True)


CASES = {
    "ar1(t | g)": ["sigma", "rho|Residual"],
    "us(visit | g)": ["sd_v1|Residual", "cor_v2.v1|Residual", "cor_v1.v0|Residual"],
    "toeph(visit | g)": ["sd_v2|Residual", "rho_2|Residual"],
    "car1(t | g) + varident(arm)": ["rho|Residual", "varident(arm): b|Residual"],
    "us(visit | arm / g)": ["sd_v2|Residual.b", "cor_v2.v0|Residual.a"],
}


@pytest.mark.parametrize("residual", CASES)
def test_the_deviance_with_a_parameter_held(data, residual):
    """By SciPy's search under a constraint, without derivatives, from the ML fit."""
    fit = jg.lmm("y ~ x", data, residual=residual)
    most = with_method(fit, False)
    engine = most.engine
    best = engine.theta(most.estimates)
    scale = np.log(engine.fixed.scale) * engine.is_level
    for name in CASES[residual]:
        curve = profile(fit, [name]).curves[name]

        def value_of(theta, name=name):
            found = parameters_of(fit.design, theta + scale, len(theta))
            return next(x.value for x in found if x.label == name)

        at = curve.estimate + (0.3 if name.startswith(("sd", "sigma", "var")) else 0.12)

        def away(theta, at=at, value_of=value_of):
            return value_of(theta) - at

        held = optimize.minimize(
            engine.criterion_at,
            best,
            method="SLSQP",
            constraints={"type": "eq", "fun": away},
            options={"ftol": 1e-12, "maxiter": 300},
        )
        assert held.success
        expected = np.sqrt(held.fun - most.criterion)
        assert curve.zeta(at) == pytest.approx(expected, rel=2e-4)


def test_limits_are_where_the_deviance_has_risen(data):
    fit = jg.lmm("y ~ x", data, residual="csh(visit | g)")
    found = profile(fit)
    limits = found.intervals(0.9)
    names = ["sd_v0|Residual", "sd_v1|Residual", "sd_v2|Residual", "rho|Residual"]
    assert list(limits.index) == [*names, "(Intercept)", "x"]
    assert list(fit.confint(method="profile", level=0.9).index) == list(limits.index)
    for curve in found.curves.values():
        low, high = limits.loc[curve.name]
        assert curve.zeta(low) == pytest.approx(-1.644854, abs=1e-3)
        assert curve.zeta(high) == pytest.approx(1.644854, abs=1e-3)
    # a coefficient is held as an offset: the same as a fit with the offset
    low = limits.loc["x", "lower"]
    held = jg.lmm(
        "y ~ 1",
        data.assign(y=data["y"] - low * data["x"]),
        residual="csh(visit | g)",
        reml=False,
    )
    most = with_method(fit, False)
    assert held.criterion - most.criterion == pytest.approx(1.644854**2, abs=2e-3)


def test_beside_random_effects(data):
    fit = jg.lmm("y ~ x + (1 | h)", data, residual="ar1(t | g)")
    table = fit.confint(method="profile")
    assert "sd_(Intercept)|h" in table.index
    low, high = table.loc["sd_(Intercept)|h"]
    assert low <= float(fit.varcorr["h"].sd.iloc[0]) <= high
    wald = fit.confint()
    for name in ("sigma", "rho|Residual", "x"):
        width = table.loc[name].diff().iloc[-1] / wald.loc[name].diff().iloc[-1]
        assert width == pytest.approx(1, abs=0.3)


def test_visits_in_another_order_are_the_same_model(data):
    fit = with_method(jg.lmm("y ~ x", data, residual="us(visit | arm / g)"), False)
    engine = fit.engine
    theta = engine.theta(fit.estimates)
    problem, start = reordered(engine.problem, theta, [2, 0, 1])
    _, here = least(engine.problem, theta, None, 0.0)
    _, there = least(problem, start, None, 0.0)
    assert there == pytest.approx(here, rel=1e-12)


def test_coefficients_of_a_dispersion_have_the_profiles_of_the_rows():
    """The same likelihood by its blocks, and by rows with automatic derivatives."""
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(16), 5), rng.normal(size=80)
    y = 1 + x + rng.normal(size=16)[g] + np.exp(0.3 * x) * rng.normal(size=80)
    data = {"y": y, "x": x, "g": g}
    formula = "y ~ x + (1 | g)"
    rows = jg.glmm(formula, data, family="gaussian", dispersion="~ x")
    found = jg.lmm(formula, data, dispersion="~ x").confint(method="profile")
    names = ["disp~(Intercept)", "disp~x"]
    expected = rows.profile(names).intervals()
    np.testing.assert_allclose(found.loc[names], expected, atol=2e-5)
    assert list(found.index[2:]) == ["sd_(Intercept)|g", "(Intercept)", "x"]
    # another origin and unit of x, and of y: the coefficients move with them
    far = {"y": 1e3 * y, "x": 2020 + 0.01 * x, "g": g}
    moved = jg.lmm(formula, far, dispersion="~ x").profile("disp~x").intervals()
    np.testing.assert_allclose(moved.to_numpy() / 100, found.loc[["disp~x"]], rtol=1e-4)
