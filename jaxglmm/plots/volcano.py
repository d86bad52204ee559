"""Many models at a glance: effect against evidence, and the shape of the p-values."""

from __future__ import annotations

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.numerics import multiplicity
from jaxglmm.plots import style
from jaxglmm.plots.labels import AS_IS, short, shortened
from jaxglmm.postestimation.collection.tables import column, tested

LEAST = 1e-300  # p-values of zero are drawn here
APART = 0.04  # names, of the highest point
BEYOND, USUAL = 3.0, 0.99  # times this quantile of the estimates' sizes is far out
LETTER, LINE = 4.2, 9.0  # points, of a name's letter and line
TITLE, LABEL = 18, 16  # characters of a coefficient's and a data set's name


@style.styled
def volcano(fits, term: str, *, rate: float = 0.05, labels: int = 8, ax=None):
    """Estimates of one coefficient against minus log10 of their p-values.

    Fits that did not converge are left out, and so are separated ones, whose estimates
    are as large as the optimiser went; a line below the title counts both. Estimates
    far beyond all others are drawn as arrows at the edge.

    Args:
        fits: many fits.
        term: name of the coefficient.
        rate: false discovery rate (Benjamini and Hochberg, over all fits that
            converged) of what is coloured.
        labels: how many of the smallest p-values are named.
        ax: where to draw.

    Returns:
        Axes.

    Raises:
        NotApplicableError: there is nothing to draw, or ``labels`` is no number.
    """
    if not _arguments.is_whole(labels):
        raise NotApplicableError(
            f"volcano(labels={_arguments.shown(labels)}): how many data sets to "
            "name, a whole number; their names are fits.labels"
        )
    rate = _arguments.between("rate", rate, "0.05 for five false ones in a hundred")
    labels = int(labels)
    k, p = column(fits, term), tested(fits)[:, column(fits, term)]
    x, q = np.asarray(fits.coefficients[:, k]), multiplicity.adjusted(p, "fdr_bh")
    known = np.isfinite(x) & np.isfinite(p)
    shown = known & ~_separated(fits)
    if not shown.any():
        raise NotApplicableError(f"no data set has a p-value for {term!r}")
    rows = np.flatnonzero(shown)
    x, y = x[rows], -np.log10(np.maximum(p[rows], LEAST))
    found = q[rows] < rate
    ax = style.one_axes(ax, (5.2, 4.2))
    edge = _edge(x)
    _points(ax, x, y, found, edge)
    style.zero_line(ax, vertical=True)
    if found.any():
        ax.axhline(
            float(y[found].min()), color=style.QUIET, lw=0.9, ls="--", zorder=1.1
        )
    _name(ax, fits, rows, np.clip(x, -edge, edge), y, found, labels)
    share = f"{np.sum(q < rate):,} of {known.sum():,} at FDR {rate:g}"
    title = f"{short(term, TITLE)}: {share}"
    style.titled(ax, title, _left_out(fits, known & ~shown))
    ax.set_xlabel(f"estimate of {short(term, 2 * TITLE)}", **AS_IS)
    ax.set_ylabel("$-\\log_{10}$ p", usetex=False)
    ax.set_ylim(0, 1.1 * max(float(y.max()), 1.0))
    if edge > 0:
        ax.set_xlim(-1.15 * edge, 1.15 * edge)
    return ax


def _separated(fits) -> np.ndarray:
    none = np.zeros(len(fits), bool)
    return none if fits.separated is None else np.asarray(fits.separated)


def _left_out(fits, separated: np.ndarray) -> str | None:
    """How many data sets are not drawn, and why; None where there are none."""
    counts = {
        "not converged": int(np.sum(~np.asarray(fits.converged))),
        "separated": int(separated.sum()),
    }
    words = [f"{count:,} {why}" for why, count in counts.items() if count]
    return f"left out: {', '.join(words)}" if words else None


def _edge(x: np.ndarray) -> float:
    """The largest estimate, of those that are not far beyond all others."""
    size = np.abs(x)
    usual = BEYOND * float(np.quantile(size, USUAL))
    near = size[size <= usual]
    return float(near.max() if len(near) and usual > 0 else size.max())


def _points(ax, x: np.ndarray, y: np.ndarray, found: np.ndarray, edge: float) -> None:
    """Points in three colours; arrows at the edge for what lies beyond it."""
    alpha = float(np.clip(120 / len(x) ** 0.6, 0.15, 0.75))
    inside = np.abs(x) <= edge
    sides = [(~found, style.QUIET), (found & (x < 0), style.ACCENT)]
    for mask, colour in [*sides, (found & (x >= 0), style.SECOND)]:
        strong = alpha if colour == style.QUIET else max(alpha, 0.6)
        look = {"color": colour, "alpha": strong, "lw": 0}
        ax.scatter(x[mask & inside], y[mask & inside], s=12, **look)
        for far, mark, at in ((x < -edge, "<", -edge), (x > edge, ">", edge)):
            out = mask & far
            if out.any():
                place = np.full(out.sum(), 1.1 * at)
                ax.scatter(place, y[out], s=30, marker=mark, **(look | {"alpha": 0.9}))


def _name(ax, fits, rows, x, y, found, labels: int) -> None:
    """The strongest findings by name, one below the other on either side.

    A name points outwards where it fits between its point and the edge; the middle
    of the picture, above the weak findings, has room for the others.
    """
    names = np.arange(len(fits)) if fits.labels is None else fits.labels
    order = np.argsort(-y, kind="stable")[:labels]
    scale = 72 / ax.figure.dpi
    gap = max(APART, LINE / (ax.bbox.height * scale)) * max(float(y.max()), 1.0)
    reach = 1.15 * max(float(np.abs(x).max()), 1e-300)
    wide = 2 * reach * LETTER / (ax.bbox.width * scale)  # of a letter
    lowest = {False: np.inf, True: np.inf}
    strongest = order[found[order]]
    shown = shortened([names[rows[i]] for i in strongest], LABEL)
    for i, name in zip(strongest, shown, strict=True):
        right = bool(x[i] >= 0)
        height = min(float(y[i]) + gap / 2, lowest[right] - gap)
        lowest[right] = height
        moved = abs(height - y[i]) > gap
        outward = abs(x[i]) + wide * (len(name) + 2) < reach
        step = (1 if right == outward else -1) * reach * (0.05 if moved else 0.017)
        ax.annotate(
            name,
            (x[i], y[i]),
            xytext=(x[i] + step, height),
            ha="left" if right == outward else "right",
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": style.QUIET}
            if moved
            else None,
            **AS_IS,
        ).set_in_layout(False)


@style.styled
def p_values(fits, term: str, *, bins: int = 20, ax=None):
    """Histogram of the p-values of one coefficient.

    Of fits that converged. Flat where no data set has an effect; a peak at zero are
    findings. A slope towards one, or a hill in the middle, says that the tests do not
    hold what they promise.

    Args:
        fits: many fits.
        term: name of the coefficient.
        bins: number of bins.
        ax: where to draw.

    Returns:
        Axes.
    """
    k = column(fits, term)
    bins = _arguments.whole("bins", bins, 1, 100_000, error=NotApplicableError)
    p = tested(fits)[:, k]
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
    ax.set_title(f"p-values of {short(term, TITLE)}, {len(p):,} data sets", **AS_IS)
    ax.set_xlabel("p-value")
    ax.set_ylabel("data sets")
    ax.set_xlim(0, 1)
    return ax


def _share_null(p: np.ndarray) -> float:
    """Share of data sets without an effect: p above one half, doubled (Storey 2002)."""
    return float(min(1.0, 2 * np.mean(p > 0.5)))
