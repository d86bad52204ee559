"""Histograms of draws or estimates, a panel a parameter, with the central 95%."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm.formatting import numbers
from jaxglmm.plots import style
from jaxglmm.plots.labels import shortened

MOST, TITLE = 12, 25  # panels; characters above one
BINS, REACH = 30, 2.0  # bars; half widths of the 95% that are drawn


@style.styled
def marginals(draws, which=None, *, marks=None, axes=None) -> np.ndarray:
    """Histograms of each parameter, blue where the central 95% lie.

    Args:
        draws: name -> (S,) draws or estimates; those that are not finite are left out.
        which: names of the parameters; the first twelve by default.
        marks: name -> a value to mark with a line, such as the truth.
        axes: where to draw, one a parameter.

    Returns:
        Array of axes.

    Raises:
        NotApplicableError: a name that is not there, or nothing to draw.
    """
    names = list(draws)[:MOST]
    if which is not None:
        names = _arguments.names("which", which, meaning="a parameter's name")
    numbers_alone = isinstance(marks, Mapping) and all(
        map(_arguments.is_finite, marks.values())
    )
    if marks is not None and not numbers_alone:
        shown = _arguments.shown(marks)
        raise ArgumentError(f"marks={shown} must be a dict, name -> number")
    unknown = [name for name in names if name not in draws]
    if unknown or not names:
        raise NotApplicableError(
            f"no parameter {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(map(repr, draws))}"
        )
    grid = style.panels(len(names), axes, size=(2.9, 2.5))
    for ax, name, title in zip(grid, names, shortened(names, TITLE), strict=True):
        x = np.asarray(draws[name], float)
        mark = None if marks is None else marks.get(name)
        _panel(ax, x[np.isfinite(x)], mark)
        style.titled(ax, title, _note(x[np.isfinite(x)]), size=9.5)
    return grid


def _note(x: np.ndarray) -> str:
    if not len(x):
        return "no values"
    low, high = (numbers.general(float(v), 3) for v in np.quantile(x, (0.025, 0.975)))
    return f"95% from {low} to {high} (blue)"


def _panel(ax, x: np.ndarray, mark: float | None) -> None:
    if len(x):
        low, centre, high = np.quantile(x, (0.025, 0.5, 0.975))
        # a few far values do not flatten the others: the ends hold what is beyond
        ends = centre - REACH * (centre - low), centre + REACH * (high - centre)
        counts, edges = np.histogram(np.clip(x, *ends), bins=BINS)
        middle = (edges[1:] + edges[:-1]) / 2
        inside = (middle >= low) & (middle <= high)
        colours = np.where(inside, style.ACCENT, style.QUIET).tolist()
        ax.bar(middle, counts, np.diff(edges), color=colours, lw=0)
    if mark is not None:
        ax.axvline(mark, color=style.SECOND, lw=1.8)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.locator_params(axis="x", nbins=4)
