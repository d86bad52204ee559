"""Smooths of a fit with their bands: a panel each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm.plots import style
from jaxglmm.plots.labels import AS_IS
from jaxglmm.postestimation.prediction import smooths as _smooths

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel


@style.styled
def smooths(fit: FittedModel, *, level: float = 0.95, axes: Any = None):
    """Curves of all smooths on the scale of the predictor, each around zero.

    Surfaces of two variables are shown by their height.

    Args:
        fit: a fit with smooths.
        level: coverage of the bands, pointwise.
        axes: where to draw, one a smooth.

    Returns:
        Array of axes.

    Raises:
        NotApplicableError: the model has no smooths.
    """
    _arguments.level(level)
    table = _smooths.table(fit)
    found = [s for s in _smooths.found(fit, "plot.smooths()") if len(s.variables) <= 2]
    axes = style.panels(len(found), axes)
    for ax, smooth in zip(np.ravel(axes), found, strict=False):
        data = _smooths.curve(fit, smooth.label, None, level)
        edf = f"edf {table.edf[smooth.label]:.2f}"
        if len(smooth.variables) == 2:
            _surface(ax, smooth.variables, data)
        else:
            (name,) = smooth.variables
            ax.fill_between(data[name], data["lower"], data["upper"], color=style.BAND)
            ax.plot(data[name], data["estimate"], color=style.ACCENT, lw=1.6)
            style.zero_line(ax)
            x = np.asarray(fit.design.variables[name], float)
            low, high = ax.get_ylim()
            ax.plot(x, np.full(len(x), low), "|", color=style.QUIET, ms=5)
            ax.set_ylim(low, high)
            ax.set_xlabel(name, **AS_IS)
        style.titled(ax, smooth.label, edf)
    return axes


def _surface(ax: Any, names: tuple[str, ...], data: Any) -> None:
    side = _smooths.SIDE
    x, y = (data[name].to_numpy().reshape(side, side) for name in names)
    z = data["estimate"].to_numpy().reshape(side, side)
    most = float(np.abs(z).max()) or 1.0
    drawn = ax.contourf(x, y, z, 15, cmap="RdBu_r", vmin=-most, vmax=most)
    ax.figure.colorbar(drawn, ax=ax)
    ax.set_xlabel(names[0], **AS_IS)
    ax.set_ylabel(names[1], **AS_IS)
