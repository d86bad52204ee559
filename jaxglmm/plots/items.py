"""Item characteristic curves: the probability of a right answer along the ability.

All curves have the shape of the link and differ in their place, the difficulty, where
the probability is a half (of links that are symmetric). Bands are those of the
difficulties' conditional standard deviations; ticks below are the persons.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from scipy import special

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.model.links import link_from
from jaxglmm.plots import style
from jaxglmm.plots.labels import AS_IS, middle, plain, shortened
from jaxglmm.runtime.precision import double_precision

POINTS, BEYOND = 301, 1.5  # of a curve, and units beyond the outermost place
LABEL, TITLE = 24, 30  # characters


@style.styled
def item_curves(found, which=None, *, level: float = 0.95, most: int = 8, axes=None):
    """Curves of items over one axis of ability, each named at its end.

    Args:
        found: what ``fit.persons_items()`` returned.
        which: names of items; by default up to ``most``, evenly from the easiest to the
            hardest.
        level: coverage of the bands.
        most: number of items that are shown where ``which`` is not given.
        axes: where to draw.

    Returns:
        The axes.

    Raises:
        NotApplicableError: no item of such a name.
    """
    z = special.ndtri((1 + _arguments.level(level)) / 2)
    items = _chosen(found, which, _arguments.whole("most", most, 1, None))
    if axes is None:
        _, axes = plt.subplots(figsize=(6.6, 4.0))
    ability = found.persons["ability"].to_numpy()
    places = np.concatenate([ability, items["difficulty"].to_numpy()])
    theta = np.linspace(places.min() - BEYOND, places.max() + BEYOND, POINTS)
    colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(items)))
    names = shortened([plain(str(name)) for name in items.index], LABEL)
    shape = _inverse(found.link)
    for (_, item), colour, name in zip(items.iterrows(), colours, names, strict=True):
        difficulty, half = item["difficulty"], z * item["std_error"]
        axes.plot(theta, shape(theta - difficulty), color=colour, lw=1.4, label=name)
        low, high = (shape(theta - difficulty + s * half) for s in (-1, 1))
        axes.fill_between(theta, low, high, color=colour, alpha=0.12, lw=0)
    axes.plot(ability, np.full(len(ability), -0.035), "|", color=style.INK, ms=5)
    axes.axhline(0.5, color=style.QUIET, lw=0.8, ls=":")
    axes.set_ylim(-0.06, 1.03)
    axes.set_xlim(theta[0], theta[-1])
    axes.set_xlabel(f"ability ({found.link})", **AS_IS)
    axes.set_ylabel("probability of a right answer")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="easiest first")
    total = len(found.items)
    name = middle(plain(found.item_factor), TITLE)
    shown = (
        f"{len(items)} of {total:,} items" if len(items) < total else f"{total} items"
    )
    style.titled(axes, f"{shown}: {name}", f"bands: {100 * level:g}%; ticks: persons")
    return axes


def _chosen(found, which, most: int):
    """Rows of the items to be shown, the easiest first."""
    items = found.items.sort_values("difficulty", kind="stable")
    if which is None:
        at = np.unique(
            np.linspace(0, len(items) - 1, min(most, len(items))).astype(int)
        )
        return items.iloc[at]
    names = _arguments.names("which", which, meaning="an item's name")
    known = {str(name): name for name in items.index}
    for name in names:
        if str(name) not in known:
            raise NotApplicableError(
                f"which={name!r} is none of the {len(known)} items; there are "
                f"{', '.join(list(known)[:8])}{', ...' if len(known) > 8 else ''}"
            )
    wanted = {str(name) for name in names}
    return items[[str(name) in wanted for name in items.index]]


def _inverse(link: str):
    inverse = link_from(link).inverse
    return double_precision(lambda eta: np.asarray(inverse(eta), float))
