"""Random effects, sorted, with intervals from their conditional standard deviations.

Intervals that leave out zero are blue, the others grey; a line below says so.

Up to ``max_labels`` levels each has its line and its name; above that the panel shows
the sorted effects as a curve in their intervals, and names only the extremes.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import special

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.formatting import numbers
from jaxglmm.plots import style
from jaxglmm.plots.labels import AS_IS, middle, plain, shortened

NAMED_EXTREMES = 2
LABEL, TITLE, EXTREME = 24, 27, 14  # characters of a level, a title, a level in a text


@style.styled
def ranef(
    fit,
    factor: str | None = None,
    *,
    terms=None,
    level: float = 0.95,
    sort=True,
    max_labels: int = 80,
    axes=None,
) -> np.ndarray:
    """Caterpillar plot of the random effects.

    Args:
        fit: the fit.
        factor: which grouping factor; all by default.
        terms: which columns; all by default.
        level: coverage of the intervals.
        sort: True sorts by the first column shown, a name by that column, False keeps
            the order of the levels.
        max_labels: number of levels up to which each is named.
        axes: where to draw, one a panel.

    Returns:
        Array of axes, one a factor and column.
    """
    level = _arguments.level(level)
    max_labels = check_labels(max_labels)
    shown = _chosen(fit, factor, terms)
    for _, modes, columns in shown:
        _order(modes[columns], sort)  # refuses what is no column, before a figure
    grid = _axes(shown, max_labels, axes)
    z = special.ndtri((1 + level) / 2)
    drawn = []
    for row, (name, modes, columns) in zip(grid, shown, strict=True):
        half = z * _sds(modes, fit.ranef_cov[name])
        draw = _named if len(modes) <= max_labels else _many
        draw(row, name, modes[columns], half[columns], sort, level)
        label = effect_label(fit)
        for ax in row:
            (ax.set_xlabel if draw is _named else ax.set_ylabel)(label)
        drawn += list(row)
    return np.array(drawn, dtype=object)


def _chosen(fit, factor, terms) -> list[tuple[str, pd.DataFrame, list[str]]]:
    """(factor, modes, columns) of every row of panels."""
    check_factor(fit, factor)
    named = "a column's name"
    wanted = None if terms is None else _arguments.names("terms", terms, meaning=named)
    shown = []
    for name, modes in fit.ranef.items():
        columns = [c for c in modes.columns if wanted is None or c in wanted]
        if factor in (None, name) and columns:
            shown.append((name, modes, columns))
    if not shown:
        raise NotApplicableError(
            "There are no random effects to draw"
            + (f" with columns {wanted}" if wanted is not None else "")
        )
    return shown


def check_factor(fit, factor) -> None:
    """Refuse what is not None or a grouping factor."""
    if not _arguments.is_among(factor, (None, *fit.ranef)):
        raise NotApplicableError(
            f"There is no grouping factor {_arguments.shown(factor)}; there are "
            f"{', '.join(fit.ranef) or 'none'}"
        )


def check_labels(most) -> int:
    """The number of levels up to which each is named."""
    return _arguments.whole(
        "max_labels", most, 0, _arguments.DATASETS, error=NotApplicableError
    )


def _sds(modes: pd.DataFrame, cov: np.ndarray) -> pd.DataFrame:
    sd = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 0.0))
    return pd.DataFrame(sd, index=modes.index, columns=modes.columns)


def _axes(shown, max_labels: int, axes) -> list[np.ndarray]:
    """A row of axes a factor; labelled panels are as high as their levels need."""
    counts = [len(columns) for _, _, columns in shown]
    if axes is not None:
        flat = style.given_axes(axes, sum(counts), exactly=True)
        return np.split(flat, np.cumsum(counts)[:-1])
    heights = [
        max(1.1 + 0.165 * len(m), 2.0) if len(m) <= max_labels else 3.2
        for _, m, _ in shown
    ]
    wide = any(len(m) > max_labels for _, m, _ in shown)
    width = 1.2 + (3.8 if wide else 3.1) * max(counts)
    fig = plt.figure(figsize=(max(width, 4.6), sum(heights)))
    rows = fig.add_gridspec(len(shown), 1, height_ratios=heights)
    return [
        _row(fig, rows[i], count, len(shown[i][1]) <= max_labels)
        for i, count in enumerate(counts)
    ]


def _row(fig, cell, count: int, shared: bool) -> np.ndarray:
    grid = cell.subgridspec(1, count)
    first = fig.add_subplot(grid[0])
    rest = [
        fig.add_subplot(grid[k], sharey=first if shared else None)
        for k in range(1, count)
    ]
    return np.array([first, *rest], dtype=object)


def _order(modes: pd.DataFrame, sort) -> np.ndarray:
    if sort is False:
        return np.arange(len(modes))[::-1]
    column = modes.columns[0] if sort is True else sort
    if not _arguments.is_among(column, list(modes.columns)):
        raise NotApplicableError(
            f"sort={_arguments.shown(column)}: there are "
            f"{', '.join(map(str, modes.columns))}"
        )
    return np.argsort(modes[column].to_numpy(), kind="stable")


def effect_label(fit) -> str:
    """What a random effect is measured in."""
    if fit.link_name == "identity":
        response = plain(fit.design.response).removeprefix("`").removesuffix("`")
        return f"random effect ({middle(response, TITLE)})"
    return f"random effect ({fit.link_name} scale)"


def _named(
    axes, factor: str, modes: pd.DataFrame, half: pd.DataFrame, sort, level: float
) -> None:
    """One line a level, named at the left."""
    order = _order(modes, sort)
    at = np.arange(len(modes))
    for ax, column in zip(axes, modes.columns, strict=True):
        value = modes[column].to_numpy()[order]
        reach = half[column].to_numpy()[order]
        away = np.abs(value) > reach
        style.zero_line(ax, vertical=True)
        for some, colour in ((~away, style.QUIET), (away, style.ACCENT)):
            ax.hlines(
                at[some], (value - reach)[some], (value + reach)[some], colour, lw=1.6
            )
            ax.plot(value[some], at[some], "o", color=colour, ms=4.2)
        ax.set_ylim(-0.8, len(modes) - 0.2)
        ax.grid(axis="y", color="#eef0f3", lw=0.7)
        ax.tick_params(axis="y", length=0, labelleft=ax is axes[0])
        ax.locator_params(axis="x", nbins=6)
    columns = shortened(modes.columns, TITLE)
    titles = shortened([f"{factor}: {c}" for c in modes.columns], TITLE)
    note = f"{100 * level:g}% intervals, blue without 0"
    for ax, title in zip(axes, [titles[0], *columns[1:]], strict=True):
        style.titled(ax, title, note if ax is axes[0] else "")
    size = 8.5 if len(modes) <= 40 else 7.5
    labels = shortened(modes.index[order], LABEL)
    axes[0].set_yticks(at, labels=labels, fontsize=size, **AS_IS)


def _many(
    axes, factor: str, modes: pd.DataFrame, half: pd.DataFrame, sort, level: float
) -> None:
    """Sorted effects in their intervals, the extremes named in a corner."""
    titles = shortened([f"{factor}: {c}" for c in modes.columns], TITLE)
    for ax, title, column in zip(axes, titles, modes.columns, strict=True):
        own = column if sort is True else sort
        order = _order(modes, own)[:: -1 if sort is False else 1]
        value, reach = modes[column].to_numpy()[order], half[column].to_numpy()[order]
        at = np.arange(1, len(modes) + 1)
        away = np.abs(value) > reach
        colours = np.where(away, style.ACCENT, style.QUIET)
        width = float(np.clip(900 / len(modes), 0.15, 1.2))
        style.zero_line(ax)
        lines = ax.vlines(
            at, value - reach, value + reach, colours, lw=width, alpha=0.55
        )
        lines.set_rasterized(len(modes) > 2000)
        ax.plot(at, value, color=style.INK, lw=1.4, zorder=3)
        ax.margins(x=0.01)
        ax.set_title(f"{title} ({len(modes):,} levels)", **AS_IS)
        ax.set_xlabel("rank" if sort is True else "level")
        _room(ax)
        _extremes(ax, modes[column])
        share = f"{100 * level:g}% intervals, blue: {int(away.sum()):,} without 0"
        ax.text(0.98, 0.03, share, transform=ax.transAxes, ha="right", fontsize=8)


def _room(ax) -> None:
    """Space above and below the curve for the corner texts."""
    low, high = ax.get_ylim()
    spread = high - low
    ax.set_ylim(low - 0.1 * spread, high + 0.16 * spread)


def _extremes(ax, values: pd.Series) -> None:
    """Names of the largest and smallest, top left: the curve rises to the right."""
    ends = [values.nlargest(NAMED_EXTREMES), values.nsmallest(NAMED_EXTREMES)]
    names = shortened([name for some in ends for name in some.index], EXTREME)
    for row, (word, some) in enumerate(zip(("highest", "lowest"), ends, strict=True)):
        own = names[row * len(ends[0]) :]
        known = zip(own, some, strict=False)
        text = ", ".join(f"{n} ({numbers.general(float(v), 3)})" for n, v in known)
        style.corner(ax, f"{word}: {text}", row)
