"""Figures of generalised fits: what is drawn, and that it can be read."""

import itertools
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from doors import best, simulated
from doors import simulated_residuals as residuals

import jaxglmm as jg


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return jg.glmm(*args, **options)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(3)
    g, x = np.arange(120) % 12, rng.normal(size=120)
    y = rng.poisson(np.exp(0.8 + 0.4 * x + 0.5 * rng.normal(size=12)[g]))
    return quiet("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family="poisson")


@pytest.fixture(scope="module")
def cbpp():
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    return jg.glmm(formula, jg.datasets.load("cbpp"))


def texts(ax):
    return [t.get_text() for t in ax.texts]


def lines(ax, colour):
    return [line for line in ax.lines if line.get_color() == colour]


def no_text_touches(figure):
    """Neither tick labels of one axis nor texts of one panel."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    for ax in figure.axes:
        groups = [ax.texts, ax.xaxis.get_ticklabels(), ax.yaxis.get_ticklabels()]
        for group in groups:
            boxes = [t.get_window_extent(renderer) for t in group if t.get_text()]
            for a, b in itertools.combinations(boxes, 2):
                assert not a.overlaps(b)
        assert ax.title.get_window_extent(renderer).x1 <= figure.bbox.x1


def test_simulated_residuals(counts):
    found = counts.simulated_residuals(60)
    one, two = axes = counts.plot.simulated_residuals(found)
    points = one.collections[1].get_offsets().data
    np.testing.assert_allclose(points[:, 1], np.sort(found.scaled))
    np.testing.assert_allclose(points[:, 0], (np.arange(120) + 0.5) / 120)
    assert "zeros" in texts(one)
    assert f"p = {found.uniformity.p_value:.4f}" in texts(one)
    curves = lines(two, simulated.style.SECOND)
    assert len(curves) == 3  # running quartiles
    low, middle, high = (c.get_ydata() for c in curves)
    assert ((low <= middle) & (middle <= high)).all()
    assert "running quartiles; grey" in texts(two)[0]
    no_text_touches(axes[0].figure)


@pytest.mark.parametrize("n", [8, 56, 500])
def test_the_band_of_simulated_residuals_holds_as_it_says(n):
    """As drawn: the share of uniform samples whose points all lie in the polygon."""
    rng = np.random.default_rng(n)
    samples = np.sort(rng.uniform(size=(2001, n)), axis=1)
    made = residuals.SimulatedResiduals(
        scaled=samples[0],
        predicted=np.zeros(n),
        n=2000,
        re="",
        spreads=np.ones(2001),
        zeros=np.zeros(2001),
        beyond=np.zeros(n, bool),
        extremes=np.zeros(2001, int),
        draws=samples,
        used=np.ones(n, bool),
    )
    _, axes = plt.subplots(1, 2)
    simulated._quantiles(axes[0], made, made.scaled)
    (polygon,) = axes[0].collections[0].get_paths()
    points = axes[0].collections[1].get_offsets().data
    others = np.sort(np.random.default_rng(1).uniform(size=(1500, n)), axis=1)
    inside = np.ones(len(others), bool)
    for at, column in zip(points[:, 0], others.T, strict=True):
        place = np.column_stack([np.full(len(column), at), column])
        inside &= polygon.contains_points(place, radius=1e-9)
    assert inside.mean() == pytest.approx(0.95, abs=0.025)
    assert "95% of draws from the fit" in texts(axes[0])[0]


def test_quartiles_of_a_few_predictions(cbpp):
    _, two = cbpp.plot.simulated_residuals(n=40, seed=2)
    assert len(lines(two, simulated.style.SECOND)) == 12  # of four periods
    assert "quartiles of each prediction" in texts(two)[0]
    no_text_touches(two.figure)


def test_alarms_are_coloured(counts, monkeypatch):
    found = counts.simulated_residuals(250)
    data = counts.design
    zeroed = quiet(
        "y ~ x",
        {"y": np.where(np.arange(120) % 3, data.y, 0.0), "x": data.X[:, 1]},
        family="poisson",
    )
    bad = zeroed.simulated_residuals(250)
    for which, alarm in ((found, False), (bad, True)):
        ax = counts.plot.simulated_residuals(which)[0]
        coloured = [t for t in ax.texts if t.get_color() == simulated.style.SECOND]
        assert bool(coloured) is alarm


def test_in_axes_of_ones_own_and_without_draws(counts, monkeypatch):
    monkeypatch.setattr(residuals, "KEPT", 1000)
    figure, axes = plt.subplots(1, 2)
    drawn = counts.plot.simulated_residuals(axes=axes, n=50, re="conditional")
    assert drawn[0].figure is figure
    assert texts(drawn[1]) == ["running quartiles"]
    assert len(drawn[1].collections) == 2  # points inside and outside, no bands


def test_running_quantiles_of_a_straight_line():
    rank = (np.arange(200) + 0.5) / 200
    at, found = simulated.running_quantiles(rank, np.stack([rank, 0 * rank + 3]))
    np.testing.assert_allclose(found[:, 1], 3.0)
    np.testing.assert_allclose(found[1, 0][15:-15], at[15:-15], atol=0.02)
    rng = np.random.default_rng(0)
    _, found = simulated.running_quantiles(rank, rng.uniform(size=(300, 200)))
    np.testing.assert_allclose(found.mean(axis=(1, 2)), [0.25, 0.5, 0.75], atol=0.02)


def test_residuals_and_quantiles_are_those_of_the_family(counts, cbpp):
    ax = counts.plot.residuals()
    assert ax.get_ylabel() == "quantile residual"
    assert ax.get_xlabel() == "fixed part of the linear predictor (log)"
    offsets = ax.collections[0].get_offsets().data
    fixed = counts.design.X @ counts.coefficients
    np.testing.assert_allclose(offsets[:, 0], fixed)
    fitted = counts.plot.residuals(against="fitted")
    assert fitted.get_xlabel() == "linear predictor (log)"
    offsets = fitted.collections[0].get_offsets().data
    np.testing.assert_allclose(offsets[:, 0], counts.linear_predictor)
    np.testing.assert_allclose(offsets[:, 1], counts.resid("quantile"))
    assert cbpp.plot.residuals(type="deviance").get_ylabel() == "deviance residual"
    assert cbpp.plot.qq().get_ylabel() == "quantile residual"
    linear = jg.lmm("Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff"))
    assert best(linear)[0] == "scaled"
    ax = linear.plot.residuals()  # the fixed part is the same for all rows
    assert ax.get_xlabel() == "fitted value"
    assert ax.get_legend() is None  # a curve would rise, if the model holds
    assert "even where the model holds" in ax.texts[0].get_text()
    with pytest.raises(jg.NotApplicableError, match="'fixed' and 'fitted'"):
        linear.plot.residuals(against="x")


def test_a_family_that_says_little():
    """Without a distribution function: Pearson; without a variance: deviance."""

    class Quiet(type(jg.Poisson())):
        def cdf(self, *args, **options):
            raise jg.NotApplicableError("no cdf")

    rng = np.random.default_rng(0)
    fit = jg.glmm(
        "y ~ x", {"y": rng.poisson(2, 40), "x": np.arange(40)}, family=Quiet()
    )
    assert best(fit)[0] == "scaled"


def test_random_effects_and_profiles(cbpp):
    (ax,) = cbpp.plot.ranef()
    assert len(ax.get_yticklabels()) == 15
    (ax,) = cbpp.plot.qq("ranef")
    assert ax.get_title(loc="left") == "herd: (Intercept)"
    grid = cbpp.plot.profile(which=["period[T.2]", "sd_(Intercept)|herd"])
    assert len(grid) == 2
    assert all(ax.get_xscale() == "linear" for ax in grid)


def test_a_positive_coefficient_is_no_scale():
    """Its axis is linear, however far its ends lie apart; a deviation's is not."""
    import pandas as pd
    from doors import Curve, profiles

    class Profile:
        names = ("x", "sd_x|g", "phi", "cor_x.z|g")
        ends = ((-np.inf, np.inf), (0.0, np.inf), (0.0, np.inf), (-1.0, 1.0))
        curves = {  # noqa: RUF012
            name: Curve(name, 0.6, 0.1, end, lambda v: v, 0.0)
            for name, end in zip(names, ends, strict=True)
        }
        zeta = pd.concat(
            pd.DataFrame(
                {"parameter": n, "value": [0.005, 0.3, 0.9], "zeta": [-3.0, 0.0, 3.0]}
            )
            for n in names
        )

        def intervals(self, level):
            ends = {"lower": 0.1, "upper": 0.8}
            return pd.DataFrame(ends, index=list(self.names))

    grid = profiles.profile(Profile())
    assert [ax.get_xscale() for ax in grid] == ["linear", "log", "log", "linear"]


def test_a_profile_without_end(counts):
    """phi without an upper limit: on a logarithmic axis, the band to its end."""
    design = counts.design
    data = {"y": design.y, "x": design.X[:, 1], "g": design.terms[0].codes}
    fit = quiet("y ~ x + (1 | g)", data, family="nbinom2")
    (ax,) = fit.plot.profile(which="phi")
    assert ax.get_xscale() == "log"
    curve = ax.lines[-1]
    assert np.isfinite(curve.get_xdata()).all()
    assert (np.diff(curve.get_ydata()) >= -1e-4).all()
