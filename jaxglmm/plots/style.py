"""One look for all figures: colours, spines, and panels that do not touch.

Set for the figure that is drawn and for no other: the user's own settings come back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

INK, QUIET, ACCENT, SECOND, BAND = "#1f2937", "#9aa3af", "#1d5fbf", "#c2570c", "#dbe6f6"

RC = {
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9.5,
    "axes.axisbelow": True,
    "axes.grid": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.11,
    "figure.dpi": 110,
    "font.size": 9,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


def styled(draw: Callable) -> Callable:
    """Run a drawing function under our settings."""

    @functools.wraps(draw)
    def wrapped(*args, **kwargs):
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return wrapped


def one_axes(ax, size: tuple[float, float]):
    """The given axes, or new ones in a figure of ``size`` inches."""
    return plt.subplots(figsize=size)[1] if ax is None else ax


def panels(count: int, axes=None, size: tuple[float, float] = (3.4, 3.0)) -> np.ndarray:
    """``count`` axes in rows of up to four, (count,); or the axes that were given."""
    if axes is not None:
        return np.atleast_1d(np.asarray(axes, dtype=object)).ravel()[:count]
    columns = min(count, 4 if count > 6 or count == 4 else 3)
    rows = -(-count // columns)
    figsize = (max(size[0] * columns, 4.2), size[1] * rows)
    _, grid = plt.subplots(rows, columns, figsize=figsize, squeeze=False)
    for spare in grid.ravel()[count:]:
        spare.remove()
    return grid.ravel()[:count]


def zero_line(ax, vertical: bool = False) -> None:
    """A thin line at zero, behind points and lines."""
    line = ax.axvline if vertical else ax.axhline
    line(0, color=QUIET, lw=0.9, zorder=1.2)
