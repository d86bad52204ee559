"""All that a model assumes on one page, as R's performance has it (check_model)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.plots import residual, style
from jaxglmm.plots.labels import AS_IS, shortened
from jaxglmm.plots.quantiles import qq
from jaxglmm.plots.residual import LABELS, MOST_POINTS, predictor, residuals
from jaxglmm.plots.smooth import local_linear

ROWS = 20_000  # up to which rows are left out one by one
BINS, DISTINCT = 30, 25
SHOWN = 8  # rows of the largest Cook's distance
HARMFUL = 5.0  # a variance inflation that is often called high
LABEL = 20


@style.styled
def check(fit: Any, *, draws: int = 100, seed: Any = 0, axes: Any = None) -> np.ndarray:
    """One page: is the model right about its data?

    Draws against the data, linearity, homogeneity, normal quantiles of residuals and
    of random effects, influential rows of a linear model, collinearity. Panels that a
    model cannot have are left out.

    Args:
        fit: the fit.
        draws: simulated data sets of the first panel.
        seed: of them.
        axes: where to draw, as many as there are panels.

    Returns:
        Array of axes, a panel each.
    """
    draws = _arguments.whole("draws", draws, 2, 10_000, error=NotApplicableError)
    makers = _panels(fit, draws, seed)
    grid = style.panels(len(makers), axes, (3.7, 3.1))
    for ax, make in zip(grid, makers, strict=True):
        make(ax)
    return grid


def _panels(fit: Any, draws: int, seed: Any) -> list[Callable[[Any], Any]]:
    """What draws each panel; what it needs is asked of the fit first."""
    out: list[Callable[[Any], Any]] = []
    with contextlib.suppress(NotApplicableError):
        simulated = _numbers(fit, np.asarray(fit.simulate(draws, seed=seed)))
        out.append(lambda ax: _predictive(ax, fit, simulated))
    out.append(lambda ax: _linearity(ax, fit))
    out.append(lambda ax: _homogeneity(ax, fit))
    out.append(lambda ax: qq(fit, ax=ax))
    for term in fit.design.terms[:2]:
        modes = fit.ranef[term.factor]
        if len(modes) >= 3 and np.ptp(modes.to_numpy()[:, 0]) > 0:
            out.append(lambda ax, f=term.factor: _effects(ax, fit, f))
    if fit.is_linear and fit.has_likelihood and fit.nobs <= ROWS:
        with contextlib.suppress(NotApplicableError):
            found = fit.influence()
            out.append(lambda ax: _cook(ax, found))
    with contextlib.suppress(NotApplicableError):
        table = fit.vif()
        if len(table) > 1:
            out.append(lambda ax: _collinear(ax, table))
    return out


def _numbers(fit: Any, simulated: np.ndarray) -> np.ndarray:
    """Responses as ``design.y`` has them: codes of categories."""
    levels = fit.design.response_levels
    if levels is None or simulated.dtype == float:
        return simulated.astype(float)
    codes = {level: code for code, level in enumerate(np.asarray(levels).tolist())}
    flat = [codes[value] for value in simulated.ravel().tolist()]
    return np.reshape(flat, simulated.shape).astype(float)


def _linearity(ax: Any, fit: Any) -> None:
    residuals(fit, ax=ax)
    style.titled(ax, "Linearity", "level where the shape of the mean is right")


def _predictive(ax: Any, fit: Any, simulated: np.ndarray) -> None:
    """Numbers of rows by bins of the response: the data in a band of the draws."""
    here = fit.design.counted
    y = np.asarray(fit.design.y, float)[here]
    simulated = simulated[:, here] if simulated.shape[1] > len(y) else simulated
    values = np.unique(y)
    discrete = len(values) <= DISTINCT and (values == np.round(values)).all()
    if discrete:
        edges = np.arange(values[0], values[-1] + 2) - 0.5
        edges = edges if len(edges) <= 4 * DISTINCT else np.append(values - 0.5, np.inf)
    else:
        low, high = np.quantile(simulated[np.isfinite(simulated)], [0.001, 0.999])
        edges = np.linspace(min(low, y.min()), max(high, y.max()), BINS + 1)
    counts = np.array([np.histogram(draw, edges)[0] for draw in simulated])
    low, mid, high = np.quantile(counts, [0.025, 0.5, 0.975], axis=0)
    centres = (edges[:-1] + np.where(np.isfinite(edges[1:]), edges[1:], edges[:-1])) / 2
    half = 0.42 * (np.diff(centres).min() if len(centres) > 1 else 1.0)
    ax.bar(centres, high - low, 2 * half, bottom=low, color=style.BAND, lw=0)
    ax.hlines(mid, centres - half, centres + half, color=style.QUIET, lw=1.2)
    own = np.histogram(y, edges)[0]
    ax.plot(centres, own, "o-", ms=3.5, lw=1, color=style.ACCENT)
    outside = int(((own < low) | (own > high)).sum())
    note = f"band: 95% of draws; {outside} of {len(own)} bins outside"
    style.titled(ax, "Data and draws", note)
    levels = fit.design.response_levels
    if levels is not None and discrete and len(centres) == len(levels) <= DISTINCT:
        ax.set_xticks(centres, shortened(list(levels), 9), **AS_IS)
    ax.set_xlabel(_name(fit.design.response), **AS_IS)
    ax.set_ylabel("rows")
    ax.set_ylim(bottom=0)


def _name(name: str) -> str:
    """The response's name, as short as fits."""
    return shortened([name], 34)[0]


def _homogeneity(ax: Any, fit: Any) -> None:
    """Roots of the sizes of residuals: level where all rows scatter alike."""
    type, y = residual.best(fit)
    _, x = predictor(fit)
    here = fit.design.counted
    x, y = x[here], np.sqrt(np.abs(y[here]))
    seen = np.isfinite(x) & np.isfinite(y)
    x, y = x[seen], y[seen]
    if len(x) > MOST_POINTS:
        ax.hexbin(x, y, gridsize=60, bins="log", cmap="Blues", mincnt=1, lw=0)
    else:
        alpha = float(np.clip(120 / max(len(x), 1) ** 0.6, 0.12, 0.75))
        ax.scatter(x, y, s=14, color=style.ACCENT, alpha=alpha, lw=0)
    if len(x) > 4 and np.ptp(x) > 0:
        ax.plot(*local_linear(x, y), color=style.SECOND, lw=2)
    style.titled(ax, "Homogeneity of variance", "level where all rows scatter alike")
    ax.set_xlabel("fixed part" if fit.design.terms else "linear predictor")
    ax.set_ylabel(f"root of |{LABELS[type]}|")
    ax.set_ylim(bottom=0)


def _effects(ax: Any, fit: Any, factor: str) -> None:
    """Normal quantiles of a factor's first effects."""
    from jaxglmm.plots.quantiles import one

    modes = fit.ranef[factor]
    one(ax, modes.to_numpy()[:, 0], 0.95)
    name = shortened([f"{modes.columns[0]} | {factor}"], 26)[0]
    style.titled(ax, name, "normal quantiles of random effects")
    ax.set_ylabel("conditional mode")


def _cook(ax: Any, found: Any) -> None:
    """Rows by leverage and Cook's distance, the largest by name."""
    cook, hat = np.nan_to_num(found.cook), found.hat
    known = hat is not None and np.shape(hat) == cook.shape
    hat = np.nan_to_num(np.asarray(hat)) if known else np.arange(1.0, len(cook) + 1)
    ax.vlines(hat, 0, cook, color=style.BAND, lw=1.2)
    ax.plot(hat, cook, "o", ms=3.2, color=style.ACCENT, alpha=0.75)
    for i in np.argsort(-cook)[:3]:
        label = shortened([str(found.labels[i])], LABEL)[0]
        place = {"xytext": (4, 2), "textcoords": "offset points", "fontsize": 7.5}
        ax.annotate(label, (hat[i], cook[i]), **place, **AS_IS)
    style.titled(ax, "Influence of rows", "the three largest by name")
    ax.set_xlabel("leverage" if known else "row")
    ax.set_ylabel("Cook's distance")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.1, y=0.12)


def _collinear(ax: Any, table: Any) -> None:
    """Variance inflation a term, on the scale of one column."""
    worst = table.sort_values("inflation").tail(2 * SHOWN)
    value = worst["inflation"].to_numpy() ** 2
    place = np.arange(len(worst))
    colours = np.where(value > HARMFUL, style.SECOND, style.ACCENT)
    ax.hlines(place, 1, value, color=style.BAND, lw=3)
    ax.scatter(value, place, s=24, color=colours, zorder=3)
    ax.axvline(HARMFUL, color=style.QUIET, lw=0.9, ls="--")
    ax.set_yticks(place, shortened(list(worst.index), LABEL), **AS_IS)
    ax.set_ylim(-0.7, len(worst) - 0.3)
    ax.set_xlim(0.9, max(1.1 * value.max(), HARMFUL + 0.5))
    style.titled(ax, "Collinearity", f"dashed: {HARMFUL:g}, often called high")
    ax.set_xlabel("variance inflation")
