"""Wright map: persons' abilities above, items' difficulties below, on one axis.

A person to the right of an item is more likely right than not. Items are sorted, the
hardest on top, with intervals of their conditional standard deviations.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from scipy import special

from jaxglmm import _arguments
from jaxglmm.plots import style
from jaxglmm.plots.caterpillar import check_labels
from jaxglmm.plots.labels import AS_IS, middle, plain, shortened

LABEL, TITLE = 24, 30  # characters


@style.styled
def wright_map(
    found, *, level: float = 0.95, max_labels: int = 60, axes=None
) -> np.ndarray:
    """Two panels over one axis.

    Args:
        found: what ``fit.persons_items()`` returned.
        level: coverage of the intervals.
        max_labels: number of items up to which each is named.
        axes: two, where to draw: persons, items.

    Returns:
        Array of two axes.
    """
    level, max_labels = _arguments.level(level), check_labels(max_labels)
    if axes is None:
        named = len(found.items) <= max_labels
        below = max(0.9 + 0.175 * len(found.items), 1.6) if named else 3.4
        _, axes = plt.subplots(
            2, 1, sharex=True, figsize=(6.6, 1.9 + below), height_ratios=[1.9, below]
        )
    above, below = style.given_axes(axes, 2)
    _persons(above, found)
    _items(below, found, special.ndtri((1 + level) / 2), max_labels, level)
    return np.array([above, below], dtype=object)


def _persons(ax, found) -> None:
    ability = found.persons["ability"].to_numpy()
    bins = int(np.clip(np.sqrt(len(ability)) * 1.6, 5, 60))
    ax.hist(ability, bins, color=style.ACCENT, alpha=0.75, ec="white", lw=0.5)
    ax.axvline(float(ability.mean()), color=style.INK, lw=1)
    ax.set_ylabel("persons")
    ax.tick_params(axis="x", labelbottom=False)
    ax.yaxis.get_major_locator().set_params(integer=True)
    name = middle(plain(found.person_factor), TITLE)
    note = f"line: their mean; reliability {found.reliability:.2f}"
    style.titled(ax, f"{len(ability):,} persons: {name}", note)


def _items(ax, found, z: float, most: int, level: float) -> None:
    order = np.argsort(found.items["difficulty"].to_numpy(), kind="stable")
    items = found.items.iloc[order]
    value, half = items["difficulty"].to_numpy(), z * items["std_error"].to_numpy()
    at = np.arange(len(items))
    named = len(items) <= most
    width = 1.6 if named else float(np.clip(300 / len(items), 0.3, 1.2))
    ax.hlines(at, value - half, value + half, style.QUIET, lw=width)
    ax.plot(value, at, "o", color=style.SECOND, ms=4.2 if named else 2)
    ax.axvline(float(found.persons["ability"].mean()), color=style.INK, lw=1)
    ax.set_ylim(-0.8, len(items) - 0.2)
    if named:
        ax.set_yticks(at, shortened(items.index, LABEL), **AS_IS)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", color="#eef0f3", lw=0.7)
    else:
        ax.set_ylabel("items, by difficulty")
    scale = "logits" if found.link == "logit" else f"{found.link} scale"
    ax.set_xlabel(f"ability and difficulty ({scale})")
    name = middle(plain(found.item_factor), TITLE)
    note = f"the hardest on top, {100 * level:g}% intervals"
    style.titled(ax, f"{len(items):,} items: {name}", note)
