"""Predictions of a posterior: means and intervals from its draws, in pieces of rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.model import assemble
from jaxglmm.numerics.normal_rule import normal_rule
from jaxglmm.posterior.fitted_posterior import FittedPosterior
from jaxglmm.posterior.predictive import (
    RowsToPredict,
    fixed_predictor,
    mean_of,
    new_effects,
    new_variance,
    own_rows,
    random_predictor,
    rows_of,
)
from jaxglmm.postestimation.prediction import components
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction.asked import Asked

NODES = 15  # of the mean over new levels


def predict(fit: FittedPosterior, asked: Asked, seed):
    """Means, or a frame with ``fit`` and what was asked of ``se, lower, upper``."""
    types = components.TYPES if fit.design.parts else ("response", "link")
    asked, seed = asked.read(types), _arguments.seed(seed)
    re, type, interval, level = asked.re, asked.type, asked.interval, asked.level
    newdata = asked.newdata
    if fit.design.parts:
        components.refuse(fit, type, interval)
    if type == "link" and interval == "prediction":
        raise NotApplicableError(
            "a new observation has no link scale: interval='prediction' goes with "
            "type='response'"
        )
    rows, index = rows_asked(fit, newdata, re, asked.new_levels, asked.offset)
    m = asked.numbers_of_trials(len(rows.X))
    means_of = means(fit, rows, re, type, np.random.default_rng(seed))
    out = {name: np.empty(len(rows.X)) for name in ("fit", "se", "lower", "upper")}
    tails = [(1 - level) / 2, (1 + level) / 2]
    rng = np.random.default_rng(seed)
    for here in rows.pieces(fit.posterior.n_draws):
        mu = means_of(here)
        count = 1.0 if m is None else m[here]
        scaled = mu * count if type == "response" else mu
        out["fit"][here], out["se"][here] = scaled.mean(0), scaled.std(0)
        if interval is None:
            continue
        if interval == "prediction":
            scaled = _observed(fit, rows, here, re, newdata, m, rng)
        out["lower"][here], out["upper"][here] = np.quantile(scaled, tails, axis=0)
    return asked.answer(out, index)


def rows_asked(
    fit: FittedPosterior, newdata: Any, re: str, new_levels: str, offset: Any
) -> tuple[RowsToPredict, Any]:
    """The rows that a prediction is of, and their labels."""
    if newdata is None:
        return own_rows(fit.design), fit.design.index
    recipe = fit.design.recipe
    if recipe is None:
        raise NotApplicableError(
            "this fit does not remember how its design was made, so it cannot predict "
            "new data"
        )
    if re == "marginal":
        new = _predict.rows_at_random(fit, newdata, offset)
    else:
        new = recipe.new_rows(
            newdata, new_levels=new_levels, random=re == "conditional", offset=offset
        )
    new = _predict.answerable(fit, _predict.new_places(fit, new))
    if re == "conditional":
        _predict.warn_of_new_levels(new, newdata)
    return rows_of(new, fit.design), new.index


def means(
    fit: FittedPosterior,
    rows: RowsToPredict,
    re: str,
    type: str,
    rng: np.random.Generator | None = None,
) -> Callable[[slice], np.ndarray]:
    """(S, m) means (or predictors) of a piece of rows; rng: of "conditional" ones."""
    phi = fit.family.phi_of(fit.posterior.draws.dispersion)
    if re == "marginal" and type in ("link", "zlink"):
        re = "population"
    return over_effects(
        fit, rows, re, lambda eta: mean_of(fit.family, eta, phi, type), rng
    )


def over_effects(
    fit: FittedPosterior,
    rows: RowsToPredict,
    re: str,
    of_eta: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator | None = None,
) -> Callable[[slice], np.ndarray]:
    """A function of the predictors (K, S, m), of a piece of rows, by ``re``."""
    new = {}
    if re == "conditional" and fit.design.terms:
        rng = np.random.default_rng() if rng is None else rng
        new = new_effects(fit.posterior, fit.design.terms, rng)

    def of_piece(here: slice) -> np.ndarray:
        eta = fixed_predictor(fit.posterior, rows, here)
        if re == "conditional" and fit.design.terms:
            eta = eta + random_predictor(fit.posterior, rows, here, new, rng)
        if re != "marginal" or not fit.design.terms:
            return of_eta(eta)
        s = np.sqrt(_new_variance(fit, rows, here))
        return sum(wk * of_eta(eta + _each(zk, s)) for zk, wk in _nodes(fit))

    return of_piece


def _nodes(fit: FittedPosterior) -> list[tuple[np.ndarray, float]]:
    """Standard normal nodes, one a predictor, and their weights."""
    K = len(fit.family.predictors)
    pairs = list(zip(*normal_rule(NODES), strict=True))
    random = {term.predictor for term in fit.design.terms}
    axes = [pairs if k in random else [(0.0, 1.0)] for k in range(K)]
    each = [zip(*chosen, strict=True) for chosen in product(*axes)]
    return [(np.array(list(at)), float(np.prod(list(by)))) for at, by in each]


def _each(z: np.ndarray, s: np.ndarray) -> np.ndarray:
    """z times s, predictor by predictor."""
    return z[0] * s if len(z) == 1 else z[:, None, None] * s


def _new_variance(fit: FittedPosterior, rows: RowsToPredict, here: slice) -> np.ndarray:
    """(S, m) variance of Z b for new levels."""
    K = (len(rows.columns),) if rows.columns else ()
    total = np.zeros((*K, fit.posterior.n_draws, here.stop - here.start))
    for term in _terms_of(fit, rows):
        rows.add(total, term, new_variance(fit.posterior, term, here))
    return total


def _terms_of(fit: FittedPosterior, rows: RowsToPredict) -> Any:
    if rows.terms:
        return rows.terms
    raise NotApplicableError(
        "re='marginal' for new data of a model with random slopes needs the slopes' "
        "covariates and grouping factors in newdata; use re='conditional' with new "
        "levels, or re='population'"
    )


def _observed(
    fit: FittedPosterior,
    rows: RowsToPredict,
    here: slice,
    re: str,
    newdata,
    trials: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """(S, m) new observations, one a draw; proportions where no trials are given."""
    eta = fixed_predictor(fit.posterior, rows, here)
    if fit.design.terms and re != "population":
        new = new_effects(fit.posterior, fit.design.terms, rng)
        if re == "conditional":
            eta = eta + random_predictor(fit.posterior, rows, here, new, rng)
        else:
            s = np.sqrt(_new_variance(fit, rows, here))
            eta = eta + s * rng.standard_normal(eta.shape)
    m, divide = trials, False
    if m is None and newdata is None:
        m = assemble.precise(fit.design, fit.family).trials
        divide = m is not None and fit.family.family_kind == "binomial"
    count = 1.0 if m is None else np.broadcast_to(m[here], eta.shape[-2:])
    y = observations(fit, eta, count, rng)
    return y / count if divide else y


def observations(
    fit: FittedPosterior, eta: np.ndarray, trials: Any, rng: np.random.Generator
) -> np.ndarray:
    """(S, m) one observation for every predictor, each draw with its dispersion."""
    mu = np.asarray(fit.family.parameters(eta), float)
    named = fit.posterior.draws.dispersion
    if not named:
        return fit.family.simulate(rng, mu, np.zeros(0), trials)
    return fit.family.simulate(rng, mu, fit.family.phi_of(named)[..., None], trials)
