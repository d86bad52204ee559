"""Predictions of a generalised model, on the scale of the response or of the link.

The three questions of ``predict``; in a generalised model they have different answers
even for the mean: *conditional* h(x'beta + z'b), *population* h(x'beta), the mean of a
level with b = 0, and *marginal* E h(x'beta + z'b), the mean over levels (h the inverse
link; on the link scale, the link of that mean).

Standard errors come from the variance of the linear predictor (``covariance``) and the
slope of h; those of marginal means from the exact Jacobian in beta and Sigma.
Confidence limits are made on the link scale and transformed. Prediction limits are
quantiles of a new observation's distribution, the uncertainty of the linear predictor
mixed in, and for ``re="marginal"`` the variance of the random effects (``predictive``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import predictor
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.fitting.components import covariances
from jaxglmm.formula.design import NewRows
from jaxglmm.postestimation.prediction import averages, predictive
from jaxglmm.postestimation.prediction import generalised_means as means
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction.asked import Asked

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised


def predict(fit: FittedGeneralised, asked: Asked):
    """Means, or a frame with ``fit`` and what was asked of ``se, lower, upper``."""
    asked = asked.read(partial=True)
    newdata, re, type, level = asked.newdata, asked.re, asked.type, asked.level
    _check_words(fit, type, asked.interval, asked.trials)
    new = asked.rows(fit)
    asked.warn(new)
    m = asked.numbers_of_trials(len(new.X))
    averaged = re == "marginal" and bool(fit.design.terms)
    table = (_averaged if averaged else _plain)(
        fit, new, re, type, level, errors=asked.se or asked.interval == "confidence"
    )
    scale = 1.0 if m is None else m
    table = {name: scale * values for name, values in table.items()}
    if asked.interval == "prediction":
        own = newdata is None
        table["lower"], table["upper"] = _observation(fit, new, re, own, m, level)
    return asked.answer(table, new.index)


def _check_words(fit: FittedGeneralised, type: str, interval, trials) -> None:
    if interval == "prediction" and type == "link":
        raise NotApplicableError(
            "interval='prediction' is for a new observation, which is on the scale of "
            "the response: type='response'. For the linear predictor use "
            "interval='confidence'"
        )
    if trials is None:
        return
    if fit.family.family_kind != "binomial":
        raise NotApplicableError(
            f"trials= is for families of successes out of trials, not "
            f"{fit.family_name!r}"
        )
    if type == "link":
        raise NotApplicableError(
            "trials= asks for counts, which are on the scale of the response: "
            "type='response'"
        )


def _plain(
    fit: FittedGeneralised, new: NewRows, re: str, type: str, level: float, errors: bool
) -> dict[str, np.ndarray]:
    """h(eta) and what belongs to it, eta the linear predictor."""
    eta = _predict.mean(fit, new, re)
    link = type == "link"
    out = {"fit": eta if link else np.asarray(fit.family.mean(eta), float)}
    if not errors:
        return out
    error = np.sqrt(_predict.variance(fit, new, re))
    half = t_quantile(level, np.full(len(error), np.inf)) * error
    low, high = eta - half, eta + half
    if not link:
        with np.errstate(invalid="ignore"):
            error = np.abs(averages.slope(fit.family, eta)) * error
        low, high = means.between(fit.family.mean, fit.family.link, low, high)
    return out | {"se": error, "lower": low, "upper": high}


def _averaged(
    fit: FittedGeneralised, new: NewRows, re: str, type: str, level: float, errors: bool
) -> dict[str, np.ndarray]:
    """The mean over the random effects, and what belongs to it."""
    if not errors:
        return {"fit": means.marginal_values(fit, new, type)}
    estimand = means.GeneralisedMeans(fit, type, re)
    found = estimand.at(new)
    error = np.sqrt(_predict.fixed_variance(found.jacobian, estimand.covariance))
    df = np.full(len(error), np.inf)
    low, high = estimand.limits(found.value, error, df, level)
    return {"fit": found.value, "se": error, "lower": low, "upper": high}


def _observation(
    fit: FittedGeneralised, new: NewRows, re: str, own: bool, m, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of a new observation: counts out of m where given, else proportions."""
    family = fit.family
    eta = _predict.mean(fit, new, re)
    variance = _predict.variance(fit, new, re)
    if re == "marginal":
        variance = variance + predictor.random_variance(
            new.terms, covariances(fit.estimates)
        )
    out_of = _out_of(fit, own, m, len(eta))
    sd = np.sqrt(variance)
    phi = fit.estimates.phi
    low, high = predictive.limits(family, phi, eta, sd, out_of, level)
    if family.family_kind == "binomial" and m is None:
        with np.errstate(invalid="ignore", divide="ignore"):
            return low / out_of, high / out_of
    return low, high


def _out_of(fit: FittedGeneralised, own: bool, m, n: int) -> np.ndarray:
    """(n,) numbers of trials of a new observation: as given, or the fit's own."""
    trials = fit.design.trials
    if m is not None:
        return m
    if trials is not None and own:
        return trials
    if trials is None or fit.family.family_kind != "binomial" or (trials == 1).all():
        return np.ones(n)
    raise NotApplicableError(
        "interval='prediction' of a binomial response needs the numbers of trials of "
        "the new rows: pass trials= (a number, a column's name or an array); the "
        "answers are then counts"
    )
