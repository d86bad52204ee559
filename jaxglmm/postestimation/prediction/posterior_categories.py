"""Predictions of categories under a posterior: probabilities from its draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.posterior.predictive import RowsToPredict, probabilities_of, rows_of
from jaxglmm.postestimation.prediction import marginal_effects as _tables
from jaxglmm.postestimation.prediction import posterior as _predict
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.postestimation.prediction.means import EFFECTS, MeanRows, Means
from jaxglmm.postestimation.prediction.ordinal import by_category
from jaxglmm.postestimation.prediction.posterior_means import PosteriorMeans

if TYPE_CHECKING:
    from jaxglmm.formula.design import NewRows
    from jaxglmm.posterior.fitted_categories import FittedCategories

ORDERED = ("response", "mean_class", "probs", "cum_probs", "class", "link")
UNORDERED = ("response", "probs", "class", "link")


def predict(fit: FittedCategories, asked: Asked, seed):
    """See ``CategoriesPosterior.predict``."""
    types = ORDERED if fit.is_ordered else UNORDERED
    asked, seed = asked.read(types), _arguments.seed(seed)
    type = asked.type
    _refuse(fit, asked)
    rows, index = _predict.rows_asked(
        fit, asked.newdata, asked.re, asked.new_levels, asked.offset
    )
    rng = np.random.default_rng(seed)
    weights, names = _weights(fit, type)
    if type == "link":
        re = "population" if asked.re == "marginal" else asked.re
        make, parts = _predict.over_effects(fit, rows, re, np.asarray, rng), len(names)
    else:
        P = probabilities(fit, rows, asked.re, rng)
        make, parts = (lambda here: P(here) @ weights.T), len(fit.levels)
    table = _moments(fit, rows, make, parts, len(names), asked)
    if type == "class":
        best = np.argmax(table["fit"], axis=1)
        return fit.levels[best]
    if len(names) > 1:
        asked_for = ["fit"] + ["se"] * bool(asked.se)
        asked_for += ["lower", "upper"] * (asked.interval is not None)
        frames = {k: pd.DataFrame(table[k], index, names) for k in asked_for}
        return pd.concat(frames, axis=1) if len(frames) > 1 else frames["fit"]
    return asked.answer({k: x[:, 0] for k, x in table.items()}, index)


def _refuse(fit: FittedCategories, asked: Asked) -> None:
    if asked.interval == "prediction":
        raise NotApplicableError(
            "interval='prediction' of a category is its probabilities: type='probs'; "
            "interval='confidence' has limits of these"
        )
    if asked.type == "class" and asked.errors:
        raise NotApplicableError(
            "type='class' is a label, without a standard deviation: ask for "
            "type='probs'"
        )
    if asked.type == "link" and fit.is_ordered and fit.design.parts:
        raise NotApplicableError(
            "type='link' is one linear predictor, and here thresholds or the scale "
            "have theirs: ask for type='probs', 'cum_probs' or 'mean_class'"
        )
    if asked.re == "marginal" and not fit.is_ordered and fit.design.terms:
        raise NotApplicableError(
            "re='marginal' of unordered categories is an integral over the effects of "
            "all categories together, which is not made here: re='population', or "
            "new levels by re='conditional'"
        )


def _weights(fit: FittedCategories, type: str) -> tuple[np.ndarray, list]:
    """(c, K) sums over the categories, and their names."""
    K = len(fit.levels)
    if type == "link":
        return np.zeros((0, K)), [type] if fit.is_ordered else list(fit.levels[1:])
    if type in ("probs", "class") or not fit.is_ordered:
        return np.eye(K), list(fit.levels)
    if type == "cum_probs":
        names = list(fit.family.threshold_names)  # type: ignore[attr-defined]
        return np.tril(np.ones((K, K)))[:-1], names
    return np.arange(1.0, K + 1)[None], ["mean_class"]


def _moments(
    fit: FittedCategories,
    rows: RowsToPredict,
    make: Callable[[slice], np.ndarray],
    parts: int,
    c: int,
    asked: Asked,
) -> dict[str, np.ndarray]:
    """Means, standard deviations and limits of the draws, (n, c) each."""
    out = {k: np.empty((len(rows.X), c)) for k in ("fit", "se", "lower", "upper")}
    tails = [(1 - asked.level) / 2, (1 + asked.level) / 2]
    for here in rows.pieces(fit.posterior.n_draws * parts):
        draws = make(here)
        if asked.type == "link":
            draws = _links(fit, draws)
        out["fit"][here], out["se"][here] = draws.mean(0), draws.std(0)
        if asked.interval is not None:
            limits = np.quantile(draws, tails, axis=0)
            out["lower"][here], out["upper"][here] = limits
    return out


def _links(fit: FittedCategories, eta: np.ndarray) -> np.ndarray:
    """(S, m, c) from predictors (S, m) or (c, S, m)."""
    return eta[..., None] if eta.ndim == 2 else np.moveaxis(eta, 0, -1)


def probabilities(
    fit: FittedCategories, rows: RowsToPredict, re: str, rng: np.random.Generator
) -> Callable[[slice], np.ndarray]:
    """(S, m, K) draws of the probabilities of a piece of rows."""
    phi = fit.family.phi_of(fit.posterior.draws.dispersion)
    own = fit.family
    return _predict.over_effects(
        fit, rows, re, lambda eta: probabilities_of(own, eta, phi), rng
    )


class CategoryDraws(PosteriorMeans):
    """Draws of a weighted sum of the categories' probabilities, row by row."""

    fit: FittedCategories

    def __init__(self, fit: FittedCategories, weights: np.ndarray, re: str):
        super().__init__(fit, "response", re)
        self.weights = weights
        assert self.at_once is not None  # of draws, as it is above
        self.at_once = max(1, self.at_once // len(weights))

    def at(self, new: NewRows) -> MeanRows:
        rows, rng = rows_of(new, self.fit.design), np.random.default_rng(0)
        P = probabilities(self.fit, rows, self.re, rng)(slice(0, len(new.X)))
        draws = (P @ self.weights).T
        offset = rows.offset[0] if rows.columns else rows.offset
        return MeanRows(draws.mean(axis=1), draws, offset)


def means(
    fit: FittedCategories, type: str, re: str, category: int | None = None
) -> Means:
    """What tables of predictions are made of; category: its position, of "probs"."""
    _arguments.choice("re", re, EFFECTS)
    K = len(fit.levels)
    if category is not None:
        return CategoryDraws(fit, np.eye(K)[category], re)
    _arguments.choice("type", type, ("response", "mean_class", "link"))
    if not fit.is_ordered:
        raise NotApplicableError(
            "categories without an order have no mean: ask for type='probs'"
        )
    if type == "link":
        return PosteriorMeans(fit, "link", "population")
    return CategoryDraws(fit, np.arange(1.0, K + 1), re)


def predictions(
    fit: FittedCategories, newdata, by, level: float, type: str, re: str, offset, grid
) -> pd.DataFrame:
    """See ``CategoriesPosterior.predictions``."""
    if type != "probs":
        found = means(fit, type, re)
        return _tables.predictions(found, newdata, by, level, offset, grid)
    asked = newdata, by, level, offset, grid
    return by_category(fit.levels, lambda k: means(fit, type, re, k), asked)
