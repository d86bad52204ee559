"""Marginal means: with limits and arrows of comparison, or as lines of an interaction.

Arrows (Lenth's, of the R package emmeans): those of two means overlap where their
difference is not significant. Lengths up of the smaller and down of the larger mean add
up to the half width of the limits of the difference; where no lengths do that for all
pairs, pairs near the border count most (non-negative least squares), and the figure
says how many pairs its arrows do not tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import style
from jaxglmm.plots.labels import AS_IS, middle, plain, shortened
from jaxglmm.postestimation.comparisons.grid import keys_of

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.postestimation.comparisons.marginal_means import MarginalMeans

LABEL, TITLE = 22, 44  # characters
MOST = 60  # means of a panel
PANELS = 12
NEAR = 0.02  # least distance from the border of significance, in its own units
EVEN = 0.1  # weight of arrows of one length both ways, against pairs far from there
COLOURS = (style.ACCENT, style.SECOND, "#2f855a", "#7c3aed", "#b7791f", "#0e7490")


@style.styled
def means(
    found: MarginalMeans,
    *,
    arrows: bool | None = None,
    adjust: str | None = None,
    lines: bool = False,
    axes: Any = None,
) -> np.ndarray:
    """Means with their limits, a panel a group.

    Args:
        found: what ``fit.means(...)`` returned.
        arrows: of comparison: two that overlap are means that do not differ at the
            level of the limits; default where differences are on the scale shown.
        adjust: of the comparisons; default as ``found.pairs()`` has it.
        lines: one panel of lines instead, a line a group: means against the first
            factor.
        axes: where to draw.

    Returns:
        Array of axes.

    Raises:
        NotApplicableError: too many means or groups for a figure, arrows on another
            scale than differences have, lines without a factor.
    """
    if _arguments.flag("lines", lines):
        return _lines(found, axes)
    possible = not found._ratios and "p_value" in found.table.columns
    if arrows is None:
        arrows = possible and len(found) > len(found.groups)
    if _arguments.flag("arrows", arrows) and not possible:
        raise NotApplicableError(
            "arrows= compare means on the scale of their differences; ask for "
            "fit.means(..., type='link'), or leave them out (posteriors have none)"
        )
    groups = found.groups
    most = max(map(len, groups))
    if most > MOST or len(groups) > PANELS:
        raise NotApplicableError(
            f"{len(groups)} groups of up to {most} means: a figure takes {PANELS} "
            f"groups of {MOST}. Ask for fewer factors or levels (at=)"
        )
    table = found.table
    ends = _arrows(found, adjust) if arrows else None
    grid = style.panels(len(groups), axes, (4.4, max(1.15 + 0.3 * most, 2.0)))
    names = _names(found)
    for ax, rows in zip(grid, groups, strict=True):
        _panel(ax, table.iloc[rows], [names[i] for i in rows])
        if ends is not None:
            _draw_arrows(ax, table["estimate"].to_numpy()[rows], ends[rows])
        style.titled(ax, _title(found, rows[0]), "")
    level = f"{100 * found.level:g}%"
    note = f"bars: {level} limits"
    if ends is not None:
        untold = _untold(found, ends, adjust)
        note += "; arrows that overlap: no difference"
        note += f" ({untold} pairs not so)" if untold else ""
    style.titled(grid[0], _title(found, groups[0][0]), note)
    return grid


def _names(found: MarginalMeans) -> list[str]:
    """Of rows: levels, or their contrast, as they stand."""
    columns = [c for c in found.keys if c not in found.by]
    if not columns:
        return ["mean"] * len(found.keys)
    rows = found.keys[columns].astype(str).to_numpy()
    return shortened([", ".join(row) for row in rows], LABEL)


def _title(found: MarginalMeans, row: int) -> str:
    if not found.by:
        return "Marginal means"
    parts = (f"{name} = {found.keys[name].iloc[row]}" for name in found.by)
    return middle(plain(", ".join(parts)), TITLE)


def _panel(ax, table: pd.DataFrame, names: list[str]) -> None:
    place = np.arange(len(table))[::-1]
    low, high = table["conf_low"].to_numpy(), table["conf_high"].to_numpy()
    ax.hlines(place, low, high, color=style.BAND, lw=8, zorder=1.5)
    ax.plot(table["estimate"], place, "o", ms=4.5, color=style.ACCENT, zorder=3)
    ax.set_yticks(place, names, **AS_IS)
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.06)
    ax.set_xlabel("estimate")


# Arrows -------------------------------------------------------------------------------


def _halves(found: MarginalMeans, adjust: str | None) -> list[np.ndarray]:
    """(m, m) half widths of the limits of differences, for each group."""
    pairs = found.pairs(adjust)
    table, out = pairs.table, []
    for rows, own in zip(found.groups, _of_groups(found, pairs), strict=True):
        m = len(rows)
        half = np.zeros((m, m))
        i, j = np.triu_indices(m, 1)
        width = (table["conf_high"] - table["conf_low"]).to_numpy()[own] / 2
        half[i, j] = half[j, i] = width
        out.append(half)
    return out


def _of_groups(found: MarginalMeans, pairs: MarginalMeans) -> list[np.ndarray]:
    """Rows of the pairs of each group; a group of one mean has none."""
    if not found.by:
        return [np.arange(len(pairs))]
    theirs = keys_of(pairs.keys, found.by)
    ours = keys_of(found.keys, found.by)
    firsts = [ours[rows[0]] for rows in found.groups]
    return [np.flatnonzero([key == one for key in theirs]) for one in firsts]


def _arrows(found: MarginalMeans, adjust: str | None) -> np.ndarray:
    """(m, 2) ends of the arrows down and up; the mean itself where there is none."""
    from scipy.optimize import nnls

    estimate = found.table["estimate"].to_numpy()
    ends = np.column_stack([estimate, estimate])
    for rows, half in zip(found.groups, _halves(found, adjust), strict=True):
        m = len(rows)
        if m < 2 or not np.isfinite(half).all():
            continue
        value = estimate[rows]
        i, j = np.triu_indices(m, 1)
        up = np.where(value[i] <= value[j], i, j)  # the smaller of a pair
        down = i + j - up
        h = half[i, j]
        with np.errstate(divide="ignore", invalid="ignore"):
            border = np.abs(np.abs(value[i] - value[j]) / h - 1)
        weight = 1 / (NEAR + np.nan_to_num(border, posinf=1e3))
        A = np.zeros((len(h), 2 * m))
        A[np.arange(len(h)), up] = A[np.arange(len(h)), m + down] = 1.0
        target = np.tile((half.sum(axis=1) / (m - 1)) / 2, 2)  # as long both ways
        rows_of = [A * weight[:, None], EVEN * np.eye(2 * m)]
        length = nnls(np.vstack(rows_of), np.append(h * weight, EVEN * target))[0]
        length[np.argmax(value)] = length[m + np.argmin(value)] = 0.0  # to nobody
        ends[rows] += np.column_stack([-length[m:], length[:m]])
    return ends


def _untold(found: MarginalMeans, ends: np.ndarray, adjust: str | None) -> int:
    """Pairs whose arrows overlap and that differ, or the other way round."""
    count = 0
    estimate = found.table["estimate"].to_numpy()
    for rows, half in zip(found.groups, _halves(found, adjust), strict=True):
        value, own = estimate[rows], ends[rows]
        i, j = np.triu_indices(len(rows), 1)
        differ = np.abs(value[i] - value[j]) > half[i, j]
        small = np.where(value[i] <= value[j], i, j)
        large = i + j - small
        apart = own[small, 1] < own[large, 0]
        count += int(np.sum(differ != apart))
    return count


def _draw_arrows(ax, value: np.ndarray, ends: np.ndarray) -> None:
    place = np.arange(len(value))[::-1]
    look = {"arrowstyle": "-|>,head_width=0.22,head_length=0.38", "shrinkA": 0}
    look |= {"shrinkB": 0, "color": style.SECOND, "lw": 1.1}
    for at, middle_of, pair in zip(place, value, ends, strict=True):
        for end in pair:
            if end != middle_of:
                ax.annotate("", (end, at), (middle_of, at), arrowprops=look, zorder=2.5)
    ax.update_datalim(np.column_stack([ends.ravel(), np.repeat(place, 2)]))
    ax.autoscale_view(scaley=False)


# Lines --------------------------------------------------------------------------------


def _lines(found: MarginalMeans, axes: Any) -> np.ndarray:
    """A line a group, against the first factor."""
    if not found.factors or found.factors == ("contrast",):
        raise NotApplicableError(
            "lines=True draws means against a factor: fit.means('a', by='b')"
        )
    first, *rest = found.factors
    others = [*rest, *found.by]
    keys, table = found.keys, found.table
    if others:
        label = keys[others].astype(str).agg(", ".join, axis=1)
    else:
        label = keys[first].astype(str).map(lambda _: "")
    groups = list(dict.fromkeys(label))
    if len(groups) > 3 * PANELS:
        raise NotApplicableError(
            f"{len(groups)} lines are more than a figure takes ({3 * PANELS})"
        )
    levels = list(dict.fromkeys(keys[first]))
    numeric = all(isinstance(v, int | float | np.number) for v in levels)
    place = {v: float(v) if numeric else float(k) for k, v in enumerate(levels)}
    if axes is None:
        wide = 4.2 + 0.25 * min(len(levels), 16)
        _, axes = plt.subplots(figsize=(wide, 3.6))
    (ax,) = style.given_axes(axes, 1)
    step = min(np.diff(sorted(place.values())), default=1.0)
    shown = shortened(groups, LABEL)
    for k, group in enumerate(groups):
        own = (label == group).to_numpy()
        x = np.array([place[v] for v in keys.loc[own, first]])
        x = x + 0.06 * step * (k - (len(groups) - 1) / 2) / max(len(groups) / 4, 1)
        part = table[own]
        colour = COLOURS[k % len(COLOURS)]
        ax.vlines(x, part["conf_low"], part["conf_high"], color=colour, lw=1, alpha=0.6)
        dash = ("-", "--", ":")[k // len(COLOURS) % 3]
        ax.plot(x, part["estimate"], "o" + dash, ms=4, lw=1.4, color=colour)
        ax.lines[-1].set_label(shown[k] or "_nolegend_")
    if not numeric:
        names = shortened([str(v) for v in levels], LABEL if len(levels) < 5 else 12)
        ax.set_xticks(list(place.values()), names, **AS_IS)
        if sum(map(len, names)) > 44:
            ax.tick_params(axis="x", rotation=40)
            for tick in ax.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
    ax.set_xlabel(middle(plain(first), TITLE), **AS_IS)
    ax.set_ylabel("estimate")
    if others:
        title = middle(plain(", ".join(others)), LABEL)
        legend = ax.legend(
            title=title, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
        )
        for text in (*legend.get_texts(), legend.get_title()):
            text.set(**AS_IS)
    style.titled(ax, "Marginal means", f"bars: {100 * found.level:g}% limits")
    return np.array([ax], dtype=object)
