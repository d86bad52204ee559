"""Predictions of a posterior: means, intervals and new data from its draws.

Rows go through in pieces, so that draws times rows never exceed what memory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.model_frame import readable
from jaxglmm.fitting.simulate import asked, draws_new_effects
from jaxglmm.formula.design import RandomTerm
from jaxglmm.model import assemble
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction.generalised import numbers_of_trials

if TYPE_CHECKING:
    from jaxglmm.results.posterior_fit import PosteriorFit

AT_ONCE = 5_000_000  # draws times rows in one piece
NODES = 15  # of the mean over new levels


class Rows:
    """Rows to predict: X (n, p), offset (n,), terms with codes (-1: a new level)."""

    def __init__(self, X: np.ndarray, offset: np.ndarray | None, terms: Any):
        self.X, self.terms = X, terms
        self.offset = np.zeros(len(X)) if offset is None else offset

    def pieces(self, S: int) -> Iterator[slice]:
        """Slices of rows."""
        size = max(1, AT_ONCE // S)
        for start in range(0, len(self.X), size):
            yield slice(start, min(start + size, len(self.X)))


def own_rows(fit: PosteriorFit) -> Rows:
    """The rows of the fit."""
    return Rows(fit.design.X, fit.design.offset, fit.design.terms)


def fixed_predictor(fit: PosteriorFit, rows: Rows, here: slice) -> np.ndarray:
    """(S, m) X beta + offset."""
    return fit.posterior.draws.beta @ rows.X[here].T + rows.offset[here]


def random_predictor(
    fit: PosteriorFit, rows: Rows, here: slice, new: dict[str, np.ndarray]
) -> np.ndarray:
    """(S, m) Z b; new: label -> (S, q) effects of any level that is new."""
    total = np.zeros((fit.posterior.n_draws, here.stop - here.start))
    for term in rows.terms:
        b = fit.posterior.effects(term.label)
        codes, values = term.codes[here], term.values[here]
        for i in range(values.shape[1]):
            own = np.where(codes >= 0, b[:, np.maximum(codes, 0), i], 0.0)
            if (codes < 0).any():
                own = np.where(codes >= 0, own, new[term.label][:, i : i + 1])
            total += own * values[:, i]
    return total


def new_effects(fit: PosteriorFit, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Label -> (S, q): one level's effects for every draw, from its distribution."""
    out = {}
    for term in fit.design.terms:
        L = factors(fit, term)
        z = rng.standard_normal((len(L), L.shape[1]))
        out[term.label] = np.einsum("sij,sj->si", L, z)
    return out


def factors(fit: PosteriorFit, term: RandomTerm) -> np.ndarray:
    """(S, q, q) Cholesky factors of the term's covariance."""
    draws = fit.posterior.draws
    sd = draws.sd[term.label]
    if term.label not in draws.corr:
        return sd[:, :, None] * np.eye(sd.shape[1])
    return sd[:, :, None] * np.linalg.cholesky(draws.corr[term.label])


def fitted(fit: PosteriorFit) -> np.ndarray:
    """(n,) posterior means of the rows' means."""
    rows = own_rows(fit)
    out = np.empty(len(rows.X))
    for here in rows.pieces(fit.posterior.n_draws):
        eta = fixed_predictor(fit, rows, here)
        if fit.design.terms:
            eta = eta + random_predictor(fit, rows, here, {})
        out[here] = np.asarray(fit.family.mean(eta), float).mean(axis=0)
    return out


def predict(
    fit: PosteriorFit,
    newdata,
    *,
    re: str,
    type: str,
    se: bool,
    interval: str | None,
    level: float,
    new_levels: str,
    offset,
    trials,
    seed,
):
    """Means, or a frame with ``fit`` and what was asked of ``se, lower, upper``."""
    _arguments.level(level)
    seed = _arguments.seed(seed)
    _predict.check_offset(newdata, offset)
    if type == "link" and interval == "prediction":
        raise NotApplicableError(
            "a new observation has no link scale: interval='prediction' goes with "
            "type='response'"
        )
    newdata = readable(newdata)
    rows, index = _rows(fit, newdata, re, new_levels, offset)
    m = None if trials is None else numbers_of_trials(newdata, trials, len(rows.X))
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
    if not se and interval is None:
        return out["fit"]
    kept = ["fit"] + (["se"] if se else []) + (["lower", "upper"] if interval else [])
    return pd.DataFrame({name: out[name] for name in kept}, index=index)


def _rows(fit, newdata, re: str, new_levels: str, offset) -> tuple[Rows, Any]:
    if newdata is None:
        return own_rows(fit), fit.design.index
    recipe = fit.design.recipe
    if recipe is None:
        raise NotApplicableError(
            "this fit does not remember how its design was made, so it cannot predict "
            "new data"
        )
    new = recipe.new_rows(
        newdata, new_levels=new_levels, random=re == "conditional", offset=offset
    )
    new = _predict.answerable(fit, new)
    if re == "conditional":
        _predict.warn_of_new_levels(new, newdata)
    return Rows(new.X, new.offset, new.terms), new.index


def means(
    fit: PosteriorFit,
    rows: Rows,
    re: str,
    type: str,
    rng: np.random.Generator | None = None,
) -> Callable[[slice], np.ndarray]:
    """(S, m) means (or predictors) of a piece of rows; rng: of "conditional" ones."""
    new = {}
    if re == "conditional" and fit.design.terms:
        new = new_effects(fit, np.random.default_rng() if rng is None else rng)
    z, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()

    def of_piece(here: slice) -> np.ndarray:
        eta = fixed_predictor(fit, rows, here)
        if re == "conditional" and fit.design.terms:
            eta = eta + random_predictor(fit, rows, here, new)
        if type == "link":
            return eta
        if re != "marginal" or not fit.design.terms:
            return np.asarray(fit.family.mean(eta), float)
        s = np.sqrt(_new_variance(fit, rows, here))
        return sum(
            wk * np.asarray(fit.family.mean(eta + zk * s), float)
            for zk, wk in zip(z, w, strict=True)
        )

    return of_piece


def _new_variance(fit: PosteriorFit, rows: Rows, here: slice) -> np.ndarray:
    """(S, m) variance of Z b for new levels."""
    total = np.zeros((fit.posterior.n_draws, here.stop - here.start))
    for term in _terms_of(fit, rows):
        L = factors(fit, term)
        zL = np.einsum("mi,sij->smj", term.values[here], L)
        total += np.sum(zL**2, axis=2)
    return total


def _terms_of(fit: PosteriorFit, rows: Rows) -> Any:
    if rows.terms:
        return rows.terms
    raise NotApplicableError(
        "re='marginal' for new data of a model with random slopes needs the slopes' "
        "covariates and grouping factors in newdata; use re='conditional' with new "
        "levels, or re='population'"
    )


def _observed(
    fit: PosteriorFit,
    rows: Rows,
    here: slice,
    re: str,
    newdata,
    trials: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """(S, m) new observations, one a draw; proportions where no trials are given."""
    eta = fixed_predictor(fit, rows, here)
    if fit.design.terms and re != "population":
        new = new_effects(fit, rng)
        if re == "conditional":
            eta = eta + random_predictor(fit, rows, here, new)
        else:
            s = np.sqrt(_new_variance(fit, rows, here))
            eta = eta + s * rng.standard_normal(eta.shape)
    m, divide = trials, False
    if m is None and newdata is None:
        m = assemble.precise(fit.design, fit.family).trials
        divide = m is not None and fit.family.family_kind == "binomial"
    count = 1.0 if m is None else np.broadcast_to(m[here], eta.shape)
    y = observations(fit, eta, count, rng)
    return y / count if divide else y


def observations(
    fit: PosteriorFit, eta: np.ndarray, trials: Any, rng: np.random.Generator
) -> np.ndarray:
    """(S, m) one observation for every predictor, each draw with its dispersion."""
    mu = np.asarray(fit.family.mean(eta), float)
    named = fit.posterior.draws.dispersion
    if not named:
        return fit.family.simulate(rng, mu, np.zeros(0), trials)
    phi = np.stack([np.log(v)[:, None] for v in named.values()])
    return fit.family.simulate(rng, mu, phi, trials)


def simulate(fit: PosteriorFit, n: int, seed, re: str | None) -> np.ndarray:
    """(n, nobs) data sets, each from one draw; binomial kind: successes."""
    fresh = draws_new_effects(re)
    n, rng = asked(n, seed, fit.design.n)
    rows, S = own_rows(fit), fit.posterior.n_draws
    index = rng.integers(0, S, n) if n > S else rng.permutation(S)[:n]
    draws = fit.posterior.draws
    m = assemble.precise(fit.design, fit.family).trials
    trials = 1.0 if m is None else m
    out = np.empty((n, len(rows.X)))
    for row, s in zip(out, index, strict=True):
        eta = rows.X @ draws.beta[s] + rows.offset
        for term in rows.terms:
            if fresh:
                L = factors(fit, term)[s]
                b = rng.standard_normal((term.n_levels, len(L))) @ L.T
            else:
                b = fit.posterior.effects(term.label)[s]
            eta = eta + np.einsum("iq,iq->i", term.values, b[term.codes])
        mu = np.asarray(fit.family.mean(eta), float)
        phi = np.array([np.log(v[s]) for v in draws.dispersion.values()])
        row[:] = fit.family.simulate(rng, mu, phi, trials)
    return out
