"""Figures of meta-analyses: forest and funnel plots."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import style
from jaxglmm.plots.caterpillar import check_labels
from jaxglmm.plots.labels import AS_IS, shortened

LABEL = 28  # characters of a study's name
SORTS = ("data", "effect", "precision")


@style.styled
def forest(
    fit: Any,
    labels: Any = None,
    *,
    sort: str = "data",
    max_labels: int = 80,
    ax: Any = None,
):
    """Observed effects with their intervals, the mean and its prediction interval.

    Squares have the size of a study's weight; where moderators move the mean, each
    study's own is a small diamond.

    Args:
        fit: a meta-analysis.
        labels: (k,) names of the rows; those of the grouping factor by default.
        sort: rows as in the "data", by "effect" or by "precision".
        max_labels: number of rows up to which each is named.
        ax: where to draw.

    Returns:
        Axes.

    Raises:
        NotApplicableError: labels of another length, or no such order.
    """
    _arguments.choice("sort", sort, SORTS)
    max_labels = check_labels(max_labels)
    y, v = np.asarray(fit.design.y, float), fit.sampling_variances
    k = len(y)
    names = _names(fit, labels)
    keys = {"data": np.arange(k), "effect": -y, "precision": -v}
    order = np.argsort(keys[sort], kind="stable")[::-1]  # the first on top
    y, sd, names = y[order], np.sqrt(v[order]), names[order]
    half = _z(fit.level) * sd
    single = fit.design.x_names == ("(Intercept)",)
    extra = 2.4 if single else 0.6
    named = k <= max_labels
    ax = style.one_axes(ax, (5.6, max(2.2, 1.2 + 0.19 * (k + extra)) if named else 6.0))
    at = np.arange(k) + extra
    ax.axvline(0.0, color=style.QUIET, lw=0.8, zorder=0)
    ax.hlines(at, y - half, y + half, style.QUIET, lw=1.3 if named else 0.5)
    share = (1 / sd) / (1 / sd).max()
    ax.scatter(y, at, s=6 + 42 * share**2, marker="s", color=style.INK, zorder=3)
    if not single and fit.design.p:
        mean = (fit.design.X @ fit.coefficients.to_numpy())[order]
        ax.plot(mean, at, "D", color=style.ACCENT, ms=3.6, zorder=4)
    if single:
        _summary(ax, fit)
    ticks = list(at) if named else []
    shown = list(shortened(names, LABEL)) if named else []
    if single:
        ticks, shown = [0.5, *ticks], ["mean", *shown]
    ax.set_yticks(ticks, labels=shown, **AS_IS)
    ax.set_ylim(-0.4, k + extra - 0.2)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(fit.design.response, **AS_IS)
    note = f"{fit.level:.0%} intervals; {_heterogeneity(fit)}"
    style.titled(ax, f"{k} effects and their mean" if single else f"{k} effects", note)
    return ax


def _z(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))


def _summary(ax: Any, fit: Any) -> None:
    """The mean as a diamond, and the prediction interval as a band."""
    row = fit.predict().iloc[0]
    if row["pred_upper"] > row["upper"]:
        ax.plot(
            [row["pred_lower"], row["pred_upper"]],
            [0.5, 0.5],
            color=style.SECOND,
            lw=2.0,
            zorder=2,
        )
    x = [row["lower"], row["fit"], row["upper"], row["fit"]]
    ax.fill(x, [0.5, 0.85, 0.5, 0.15], color=style.ACCENT, zorder=3)
    ax.axvline(row["fit"], color=style.ACCENT, lw=0.9, ls=(0, (4, 3)), zorder=1)
    ax.axhline(1.45, color=style.QUIET, lw=0.6)


def _heterogeneity(fit: Any) -> str:
    text = f"Q({fit.Q_df}) = {fit.Q:.1f}, I² {fit.I2:.0f}%"
    band = fit.design.terms and fit.design.x_names == ("(Intercept)",)
    if band:
        return f"{text}; orange: effects of new studies"
    return text + ("; blue: the mean of each" if fit.design.p else "")


def _names(fit: Any, labels: Any) -> np.ndarray:
    design = fit.design
    if isinstance(labels, str):
        if labels not in design.variables:
            raise NotApplicableError(
                f"labels={labels!r} is no column of the model; give the names "
                "themselves, labels=data['study']"
            )
        labels = design.variables[labels]
    if labels is None:
        terms = [t for t in design.terms if t.known is None]
        if not terms:
            return np.array([str(i + 1) for i in range(design.n)], object)
        last = max(terms, key=lambda t: t.n_levels)
        return np.array([str(last.levels[c]) for c in last.codes], object)
    given = np.asarray(labels, object).ravel()
    if design.rows is not None and len(given) == design.n + design.n_missing:
        given = given[design.rows]
    if len(given) != design.n:
        raise NotApplicableError(
            f"labels= has {len(given)} names for {design.n} effects"
        )
    return np.array([str(x) for x in given], object)


@style.styled
def funnel(fit: Any, *, level: float = 0.95, ax: Any = None):
    """Residuals from the mean against their standard errors, the precise ones on top.

    Within the band lie effects that sampling alone explains at ``level``; where
    the model has moderators the residuals are from each study's own mean.

    Args:
        fit: a meta-analysis.
        level: coverage of the region.
        ax: where to draw.

    Returns:
        Axes.
    """
    _arguments.level(level)
    design = fit.design
    y, sd = np.asarray(design.y, float), np.sqrt(fit.sampling_variances)
    mean = design.X @ fit.coefficients.to_numpy() if design.p else np.zeros(len(y))
    single = design.x_names in ((), ("(Intercept)",))
    centre = float(mean[0]) if single else 0.0
    x = y if single else y - mean
    ax = style.one_axes(ax, (5.2, 4.0))
    top = 1.08 * float(sd.max())
    z = _z(level)
    ax.fill(
        [centre, centre - z * top, centre + z * top],
        [0.0, top, top],
        color=style.BAND,
        zorder=0,
    )
    ax.axvline(centre, color=style.ACCENT, lw=1.0, zorder=1)
    outside = np.abs(x - centre) > z * sd
    for some, colour in ((~outside, style.INK), (outside, style.SECOND)):
        ax.plot(x[some], sd[some], "o", color=colour, ms=4.4, zorder=3)
    ax.set_ylim(top, 0.0)
    ax.set_ylabel("standard error")
    ax.set_xlabel(design.response if single else "residual", **AS_IS)
    note = (
        f"band: {level:.0%} of effects without heterogeneity; {outside.sum()} outside"
    )
    style.titled(ax, f"Funnel of {len(y)} effects", note)
    return ax
