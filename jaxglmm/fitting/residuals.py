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
    """(n,) residuals, of ``TYPES``; mu: the family's ``parameters`` at eta."""
    if not _arguments.is_among(type, TYPES):
        raise NotApplicableError(
            f"resid(type={_arguments.shown(type)}): there are "
            f"{', '.join(map(repr, TYPES))}"
        )
    trials = 1.0 if design.trials is None else design.trials
    size = trials if family.family_kind == "binomial" else 1.0
    weights = 1.0 if design.weights is None else design.weights
    if type == "response":
        return design.y / size - family.mean_of(mu, phi)
    if type == "working":
        return ratio(design.y / size - family.mean_of(mu, phi), family.link.slope(eta))
    if type == "quantile":
        rng = np.random.default_rng(_arguments.seed(seed))
        return _quantile(design.y, family, mu, phi, trials, rng)
    if type == "deviance":
        out = family.deviance_residuals(design.y, mu, phi, trials)
    else:
        out = family.pearson_residuals(design.y, mu, phi, trials)
    return np.sqrt(weights) * out


def of_components(
    design: Design,
    family: AbstractFamily,
    phi: np.ndarray,
    eta: np.ndarray,
    type: str,
    seed=0,
) -> np.ndarray:
    """(n,) residuals of a model of several linear predictors eta (K, n)."""
    if type == "working" or (type == "deviance" and "zi" in family.predictors):
        raise NotApplicableError(
            f"resid(type={type!r}): a model of several linear predictors has none; "
            "'quantile' residuals are standard normal if the model holds, 'pearson' "
            "ones have unit variance"
        )
    return resid(design, family, phi, eta, family.parameters(eta), type, seed)


def _quantile(y, family: AbstractFamily, mu, phi, trials, rng) -> np.ndarray:
    """Standard normal scores of a uniform draw between P(Y < y) and P(Y <= y)."""
    from scipy import special

    upper = np.asarray(family.cdf(y, mu, phi, trials))
    if family.has_mass:
        lower = family.below(y, mu, phi, trials)
        upper = lower + rng.uniform(size=len(y)) * (upper - lower)
    return special.ndtri(np.clip(upper, 1e-300, 1 - 1e-16))
