"""New rows of known subjects predicted from the residuals of their other rows.

The value of a new row, z'b and residual e together, is f with the covariance c to the
rows of the data; its best linear predictor (Goldberger 1962, Journal of the American
Statistical Association 57, 369) and the variance around it are

    x'beta + c'V^-1(y - X beta),   v - c'V^-1 c + a'Phi a,  a = x - X'V^-1 c,

Phi the covariance of beta. Variance parameters count as known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting import predictor
from jaxglmm.fitting.block_rows import correlation_of, n_scales
from jaxglmm.fitting.blocks import solved
from jaxglmm.fitting.components import covariances
from jaxglmm.fitting.residual_parameters import row_variances
from jaxglmm.formula.design import Design, NewRows, ResidualTerm
from jaxglmm.formula.residual import BY_VISIT
from jaxglmm.formula.residual_rows import new_rows
from jaxglmm.model.residuals import Pairs
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.runtime.host import on_host

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_correlated import FittedCorrelated

AT_ONCE = 4_000_000  # rows of the data times new ones


def predict(
    fit: FittedCorrelated, newdata, re, type, se, interval, level, new_levels, offset
):
    """Values, or a frame with ``fit`` and what was asked of ``se, lower, upper``."""
    _predict.check(type=type, se=se, interval=interval, new_levels=new_levels)
    _arguments.level(level)
    if re != "conditional":
        raise NotApplicableError(
            f"residual=True predicts the rows of known subjects, and re={re!r} leaves "
            "out what is known of them; use re='conditional'"
        )
    if interval == "confidence":
        raise NotApplicableError(
            "residual=True predicts a value and not a mean: ask for "
            "interval='prediction', or for the mean by residual=False"
        )
    if newdata is None:
        raise NotApplicableError(
            "residual=True predicts new rows: give newdata. Of the rows of the fit the "
            "responses are known"
        )
    new = _predict.rows(fit, newdata, new_levels, offset, True)
    new = _predict.answerable(fit, new)
    _predict.warn_of_new_levels(new, newdata)
    own = new_rows(fit.design.residual, newdata)
    engine = fit.engine
    theta, scale = engine.theta(fit.estimates), engine.fixed.scale
    y = fit.design.y if fit.design.offset is None else fit.design.y - fit.design.offset
    error = (y - fit.design.X @ fit.estimates.beta)[engine.keep]
    X = fit.design.X[engine.keep]
    known = np.concatenate([error[:, None], X], axis=1) * engine.root[:, None]
    given = solved(engine, theta, known) / scale**2
    fitted = predictor.fixed_part(new.X, fit.estimates.beta, new.offset)
    variance = np.empty(len(fitted))
    noise = row_variances(fit, newdata) + predictor.random_variance(
        new.terms, covariances(fit.estimates)
    )
    Phi = fit.coefficient_covariance()
    size = max(1, AT_ONCE // len(engine.keep))
    wanted = se or interval is not None
    for start in range(0, len(fitted), size):
        here = slice(start, start + size)
        C = _covariances(fit, new, own, here)
        found = C.T @ given
        fitted[here] = fitted[here] + found[:, 0]
        if wanted:
            solution = solved(engine, theta, C) / scale**2
            a = new.X[here] - found[:, 1:]
            left = noise[here] - np.einsum("im,im->m", C, solution)
            variance[here] = np.maximum(left, 0.0) + _predict.fixed_variance(a, Phi)
    if not wanted:
        return fitted
    out = {"fit": fitted}
    if se:
        out["se"] = np.sqrt(variance)
    if interval is not None:
        from scipy import special

        half = special.ndtri((1 + level) / 2) * np.sqrt(variance)
        out["lower"], out["upper"] = fitted - half, fitted + half
    return pd.DataFrame(out, index=new.index)


def _covariances(
    fit: FittedCorrelated, new: NewRows, own: ResidualTerm, here: slice
) -> np.ndarray:
    """(n, m) of the rows that count, times the roots of their weights, with new ones.

    New rows have the weight one.
    """
    design, engine = fit.design, fit.engine
    keep, root = engine.keep, engine.root
    m = len(own.codes[here])
    C = np.zeros((len(keep), m))
    Sigma = covariances(fit.estimates)
    for known, fresh, S in zip(design.terms, new.terms, Sigma, strict=True):
        same = known.codes[keep][:, None] == fresh.codes[here]
        C += same * (known.values[keep] @ S @ fresh.values[here].T) * root[:, None]
    term = design.residual
    if term is not None and term.structure:
        codes = term.codes[keep]
        order = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes[order], np.arange(len(own.levels) + 1))
        asked = own.codes[here]
        for subject in np.unique(asked[asked >= 0]).tolist():
            rows = order[ends[subject] : ends[subject + 1]]
            columns = np.flatnonzero(asked == subject)
            if len(rows):
                C[np.ix_(rows, columns)] += _within(
                    fit, own, keep[rows], columns + here.start
                )
    return C


def _within(
    fit: Any, own: ResidualTerm, old: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """(old, new) residual covariances of rows of one subject, at weight one."""
    design: Design = fit.design
    term, correlation = design.residual, correlation_of(design)
    assert term is not None
    assert correlation is not None
    times = np.concatenate([term.times[old], own.times[new]])
    position = np.concatenate([term.position[old], own.position[new]])
    lag = np.sqrt(np.sum((times[:, None] - times[None]) ** 2, axis=-1))
    each = len(fit.estimates.phi) // len(term.group_levels)
    group = int(term.group_codes[old[0]])
    phi = fit.estimates.phi[group * each : (group + 1) * each]
    s = n_scales(design)
    visits = (
        phi[position] if term.structure in BY_VISIT else np.full(len(position), phi[0])
    )
    extra = np.concatenate([term.scales[old], own.scales[new]])
    logs = visits + extra @ phi[s : s + extra.shape[1]]
    t = phi[s + extra.shape[1] :]
    with on_host():
        R = np.asarray(correlation.tables(t, Pairs(position[None], lag[None]))[0])[0]
    k = len(old)
    return np.exp(logs[:k, None] + logs[None, k:]) * R[:k, k:]
