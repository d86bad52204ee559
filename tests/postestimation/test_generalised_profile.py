"""Profiles of generalised fits: closed forms, the linear twin, lme4, and the ends."""

import pickle
import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from cases import r_name, reference
from doors import (
    FISHER,
    LOG,
    PLAIN,
    Curve,
    GeneralisedFit,
    design_from_formula,
    integrator,
)
from doors import fitting_generalised as engine
from scipy import optimize, stats

import jaxglmm as jg
from jaxglmm.model.families import Gaussian

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def through_laplace(formula, data):
    """A linear mixed model by the engine of generalised ones, exact there."""
    design = design_from_formula(formula, data)
    family, marginal = Gaussian(), integrator()
    own = engine.build(design, family, marginal)
    found = engine.estimates(own, design, own.fit(1e-10))
    return GeneralisedFit(design, found, family, marginal, own)


@pytest.fixture(scope="module")
def cbpp():
    return jg.datasets.load("cbpp")


@pytest.fixture(scope="module")
def fit(cbpp):
    return jg.glmm(CBPP, cbpp, tol=1e-10)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(3)
    g, x = np.arange(120) % 12, rng.normal(size=120)
    f = np.array(list("abc"))[np.arange(120) * 3 // 120]
    y = rng.poisson(np.exp(0.8 + 0.4 * x + 0.1 * rng.normal(size=12)[g]))
    return {"y": y, "x": x, "g": g, "f": f}


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(*args, **options)


# Closed forms and the linear twin -----------------------------------------------------


def test_linear_model_without_random_effects():
    """n log(1 + t^2 / (n - p)) for a coefficient, the profile of sigma for sigma."""
    rng = np.random.default_rng(0)
    n, x = 40, rng.normal(size=40)
    y = 1 + 0.3 * x + rng.normal(size=n)
    fit = jg.glmm("y ~ x", {"y": y, "x": x}, family="gaussian", tol=1e-10)
    X = np.column_stack([np.ones(n), x])
    b, rss = np.linalg.lstsq(X, y, rcond=None)[:2]
    curves = fit.profile().curves
    spread = np.sqrt(np.linalg.inv(X.T @ X)[1, 1] * rss[0] / (n - 2))
    for value in (b[1] - 0.5, b[1] + 0.1, 2.0):
        t = (value - b[1]) / spread
        zeta = np.sign(t) * np.sqrt(n * np.log1p(t**2 / (n - 2)))
        np.testing.assert_allclose(curves["x"].zeta(value), zeta, rtol=1e-6)
    best = np.sqrt(rss[0] / n)
    for value in (0.8 * best, 1.5 * best):
        rise = 2 * n * np.log(value / best) + rss[0] * (value**-2 - best**-2)
        zeta = np.sign(value - best) * np.sqrt(rise)
        np.testing.assert_allclose(curves["sigma"].zeta(value), zeta, rtol=1e-6)


@pytest.mark.parametrize(
    "formula",
    ["Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (Days || Subject)"],
)
def test_the_linear_mixed_model(formula):
    """Laplace's approximation is exact for it, so both kinds of profile agree."""
    data = jg.datasets.load("sleepstudy")
    linear = jg.lmm(formula, data, reml=False, tol=1e-10).profile().intervals(0.9)
    other = through_laplace(formula, data).profile().intervals(0.9)
    assert set(other.index) == set(linear.index)
    other = other.loc[linear.index]
    np.testing.assert_allclose(other, linear, rtol=2e-4, atol=2e-4)


def test_a_correlation_and_sds_by_brute_force():
    """Maximised by a general optimiser under a constraint, at values far out."""
    data = jg.datasets.load("epil2")
    fit = jg.glmm("y ~ Visit + (Visit | subject)", data, family="poisson", tol=1e-10)
    curves = fit.profile("theta").curves
    own, T = fit.engine, fit.engine.factors[0].T
    psi, u = fit.internal()

    def covariance(x):
        L = np.linalg.solve(T, np.array([[x[2], 0.0], [x[3], x[4]]]))
        return L @ L.T

    def correlation(x):
        S = covariance(x)
        return S[1, 0] / np.sqrt(S[0, 0] * S[1, 1])

    compiled = jax.jit(lambda x: own.marginal.derivatives(own.base, x, u))

    def value(x):
        at = compiled(x)
        return float(at.value), np.asarray(at.score)

    held = {
        "sd_(Intercept)|subject": (lambda x: np.sqrt(covariance(x)[0, 0]), 0.8),
        "sd_Visit|subject": (lambda x: np.sqrt(covariance(x)[1, 1]), 0.4),
        "cor_Visit.(Intercept)|subject": (correlation, 0.5),
    }
    for name, (function, at) in held.items():

        def off(x, function=function, at=at):
            return function(x) - at

        with jax.enable_x64(True):
            found = optimize.minimize(
                value,
                psi,
                jac=True,
                method="SLSQP",
                constraints=[{"type": "eq", "fun": off}],
                options={"ftol": 1e-12, "maxiter": 200},
            )
        rise = np.sqrt(found.fun - fit.criterion)
        zeta = curves[name].zeta(at)
        np.testing.assert_allclose(abs(zeta), rise, rtol=1e-4)
        assert np.sign(zeta) == np.sign(at - curves[name].estimate)


# Another program ----------------------------------------------------------------------


@pytest.mark.reference
def test_against_lme4(fit):
    """Within 1e-3, what is left is the interpolation in R."""
    ref = reference("cbpp_laplace")["confint_profile"]
    ours = fit.confint(method="profile", level=ref["level"])
    ours.index = [r_name(name) for name in ours.index]
    limits = ours.loc[ref["names"]]
    np.testing.assert_allclose(limits["lower"], ref["lower"], atol=1e-3)
    np.testing.assert_allclose(limits["upper"], ref["upper"], atol=1e-3)


# What a profile is made of ------------------------------------------------------------


def test_zeta_passes_through_the_estimate(fit):
    profile = fit.profile(["period[T.2]", "sd_(Intercept)|herd"])
    assert repr(profile) == "Profile of period[T.2], sd_(Intercept)|herd"
    for curve in profile.curves.values():
        assert curve.zeta(curve.estimate) == 0.0
        assert abs(curve.zeta(curve.meets(1.0)) - 1.0) < 1e-5
    table = profile.zeta
    assert isinstance(table, pd.DataFrame)
    for _, part in table.groupby("parameter"):
        assert (np.diff(part["zeta"]) > 0).all()
    # next to the estimate it is Wald's z
    curve = profile.curves["period[T.2]"]
    small = curve.estimate + 0.01 * fit.se[1]
    np.testing.assert_allclose(curve.zeta(small), 0.01, rtol=0.01)
    with pytest.raises(jg.NotApplicableError, match="there is no parameter 'sigma'"):
        fit.profile("sigma")


def test_by_quadrature_and_after_pickling(cbpp, fit, tmp_path):
    """AGQ's likelihood is profiled, not Laplace's; nothing of the engine is needed."""
    agq = jg.glmm(CBPP, cbpp, method=jg.AGQ(9))
    name = "sd_(Intercept)|herd"
    here = agq.profile(name).intervals()
    assert abs(here - fit.profile(name).intervals()).to_numpy().max() > 1e-3
    agq.save(tmp_path / "fit")
    for again in (pickle.loads(pickle.dumps(agq)), jg.load(tmp_path / "fit")):
        np.testing.assert_allclose(again.profile(name).intervals(), here, rtol=1e-5)


def test_crossed_effects_with_an_offset(counts):
    rng = np.random.default_rng(1)
    data = counts | {"h": rng.integers(0, 7, 120), "o": rng.normal(size=120) / 5}
    fit = quiet("y ~ x + (1 | g) + (1 | h)", data, family="poisson", offset="o")
    limits = fit.profile(["theta", "x"]).intervals()
    assert limits.index.tolist() == ["sd_(Intercept)|g", "sd_(Intercept)|h", "x"]
    np.testing.assert_allclose(limits.loc["x"], fit.confint().loc["x"], rtol=0.1)
    assert ((limits["upper"] > limits["lower"]) & (limits["lower"] >= 0)).all()


def test_weights_are_copies(counts):
    """Without random effects; the profile looks at the weighted likelihood."""
    w = np.random.default_rng(1).integers(1, 3, 120).astype(float)
    data = {name: counts[name] for name in ("y", "x")}
    fit = jg.glmm("y ~ x", data, family="poisson", weights=w)
    twice = {k: np.repeat(v, w.astype(int)) for k, v in data.items()}
    again = jg.glmm("y ~ x", twice, family="poisson")
    limits, others = (f.profile().intervals() for f in (fit, again))
    np.testing.assert_allclose(limits, others, atol=1e-5)


# The ends -----------------------------------------------------------------------------


def test_a_variance_of_zero_and_no_overdispersion(counts):
    fit = quiet("y ~ x + (1 | g)", counts, family="nbinom2")
    limits = fit.profile().intervals()
    assert limits.index[1] == "phi"
    assert limits.loc["sd_(Intercept)|g", "lower"] == 0.0
    assert limits.loc["phi", "upper"] == np.inf
    # the lower limit of phi: where the deviance is 3.84 above that of poisson
    curve = fit.profile("phi").curves["phi"]
    rise = curve.zeta(limits.loc["phi", "lower"]) ** 2
    np.testing.assert_allclose(rise, stats.chi2.ppf(0.95, 1), rtol=1e-4)


def test_a_coefficient_at_infinity(counts):
    data = counts | {"y": np.where(counts["f"] == "b", 0, counts["y"])}
    fit = quiet("y ~ x + f + (1 | g)", data, family="poisson")
    limits = fit.confint(method="profile")
    assert limits.loc["f[T.b]", "lower"] == -np.inf
    assert -6 < limits.loc["f[T.b]", "upper"] < -2
    assert np.isfinite(limits.drop(index="f[T.b]").to_numpy()[1:]).all()


@pytest.mark.parametrize(
    ("scale", "ends", "estimate"),
    [
        (PLAIN, (-np.inf, np.inf), 2.0),
        (LOG, (0.0, np.inf), 2.0),
        (FISHER, (-1, 1), 0.9),
    ],
)
def test_search_of_a_limit(scale, ends, estimate):
    """zeta linear on the scale of the search, or never rising to one side."""
    centre = scale.to(estimate)
    curve = Curve(
        "a", estimate, 0.1, ends, lambda v: 4 * (scale.to(v) - centre) ** 2, 0.0, scale
    )
    for target in (-1.96, 0.5, 3.0):
        found = curve.meets(target)
        np.testing.assert_allclose(scale.to(found), centre + target / 2, atol=1e-5)

    def half(v):
        with np.errstate(divide="ignore"):
            return 4 * max(scale.to(v) - centre, 0.0) ** 2

    curve = Curve("a", estimate, 0.1, ends, half, 0.0, scale)
    assert curve.meets(-1.96) == ends[0]

    def broken(v):
        with np.errstate(divide="ignore"):
            return half(v) if scale.to(v) > centre - 7 else np.nan

    curve = Curve("a", estimate, 0.1, ends, broken, 0.0, scale)
    assert curve.meets(-1.96) == ends[0]
    np.testing.assert_allclose(scale.to(curve.meets(1.0)), centre + 0.5, atol=1e-5)
