"""Origins of covariates, sizes of weights: what they may change, and nothing else."""

import warnings

import numpy as np
import pytest

import jaxglmm as jg

ORIGINS = [0, 1_700_000_000, -3e9, 1e11]
SCALES = [1e-300, 1e-12, 3.7, 1e10, 1e300]


def growth(origin=0.0):
    """Lines over ten times from ``origin`` on, twenty of them."""
    rng = np.random.default_rng(1)
    s, g = np.tile(np.arange(10) * 6, 20), np.repeat(np.arange(20), 10)
    slopes, levels = rng.normal(0, 0.05, 20), rng.normal(0, 1, 20)
    y = 0.1 * s + slopes[g] * s + levels[g] + rng.normal(size=200)
    x = np.random.default_rng(2).normal(size=200)
    return {"y": y, "s": s + origin, "g": g, "x": x}


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.lmm(*args, **options)


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ s + (s | g)",
        "y ~ 1 + (s | g)",
        "y ~ s + x + (s + x | g)",
    ],
)
def test_an_origin_changes_nothing(formula, origin):
    at_zero, moved = quietly(formula, growth()), quietly(formula, growth(origin))
    assert moved.converged
    assert moved.is_singular == at_zero.is_singular
    np.testing.assert_allclose(moved.criterion, at_zero.criterion, atol=1e-6)
    np.testing.assert_allclose(moved.sigma, at_zero.sigma, rtol=1e-6)
    slope = moved.varcorr["g"].sd["s"]
    np.testing.assert_allclose(slope, at_zero.varcorr["g"].sd["s"], rtol=1e-5)
    if "s + (" in formula:
        np.testing.assert_allclose(moved.se[1], at_zero.se[1], rtol=1e-6)
        df = at_zero.df_satterthwaite[1]
        np.testing.assert_allclose(moved.df_satterthwaite[1], df, rtol=1e-4)
    b, a = np.asarray(moved.ranef["g"])[:, 1], np.asarray(at_zero.ranef["g"])[:, 1]
    np.testing.assert_allclose(b, a, atol=1e-6)
    tolerance = max(1e-6, 1e-15 * abs(origin))
    predicted = at_zero.predict(growth())
    np.testing.assert_allclose(moved.predict(growth(origin)), predicted, atol=tolerance)


def test_data_sets_of_a_long_table_and_many_responses_far_from_zero():
    far, near = growth(1_700_000_000), growth()
    fit = jg.lmm("y ~ s + (s | g)", near)
    tables = [far, far]
    for fits in (
        jg.fit_many("y ~ s + (s | g)", tables, progress=False),
        jg.fit_many(
            "y ~ s + (s | g)", far, responses=far["y"][:, None], progress=False
        ),
    ):
        np.testing.assert_allclose(fits.log_likelihood, fit.log_likelihood, atol=1e-5)
        np.testing.assert_allclose(fits.se[:, 1], fit.se[1], rtol=1e-5)


def test_too_far_from_zero_is_said():
    with pytest.warns(jg.ScaleWarning, match=r"s lies \de\+1\d standard deviations"):
        fit = jg.lmm("y ~ s + (s | g)", growth(1e13))
    np.testing.assert_allclose(fit.criterion, 638.791974, atol=1e-5)
    assert any("standard deviations from zero" in text for text in fit.warnings)


def test_a_slope_without_intercept_is_the_model_as_written():
    # through the origin 1.7e9 away the slopes cannot differ
    fit = quietly("y ~ s + (0 + s | g)", growth(1_700_000_000))
    np.testing.assert_allclose(fit.criterion, 665.690448, atol=1e-4)
    # with one more column the origin is that of the model, and lme4's numbers hold
    np.testing.assert_allclose(
        quietly("y ~ s + (0 + s | g)", growth()).criterion, 678.109151, atol=1e-5
    )


def weighted():
    rng = np.random.default_rng(1)
    n = 200
    g, h, x = rng.integers(0, 20, n), rng.integers(0, 8, n), rng.normal(size=n)
    y = x + rng.normal(size=20)[g] + rng.normal(size=n)
    return {"y": y, "x": x, "g": g, "h": h}, rng.uniform(0.5, 2, n)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)"]
)
def test_a_factor_of_all_weights_is_one_of_sigma(formula, scale):
    table, w = weighted()
    plain, other = (quietly(formula, table, weights=c * w) for c in (1.0, scale))
    assert other.converged
    assert other.is_singular == plain.is_singular
    same = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(other.criterion, plain.criterion, **same)
    np.testing.assert_allclose(other.sigma / np.sqrt(scale), plain.sigma, **same)
    np.testing.assert_allclose(other.coefficients, plain.coefficients, **same)
    np.testing.assert_allclose(other.se, plain.se, **same)
    df = plain.df_satterthwaite
    np.testing.assert_allclose(other.df_satterthwaite, df, rtol=1e-6)
    sd = plain.varcorr["g"].sd
    np.testing.assert_allclose(other.varcorr["g"].sd, sd, rtol=1e-8)
    for a, b in zip(other.ranef_cov.values(), plain.ranef_cov.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e10])
def test_weights_of_many_responses(scale):
    table, w = weighted()
    Y = np.stack([table["y"], table["y"] ** 2], axis=1)
    own = np.stack([w, w[::-1]], axis=1)
    Z = Y.copy()
    Z[3, 1] = np.nan  # a row less for one response: weights lane by lane
    for responses, weights in ((Y, w), (Y, own), (Z, w)):
        one, other = (
            jg.fit_many(
                "y ~ x + (1 | g)",
                table,
                responses=responses,
                weights=c * weights,
                progress=False,
            )
            for c in (1.0, scale)
        )
        np.testing.assert_allclose(other.log_likelihood, one.log_likelihood, atol=1e-7)
        np.testing.assert_allclose(other.se, one.se, rtol=1e-7)
        np.testing.assert_allclose(other.df, one.df, rtol=1e-5)
        np.testing.assert_allclose(other.sigma / np.sqrt(scale), one.sigma, rtol=1e-8)
        assert (other.singular == one.singular).all()


def test_rows_that_hardly_count_do_not_make_a_fit_singular():
    table, _ = weighted()
    w = np.where(np.arange(200) % 2, 1.0, 1e-20)
    half = {name: column[1::2] for name, column in table.items()}
    fit, part = (
        jg.lmm("y ~ x + (1 | g)", table, weights=w),
        jg.lmm("y ~ x + (1 | g)", half),
    )
    assert not fit.is_singular
    np.testing.assert_allclose(fit.coefficients, part.coefficients, rtol=0.02)
