"""Many models at a glance: effect against evidence, and the shape of the p-values."""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import style
from jaxglmm.results.fits.tables import benjamini_hochberg, column

LEAST = 1e-300  # p-values of zero are drawn here
APART = 0.04  # names, of the highest point


@style.styled
def volcano(fits, term: str, *, rate: float = 0.05, labels: int = 8, ax=None):
    """Estimates of one coefficient against minus log10 of their p-values.

    Args:
        fits: many fits.
        term: name of the coefficient.
        rate: false discovery rate (Benjamini and Hochberg) of what is coloured.
        labels: how many of the smallest p-values are named.
        ax: where to draw.

    Returns:
        Axes.
    """
    k, p = column(fits, term), _p(fits, term)
    x = np.asarray(fits.coefficients[:, k])
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(p))
    if len(known) == 0:
        raise NotApplicableError(f"no data set has a p-value for {term!r}")
    x, p = x[known], np.maximum(p[known], LEAST)
    y = -np.log10(p)
    found = benjamini_hochberg(p) < rate
    ax = style.one_axes(ax, (5.2, 4.2))
    alpha = float(np.clip(120 / len(x) ** 0.6, 0.15, 0.75))
    sides = [(~found, style.QUIET), (found & (x < 0), style.ACCENT)]
    for mask, colour in [*sides, (found & (x >= 0), style.SECOND)]:
        strong = alpha if colour == style.QUIET else max(alpha, 0.6)
        ax.scatter(x[mask], y[mask], s=12, color=colour, alpha=strong, lw=0)
    style.zero_line(ax, vertical=True)
    if found.any():
        edge = float(y[found].min())
        ax.axhline(edge, color=style.QUIET, lw=0.9, ls="--", zorder=1.1)
    _name(ax, fits, known, x, y, found, labels)
    ax.set_title(f"{term}: {found.sum():,} of {len(x):,} at FDR {rate:g}")
    ax.set_xlabel(f"estimate of {term}")
    ax.set_ylabel("$-\\log_{10}$ p")
    ax.set_ylim(0, 1.1 * max(float(y.max()), 1.0))
    limit = 1.15 * float(np.abs(x).max())
    if limit > 0:
        ax.set_xlim(-limit, limit)
    return ax


def _name(ax, fits, known, x, y, found, labels: int) -> None:
    """The strongest findings by name, towards the outside, one below the other."""
    names = np.arange(len(fits)) if fits.labels is None else fits.labels
    order = np.argsort(-y, kind="stable")[:labels]
    gap = APART * max(float(y.max()), 1.0)
    side = 0.02 * max(float(np.abs(x).max()), 1e-300)
    lowest = {False: np.inf, True: np.inf}
    for i in order[found[order]]:
        right = bool(x[i] >= 0)
        height = min(float(y[i]) + gap / 2, lowest[right] - gap)
        lowest[right] = height
        moved = abs(height - y[i]) > gap
        ax.annotate(
            str(names[known[i]]),
            (x[i], y[i]),
            xytext=(x[i] + (1 if right else -1) * side * (3 if moved else 1), height),
            ha="left" if right else "right",
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": style.QUIET}
            if moved
            else None,
        )


@style.styled
def p_values(fits, term: str, *, bins: int = 20, ax=None):
    """Histogram of the p-values of one coefficient.

    Flat where no data set has an effect; a peak at zero are findings. A slope towards
    one, or a hill in the middle, says that the tests do not hold what they promise.

    Args:
        fits: many fits.
        term: name of the coefficient.
        bins: number of bins.
        ax: where to draw.

    Returns:
        Axes.
    """
    p = _p(fits, term)
    p = p[np.isfinite(p)]
    if len(p) == 0:
        raise NotApplicableError(f"no data set has a p-value for {term!r}")
    ax = style.one_axes(ax, (5.2, 3.6))
    edges = np.linspace(0, 1, bins + 1)
    ax.hist(p, edges, color=style.ACCENT, edgecolor="white", lw=0.6)
    null = _share_null(p)
    ax.axhline(
        null * len(p) / bins,
        color=style.SECOND,
        lw=1.6,
        label=f"no effect: about {100 * null:.0f} %",
    )
    ax.legend(loc="upper right", fontsize=8)
    ax.set_title(f"p-values of {term}, {len(p):,} data sets")
    ax.set_xlabel("p-value")
    ax.set_ylabel("data sets")
    ax.set_xlim(0, 1)
    return ax


def _share_null(p: np.ndarray) -> float:
    """Share of data sets without an effect: p above one half, doubled (Storey 2002)."""
    return float(min(1.0, 2 * np.mean(p > 0.5)))


def _p(fits, term: str) -> np.ndarray:
    if fits.p_values is None:
        raise NotApplicableError("these fits have no p-values: they are draws")
    return np.asarray(fits.p_values[:, column(fits, term)])
