"""Figures: what is drawn, that it fits, and that nobody's settings change."""

import dataclasses
import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import twin
from doors import bands, local_linear, marginals, style
from matplotlib.colors import to_rgb

import jaxglmm as jg
from jaxglmm import Fit, NotApplicableError


@pytest.fixture(scope="module")
def sleep():
    lam = [[[0.966732791, 0.0], [0.015169060, 0.230909598]]]
    formula = "Reaction ~ Days + (Days | Subject)"
    fit = twin.make(formula, jg.datasets.load("sleepstudy"), lam)
    fit.__dict__["ranef_cov"] = {"Subject": np.tile(np.diag([145.7, 5.3]), (18, 1, 1))}
    return fit


@pytest.fixture(scope="module")
def many(sleep):
    """A factor of 5000 levels."""
    J, rng = 5000, np.random.default_rng(0)
    (term,) = sleep.design.terms
    term = dataclasses.replace(term, levels=np.array([f"S{i}" for i in range(J)]))
    b = rng.standard_normal((J, 2))
    fit = Fit(
        dataclasses.replace(sleep.design, terms=(term,)),
        dataclasses.replace(sleep.estimates, b=(b,)),
    )
    fit.__dict__["ranef_cov"] = {"Subject": np.tile(0.2 * np.eye(2), (J, 1, 1))}
    return fit


def no_text_overlaps(figure):
    """No two tick labels of one axis touch, and titles stay inside the figure."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    for ax in figure.axes:
        assert ax.title.get_window_extent(renderer).x0 >= 0
        for axis in (ax.xaxis, ax.yaxis):
            boxes = [
                label.get_window_extent(renderer)
                for label in axis.get_ticklabels()
                if label.get_text() and label.get_visible()
            ]
            low, high = axis.get_view_interval()
            ticks = axis.get_majorticklocs()
            boxes = [b for b, t in zip(boxes, ticks, strict=False) if low <= t <= high]
            for a, b in itertools.pairwise(boxes):
                assert not a.overlaps(b)


def test_caterpillar_names_every_level_in_order(sleep):
    axes = sleep.plot.ranef()
    assert [ax.get_title(loc="left") for ax in axes] == ["Subject: (Intercept)", "Days"]
    labels = [t.get_text() for t in axes[0].get_yticklabels()]
    modes = sleep.ranef["Subject"]["(Intercept)"].sort_values()
    assert labels == modes.index.tolist()
    no_text_overlaps(axes[0].figure)


def test_caterpillar_by_another_column_or_unsorted(sleep):
    axes = sleep.plot.ranef(sort="Days")
    labels = [t.get_text() for t in axes[0].get_yticklabels()]
    assert labels == sleep.ranef["Subject"]["Days"].sort_values().index.tolist()
    axes = sleep.plot.ranef(sort=False, terms="Days")
    assert len(axes) == 1
    labels = [t.get_text() for t in axes[0].get_yticklabels()]
    assert labels[::-1] == sleep.ranef["Subject"].index.tolist()


def test_caterpillar_of_many_levels_names_the_extremes_only(many):
    axes = many.plot.ranef()
    texts = " ".join(t.get_text() for t in axes[0].texts)
    top = many.ranef["Subject"]["(Intercept)"].idxmax()
    assert f"highest: {top} (" in texts
    assert "(5,000 levels)" in axes[0].get_title(loc="left")
    assert len(axes[0].get_yticklabels()) < 20
    no_text_overlaps(axes[0].figure)


def test_figures_can_be_drawn_into_given_axes(sleep):
    _, axes = plt.subplots(1, 2)
    assert sleep.plot.ranef(axes=axes)[0] is axes[0]
    assert sleep.plot.qq(ax=axes[1]) is axes[1]
    assert sleep.plot.residuals(ax=axes[0]) is axes[0]
    with pytest.raises(NotApplicableError, match="1 axes given, 2 needed"):
        sleep.plot.ranef(axes=axes[0])
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("kind", ["response", "pearson", "scaled"])
def test_residuals(sleep, kind):
    ax = sleep.plot.residuals(type=kind)
    assert len(ax.collections[0].get_offsets()) == 180
    low, high = ax.get_ylim()
    assert low == -high
    no_text_overlaps(ax.figure)


def test_residuals_of_many_rows_show_their_density(sleep, rng):
    n = 30_000
    fit = Fit(sleep.design, sleep.estimates)
    fit.__dict__ |= {
        "linear_predictor": rng.standard_normal(n),
        "residuals": rng.standard_normal(n),
    }
    ax = fit.plot.residuals(type="response", against="fitted")
    assert ax.collections[0].get_array().sum() == n


def test_a_right_model_has_a_level_curve():
    """Small groups: residuals lean on fitted values, and not on the fixed part."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(2000), 3), rng.normal(size=6000)
    y = 2 + x + rng.normal(size=2000)[g] + 1.5 * rng.normal(size=6000)
    fit = jg.lmm("y ~ x + (1 | g)", {"y": y, "x": x, "g": g})
    middle = slice(16, -16)
    level = fit.plot.residuals().lines[-1].get_ydata()[middle]
    assert np.abs(level).max() < 0.12
    ax = fit.plot.residuals(against="fitted", smooth=True)
    leaning = ax.lines[-1].get_ydata()[middle]
    assert np.ptp(leaning) > 0.4
    assert "they rise with fitted values" in ax.texts[0].get_text()
    assert len(fit.plot.residuals(against="fitted").lines) == 1  # zero alone


def test_quantile_plots(sleep):
    ax = sleep.plot.qq()
    assert "of 180 points outside" in ax.texts[0].get_text()
    axes = sleep.plot.qq("ranef")
    assert [a.get_title(loc="left") for a in axes] == [
        "Subject: (Intercept)",
        "Subject: Days",
    ]
    no_text_overlaps(axes[0].figure)


class Profile:
    """What ``fit.profile()`` returns, with one straight and one bent curve."""

    def __init__(self):
        z = np.linspace(-3, 3, 21)
        curves = {"Days": 10 + 1.5 * z, "sd_Days|Subject": 6 + z + 0.1 * z**2}
        self.zeta = pd.concat(
            pd.DataFrame({"parameter": k, "value": v, "zeta": z})
            for k, v in curves.items()
        )

    def intervals(self, level=0.95):
        return pd.DataFrame(
            {"lower": [7.0, np.nan], "upper": [13.0, 8.0]},
            index=["Days", "sd_Days|Subject"],
        )


def test_profiles(sleep):
    axes = sleep.plot.profile(Profile())
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["Days", "sd_Days|Subject"]
    assert len(sleep.plot.profile(Profile(), which="Days")) == 1
    with pytest.raises(NotApplicableError, match="only Days"):
        sleep.plot.profile(Profile(), which="x")
    no_text_overlaps(axes[0].figure)


def test_histograms_of_draws_and_estimates():
    rng = np.random.default_rng(0)
    draws = {
        "x$1$": rng.normal(size=500),
        "phi": np.append(rng.gamma(2, size=499), 1e9),
    }
    one, two = marginals(draws, marks={"x$1$": 0.5})
    assert "95% from" in one.texts[0].get_text()
    assert [line.get_xdata()[0] for line in one.lines] == [0.5]
    for ax, name in ((one, "x$1$"), (two, "phi")):
        bars = [(p.get_x(), p.get_width(), p.get_height()) for p in ax.patches]
        assert sum(height for *_, height in bars) == 500
        low, high = np.quantile(draws[name], [0.025, 0.975])
        blue = [p for p in ax.patches if p.get_facecolor()[:3] == to_rgb(style.ACCENT)]
        ends = blue[0].get_x(), blue[-1].get_x() + blue[-1].get_width()
        np.testing.assert_allclose(ends, [low, high], atol=bars[0][1])
    assert two.get_xlim()[1] < 100  # a value far away does not flatten the rest
    one.figure.canvas.draw()
    assert len(marginals({f"p{k}": np.zeros(3) for k in range(40)})) == 12
    with pytest.raises(NotApplicableError, match="no parameter 'z'; there are"):
        marginals(draws, "z")


def test_settings_are_left_alone(sleep):
    before = dict(mpl.rcParams)
    sleep.plot()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda plot: plot.ranef("Plate"), "there are Subject"),
        (lambda plot: plot.ranef(terms="x"), "with columns"),
        (lambda plot: plot.ranef(sort="x"), "there are"),
        (lambda plot: plot.qq("errors"), "'ranef'"),
        (lambda plot: plot.qq("ranef", factor="x"), "there are Subject"),
        (lambda plot: plot.residuals(type="x"), "'scaled'"),
    ],
)
def test_messages(sleep, call, message):
    with pytest.raises(NotApplicableError, match=message):
        call(sleep.plot)


@pytest.mark.parametrize("n", [3, 20, 60, 1000])
def test_the_band_holds_with_its_probability(n, rng):
    """Of normal samples about their own mean, in units of their own sd."""
    at, lower, upper = bands.normal_band(n, 0.9)
    samples = rng.standard_normal((2000, n))
    samples -= samples.mean(axis=1, keepdims=True)
    samples /= samples.std(axis=1, keepdims=True)
    samples = np.sort(samples, axis=1)[:, bands.knots(n) - 1]
    inside = ((samples >= lower) & (samples <= upper)).all(axis=1).mean()
    assert inside == pytest.approx(0.9, abs=0.035)
    assert (np.diff(at) > 0).all()


@pytest.mark.parametrize("n", [1, 2])
def test_bands_of_one_and_two_values(n):
    assert all(np.isfinite(part).all() for part in bands.normal_band(n, 0.95))


def test_the_smooth_of_a_line_is_the_line(rng):
    for n in (50, 5000):
        x = rng.uniform(-3, 8, n)
        at, curve = local_linear(x, 2 + 3 * x)
        np.testing.assert_allclose(curve, 2 + 3 * at, atol=1e-8)
    at, curve = local_linear(np.repeat([0.0, 1.0], 20), np.repeat([1.0, 2.0], 20))
    np.testing.assert_allclose(curve[[0, -1]], [1.0, 2.0])


def test_a_backend_that_the_first_figure_loads_stays_interactive(sleep):
    """Or a notebook shows the first figure and none of the later ones."""
    before = mpl.is_interactive()

    @style.styled
    def first():
        mpl.interactive(True)  # as a notebook's backend does when it is loaded
        return plt.figure()

    try:
        mpl.interactive(False)
        plt.close(first())
        assert mpl.is_interactive()
    finally:
        mpl.interactive(before)
