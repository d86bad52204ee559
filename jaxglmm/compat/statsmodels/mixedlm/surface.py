"""The log-likelihood of a model and its derivatives at any point, penalties included.

Parameters are a ``MixedLMParams`` here; ``MixedLM`` reads the packed vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.compat.statsmodels.mixedlm.coordinates import roots_from
from jaxglmm.compat.statsmodels.mixedlm.formula import as_frame
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams
from jaxglmm.compat.statsmodels.mixedlm.state import ModelState
from jaxglmm.formula.matrix import unmasked

Score = tuple[np.ndarray, np.ndarray, np.ndarray]


def best_fixed(model: ModelState, at: MixedLMParams) -> np.ndarray:
    """(k_fe,) fixed effects by generalised least squares."""
    cov_re = np.asarray(at.cov_re, float).reshape(model.k_re, model.k_re)
    _, K, _ = model._evaluator.ground(cov_re, np.asarray(at.vcomp, float))
    return model._evaluator.gls(K)


def loglike(model: ModelState, at: MixedLMParams, profile_fe: bool) -> float:
    """The log-likelihood, scale profiled, less the penalties of the last fit."""
    value = model._evaluator.loglike(at, model.reml, profile_fe)
    if model.cov_pen is not None and model.k_re:
        value -= model.cov_pen.func(at.cov_re, np.linalg.pinv(at.cov_re))
    if model.fe_pen is not None:
        beta = best_fixed(model, at) if profile_fe else at.fe_params
        value -= model.fe_pen.func(beta)
    return float(value)


def score(model: ModelState, at: MixedLMParams, profile_fe: bool) -> np.ndarray:
    """Its gradient in the coordinates of ``use_sqrt``; zero where the fit held."""
    if profile_fe:
        at = at.copy()
        at.fe_params = best_fixed(model, at)
    method = score_sqrt if model.use_sqrt else score_full
    fe, re, vc = method(model, at, not profile_fe)
    if model._freepat is not None:
        free = model._freepat
        fe = fe * free.fe_params if free.k_fe else fe
        re, vc = re * free.cov_re[free._ix], vc * free.vcomp
    return np.concatenate((re, vc) if profile_fe else (fe, re, vc))


def score_full(model: ModelState, at: MixedLMParams, calc_fe: bool) -> Score:
    """Gradient over fixed effects (or zeros), the covariance's elements, components."""
    fe, inner = model._evaluator.score(at, model.reml, profile_fe=False)
    re, vc = inner[: model.k_re2].copy(), inner[model.k_re2 :]
    if model.cov_pen is not None and model.k_re:
        re -= model.cov_pen.deriv(at.cov_re, np.linalg.pinv(at.cov_re))
    if not calc_fe:
        fe = np.zeros(model.k_fe)
    elif model.fe_pen is not None:
        fe = fe - model.fe_pen.deriv(at.fe_params)
    return fe, re, vc


def score_sqrt(model: ModelState, at: MixedLMParams, calc_fe: bool) -> Score:
    """The same over entries of the root of the covariance and of the components."""
    fe, re, vc = score_full(model, at, calc_fe)
    coordinates = roots_from(at, None)
    J = coordinates.jacobian(coordinates.start(), 0.0)[:, :-1]
    out = J.T @ np.concatenate([re, vc])
    return fe, out[: model.k_re2], out[model.k_re2 :]


def hessian(model: ModelState, at: MixedLMParams) -> tuple[np.ndarray, bool]:
    """Second derivatives over the packed parameters, and if ``cov_re`` is singular."""
    low = model.k_re > 0 and np.linalg.matrix_rank(at.cov_re) < model.k_re
    singular = bool(low or (at.vcomp < 1e-10).any())
    return model._evaluator.hessian(at, model.reml), singular


def new_exog(model: ModelState, exog: Any) -> np.ndarray:
    """(m, k_fe) design from an array, or from new data for the formula."""
    if exog is None:
        return model.exog
    if model._spec is not None and not isinstance(exog, np.ndarray):
        return _from_spec(model, exog)
    out = np.asarray(unmasked(exog), float)
    if out.ndim == 1:
        out = out[:, None] if model.k_fe == 1 else out[None]
    if out.shape[1] != model.k_fe:
        raise DataError(f"exog has {out.shape[1]} columns, expected {model.k_fe}")
    return out


def _from_spec(model: ModelState, data: Any) -> np.ndarray:
    frame = as_frame(data)
    try:
        return model._spec.apply(frame)
    except FormulaError as error:
        if list(map(str, frame.columns)) == list(model.exog_names):
            return frame.to_numpy(float)  # a design already
        raise DataError(
            f"exog cannot be evaluated for {model.data.formula!r}: {error}"
        ) from error
