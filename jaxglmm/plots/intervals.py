"""Many posteriors of one parameter: means and 95% intervals, sorted."""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import style
from jaxglmm.plots.caterpillar import check_labels
from jaxglmm.plots.labels import AS_IS, short, shortened
from jaxglmm.postestimation.collection.posteriors import column, labels

LABEL, TITLE = 24, 30  # characters of a data set's and a parameter's name


@style.styled
def intervals(posteriors, term: str, *, max_labels: int = 60, ax=None):
    """Posterior means of one parameter with their central 95% intervals, sorted.

    Data sets that did not converge are left out, and counted below the title.

    Args:
        posteriors: many posteriors.
        term: name of the parameter.
        max_labels: number of data sets up to which each is named.
        ax: where to draw.

    Returns:
        Axes.

    Raises:
        NotApplicableError: no such parameter, or nothing converged.
    """
    k = column(posteriors, term)
    max_labels = check_labels(max_labels)
    known = np.flatnonzero(posteriors.converged & np.isfinite(posteriors.mean[:, k]))
    if not len(known):
        raise NotApplicableError(f"no data set has a posterior of {term!r}")
    order = known[np.argsort(posteriors.mean[known, k], kind="stable")]
    value = posteriors.mean[order, k]
    low, high = posteriors.lower[order, k], posteriors.upper[order, k]
    away = (low > 0) | (high < 0)
    draw = _named if len(order) <= max_labels else _many
    tall = max(1.2 + 0.165 * len(order), 2.4) if draw is _named else 3.4
    ax = style.one_axes(ax, (5.2, tall))
    draw(ax, value, low, high, away)
    name = short(term, TITLE)
    if draw is _named:
        shown = shortened(labels(posteriors)[order], LABEL)
        ax.set_yticks(np.arange(len(order)), labels=shown, **AS_IS)
        ax.set_xlabel(name, **AS_IS)
    else:
        ax.set_xlabel("rank")
        ax.set_ylabel(name, **AS_IS)
    left = len(posteriors) - len(order)
    note = f"95% intervals, blue: {int(away.sum()):,} without 0"
    note += f"; left out: {left:,} not converged" if left else ""
    style.titled(ax, f"{name}, {len(order):,} posteriors", note)
    return ax


def _named(ax, value, low, high, away) -> None:
    """One line a data set, for its name at the left."""
    at = np.arange(len(value))
    style.zero_line(ax, vertical=True)
    for some, colour in ((~away, style.QUIET), (away, style.ACCENT)):
        ax.hlines(at[some], low[some], high[some], colour, lw=1.6)
        ax.plot(value[some], at[some], "o", color=colour, ms=4.2)
    ax.set_ylim(-0.8, len(value) - 0.2)
    ax.tick_params(axis="y", length=0)


def _many(ax, value, low, high, away) -> None:
    """The sorted means as a curve in their intervals."""
    at = np.arange(1, len(value) + 1)
    style.zero_line(ax)
    colours = np.where(away, style.ACCENT, style.QUIET)
    width = float(np.clip(900 / len(value), 0.15, 1.2))
    lines = ax.vlines(at, low, high, colours, lw=width, alpha=0.55)
    lines.set_rasterized(len(value) > 2000)
    ax.plot(at, value, color=style.INK, lw=1.4, zorder=3)
    ax.margins(x=0.01)
