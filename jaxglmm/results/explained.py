"""Shares of variance: intraclass correlations and R squared for mixed models.

Nakagawa and Schielzeth (2013, Methods Ecol. Evol. 4, 133) split the variance of the
response into the fixed effects' (variance of X beta over the rows), the random effects'
and the residual's. With random slopes the random effects' share differs by row; Johnson
(2014, same journal 5, 944) takes its mean over the rows, mean z' Sigma z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.results.components import covariances
from jaxglmm.results.effects import by_factor
from jaxglmm.results.estimates import Estimates
from jaxglmm.results.predictor import random_variance


@dataclass(frozen=True)
class R2:
    """marginal: share of the fixed effects; conditional: of fixed and random ones."""

    marginal: float
    conditional: float

    def __repr__(self) -> str:
        return f"R2(marginal={self.marginal:.4f}, conditional={self.conditional:.4f})"


class ICC(dict):
    """Factor -> intraclass correlation.

    The value of a factor is its intercepts' variance over the total of all factors'
    and the residual (with a factor that has no intercept counted by its mean variance):
    the correlation of two rows of one level, all covariates at zero.

    adjusted: share of all random effects in what the fixed effects leave, from the mean
        variances, so that it does not depend on where a covariate has its zero
    unadjusted: the same share of the whole variance, fixed effects included
    by_factor: ``adjusted``, factor by factor
    """

    def __init__(self, values, adjusted: float, unadjusted: float, by_factor: dict):
        super().__init__(values)
        self.adjusted = adjusted
        self.unadjusted = unadjusted
        self.by_factor = by_factor

    def __reduce__(self):
        return ICC, (dict(self), self.adjusted, self.unadjusted, self.by_factor)


@dataclass(frozen=True)
class Shares:
    """Variances: of X beta over rows, mean of each factor's z' Sigma z, residual."""

    fixed: float
    random: dict[str, float]
    residual: float

    @property
    def total_random(self) -> float:
        return sum(self.random.values())


def shares(design: Design, estimates: Estimates) -> Shares:
    """The three parts of the response's variance."""
    eta = design.X @ estimates.beta
    cov = covariances(estimates)
    random = {
        factor: float(
            np.mean(
                random_variance([design.terms[k] for k in ks], [cov[k] for k in ks])
            )
        )
        for factor, ks in by_factor(design.terms).items()
    }
    fixed = float(np.var(eta, ddof=1)) if design.p else 0.0
    return Shares(fixed, random, float(estimates.sigma) ** 2)


def r_squared(design: Design, estimates: Estimates) -> R2:
    """Nakagawa's marginal and conditional R squared."""
    part = shares(design, estimates)
    total = part.fixed + part.total_random + part.residual
    return R2(part.fixed / total, (part.fixed + part.total_random) / total)


def intraclass(design: Design, estimates: Estimates) -> ICC:
    """Intraclass correlations of all factors."""
    part = shares(design, estimates)
    intercepts = {
        factor: _intercept_variance(design, estimates, ks)
        for factor, ks in by_factor(design.terms).items()
    }
    values = {f: part.random[f] if v is None else v for f, v in intercepts.items()}
    total = sum(values.values()) + part.residual
    rest = part.total_random + part.residual
    return ICC(
        {factor: value / total for factor, value in values.items()},
        adjusted=part.total_random / rest,
        unadjusted=part.total_random / (rest + part.fixed),
        by_factor={factor: value / rest for factor, value in part.random.items()},
    )


def _intercept_variance(design: Design, estimates: Estimates, positions: list[int]):
    """Variance of a factor's intercepts; None where it has none."""
    cov = covariances(estimates)
    found = [
        float(cov[k][j, j])
        for k in positions
        for j, name in enumerate(design.terms[k].names)
        if name == "(Intercept)"
    ]
    return sum(found) if found else None
