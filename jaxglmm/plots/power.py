"""Power by size, with exact limits."""

from __future__ import annotations

import numpy as np

from jaxglmm import _arguments
from jaxglmm.plots import style
from jaxglmm.plots.labels import middle, plain

NAME = 40  # characters


@style.styled
def power_curve(curve, *, level: float = 0.95, wanted: float | None = 0.8, ax=None):
    """Power against size, Clopper and Pearson's limits as bars.

    Args:
        curve: what ``power_curve`` returned.
        level: coverage of the limits.
        wanted: a power that is marked, None for none.
        ax: where to draw.

    Returns:
        Axes.
    """
    table = curve.tidy(_arguments.level(level))
    if wanted is not None:
        wanted = _arguments.between("wanted", wanted, "a share of simulations")
    ax = style.one_axes(ax, (5.0, 3.6))
    x = np.asarray(table.index, float)
    power = 100 * table["power"].to_numpy()
    low, high = (100 * table[c].to_numpy() for c in ("conf_low", "conf_high"))
    if wanted is not None:
        ax.axhline(100 * wanted, color=style.QUIET, lw=0.9, ls=(0, (4, 3)), zorder=1)
    ax.plot(x, power, color=style.ACCENT, lw=1.4)
    ax.vlines(x, low, high, color=style.ACCENT, lw=1.2)
    ax.plot(x, power, "o", ms=4.5, color=style.ACCENT)
    ax.set_ylim(0, 103)
    ax.margins(x=0.06)
    ax.set_xlabel(middle(plain(curve.along), NAME))
    ax.set_ylabel("power (per cent)")
    first = curve.powers[0]
    note = (
        f"{first.method}, alpha {first.alpha:g}, {first.n:,} simulations each; bars: "
        f"{100 * level:g} per cent limits"
    )
    style.titled(ax, middle(plain(f"Power of {first.test}"), NAME), note)
    return ax
