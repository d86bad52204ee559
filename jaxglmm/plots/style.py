"""One look for all figures: colours, spines, and panels that do not touch.

Set for the figure that is drawn and for no other: the user's own settings come back.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.axes
import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.layout_engine import TightLayoutEngine
from matplotlib.ticker import FixedLocator

from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm.plots.labels import AS_IS

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
    "text.usetex": False,  # our words have per cent signs and names in them
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


SMALLEST = 3.0  # points, of a text that has to fit
NOTE = "jaxglmm note"  # marks the line below a title
SHORT = 1.9  # inches


def styled(draw: Callable) -> Callable:
    """Run a drawing function under our settings; axes that were given are dressed."""

    @functools.wraps(draw)
    def wrapped(*args, **kwargs):
        given = kwargs.get("ax") is not None or kwargs.get("axes") is not None
        with mpl.rc_context(RC):
            drawn = draw(*args, **kwargs)
            if given:
                _dress(np.ravel(np.asarray(drawn, dtype=object)))
            # a notebook's backend, loaded by the first figure, turns this on to stay
            interactive = mpl.is_interactive()
        mpl.interactive(interactive)
        return drawn

    return wrapped


def _dress(axes: np.ndarray) -> None:
    """Our look and enough room for axes that somebody else made."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_edgecolor(QUIET)
        ax.tick_params(labelsize=RC["xtick.labelsize"], labelcolor=INK)
        for text in (ax.xaxis.label, ax.yaxis.label):
            text.set(fontsize=RC["axes.labelsize"], color=INK, usetex=False)
    for figure in {ax.figure for ax in axes}:
        _make_room(figure)
    for ax in axes:
        _narrow(ax)


PLACED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _make_room(figure) -> None:
    """Margins that the labels need, once, where nobody has set margins or a layout."""
    if not isinstance(figure, mpl.figure.Figure) or figure.get_layout_engine():
        return
    now = _margins(figure)
    default = {k: mpl.rcParamsDefault[f"figure.subplot.{k}"] for k in now}
    user = {k: mpl.rcParams[f"figure.subplot.{k}"] for k in now}
    if now not in (default, user, PLACED.get(figure)):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # too small for its own labels
        TightLayoutEngine().execute(figure)
    PLACED[figure] = _margins(figure)


def _margins(figure) -> dict[str, float]:
    names = ("left", "right", "bottom", "top", "wspace", "hspace")
    return {k: getattr(figure.subplotpars, k) for k in names}


def _narrow(ax) -> None:
    """Texts that reach beyond their axes, or into each other, are set smaller."""
    width = ax.bbox.width
    notes = [t for t in ax.texts if t.get_gid() == NOTE]
    titles = [ax._left_title, ax.title, ax._right_title]
    for text in (*titles, *notes, ax.xaxis.label):
        _shrink(text, width, text.get_window_extent().width)
    _shrink(ax.yaxis.label, ax.bbox.height, ax.yaxis.label.get_window_extent().height)
    names = [t for t in ax.get_yticklabels() if t.get_text()]
    if isinstance(ax.yaxis.get_major_locator(), FixedLocator) and len(names) > 1:
        places = np.sort(
            [ax.transData.transform((0, t.get_position()[1]))[1] for t in names]
        )
        for text in names:
            _shrink(text, 0.9 * np.diff(places).min(), text.get_window_extent().height)


def _shrink(text, room: float, size: float) -> None:
    if size > room and text.get_text():
        text.set_fontsize(max(text.get_fontsize() * room / size, SMALLEST))


def few_ticks(axis, ticks: list[float], inches: float) -> None:
    """Fixed ticks, every second of them where the axis is short."""
    shown = ticks if inches > SHORT else ticks[::2]
    axis.set_ticks(shown, [f"{tick:g}" for tick in shown])


def titled(ax, title: str, note: str | None = None, size: float | None = None) -> None:
    """A title with a name in it, and a line below it: "" leaves its room."""
    more = {} if size is None else {"fontsize": size}
    ax.set_title(title, pad=None if note is None else 18, **more, **AS_IS)
    if note:
        place: dict = {"xytext": (0, 4), "textcoords": "offset points"}
        line = ax.annotate(note, (0, 1), xycoords="axes fraction", **place, **AS_IS)
        line.set(fontsize=8, va="bottom", gid=NOTE, in_layout=False)


def corner(ax, text: str, row: int = 0, indent: float = 0.0, **more) -> None:
    """A line of text in the upper left corner, whatever the size of the axes."""
    options = {"fontsize": 8, "va": "top", "zorder": 5, **AS_IS, **more}
    place = (5 + indent, -4 - 12.0 * row)
    ax.annotate(
        text, (0, 1), place, "axes fraction", textcoords="offset points", **options
    ).set_in_layout(False)


def one_axes(ax, size: tuple[float, float]):
    """The given axes, or new ones in a figure of ``size`` inches."""
    return plt.subplots(figsize=size)[1] if ax is None else given_axes(ax, 1)[0]


def given_axes(axes, count: int, exactly: bool = False) -> np.ndarray:
    """The axes that a user gave, (count,); there may be more unless ``exactly``.

    Raises:
        ArgumentError: what is no axes; NotApplicableError: too few.
    """
    flat = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if not all(isinstance(one, mpl.axes.Axes) for one in flat):
        raise ArgumentError("ax= and axes= take Matplotlib's axes, plt.subplots()[1]")
    if len(flat) < count or (exactly and len(flat) > count):
        raise NotApplicableError(f"{len(flat)} axes given, {count} needed")
    return flat[:count]


def panels(count: int, axes=None, size: tuple[float, float] = (3.4, 3.0)) -> np.ndarray:
    """``count`` axes in rows of up to four, (count,); or the axes that were given."""
    if axes is not None:
        return given_axes(axes, count)
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
