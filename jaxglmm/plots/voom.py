"""The trend that precision weights of counts follow."""

from __future__ import annotations

from jaxglmm.many.voom import Voom
from jaxglmm.plots import style

MOST_POINTS = 20_000


@style.styled
def voom(found: Voom, *, ax=None):
    """Root of each gene's standard deviation against its mean, and the trend.

    Args:
        found: what ``jg.voom`` returned.
        ax: where to draw.

    Returns:
        Axes.
    """
    ax = style.one_axes(ax, (5.2, 4.2))
    thin = slice(None, None, max(1, len(found.mean) // MOST_POINTS))
    size = 14 if len(found.mean) <= 1000 else 4
    ax.scatter(found.mean[thin], found.root_sd[thin], s=size, color=style.QUIET, lw=0)
    ax.plot(found.trend_mean, found.trend_root_sd, color=style.SECOND, lw=2)
    genes = f"{len(found.mean):,} columns"
    style.titled(ax, "Variance falls with the mean", f"{genes}; line: the trend")
    ax.set_xlabel("mean log2 count")
    ax.set_ylabel("square root of the standard deviation")
    return ax
