"""Marginal means drawn: limits, arrows that tell differences, lines."""

import numpy as np
import pandas as pd
import pytest
from doors import SECOND

import jaxglmm as jg
from jaxglmm import NotApplicableError, plots

LONG = "a very long name of a treatment with $signs$"


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(1)
    arms, visits = [LONG, "placebo", "other", "new"], ["first", "second", "third"]
    rows = [(a, b, h) for a in arms for b in visits for h in range(12)]
    d = pd.DataFrame(rows, columns=["arm", "visit", "site"])
    shift = d["arm"].map({"placebo": 0.0, "other": 0.5, "new": 1.0}).fillna(1.6)
    d["y"] = rng.normal(size=len(d)) + shift + rng.normal(size=12)[d["site"]] * 0.5
    return jg.lmm("y ~ arm * visit + (1 | site)", d)


def drawn_arrows(ax):
    """(row, from, to) of each arrow."""
    return [
        (t.xy[1], t.xyann[0], t.xy[0])
        for t in ax.texts
        if t.arrow_patch is not None and t.arrow_patch.get_edgecolor() is not None
    ]


@pytest.mark.parametrize("adjust", ["tukey", "none", "holm"])
def test_arrows_overlap_where_means_do_not_differ(fit, adjust):
    found = fit.means("arm", by="visit")
    axes = fit.plot.means(found, adjust=adjust)
    assert len(axes) == 3
    pairs = found.pairs(adjust).table
    differ = np.abs(pairs["estimate"]) > (pairs["conf_high"] - pairs["conf_low"]) / 2
    told = []
    for ax, rows in zip(axes, found.groups, strict=True):
        value = found.estimates[rows]
        up, down = value.copy(), value.copy()
        for place, start, end in drawn_arrows(ax):
            k = len(rows) - 1 - int(place)
            assert start == pytest.approx(value[k])
            (up if end > start else down)[k] = end
        for i in range(len(rows)):
            for j in range(i + 1, len(rows)):
                low, high = sorted((i, j), key=lambda r: value[r])
                told.append(up[low] < down[high])
    untold = int((np.array(told) != differ.to_numpy()).sum())
    notes = " ".join(t.get_text() for t in axes[0].texts)
    assert (f"({untold} pairs not so)" in notes) == (untold > 0)
    assert untold <= 1


def test_limits_and_names_stand_as_they_are(fit):
    (ax,) = fit.plot.means("arm", arrows=False)
    table = fit.means("arm").table
    (bars,) = ax.collections
    ends = np.array([s[:, 0] for s in bars.get_segments()])
    np.testing.assert_allclose(ends, table[["conf_low", "conf_high"]])
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[1:] == ["new", "other", "placebo"]
    assert len(names[0]) <= 22
    assert not drawn_arrows(ax)


def test_lines_of_an_interaction(fit):
    (ax,) = fit.plot.means("visit", by="arm", lines=True)
    assert len(ax.lines) == 4
    table = fit.means("visit", by="arm").table
    np.testing.assert_allclose(
        np.concatenate([line.get_ydata() for line in ax.lines]), table["estimate"]
    )
    assert [t.get_text() for t in ax.get_xticklabels()] == ["first", "second", "third"]
    sleep = jg.lmm("Reaction ~ Days + (1 | Subject)", jg.datasets.load("sleepstudy"))
    (ax,) = sleep.plot.means("Days", at={"Days": [0, 3, 9]}, lines=True)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0, 3, 9])


def test_scales_and_posteriors():
    cbpp = jg.datasets.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = jg.glmm(formula, cbpp)
    (ax,) = fit.plot.means("period", type="response")
    assert not drawn_arrows(ax)  # differences are of the link there
    with pytest.raises(NotApplicableError, match="type='link'"):
        fit.plot.means("period", type="response", arrows=True)
    bayes = jg.glmm(formula, cbpp, method="nested-laplace")
    (ax,) = bayes.plot.means("period")
    assert len(ax.get_yticks()) == 4
    with pytest.raises(NotApplicableError, match="posteriors"):
        bayes.plot.means("period", arrows=True)


def test_what_no_figure_takes(fit):
    with pytest.raises(NotApplicableError, match="against a factor"):
        plots.means(fit.means("arm").pairs(), lines=True)
    sleep = jg.lmm("Reaction ~ Days + (1 | Subject)", jg.datasets.load("sleepstudy"))
    many = sleep.means("Days", at={"Days": np.arange(70) / 7})
    with pytest.raises(NotApplicableError, match="up to 70 means"):
        plots.means(many)
    (ax,) = plots.means(sleep.means())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["overall"]
    assert SECOND not in {t.get_color() for t in ax.texts}
