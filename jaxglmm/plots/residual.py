"""Residuals against the fixed part of the prediction: what is left has no shape.

Against fitted values that contain random effects it has one: residuals lean on effects
that were shrunken, so that a curve through them rises even where the model holds. Given
the fixed part, residuals of a linear model have mean zero; quantile residuals of a
generalised one nearly so.
"""

from __future__ import annotations

import contextlib

import numpy as np

from jaxglmm import _arguments
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
LEANING = "they rise with fitted values even where the model holds"
BEST = ("quantile", "scaled", "deviance")  # what a model has of these is drawn


@style.styled
def residuals(
    fit,
    *,
    type: str | None = None,
    against: str | None = None,
    smooth: bool | None = None,
    ax=None,
):
    """Residuals against the fixed part of the prediction, with a smooth curve.

    Those of a generalised model are drawn against the linear predictor's. Its deviance
    and Pearson residuals lie in bands where the response is discrete; randomised
    quantile residuals do not (Dunn and Smyth 1996).

    Args:
        fit: the fit.
        type: of ``fit.resid``; default "scaled" for linear models, "quantile" for
            generalised ones.
        against: "fixed", random effects at zero, or "fitted", with the random effects;
            default "fixed" unless that is one number for all rows.
        smooth: whether to draw the curve; default where it is level if the model
            holds: not against fitted values with random effects in them.
        ax: where to draw.

    Returns:
        Axes.

    Raises:
        NotApplicableError: another ``against``.
    """
    type, y = best(fit) if type is None else (type, np.asarray(fit.resid(type)))
    against, x = predictor(fit, against)
    x, y = x[fit.design.counted], y[fit.design.counted]
    seen = np.isfinite(x) & np.isfinite(y)
    x, y = x[seen], y[seen]
    leaning = against == "fitted" and bool(fit.design.terms)
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
    smooth = not leaning if smooth is None else _arguments.flag("smooth", smooth)
    if smooth and len(x) > 4 and np.ptp(x) > 0:
        ax.plot(*local_linear(x, y), color=style.SECOND, lw=2, label="local mean")
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, 1.0), fontsize=8)
    linear = fit.link_name == "identity"
    what = "fitted value" if linear else "linear predictor"
    if against == "fixed" and fit.design.terms:
        what = f"fixed part of the {what}"
    style.titled(ax, f"Residuals and {what}", LEANING if leaning else None)
    ax.set_xlabel(what if linear else f"{what} ({fit.link_name})")
    ax.set_ylabel(LABELS[type])
    limit = 1.22 * np.abs(y).max(initial=0)
    if limit > 0:
        ax.set_ylim(-limit, limit)
    return ax


def best(fit) -> tuple[str, np.ndarray]:
    """The first kind of residual of ``BEST`` that the model has, (n,)."""
    for type in BEST[:-1]:
        with contextlib.suppress(NotApplicableError):
            return type, np.asarray(fit.resid(type))
    return BEST[-1], np.asarray(fit.resid(BEST[-1]))


def predictor(fit, against: str | None = None) -> tuple[str, np.ndarray]:
    """What residuals are drawn against, and its values (n,).

    Raises:
        NotApplicableError: neither "fixed" nor "fitted".
    """
    if not _arguments.is_among(against, (None, "fixed", "fitted")):
        raise NotApplicableError(
            f"residuals(against={_arguments.shown(against)}): there are 'fixed' and "
            "'fitted'"
        )
    if against != "fitted":
        fixed = fit.population_predictor
        if against == "fixed" or np.ptp(fixed) > 1e-9 * np.abs(fixed).max(initial=0):
            return "fixed", fixed
    linear = fit.link_name == "identity"
    return "fitted", np.asarray(fit.fitted_values if linear else fit.linear_predictor)
