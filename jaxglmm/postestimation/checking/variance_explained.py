"""Shares of variance: intraclass correlations and R squared for mixed models.

Nakagawa and Schielzeth (2013, Methods Ecol. Evol. 4, 133) split the variance of the
response into the fixed effects' (variance of X beta over the rows), the random effects'
and the residual's. With random slopes the random effects' share differs by row; Johnson
(2014, same journal 5, 944) takes its mean over the rows, mean z' Sigma z.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.components import covariances
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.fitting.predictor import random_variance
from jaxglmm.fitting.random_effects import by_factor
from jaxglmm.formula.absent import StreamedDesign
from jaxglmm.formula.design import Design


def icc(fit: FittedModel) -> ICC:
    """Intraclass correlations of a linear model."""
    part = shares(fit.design, fit.estimates)
    return intraclass(fit.design, fit.estimates, part)


def r2(fit: FittedModel) -> R2:
    """Nakagawa's R squared of a linear model."""
    return r_squared(shares(fit.design, fit.estimates))


@dataclass(frozen=True)
class R2:
    """marginal: share of the fixed effects; conditional: of fixed and random ones.

    method: how the residual variance of a generalised model was found; None in a linear
    one.
    """

    marginal: float
    conditional: float
    method: str | None = None

    def __repr__(self) -> str:
        return f"R2(marginal={self.marginal:.4f}, conditional={self.conditional:.4f})"


class ICC(dict):
    """Factor -> intraclass correlation; called, one number or another kind of them.

    The value of a factor is its intercepts' variance over the total of all factors'
    and the residual (with a factor that has no intercept counted by its mean variance):
    the correlation of two rows of one level, all covariates at zero.

    adjusted: share of all random effects in what the fixed effects leave, from the mean
        variances, so that it does not depend on where a covariate has its zero
    unadjusted: the same share of the whole variance, fixed effects included
    by_factor: ``adjusted``, factor by factor
    by_factor_unadjusted: ``unadjusted``, factor by factor
    method: how the residual variance of a generalised model was found

    Example:
        >>> import jaxglmm as jg
        >>> sleep = jg.datasets.load("sleepstudy")
        >>> icc = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep).icc
        >>> round(icc["Subject"], 3), round(icc(), 3), round(icc(adjusted=False), 3)
        (0.483, 0.722, 0.521)
    """

    def __init__(
        self,
        values,
        adjusted: float,
        unadjusted: float,
        by_factor: dict,
        by_factor_unadjusted: dict | None = None,
        method: str | None = None,
    ):
        super().__init__(values)
        self.adjusted = adjusted
        self.unadjusted = unadjusted
        self.by_factor = by_factor
        self.by_factor_unadjusted = by_factor_unadjusted or {}
        self.method = method

    def __call__(self, adjusted: bool = True, by: str | bool | None = None):
        """The share of the random effects in the variance.

        Args:
            adjusted: of what the fixed effects leave; False: of all of it.
            by: None for all random effects together, a factor's name for its own share,
                True for a dict of all factors'.

        Returns:
            A number, or a dict factor -> number.

        Raises:
            NotApplicableError: ``by`` is not a grouping factor of the model.
        """
        adjusted = _arguments.flag("adjusted", adjusted)
        shares = self.by_factor if adjusted else self.by_factor_unadjusted
        if by is None or by is False:
            return self.adjusted if adjusted else self.unadjusted
        if by is True:
            return dict(shares)
        if not _arguments.is_among(by, shares):
            known = ", ".join(map(repr, shares)) or "none"
            raise NotApplicableError(
                f"icc(by={_arguments.shown(by)}): no such factor has a share of the "
                f"variance; there are: {known}"
            )
        return shares[by]

    def __reduce__(self):
        kept = self.adjusted, self.unadjusted, self.by_factor
        return ICC, (dict(self), *kept, self.by_factor_unadjusted, self.method)


@dataclass(frozen=True)
class Shares:
    """Variances: of X beta over rows, mean of each factor's z' Sigma z, residual."""

    fixed: float
    random: dict[str, float]
    residual: float

    @property
    def total_random(self) -> float:
        return sum(self.random.values())


def shares(
    design: Design,
    estimates: Estimates,
    residual: float | None = None,
    of_rows: Collection[str] = (),
) -> Shares:
    """The three parts of the response's variance.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found.
        residual: variance of a row; sigma squared where it is left out.
        of_rows: factors with one row a level: their variance is residual.
    """
    counted, cov = design.counted, covariances(estimates)
    factors = by_factor(design.terms).items()
    if isinstance(design, StreamedDesign):
        random = {name: design.random_variance(cov, ks) for name, ks in factors}
        fixed = design.fixed_variance(estimates.beta) if design.p else 0.0
    else:
        eta = (design.X @ estimates.beta)[counted]
        random = {
            name: float(np.mean(_row_variance(design, cov, ks)[counted]))
            for name, ks in factors
        }
        fixed = float(np.var(eta, ddof=1)) if design.p and len(eta) > 1 else 0.0
    residual = float(estimates.sigma) ** 2 if residual is None else residual
    residual += sum(random.pop(name) for name in of_rows)
    return Shares(fixed, random, residual)


def _row_variance(design: Design, cov, positions: list[int]) -> np.ndarray:
    """z' Sigma z of the rows, summed over some of the terms, (n,)."""
    terms, matrices = ([x[k] for k in positions] for x in (design.terms, cov))
    return np.broadcast_to(random_variance(terms, matrices), (design.n,))


def r_squared(part: Shares, method: str | None = None) -> R2:
    """Nakagawa's marginal and conditional R squared."""
    total = part.fixed + part.total_random + part.residual
    conditional = (part.fixed + part.total_random) / total
    return R2(part.fixed / total, conditional, method)


def intraclass(
    design: Design, estimates: Estimates, part: Shares, method: str | None = None
) -> ICC:
    """Intraclass correlations of all factors that have a share."""
    intercepts = {
        factor: _intercept_variance(design, estimates, ks)
        for factor, ks in by_factor(design.terms).items()
        if factor in part.random
    }
    values = {f: part.random[f] if v is None else v for f, v in intercepts.items()}
    total = sum(values.values()) + part.residual
    rest = part.total_random + part.residual
    whole = rest + part.fixed
    return ICC(
        {factor: value / total for factor, value in values.items()},
        adjusted=part.total_random / rest,
        unadjusted=part.total_random / whole,
        by_factor={factor: value / rest for factor, value in part.random.items()},
        by_factor_unadjusted={f: value / whole for f, value in part.random.items()},
        method=method,
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
