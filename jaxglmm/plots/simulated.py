"""Simulated residuals: are they uniform, and do they depend on the prediction?

Left, ordered residuals against the quantiles of the uniform distribution, with the
band that Kolmogorov and Smirnov's test leaves them: 95 in 100 draws from the fit stay
inside it from end to end. Right, residuals against the rank
of the prediction with running quartiles, and where those of 95 in 100 draws from the
fit lie: lines that leave their bands show a mean (middle) or a spread (outer two) that
the model has wrong.
"""

from __future__ import annotations

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError
from jaxglmm.formatting import numbers
from jaxglmm.plots import style
from jaxglmm.postestimation.checking.simulated_residuals import SimulatedResiduals

QUARTILES = (0.25, 0.5, 0.75)
FEW = 12  # distinct predictions up to which each has its own quartiles
SPAN, GRID = 0.35, 60  # share of the rows that a running quantile sees; its points
MOST_ROWS, MOST_DRAWS = 2000, 100  # in running quantiles
MOST_POINTS = 10_000
ALARM = 0.01  # p-values below it are coloured


@style.styled
def simulated_residuals(residuals: SimulatedResiduals, *, axes=None) -> np.ndarray:
    """Uniform quantile plot, and residuals against the rank of the prediction.

    Args:
        residuals: what ``fit.simulated_residuals()`` returned.
        axes: two, where to draw.

    Returns:
        Array of two axes.
    """
    if not isinstance(residuals, SimulatedResiduals):
        raise ArgumentError(
            f"residuals={_arguments.shown(residuals)} must be what "
            "fit.simulated_residuals() returned"
        )
    grid = style.panels(2, axes, size=(4.3, 3.9))
    used = residuals.used
    scaled, predicted = residuals.scaled[used], residuals.predicted[used]
    _quantiles(grid[0], residuals, scaled)
    _against(grid[1], residuals, scaled, predicted)
    return grid


def band(residuals: SimulatedResiduals) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the band for points ((i - 1/2) / n, i-th residual): x, lower, upper.

    Both ends of the i-th step of the distribution function count in Kolmogorov and
    Smirnov's distance; the point drawn lies in the middle, half a step from either.
    """
    half = max(residuals.limit - 0.5 / int(residuals.used.sum()), 0.0)
    x = np.unique(np.clip([0.0, half, 1 - half, 1.0], 0, 1))
    return x, np.clip(x - half, 0, 1), np.clip(x + half, 0, 1)


def _quantiles(ax, residuals: SimulatedResiduals, scaled: np.ndarray) -> None:
    n = len(scaled)
    at = (np.arange(n) + 0.5) / n
    ax.fill_between(*band(residuals), color=style.BAND, lw=0)
    ax.plot([0, 1], [0, 1], color=style.QUIET, lw=1)
    thin = slice(None, None, max(1, n // MOST_POINTS))
    size = 14 if n <= 1000 else 6
    ax.scatter(at[thin], np.sort(scaled)[thin], s=size, color=style.ACCENT, lw=0)
    what = "uniform samples" if residuals.draws is None else "draws from the fit"
    note = f"band: 95% of {what} stay inside"
    style.titled(ax, "Simulated residuals: uniform?", note)
    ax.set_xlabel("expected")
    ax.set_ylabel("simulated residual")
    _unit(ax)
    rows = [("uniform", residuals.uniformity), ("dispersion", residuals.dispersion)]
    rows.append(("outliers", residuals.outliers))
    if np.any(residuals.zeros):
        rows.append(("zeros", residuals.zero_share))
    for k, (name, test) in enumerate(rows):
        colour = style.SECOND if test.p_value < ALARM else style.INK
        style.corner(ax, name, k)
        style.corner(ax, f"p {_p(test.p_value)}", k, indent=50, color=colour)


def _p(value: float) -> str:
    text = numbers.p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _unit(ax) -> None:
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.03, 1.03)
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    box = ax.get_window_extent()
    for axis, size in ((ax.xaxis, box.width), (ax.yaxis, box.height)):
        style.few_ticks(axis, ticks, size / ax.figure.dpi)


def _against(ax, residuals, scaled: np.ndarray, predicted: np.ndarray) -> None:
    order = np.argsort(predicted, kind="stable")
    draws = None
    if residuals.draws is not None:
        draws = residuals.draws[1 : MOST_DRAWS + 1][:, order]
    n = len(scaled)
    rank = (np.arange(n) + 0.5) / n
    own = scaled[order]
    levels, cell = np.unique(np.round(predicted[order], 12), return_inverse=True)
    for q in QUARTILES:
        ax.axhline(q, color=style.QUIET, lw=0.8, ls=(0, (4, 3)), zorder=1)
    outside = residuals.beyond[residuals.used][order]
    thin = np.arange(0, n, max(1, n // MOST_POINTS))
    alpha = float(np.clip(60 / len(thin) ** 0.6, 0.12, 0.6))
    for some, colour, mark in (
        (~outside, style.ACCENT, "o"),
        (outside, style.SECOND, "x"),
    ):
        here = thin[some[thin]]
        shown = (
            {"lw": 0, "alpha": alpha} if mark == "o" else {"lw": 1.2, "clip_on": False}
        )
        ax.scatter(rank[here], own[here], s=16, color=colour, marker=mark, **shown)
    draw = _by_level if 1 < len(levels) <= FEW else _running
    draw(ax, rank, own, draws, cell)
    many = "running quartiles" if draw is _running else "quartiles of each prediction"
    note = many if draws is None else f"{many}; grey: where 95% of draws have theirs"
    style.titled(ax, "Simulated residuals and prediction", note)
    ax.set_xlabel("rank of the prediction")
    ax.set_ylabel("simulated residual")
    _unit(ax)


def _by_level(ax, rank, own, draws, cell) -> None:
    """Quartiles of each of a few predictions."""
    for k in range(int(cell.max()) + 1):
        rows = np.flatnonzero(cell == k)
        at = rank[rows[[0, -1]]] + np.array([-0.5, 0.5]) / len(rank)
        middle = np.quantile(own[rows], QUARTILES)
        drawn = (
            None if draws is None else np.quantile(draws[:, rows], QUARTILES, axis=1)
        )
        for j, value in enumerate(middle):
            if drawn is not None:
                low, high = np.quantile(drawn[j], [0.025, 0.975])
                ax.fill_between(at, low, high, color=style.QUIET, alpha=0.28, lw=0)
            ax.plot(at, [value, value], color=style.SECOND, lw=2, zorder=4)
        if k:
            ax.axvline(at[0], color=style.QUIET, lw=0.5, zorder=1)


def _running(ax, rank, own, draws, cell) -> None:
    """Running quartiles over the rank."""
    thin = slice(None, None, max(1, len(rank) // MOST_ROWS))
    at, curves = running_quantiles(rank[thin], own[None, thin])
    if draws is not None:
        _, drawn = running_quantiles(rank[thin], draws[:, thin])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
        for j in range(len(QUARTILES)):
            ax.fill_between(at, low[j], high[j], color=style.QUIET, alpha=0.28, lw=0)
    for curve in curves[:, 0]:
        ax.plot(at, curve, color=style.SECOND, lw=2, zorder=4)


def running_quantiles(
    rank: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Quartiles in a window of tricube weights along ``rank``.

    Args:
        rank: (n,) increasing.
        values: (d, n), each row on its own.

    Returns:
        (g,) positions and (3, d, g) quantiles.
    """
    n = len(rank)
    k = min(n, max(int(np.ceil(SPAN * n)), 10))
    at = np.linspace(rank[0], rank[-1], min(GRID, n))
    out = np.empty((len(QUARTILES), len(values), len(at)))
    for g, t in enumerate(at):
        start = int(np.clip(np.searchsorted(rank, t) - k // 2, 0, n - k))
        window = slice(start, start + k)
        distance = np.abs(rank[window] - t)
        weight = (1 - (distance / (distance.max() * (1 + 1e-9) + 1e-12)) ** 3) ** 3
        order = np.argsort(values[:, window], axis=1)
        total = np.cumsum(weight[order], axis=1)
        ordered = np.take_along_axis(values[:, window], order, axis=1)
        for j, q in enumerate(QUARTILES):
            place = np.sum(total < q * total[:, -1:], axis=1)
            out[j, :, g] = ordered[np.arange(len(values)), np.minimum(place, k - 1)]
    return at, out
