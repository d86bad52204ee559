"""Figures of many fits."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import p_values, style, volcano
from jaxglmm.results.fits.columns import Columns
from jaxglmm.results.fits.fits import Fits
from jaxglmm.results.fits.tables import benjamini_hochberg


def made(D=400):
    rng = np.random.default_rng(3)
    effect = np.where(np.arange(D) < 40, rng.choice([-4, 4], D), 0.0)
    beta = effect + rng.normal(size=D)
    from scipy.stats import norm

    columns = Columns(("x",), ("sd",), 1)
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
    found = benjamini_hochberg(fits.p_values[:, 0]) < 0.05
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
