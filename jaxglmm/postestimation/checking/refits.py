"""Draws from a fit that are fitted again: reference distributions that know of fitting.

A statistic of the data at its own estimates and modes has been made small by the fit.
Beside draws taken as they are it looks too good; beside the same statistic of draws
that are fitted themselves it is one among equals (a parametric bootstrap of the
statistic; Davison and Hinkley 1997, 4.4). Models with one grouping factor are fitted
again in lanes, as in ``fit_many``, others one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate.generalised_lanes import Report
from jaxglmm.many import generalised as lanes
from jaxglmm.many import response_rows
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.responses import Responses
from jaxglmm.postestimation.checking.simulated_residuals import Test, two_sided
from jaxglmm.postestimation.profile import rows as held_rows
from jaxglmm.runtime.devices import choose
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.formula.design import Design

TOLERANCE, STEPS = 1e-8, 200


@dataclass(frozen=True)
class Refits:
    """Draws Y (d, nobs) that could be fitted, eta and phi (d, r) of each.

    eta: (d, nobs), or (d, K, nobs) of several linear predictors.
    """

    Y: np.ndarray
    eta: np.ndarray
    phi: np.ndarray


@double_precision
def refitted(fit: FittedGeneralised, n: int, seed, re: str | None) -> Refits:
    """n draws from a fit, each fitted; those without a maximum are left out."""
    Y = np.asarray(fit.drawn(n, seed, re), float)
    shape = (len(fit.design.parts),) if fit.design.parts else ()
    eta = np.full((n, *shape, fit.design.n), np.nan)
    phi = np.full((n, len(fit.estimates.phi)), np.nan)
    _in_lanes(fit, Y, eta, phi)
    engine, design = fit.engine, fit.design
    trials, used = _columns(design)
    for i in np.flatnonzero(np.isnan(eta).reshape(n, -1).any(axis=1)):
        if response_rows.check(fit.family, Y[i][:, None], trials, used)[0]:
            continue
        found = engine.for_response(Y[i], design.trials).fit(TOLERANCE, STEPS)
        if found.status == _status.CONVERGED:
            eta[i] = engine.data.back(found.eta)
            phi[i] = engine.location.phi(found.psi)
    good = np.isfinite(eta).reshape(n, -1).all(axis=1)
    return Refits(Y[good], eta[good], phi[good])


def _in_lanes(
    fit: FittedGeneralised, Y: np.ndarray, eta: np.ndarray, phi: np.ndarray
) -> None:
    """Fill the rows of ``eta`` and ``phi`` that one program finds.

    Of one linear predictor; several are fitted one after the other.
    """
    design, family = fit.design, fit.family
    given = (design.weights, design.offset, design.trials)
    marginal = fit.engine.marginal
    source = ModelSource(design, None, None, *given, marginal, family, TOLERANCE)
    if not design.terms or design.fixed or design.parts or not lanes.suits(source):
        return
    source = replace(source, responses=Responses(Y.T, design.n))
    devices = choose("cpu", 0.0)
    data = response_rows.ResponseRows(source, False, devices)
    engine = lanes.GeneralisedLanes(data, devices)
    offset = 0.0 if design.offset is None else design.offset
    for start in range(0, len(Y), engine.chunk):
        which = np.arange(start, min(start + engine.chunk, len(Y)))
        padded = np.resize(which, engine.chunk)
        report = _fit(engine, design, padded)
        beta = report.psi[: design.p].T @ data.R_inverse.T
        found = beta @ design.X.T + offset
        values = data.factor.values
        for k, effects in enumerate(report.b):
            z = 1.0 if values is None else values[:, k]
            found = found + z * effects[data.factor.codes].T
        good = np.flatnonzero(report.status[: len(which)] == _status.CONVERGED)
        eta[which[good]] = found[good]
        phi[which[good]] = report.psi[design.p + engine.columns.theta :].T[good]


def _fit(engine: lanes.GeneralisedLanes, design: Design, which: np.ndarray) -> Report:
    data = engine.data
    rows = held_rows.of_responses(data, engine.chunk, which)
    Y = data.responses.take(which)
    trials, used = _columns(design)
    if trials is not None:
        trials = np.broadcast_to(trials, Y.shape)
    status = response_rows.check(data.family, Y, trials, np.broadcast_to(used, Y.shape))
    guess, phi = response_rows.guesses(data.family, Y, trials, None, status == 0)
    report = engine.run(data.shared, rows.own, data.layout.place(guess), phi, STEPS)
    bad = np.where(status == 0, report.status, status)
    return tree_at(lambda r: r.status, report, bad)


def _columns(design: Design) -> tuple[np.ndarray | None, np.ndarray]:
    """Trials, and which rows count, (nobs, 1) each."""
    trials = None if design.trials is None else design.trials[:, None]
    if design.weights is None:
        return trials, np.ones((design.n, 1), bool)
    return trials, (design.weights > 0)[:, None]


# Statistics ---------------------------------------------------------------------------


def overdispersion(fit: FittedGeneralised, n: int, seed, re: str | None) -> Test:
    """Pearson's statistic given the modes, among those of fitted draws."""
    found = refitted(fit, n, seed, re)
    own = float(np.sum(fit.resid("pearson")[_used(fit)] ** 2))
    values = [own]
    for y, eta, phi in zip(found.Y, found.eta, found.phi, strict=True):
        mu = np.asarray(fit.family.parameters(eta), float)
        values.append(_pearson(fit, y, mu, phi))
    return replace(two_sided(np.array(values)), method="refits")


def zero_inflation(fit: FittedGeneralised, n: int, seed, re: str | None) -> Test:
    """Zeros beyond those that are expected given the modes, among fitted draws."""
    found = refitted(fit, n, seed, re)
    used = _used(fit)
    share = float(np.mean(fit.design.y[used] == 0))
    now = fit.linear_predictors if fit.design.parts else fit.linear_predictor
    own = share - _expected(fit, now, fit.estimates.phi)
    values = [own]
    for y, eta, phi in zip(found.Y, found.eta, found.phi, strict=True):
        values.append(float(np.mean(y[used] == 0)) - _expected(fit, eta, phi))
    test = two_sided(np.array(values))
    expected = share - own + test.expected
    return Test(share, expected, test.p_value, "refits")


def _used(fit: FittedGeneralised) -> np.ndarray:
    weights = fit.design.weights
    return np.ones(fit.design.n, bool) if weights is None else weights > 0


def _pearson(
    fit: FittedGeneralised, y: np.ndarray, mu: np.ndarray, phi: np.ndarray
) -> float:
    design = fit.design
    trials = 1.0 if design.trials is None else design.trials
    weights = 1.0 if design.weights is None else design.weights
    residuals = fit.family.pearson_residuals(y, mu, phi, trials)
    return float(np.sum((weights * residuals**2)[_used(fit)]))


def _expected(fit: FittedGeneralised, eta: np.ndarray, phi: np.ndarray) -> float:
    """The share of zeros that a predictor promises."""
    trials = 1.0 if fit.design.trials is None else fit.design.trials
    mu = np.asarray(fit.family.parameters(eta), float)
    zero = np.asarray(fit.family.cdf(np.zeros(fit.design.n), mu, phi, trials))
    return float(np.mean(zero[_used(fit)]))
