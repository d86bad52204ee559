"""A generalised model fitted again for another response."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, TypeVar

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.fitting import diagnostics
from jaxglmm.fitting import generalised as _generalised
from jaxglmm.fitting.estimates import Unread
from jaxglmm.fitting.fitted_generalised import FittedGeneralised
from jaxglmm.fitting.restricted import engine_of
from jaxglmm.formula.align import by_labels
from jaxglmm.formula.design import Design
from jaxglmm.formula.matrix import unmasked
from jaxglmm.formula.notices import listed
from jaxglmm.integrate.base import AbstractMarginal, Laplace

TOLERANCE, STEPS = 1e-8, 200

G = TypeVar("G", bound=FittedGeneralised)


def refit(fit: G, y) -> G:
    """The same model for another response; of the binomial kind successes, or both."""
    response, trials = response_again(fit.design, fit.family.family_kind, y)
    is_counted = fit.family.family_kind == "binomial"  # others have precisions there
    fit.family.check(response, trials if is_counted else None, fit.design.rows)
    design = copy.copy(fit.design)
    object.__setattr__(design, "y", response)  # a frozen record, copied
    object.__setattr__(design, "trials", trials)
    if trials is fit.design.trials:
        engine = fit.engine.for_response(response, trials)
    else:
        engine = engine_of(design, fit.family, fit.marginal)
    return _again(fit, design, engine, fit.marginal)


def by_likelihood(fit: G) -> G:
    """The same model and data by maximum likelihood, where it was fitted by REML."""
    marginal = Laplace(fit.marginal.hessian)
    engine = engine_of(fit.design, fit.family, marginal)
    return _again(fit, fit.design, engine, marginal)


def _again(fit: G, design: Design, engine: Any, marginal: AbstractMarginal) -> G:
    """Fit ``engine`` with the settings of ``fit``; a warning where it is due."""
    settings = fit.diagnostics
    fitted = engine.fit(settings.get("tol", TOLERANCE), settings.get("max_iter", STEPS))
    found = Unread(
        partial(_generalised.estimates, engine, design, fitted),
        float(fitted.criterion),
    )
    out = fit.like(
        design, found, engine, {**settings, "evaluations": int(fitted.steps)}
    )
    out.marginal = marginal
    out.keep(fitted)
    diagnostics.warn(out)
    return out


def response_again(
    design: Design, kind: str, y
) -> tuple[np.ndarray, np.ndarray | None]:
    """Response (n,) and trials, from (n,) or, for the binomial kind, (n, 2)."""
    own = unmasked(by_labels("the response", y, design.index))
    try:
        values = np.asarray(own)
    except ValueError as error:  # NumPy's
        raise DataError(
            f"refit needs a response of shape ({design.n},), not lists of any length"
        ) from error
    if values.dtype.kind not in "biuf" or kind == "ordinal":
        values = _coded(design, values)
    values = values.astype(float)
    n = design.n
    if kind == "binomial" and values.shape == (n, 2):
        successes, trials = values[:, 0], values.sum(axis=1)
        known = np.ones(n) if design.trials is None else design.trials
        return successes, design.trials if np.array_equal(trials, known) else trials
    if values.shape != (n,):
        pair = f", or ({n}, 2) of successes and failures" if kind == "binomial" else ""
        raise DataError(
            f"refit needs a response of shape ({n},){pair} (the rows that the fit "
            f"used), got {values.shape}"
        )
    return values, design.trials


def _coded(design: Design, values: np.ndarray) -> np.ndarray:
    """Text as 0 and 1, by the levels that the fit's response had."""
    levels = design.response_levels
    if levels is None:
        raise DataError("the response must be numbers, as that of the fit was")
    codes = pd.Index(levels).get_indexer(pd.Index(values))
    if (codes < 0).any():
        unknown = listed([values[codes < 0][0]])
        raise DataError(
            f"the response has the value {unknown}; that of the fit had "
            f"{listed(list(levels))}"
        )
    return codes
