"""Cook's distances and changes of coefficients, of levels or rows left out."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import style
from jaxglmm.plots.labels import AS_IS, middle, plain, shortened

LABEL, TITLE = 20, 30  # characters
MOST = 40  # levels up to which each has a line and a name


@style.styled
def influence(found, *, n: int = 25, axes=None) -> np.ndarray:
    """Two panels: Cook's distances, the largest first, and dfbetas by coefficient.

    Args:
        found: what ``fit.influence(...)`` returned.
        n: how many of the largest Cook's distances are shown.
        axes: two, where to draw.

    Returns:
        Array of two axes.
    """
    n = _arguments.whole("n", n, 1, MOST, error=NotApplicableError)
    shown = np.argsort(-np.nan_to_num(found.cook), kind="stable")[:n]
    if axes is None:
        rows = max(len(shown), 1.6 * len(found.names), 8)
        _, axes = plt.subplots(1, 2, figsize=(8.2, 1.3 + 0.19 * rows))
    left, right = style.given_axes(axes, 2)
    _distances(left, found, shown)
    _changes(right, found)
    return np.array([left, right], dtype=object)


def _distances(ax, found, shown: np.ndarray) -> None:
    place = np.arange(len(shown))[::-1]
    values = np.nan_to_num(found.cook[shown])
    ax.hlines(place, 0, values, color=style.BAND, lw=2.2)
    ax.plot(values, place, "o", ms=4, color=style.ACCENT)
    names = shortened([str(found.labels[i]) for i in shown], LABEL)
    ax.set_yticks(place, names, **AS_IS)
    ax.set_ylim(-0.7, len(shown) - 0.3)
    ax.set_xlim(left=0)
    ax.set_xlabel("Cook's distance")
    what = "rows" if found.by == "row" else f"levels of {found.by}"
    note = f"{len(shown)} largest of {len(found)}" if len(shown) < len(found) else ""
    style.titled(ax, middle(plain(f"Influence of {what}"), TITLE), note)


def _changes(ax, found) -> None:
    dfbetas = found.dfbetas
    m, p = dfbetas.shape
    place = np.arange(p)[::-1]
    limit = 2 / np.sqrt(max(m, 1))
    ax.axvspan(-limit, limit, color=style.BAND, alpha=0.6, lw=0)
    style.zero_line(ax, vertical=True)
    rng = np.random.default_rng(0)  # points of a line do not hide each other
    for at, values in zip(place, dfbetas.T, strict=True):
        values = np.nan_to_num(values)
        lift = rng.uniform(-0.14, 0.14, m) if m > MOST else np.zeros(m)
        out = np.abs(values) > limit
        ax.plot(values[~out], at + lift[~out], "o", ms=3, color=style.QUIET)
        ax.plot(values[out], at + lift[out], "o", ms=3.6, color=style.ACCENT)
        _named(ax, found, values, at + lift, out)
    ax.set_yticks(place, shortened(found.names, LABEL), **AS_IS)
    ax.set_ylim(-0.6, p - 0.4)
    ax.margins(x=0.1)
    ax.set_xlabel("dfbetas, in standard errors")
    style.titled(ax, "Changes of coefficients", "band: 2 over the root of their number")


def _named(ax, found, values: np.ndarray, heights: np.ndarray, out: np.ndarray) -> None:
    """The largest on each side by name, where there is room above the line."""
    for side, align in ((values > 0, "right"), (values < 0, "left")):
        candidates = np.flatnonzero(out & side)
        if len(candidates):
            i = candidates[np.argmax(np.abs(values[candidates]))]
            ax.annotate(
                middle(plain(found.labels[i]), LABEL),
                (values[i], heights[i]),
                (0, 5),
                textcoords="offset points",
                ha=align,  # inwards
                fontsize=7.5,
                **AS_IS,
            )
