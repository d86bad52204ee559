"""Residuals of a generalised model, given the conditional modes.

McCullagh and Nelder (1989), 2.4; randomised quantile residuals after Dunn and Smyth
(1996), J. Comput. Graph. Stat. 5, 236.
"""

from __future__ import annotations

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.design import Design
from jaxglmm.model.families import AbstractFamily, ratio

TYPES = ("deviance", "pearson", "response", "working", "scaled", "quantile")


def resid(
    design: Design,
    family: AbstractFamily,
    phi: np.ndarray,
    eta: np.ndarray,
    mu: np.ndarray,
    type: str,
    seed=0,
) -> np.ndarray:
    """(n,) residuals of one of ``TYPES``, at predictors and means (n,)."""
    if not _arguments.is_among(type, TYPES):
        raise NotApplicableError(
            f"resid(type={_arguments.shown(type)}): there are "
            f"{', '.join(map(repr, TYPES))}"
        )
    trials = 1.0 if design.trials is None else design.trials
    size = trials if family.family_kind == "binomial" else 1.0
    weights = 1.0 if design.weights is None else design.weights
    if type == "response":
        return design.y / size - mu
    if type == "working":
        return ratio(design.y / size - mu, family.link.slope(eta))
    if type == "quantile":
        rng = np.random.default_rng(_arguments.seed(seed))
        return _quantile(design.y, family, mu, phi, trials, rng)
    if type == "deviance":
        out = family.deviance_residuals(design.y, mu, phi, trials)
    else:
        out = family.pearson_residuals(design.y, mu, phi, trials)
    return np.sqrt(weights) * out


def _quantile(y, family: AbstractFamily, mu, phi, trials, rng) -> np.ndarray:
    """Standard normal scores of a uniform draw between P(Y < y) and P(Y <= y)."""
    from scipy import special

    upper = np.asarray(family.cdf(y, mu, phi, trials))
    if family.discrete:
        lower = np.where(y > 0, family.cdf(y - 1, mu, phi, trials), 0.0)
        upper = lower + rng.uniform(size=len(y)) * (upper - lower)
    return special.ndtri(np.clip(upper, 1e-300, 1 - 1e-16))
