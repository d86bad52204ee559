"""Normal quantile plots of residuals or random effects, with a simultaneous band."""

from __future__ import annotations

import numpy as np
from scipy import special

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import residual, style
from jaxglmm.plots.bands import normal_band, positions
from jaxglmm.plots.caterpillar import check_factor, effect_label
from jaxglmm.plots.labels import shortened

TITLE = 27  # characters above a panel


@style.styled
def qq(
    fit,
    what: str = "residuals",
    *,
    factor: str | None = None,
    level: float = 0.95,
    ax=None,
    axes=None,
):
    """Normal quantile plot.

    Args:
        fit: the fit.
        what: "residuals" (scaled ones; quantile residuals of a generalised model, which
            are normal whatever the family) or "ranef" (a panel a factor and column).
        factor: of the random effects; all by default.
        level: probability that a normal sample stays inside the band everywhere,
            drawn about its own mean in units of its own standard deviation.
        ax: where to draw residuals.
        axes: where to draw random effects.

    Returns:
        Axes for residuals, array of axes for random effects.
    """
    level = _arguments.level(level)
    if not _arguments.is_among(what, ("residuals", "ranef")):
        shown = _arguments.shown(what)
        raise NotApplicableError(f"qq({shown}): there are 'residuals' and 'ranef'")
    if what == "residuals":
        ax = style.one_axes(ax, (4.4, 4.0))
        type, values = residual.best(fit)
        one(ax, values[fit.design.counted], level)
        style.titled(ax, "Normal quantiles of residuals", _note(level))
        ax.set_ylabel(residual.LABELS[type])
        return ax
    shown = _columns(fit, factor)
    grid = style.panels(len(shown), axes)
    titles = shortened([name for name, _ in shown], TITLE)
    for panel, title, (_, values) in zip(grid, titles, shown, strict=True):
        one(panel, values, level)
        style.titled(panel, title, _note(level))
        panel.set_ylabel(effect_label(fit))
    return grid


def _note(level: float) -> str:
    return f"band: {100 * level:g}% of normal samples stay inside"


def _columns(fit, factor) -> list[tuple[str, np.ndarray]]:
    check_factor(fit, factor)
    shown = [
        (f"{name}: {column}", modes[column].to_numpy())
        for name, modes in fit.ranef.items()
        if factor in (None, name)
        for column in modes.columns
    ]
    if not shown:
        raise NotApplicableError(
            f"There are no random effects of factor {factor!r}; there are "
            f"{', '.join(fit.ranef) or 'none'}"
        )
    return shown


def one(ax, values: np.ndarray, level: float) -> None:
    """A sample against normal quantiles, the line through its mean and sd, the band."""
    n = len(values)
    centre, scale = float(values.mean()), float(values.std())
    theory = special.ndtri(positions(np.arange(1, n + 1), n))
    sample = np.sort(values)
    at, lower, upper = normal_band(n, level)
    ax.fill_between(
        at, centre + scale * lower, centre + scale * upper, color=style.BAND, lw=0
    )
    ends = np.array([theory[0], theory[-1]])
    ax.plot(ends, centre + scale * ends, color=style.QUIET, lw=1)
    outside = _outside(theory, (sample - centre) / (scale or 1.0), at, lower, upper)
    size = 14 if n <= 1000 else 6
    for some, colour in ((~outside, style.ACCENT), (outside, style.SECOND)):
        ax.scatter(theory[some], sample[some], s=size, color=colour, lw=0, zorder=3)
    ax.set_xlabel("standard normal quantile")
    if outside.any():
        style.corner(ax, f"{int(outside.sum()):,} of {n:,} points outside")
    ax.margins(x=0.04, y=0.08)


def _outside(theory, scaled, at, lower, upper) -> np.ndarray:
    """Which points leave the band (interpolated between its knots)."""
    low, high = np.interp(theory, at, lower), np.interp(theory, at, upper)
    return (scaled < low) | (scaled > high)
