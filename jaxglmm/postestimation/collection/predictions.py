"""Predictions of many models for the same rows, at random effects of zero.

Modes are not kept of many fits; ``fits[i].predict`` has predictions given them, with
standard errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.design import Design
from jaxglmm.many.plan import settled
from jaxglmm.model.families import Cumulative, Multinomial

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels

TYPES = ("response", "link", "probs", "class", "mean_class")


def predict(fits: FittedModels, newdata: Any, type: str) -> np.ndarray:
    """See ``Fits.predict``."""
    _arguments.choice("type", type, TYPES, where="predict")
    if fits.source is None:
        raise NotApplicableError(
            "predict() needs the data of these fits, which are not at hand: save with "
            "data=True"
        )
    source = settled(fits.source)
    family, design = source.family, source.design
    kind = "numeric" if family is None else family.family_kind
    categories = kind in ("ordinal", "nominal")
    if not categories and type not in ("response", "link"):
        raise NotApplicableError(
            f"type={type!r} is for responses of categories; there are 'response' and "
            "'link'"
        )
    if design.parts and kind != "nominal":
        raise NotApplicableError(
            "predict() of many models is for one linear predictor: ask fits[i]"
        )
    X, offset = _rows(design, fits, newdata)
    if isinstance(family, Multinomial):
        return _of_probabilities(_multinomial(fits, family, X, offset), type, family)
    eta = fits.coefficients @ X.T + offset
    if type == "link":
        return eta
    if isinstance(family, Cumulative):
        theta = fits.thresholds.to_numpy()[:, None, :] - eta[:, :, None]
        edge = np.full((*eta.shape, 1), np.inf)
        ends = np.concatenate([-edge, theta, edge], axis=-1)
        return _of_probabilities(family.between(ends), type, family)
    return eta if family is None else np.asarray(family.mean(eta), float)


def _rows(
    design: Design, fits: FittedModels, newdata: Any
) -> tuple[np.ndarray, np.ndarray | float]:
    """X of the rows that are asked for, and their offset."""
    if newdata is not None:
        if design.recipe is None:
            raise NotApplicableError("these fits do not know how to code new data")
        found = design.recipe.new_rows(newdata, random=False)
        return found.X, found.offset
    if fits.source.responses is None:
        raise NotApplicableError(
            "data sets of their own rows: predict(newdata) says for which rows"
        )
    return design.X, 0.0 if design.offset is None else design.offset


def _multinomial(
    fits: FittedModels, family: Multinomial, X: np.ndarray, offset: Any
) -> np.ndarray:
    """(D, n, K) probabilities; X has the columns of every category."""
    K = family.categories - 1
    p = X.shape[1] // K
    beta = fits.coefficients.reshape(len(fits), K, p)
    eta = np.einsum("np,dkp->kdn", X[:, :p], beta)
    shift = np.asarray(offset, float)
    eta = eta + (shift[:, None] if shift.ndim == 2 else shift)
    return family.probabilities(eta, np.zeros(0))


def _of_probabilities(P: np.ndarray, type: str, family: Any) -> np.ndarray:
    """What is asked of (D, n, K) probabilities."""
    if type == "probs" or (type == "response" and isinstance(family, Multinomial)):
        return P
    known = np.asarray(np.isfinite(P).all(axis=-1))
    if type == "class":
        levels = np.empty(family.categories + 1, object)
        levels[:-1] = list(family.levels)
        likely = np.argmax(np.where(known[..., None], P, 0.0), axis=-1)
        return levels[np.where(known, likely, family.categories)]
    if type == "link" or isinstance(family, Multinomial):
        raise NotApplicableError(
            f"type={type!r} of categories without an order: ask for 'probs' or 'class'"
        )
    return P @ np.arange(1.0, family.categories + 1)
