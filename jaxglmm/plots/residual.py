"""Residuals against fitted values: what is left should have no shape."""

from __future__ import annotations

import contextlib

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import style
from jaxglmm.plots.smooth import local_linear

MOST_POINTS = 20_000  # above this the density of points is drawn instead

LABELS = {
    "response": "residual",
    "pearson": "Pearson residual",
    "scaled": "scaled residual",
    "deviance": "deviance residual",
    "working": "working residual",
    "quantile": "quantile residual",
}
BEST = ("quantile", "scaled", "deviance")  # what a model has of these is drawn


@style.styled
def residuals(fit, *, type: str | None = None, smooth: bool = True, ax=None):
    """Residuals against fitted values, with a smooth curve.

    Those of a generalised model are drawn against the linear predictor. Its deviance
    and Pearson residuals lie in bands where the response is discrete; randomised
    quantile residuals do not (Dunn and Smyth 1996).

    Args:
        fit: the fit.
        type: of ``fit.resid``; default "scaled" for linear models, "quantile" for
            generalised ones.
        smooth: whether to draw the curve.
        ax: where to draw.

    Returns:
        Axes.
    """
    type, y = best(fit) if type is None else (type, np.asarray(fit.resid(type)))
    linear = fit.link_name == "identity"
    x = np.asarray(fit.fitted_values if linear else fit.linear_predictor)
    ax = style.one_axes(ax, (5.2, 3.8))
    if len(x) > MOST_POINTS:
        cells = ax.hexbin(x, y, gridsize=70, bins="log", cmap="Blues", mincnt=1, lw=0)
        cells.norm.vmin = 0.2  # a single row stays visible
        bar = ax.figure.colorbar(cells, ax=ax, label="rows", shrink=0.8)
        bar.outline.set_visible(False)
        bar.ax.set_ylim(1, None)
    else:
        alpha = float(np.clip(120 / len(x) ** 0.6, 0.12, 0.75))
        ax.scatter(x, y, s=16, color=style.ACCENT, alpha=alpha, lw=0)
    style.zero_line(ax)
    if smooth and len(x) > 4 and np.ptp(x) > 0:
        ax.plot(*local_linear(x, y), color=style.SECOND, lw=2, label="local mean")
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, 1.0), fontsize=8)
    ax.set_title(f"Residuals and {'fitted values' if linear else 'linear predictor'}")
    ax.set_xlabel("fitted value" if linear else f"linear predictor ({fit.link_name})")
    ax.set_ylabel(LABELS[type])
    limit = 1.22 * np.abs(y[np.isfinite(y)]).max(initial=0)
    if limit > 0:
        ax.set_ylim(-limit, limit)
    return ax


def best(fit) -> tuple[str, np.ndarray]:
    """The first kind of residual of ``BEST`` that the model has, (n,)."""
    for type in BEST[:-1]:
        with contextlib.suppress(NotApplicableError):
            return type, np.asarray(fit.resid(type))
    return BEST[-1], np.asarray(fit.resid(BEST[-1]))
