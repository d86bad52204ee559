"""Rows of weight zero are predicted, and count no more than if they were absent."""

import numpy as np
import pandas as pd
import pytest
from doors import resolve

import jaxglmm as jg

OUT = np.arange(120) % 5 == 2
OUT[:10] = True  # all rows of the first level


@pytest.fixture(scope="module")
def data():
    """Rows of weight zero differ from the others in everything."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(12), 10)
    x = rng.normal(size=120) + 20 * OUT
    f = rng.choice(list("ab"), 120)
    f[OUT] = "a"
    eta = 0.3 * x + 0.5 * (f == "b") + rng.normal(size=12)[g]
    y = eta + x * rng.normal(size=12)[g] + rng.normal(size=120) + 100 * OUT
    k = rng.poisson(np.exp(np.minimum(eta, 3.0)))
    return pd.DataFrame({"y": y, "k": k, "x": x, "f": f, "g": g, "w": 1.0 * ~OUT})


def linear(data, **options):
    return jg.lmm("y ~ x + f + (x | g)", data, **options)


def counts(data, **options):
    return jg.glmm("k ~ x + f + (1 | g)", data, family="poisson", **options)


@pytest.fixture(scope="module", params=[linear, counts])
def pair(request, data):
    """The fit with weights, and the fit of the rows that have one."""
    part = data[~OUT].reset_index(drop=True)
    return request.param(data, weights="w"), request.param(part)


def test_numbers_of_the_fit(pair):
    fit, part = pair
    pd.testing.assert_frame_equal(fit.glance(), part.glance(), rtol=1e-5)
    assert fit.nobs == int((~OUT).sum())
    assert fit.ngroups == part.ngroups == {"g": 11}
    for name in ("marginal", "conditional"):
        assert getattr(fit.r2(), name) == pytest.approx(getattr(part.r2(), name), 1e-5)
    assert fit.icc() == pytest.approx(part.icc(), 1e-5)
    assert fit.icc(adjusted=False) == pytest.approx(part.icc(adjusted=False), 1e-5)


def test_summaries_are_the_same_text(pair):
    fit, part = pair
    for one, two in zip(
        fit.summary().splitlines(), part.summary().splitlines(), strict=True
    ):
        assert one == two


@pytest.mark.parametrize("grid", ["observed", "equal"])
def test_averages(pair, grid):
    fit, part = pair
    for table, other in (
        (fit.predictions(by="f", grid=grid), part.predictions(by="f", grid=grid)),
        (fit.contrasts("f", grid=grid), part.contrasts("f", grid=grid)),
        (fit.slopes("x", by="f"), part.slopes("x", by="f")),
        (fit.slopes("x"), part.slopes("x")),
    ):
        pd.testing.assert_frame_equal(table, other, rtol=1e-4, atol=1e-7)


def test_they_keep_their_places(pair):
    fit, part = pair
    np.testing.assert_allclose(
        fit.fitted_values[~OUT], part.fitted_values, rtol=1e-4, atol=1e-6
    )
    assert fit.fitted_values.shape == fit.residuals.shape == (120,)
    assert len(fit.augment()) == len(fit.predictions()) == 120
    assert len(fit.ranef["g"]) == 12
    assert fit.ranef["g"].loc[0].abs().max() == 0


def test_checks(pair):
    fit, part = pair
    table, other = fit.check(n=50).table, part.check(n=50).table
    assert list(table.index) == list(other.index)
    if "Pearson" in table.index:
        np.testing.assert_allclose(
            table.loc["Pearson", ["observed", "p_value"]].astype(float),
            other.loc["Pearson", ["observed", "p_value"]].astype(float),
            rtol=1e-4,
        )
    assert fit.simulate(2, seed=1).shape == (2, 120)


def test_residual_degrees_of_freedom(data):
    fit = linear(data, weights="w", compute_satterthwaite=False)
    assert fit.df_satterthwaite.tolist() == [int((~OUT).sum()) - 3] * 3
    assert fit.predictions(by="f")["df"].tolist() == [int((~OUT).sum()) - 3] * 2


def test_too_few_rows_count(data):
    """As many levels as rows that count is refused, as without the others."""
    g = np.where(np.arange(120) < 12, np.arange(120), 0)
    w = 1.0 * (np.arange(120) < 12)
    with pytest.raises(jg.ModelError, match="12 levels for 12 rows"):
        jg.lmm("y ~ x + (1 | g)", data.assign(g=g, w=w), weights="w")


@pytest.mark.slow
def test_posteriors(data):
    """Leave-one-out does not know of the others."""
    fit = jg.glmm(
        "k ~ x + f + (1 | g)", data, family="poisson", method="map", weights="w"
    )
    assert fit.nobs == int((~OUT).sum())
    assert len(fit.loo().khat) == fit.nobs
    assert len(fit.loo(by="g").khat) == 11


def test_default_priors(pair):
    """They know the scale of the rows that count."""
    family = getattr(pair[0], "family", jg.Gaussian())
    one, two = (str(resolve(fit.design, family, None)) for fit in pair)
    assert one == two


@pytest.mark.slow
def test_many_fits(data):
    Y = np.column_stack([data["y"], data["y"] ** 2])
    few = {"responses": Y[~OUT], "data": data[~OUT]}
    both = {"responses": Y, "data": data, "weights": 1.0 * ~OUT}
    one, two = (jg.fit_many("y ~ x + f + (1 | g)", **kw) for kw in (both, few))
    pd.testing.assert_frame_equal(one.frame(), two.frame(), rtol=1e-6)
    assert one[0].nobs == two[0].nobs
