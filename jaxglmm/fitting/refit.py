"""A linear model fitted again: for another response, by the other criterion."""

from __future__ import annotations

import copy
from functools import partial
from typing import TypeVar

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import DataError
from jaxglmm.fitting import convergence as diagnose
from jaxglmm.fitting import linear as _engine
from jaxglmm.fitting.estimates import Unread
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.kinds import is_generalised
from jaxglmm.fitting.linear import Engine
from jaxglmm.formula.align import by_labels
from jaxglmm.formula.design import Design
from jaxglmm.formula.matrix import as_numbers

L = TypeVar("L", bound=FittedModel)


def refit(fit: L, y: np.ndarray) -> L:
    """The same model for another response, (n,).

    Raises:
        DataError: of another length, labelled as other rows, or not finite.
    """
    own = by_labels("the response", y, fit.design.index)
    y = as_numbers("the response", own, "refit takes the numbers of the rows, (n,)")
    if y.shape != fit.design.y.shape:
        raise DataError(
            f"refit needs a response of shape {fit.design.y.shape} (the rows that the "
            f"fit used), got {y.shape}"
        )
    if not np.isfinite(y).all():
        raise DataError("the response has values that are not finite")
    design = copy.copy(fit.design)
    object.__setattr__(design, "y", y)  # a frozen record, copied: cheaper than replace
    adjusted = y if design.offset is None else y - design.offset
    keep = fit.engine.keep
    return _again(
        fit,
        design,
        fit.engine.for_response(adjusted if keep is None else adjusted[keep]),
    )


def with_method(fit: L, reml: bool) -> L:
    """The same model and data by the other criterion; a generalised one by ML."""
    if is_generalised(fit):
        from jaxglmm.fitting.refit_generalised import by_likelihood

        return by_likelihood(fit)  # pyright: ignore[reportReturnType, reportArgumentType]
    return _again(fit, fit.design, fit.engine.with_method(reml))


def _again(fit: L, design: Design, engine: Engine) -> L:
    """Fit ``engine`` with the settings of ``fit``; a warning where it is due."""
    settings = fit.diagnostics
    fitted, criterion = engine.fit(
        settings.get("tol", _engine.TOLERANCE), settings.get("max_iter", _engine.STEPS)
    )
    out = fit.like(
        design,
        Unread(partial(engine.estimates, design, fitted, criterion), criterion),
        engine,
        {**settings, "evaluations": int(fitted.steps)},
    )
    if fitted.status != _status.CONVERGED or engine.is_singular(fitted):
        diagnose.warn(design, out.estimates)
    return out
