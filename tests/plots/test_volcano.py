"""Figures of many fits."""

import numpy as np
import pytest
from doors import KeptColumns, multiplicity, style, volcano
from matplotlib.colors import to_rgba

from jaxglmm import Fits, NotApplicableError
from jaxglmm.plots import p_values


def made(D=400):
    rng = np.random.default_rng(3)
    effect = np.where(np.arange(D) < 40, rng.choice([-4, 4], D), 0.0)
    beta = effect + rng.normal(size=D)
    from scipy.stats import norm

    columns = KeptColumns(("x",), ("sd",), 1)
    table = columns.table(
        D,
        coefficients=beta,
        se=np.ones(D),
        df=np.full(D, np.inf),
        p_values=2 * norm.sf(np.abs(beta)),
        sd=np.ones(D),
        sigma=np.ones(D),
        status=np.zeros(D),
    )
    table[5, :-1] = np.nan
    labels = np.array([f"g{k}" for k in range(D)], object)
    return Fits.from_table(table, columns, labels)


def test_volcano():
    fits = made()
    ax = fits.plot.volcano("x", labels=3)
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    assert len(points) == 399
    found = multiplicity.adjusted(fits.p_values[:, 0], "fdr_bh") < 0.05
    coloured = [
        len(c.get_offsets())
        for c in ax.collections
        if c.get_facecolor()[0, :3].tolist() != list(to_rgba(style.QUIET)[:3])
    ]
    assert sum(coloured) == found.sum()
    assert f"{found.sum()} of 399 at FDR 0.05" in ax.get_title(loc="left")
    strongest = fits.labels[np.nanargmin(fits.p_values[:, 0])]
    assert strongest in [t.get_text() for t in ax.texts]
    assert len(ax.texts) == 3
    low, high = ax.get_xlim()
    assert low == -high


def test_volcano_without_findings():
    fits = made()[40:]
    ax = volcano(fits, "x")
    assert "0 of" in ax.get_title(loc="left")
    assert len(ax.texts) == 0


def test_p_values_of_zero_stay_on_the_page():
    fits = made()
    fits.p_values[0, 0] = 0.0
    assert np.isfinite(volcano(fits, "x").get_ylim()).all()


def test_histogram_of_p_values():
    fits = made()
    ax = fits.plot.p_values("x", bins=10)
    heights = [patch.get_height() for patch in ax.patches]
    assert len(heights) == 10
    assert sum(heights) == 399
    # 36 of the null in each bar, and the 40 effects in the first
    assert 50 < heights[0] < 100
    assert max(heights[1:]) < 50
    (line,) = ax.lines
    null = min(1.0, 2 * np.nanmean(fits.p_values > 0.5))
    assert line.get_ydata()[0] == pytest.approx(null * 399 / 10, rel=0.02)


def test_what_ran_away_does_not_stretch_the_picture():
    """Separated and not converged fits are left out and counted; others clipped."""
    fits = made()
    usual = volcano(fits, "x").get_xlim()[1]
    fits.separated[[0, 1]] = True
    fits.coefficients[[0, 1], 0] = [-79.0, 44.0]
    fits.converged[[2, 3, 4]] = False
    fits.coefficients[2, 0] = 1e9
    fits.coefficients[50, 0] = 300.0  # neither: it just lies far out
    ax = volcano(fits, "x")
    assert ax.get_xlim()[1] == pytest.approx(usual, rel=0.2)
    assert "left out: 3 not converged, 2 separated" in [t.get_text() for t in ax.texts]
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    assert len(points) == 399 - 5
    assert np.abs(points[:, 0]).max() < ax.get_xlim()[1]
    count = int(np.nansum(fits.p_adjusted()[:, 0] < 0.05))
    assert f"{count} of 396 at FDR 0.05" in ax.get_title(loc="left")


def test_p_values_of_fits_that_did_not_converge_are_no_tests():
    fits = made()
    best = int(np.nanargmin(fits.p_values[:, 0]))
    fits.converged[best] = False
    assert np.isnan(fits.p_adjusted()[best, 0])
    assert fits.labels[best] not in fits.top("x", 5).index
    assert fits.summary().tests.loc["x", "tests"] == 398
    assert sum(bar.get_height() for bar in p_values(fits, "x").patches) == 398


def test_estimates_of_fits_that_converged():
    fits = made()
    fits.converged[:100] = False
    (ax,) = fits.plot.estimates("x", marks={"x": 0.0})
    assert sum(bar.get_height() for bar in ax.patches) == 299 + 1  # one has NaN alone
    assert len(ax.lines) == 1


def test_labels_are_a_number():
    with pytest.raises(NotApplicableError, match="a whole number"):
        volcano(made(), "x", labels=["g1"])


def test_axes_may_be_given():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert p_values(made(), "x", ax=ax) is ax
    assert volcano(made(), "x", ax=ax) is ax


@pytest.mark.parametrize("draw", [volcano, p_values])
def test_what_cannot_be_drawn(draw):
    with pytest.raises(NotApplicableError, match="no coefficient 'z'"):
        draw(made(), "z")
    with pytest.raises(NotApplicableError, match="p-value for 'x'"):
        draw(made()[5:6], "x")
