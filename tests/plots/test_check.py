"""One page of checks: its panels, what they say, and models of every kind."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import NotApplicableError


def titles(axes):
    return [ax.get_title(loc="left") for ax in axes]


@pytest.fixture(scope="module")
def sleep():
    return jg.datasets.load("sleepstudy")


def test_panels_of_a_linear_model(sleep):
    fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    axes = fit.plot.check(draws=20)
    assert titles(axes) == [
        "Data and draws",
        "Linearity",
        "Homogeneity of variance",
        "Normal quantiles of residuals",
        "(Intercept) | Subject",
        "Influence of rows",
    ]
    own = axes[0].lines[-1].get_ydata()
    assert own.sum() == fit.nobs
    cook = fit.influence().cook
    np.testing.assert_allclose(np.max(axes[5].lines[0].get_ydata()), cook.max())
    shown = {t.get_text() for t in axes[5].texts}
    assert str(fit.influence().labels[int(np.argmax(cook))]) in shown


def test_the_data_leave_the_band_of_a_model_that_is_wrong(rng):
    g = np.repeat(np.arange(20), 30)
    y = rng.poisson(np.where(rng.uniform(size=600) < 0.5, 0, 6))
    data = pd.DataFrame({"y": y, "g": g})
    counts = []
    for more in ({"family": "poisson"}, {"family": "poisson", "zi": "~ 1"}):
        ax = jg.glmm("y ~ 1", data, **more).plot.check(draws=200)[0]
        note = next(t.get_text() for t in ax.texts if "outside" in t.get_text())
        counts.append(int(note.split("; ")[1].split()[0]))
    assert counts[0] > 5
    assert counts[1] <= 2


@pytest.mark.parametrize("kind", ["binomial", "posterior", "ar1", "ordinal", "nominal"])
def test_other_models(kind, sleep):
    cbpp = jg.datasets.load("cbpp")
    herds = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    x = [0, 1, 1, 0, 0, 1, 0, 1, 1.0]
    made = {
        "binomial": lambda: jg.glmm(herds, cbpp),
        "posterior": lambda: jg.glmm(herds, cbpp, method="nested-laplace"),
        "ar1": lambda: jg.lmm("Reaction ~ Days", sleep, residual="ar1(Days | Subject)"),
        "ordinal": lambda: jg.clm("y ~ x", {"y": [1, 2, 3, 2, 1, 3, 3, 2, 1], "x": x}),
        "nominal": lambda: jg.glmm(
            "y ~ x", {"y": list("abcabcbac"), "x": x}, family="multinomial"
        ),
    }
    fit = made[kind]()
    axes = fit.plot.check(draws=10)
    assert {"Data and draws", "Linearity"} <= set(titles(axes))
    own = axes[0].lines[-1].get_ydata()
    assert own.sum() == len(fit.design.y)
    if kind in ("ordinal", "nominal"):
        np.testing.assert_array_equal(own, [3, 3, 3])


def test_collinear_terms_are_shown(rng):
    x = rng.normal(size=100)
    data = pd.DataFrame({"x": x, "z": x + 0.1 * rng.normal(size=100)})
    data["y"] = rng.poisson(3.0, 100)
    fit = jg.glmm("y ~ x + z", data, family="poisson")
    ax = fit.plot.check(draws=10)[-1]
    assert ax.get_title(loc="left") == "Collinearity"
    np.testing.assert_allclose(
        ax.collections[1].get_offsets()[:, 0], fit.vif()["vif"], rtol=1e-9
    )


def test_refusals(sleep):
    fit = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    with pytest.raises(NotApplicableError, match="draws=1"):
        fit.plot.check(draws=1)
