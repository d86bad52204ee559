"""Profile zeta plots: the signed root of the rise of the profiled deviance.

zeta(x) = sign(x - estimate) sqrt(deviance(x) - deviance(estimate)). A straight line
means a quadratic deviance, where Wald intervals are right; curvature shows by how much
they are not. The marked intervals are where |zeta| is a normal quantile.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import special
from scipy.interpolate import PchipInterpolator

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm.plots import style
from jaxglmm.plots.labels import AS_IS, shortened, wrapped

WIDE = 100.0  # largest over smallest value from which a scale's axis is logarithmic
TITLE = 25  # characters above a panel
SHADES = ("#1d5fbf", "#6f9fdc", "#b3cdf0")


@style.styled
def profile(profile, *, levels=(0.5, 0.8, 0.95), which=None, axes=None) -> np.ndarray:
    """Zeta against each parameter, with intervals.

    Args:
        profile: what ``fit.profile()`` returned.
        levels: coverages of the marked intervals.
        which: names of the parameters; all by default.
        axes: where to draw, one a parameter.

    Returns:
        Array of axes.
    """
    if not callable(getattr(profile, "intervals", None)):
        raise ArgumentError(
            f"profile={_arguments.shown(profile)} must be what fit.profile() returned"
        )
    named = "a parameter's name"
    wanted = None if which is None else _arguments.names("which", which, meaning=named)
    levels = [levels] if _arguments.is_number(levels) else levels
    if not isinstance(levels, Iterable):
        raise ArgumentError(f"levels={_arguments.shown(levels)} must be some coverages")
    levels = [_arguments.level(level, "levels") for level in levels]
    curves = {
        str(name): curve.sort_values("value").drop_duplicates("value")
        for name, curve in profile.zeta.groupby("parameter", sort=False)
        if wanted is None or name in wanted
    }
    if not curves:
        names = ", ".join(map(str, profile.zeta["parameter"].unique()))
        raise NotApplicableError(f"No parameter of {wanted} was profiled; only {names}")
    levels = sorted(levels, reverse=True)
    limits = {level: profile.intervals(level) for level in levels}
    scales = positive(profile)
    grid = style.panels(len(curves), axes, size=(2.9, 2.6))
    titles = _titles(list(curves))
    for ax, title, (name, curve) in zip(grid, titles, curves.items(), strict=True):
        own = {k: v.loc[name] for k, v in limits.items()}
        _one(ax, curve, own, name in scales)
        ax.set_title(title, fontsize=9.5, **AS_IS)
    _explain(grid[0], sorted(levels))
    return grid


def _explain(ax, levels) -> None:
    """What the blue boxes are, in the first panel."""
    shown = ", ".join(f"{100 * level:g}%" for level in levels)
    style.corner(ax, f"intervals: {shown}", fontsize=7)


def positive(profile) -> set[str]:
    """Parameters that cannot be negative: standard deviations, dispersion."""
    curves = getattr(profile, "curves", {})
    return {name for name, curve in curves.items() if curve.ends[0] >= 0}


def _one(ax, curve: pd.DataFrame, limits: dict[float, pd.Series], scale: bool) -> None:
    value, zeta = curve["value"].to_numpy(float), curve["zeta"].to_numpy(float)
    finite = np.isfinite(value) & np.isfinite(zeta)
    value, zeta = value[finite], zeta[finite]
    if scale and value[0] > 0 and value[-1] > WIDE * value[0]:
        ax.set_xscale("log")
    style.zero_line(ax)
    for (level, ends), colour in zip(
        limits.items(), SHADES[::-1][-len(limits) :], strict=False
    ):
        _interval(ax, level, ends, colour, (value[0], value[-1]))
    log = ax.get_xscale() == "log"
    ax.plot(*_curve(value, zeta, log), color=style.INK, lw=1.6, zorder=3)
    ax.set_ylabel("zeta")
    if not log:
        ax.locator_params(axis="x", nbins=5)
    ax.set_ylim(-3.2, 3.2)


def _curve(
    value: np.ndarray, zeta: np.ndarray, log: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The points joined by a curve that rises wherever they do."""
    if len(value) < 3:
        return value, zeta
    space = np.geomspace if log else np.linspace
    at = np.clip(space(value[0], value[-1], 150), value[0], value[-1])
    return at, PchipInterpolator(value, zeta)(at)


def _titles(names: list[str]) -> list[str]:
    """Names, in two lines where they are long, different where they differ."""
    lines = [wrapped(name, TITLE) for name in names]
    return lines if len(set(lines)) == len(lines) else shortened(names, TITLE)


def _interval(ax, level: float, ends: pd.Series, colour: str, span) -> None:
    """A box from lower to upper, as high as the normal quantile of its level."""
    z = float(special.ndtri((1 + level) / 2))
    lower, upper = float(ends["lower"]), float(ends["upper"])
    lower = lower if np.isfinite(lower) else span[0]
    upper = upper if np.isfinite(upper) else span[1]
    ax.fill_between([lower, upper], -z, z, color=colour, alpha=0.35, lw=0, zorder=0)
    for end in (lower, upper):
        ax.vlines(end, -z, z, color=colour, lw=1, zorder=1)
