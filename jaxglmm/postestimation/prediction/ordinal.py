"""Predictions of ordered categories: probabilities, classes, mean classes, eta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.postestimation.prediction import categories
from jaxglmm.postestimation.prediction import generalised as _generalised
from jaxglmm.postestimation.prediction import marginal_effects as _tables
from jaxglmm.postestimation.prediction.asked import Asked
from jaxglmm.postestimation.prediction.generalised_means import GeneralisedMeans
from jaxglmm.postestimation.prediction.means import EFFECTS, Means

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_multinomial import FittedMultinomial
    from jaxglmm.fitting.fitted_ordinal import FittedOrdinal
    from jaxglmm.formula.design import NewRows

    Categorical = FittedOrdinal | FittedMultinomial

TYPES = ("response", "mean_class", "probs", "cum_probs", "class", "link")


def predict(fit: FittedOrdinal, asked: Asked):
    """See ``OrdinalFit.predict``."""
    type = asked.type
    _arguments.choice("type", type, TYPES, where="predict")
    if asked.interval == "prediction":
        raise NotApplicableError(
            "interval='prediction' of a category is its probabilities: type='probs'; "
            "interval='confidence' has limits of these"
        )
    if type == "class" and asked.errors:
        raise NotApplicableError(
            "type='class' is a label, without a standard error: ask for type='probs' "
            "or 'mean_class'"
        )
    if type == "link" and fit.design.parts:
        raise NotApplicableError(
            "type='link' is one linear predictor, and here thresholds or the scale "
            "have theirs: ask for type='probs', 'cum_probs' or 'mean_class'"
        )
    if type == "link":
        re = "population" if asked.re == "marginal" else asked.re
        return _generalised.predict(fit, replace(asked, re=re))
    asked, new, at = _latent(fit, asked, TYPES)
    weights, names = _weights(fit, type)
    found = categories.functionals(fit, at, weights, asked.errors)
    if type == "class":
        return _most_probable(fit, found.value)
    several = type in ("probs", "cum_probs")
    ends = (0.0, 1.0) if several else (1.0, float(len(fit.levels)))
    table = _with_errors(fit, found, ends, asked)
    if several:
        return _frames(table, new.index, names)
    return asked.answer({name: x[:, 0] for name, x in table.items()}, new.index)


def _latent(
    fit: Categorical, asked: Asked, types: tuple[str, ...]
) -> tuple[Asked, NewRows, categories.Latent]:
    """What was asked, read; its rows; their predictors."""
    asked = asked.read(types)
    new = asked.rows(fit)
    asked.warn(new)
    return asked, new, categories.latent(fit, new, asked.re, asked.errors)


def _with_errors(
    fit: Categorical,
    found: categories.Functionals,
    ends: tuple[float, float],
    asked: Asked,
) -> dict[str, np.ndarray]:
    """Values (n, c), and what was asked of se, lower and upper."""
    table = {"fit": found.value}
    if not asked.errors:
        return table
    error = found.error(fit.parameter_root)
    half = t_quantile(asked.level, np.full(error.shape, np.inf)) * error
    if asked.se:
        table["se"] = error
    if asked.interval is not None:
        lower, upper = categories.bounded_limits(found.value, half, *ends)
        table |= {"lower": lower, "upper": upper}
    return table


def _frames(table: dict[str, np.ndarray], index, names: list) -> pd.DataFrame:
    frames = {
        name: pd.DataFrame(x, index=index, columns=names) for name, x in table.items()
    }
    return pd.concat(frames, axis=1) if len(frames) > 1 else frames["fit"]


def _most_probable(fit: Categorical, P: np.ndarray) -> np.ndarray:
    """Labels (n,); None where nothing is known."""
    best = np.argmax(P, axis=1)
    out = fit.levels[best].astype(object)
    out[np.isnan(P).any(axis=1)] = None
    return out if None in out else fit.levels[best]


def predict_nominal(fit: FittedMultinomial, asked: Asked):
    """See ``MultinomialFit.predict``."""
    type, types = asked.type, ("probs", "response", "class", "link")
    _arguments.choice("type", type, types, where="predict")
    unerring = type in ("class", "link")
    if asked.interval == "prediction" or (unerring and asked.errors):
        raise NotApplicableError(
            "standard errors and confidence limits are those of probabilities: "
            "type='probs'"
        )
    asked, new, at = _latent(fit, asked, types)
    if type == "link":
        return pd.DataFrame(at.eta.T, index=new.index, columns=list(fit.levels[1:]))
    found = categories.functionals(fit, at, np.eye(len(fit.levels)), asked.errors)
    if type == "class":
        return _most_probable(fit, found.value)
    table = _with_errors(fit, found, (0.0, 1.0), asked)
    return _frames(table, new.index, list(fit.levels))


def _weights(fit: FittedOrdinal, type: str) -> tuple[np.ndarray, list]:
    """(c, K) sums over the categories, and their names."""
    K = len(fit.levels)
    if type in ("probs", "class"):
        return np.eye(K), list(fit.levels)
    if type == "cum_probs":
        return np.tril(np.ones((K, K)))[:-1], list(fit.cumulative.threshold_names)
    return np.arange(1.0, K + 1)[None], ["mean_class"]


def means(fit: FittedOrdinal, type: str, re: str, category: int | None = None) -> Means:
    """What tables of predictions are made of: eta, or the mean of the numbers.

    category: its position, of a probability.
    """
    _arguments.choice("re", re, EFFECTS)
    if category is not None:
        return categories.CategoryMeans(fit, np.eye(len(fit.levels))[category], re)
    _arguments.choice("type", type, ("response", "mean_class", "link"))
    if type == "link" and fit.design.parts:
        raise NotApplicableError(
            "means and slopes of one linear predictor: here thresholds or the scale "
            "have theirs. Ask for means(..., regrid=True), of the mean category, or "
            "for predictions(by=..., type='probs')"
        )
    if type == "link":
        return GeneralisedMeans(fit, "link", "population")
    return categories.CategoryMeans(fit, np.arange(1.0, len(fit.levels) + 1), re)


def predictions(
    fit: FittedOrdinal, newdata, by, level: float, type: str, re: str, offset, grid: str
) -> pd.DataFrame:
    """See ``OrdinalFit.predictions``."""
    if type != "probs":
        found = means(fit, type, re)
        return _tables.predictions(found, newdata, by, level, offset, grid)
    asked = newdata, by, level, offset, grid
    return by_category(fit.levels, lambda k: means(fit, type, re, k), asked)


def by_category(
    levels: np.ndarray, means_of: Callable[[int], Means], asked: tuple[Any, ...]
) -> pd.DataFrame:
    """Tables of predictions of each category below one another.

    asked: the arguments of ``marginal_effects.predictions`` after the means.
    """
    parts = []
    for k, label in enumerate(levels):
        part = _tables.predictions(means_of(k), *asked)
        at = list(part.columns).index("estimate")
        part.insert(at, "category", label)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
