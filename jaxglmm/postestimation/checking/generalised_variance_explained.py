"""Shares of variance of a generalised model, on the scale of the linear predictor.

Nakagawa, Johnson and Schielzeth (2017, J. R. Soc. Interface 14, 20170213): what is
missing in comparison with a linear model is the variance of a row given its predictor.

    theoretical   of the tolerance behind a yes or no: pi^2 / 3 (logit), 1 (probit),
                  pi^2 / 6 (cloglog); one trial
    observation   p (1 - p) / (dp / deta)^2, the delta method; 1 / (p (1 - p)) for logit
    lognormal     log(1 + Var y / mu^2), log link
    delta         Var y / (dmu / deta)^2, any link; Var y / mu^2 for log
    trigamma      trigamma(mu^2 / Var y), log link

Where it depends on a mean, this is that of the null model (the same random effects, an
intercept for the fixed ones), averaged over its random effects: exp(b0 + v / 2) for the
log link, v the mean variance of the random effects, as the paper recommends. Dispersion
parameters are those of the full model. Offsets count with their mean. A factor with one
level a row is overdispersion and not a group: its variance joins the row's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.components import covariances
from jaxglmm.fitting.fitted_model import once
from jaxglmm.fitting.predictor import random_variance
from jaxglmm.fitting.random_effects import by_factor
from jaxglmm.formula.design import Design
from jaxglmm.model.families import AbstractFamily
from jaxglmm.postestimation.checking import variance_explained as explained
from jaxglmm.postestimation.prediction import averages

if TYPE_CHECKING:
    from jaxglmm.fitting.estimates import Estimates
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised


def methods(family: AbstractFamily) -> tuple[str, ...]:
    """Ways to find the variance of a row; the first is the default."""
    link = family.link
    if family.family_kind == "binomial":
        latent = () if link.tolerance is None else ("theoretical",)
        return (*latent, "observation")
    return ("lognormal", "delta", "trigamma") if link.name == "log" else ("delta",)


def method_of(family: AbstractFamily, method: str | None) -> str:
    """The method asked for, or the default."""
    if len(family.predictors) > 1:
        own = ", ".join(family.predictors)
        if family.family_kind == "ordinal":
            own = "effects of scale= or nominal= beside those of the latent variable"
        raise NotApplicableError(
            f"R2 and ICC are for models of one linear predictor; this one has {own}"
        )
    there_are = methods(family)
    if method is None:
        return there_are[0]
    if not _arguments.is_among(method, there_are):
        raise NotApplicableError(
            f"method={_arguments.shown(method)}: for family {family.name!r} with link "
            f"{family.link.name!r} there are {', '.join(map(repr, there_are))}"
        )
    return method


def r_squared(
    fit: FittedGeneralised, method: str | None, mean: float | None
) -> explained.R2:
    """Marginal and conditional R squared."""
    chosen = method_of(fit.family, method)
    return explained.r_squared(shares(fit, chosen, mean), chosen)


class GeneralisedICC(explained.ICC):
    """Intraclass correlations that can be asked for by another method."""

    def __init__(self, fit: FittedGeneralised, found: explained.ICC):
        super().__init__(*found.__reduce__()[1])
        self._fit = fit

    def __call__(
        self,
        adjusted: bool = True,
        by: str | bool | None = None,
        method: str | None = None,
        mean: float | None = None,
    ):
        """The share of the random effects in the variance.

        Args:
            adjusted: of what the fixed effects leave; False: of all of it.
            by: None for all random effects together, a factor's name for its own share,
                True for a dict of all factors'.
            method: how the variance of a row is found; see ``Fit.r2``.
            mean: of the response, at which it is found; default the null model's.
        """
        if method is None and mean is None:
            return super().__call__(adjusted, by)
        chosen = self.method if method is None else method
        return intraclass(self._fit, chosen, mean)(adjusted, by)


def intraclass(
    fit: FittedGeneralised, method: str | None, mean: float | None
) -> explained.ICC:
    """Intraclass correlations by one method."""
    chosen = method_of(fit.family, method)
    part = shares(fit, chosen, mean)
    return explained.intraclass(fit.design, fit.estimates, part, chosen)


def shares(fit: FittedGeneralised, method: str, mean: float | None) -> explained.Shares:
    """The three parts of the variance."""
    return explained.shares(
        fit.design,
        fit.estimates,
        row_variance(fit, method, mean),
        one_row_a_level(fit.design),
    )


def row_variance(fit: FittedGeneralised, method: str, mean: float | None) -> float:
    """Variance of a row given its predictor, on the predictor's scale."""
    family, phi = fit.family, fit.estimates.phi
    if method == "theoretical":
        return _variance_at(family, phi, 0.5, "lognormal")
    somewhere, elsewhere = (_variance_at(family, phi, x, method) for x in (0.3, 0.6))
    if abs(somewhere - elsewhere) <= 1e-12 * somewhere:  # the same for all means
        return somewhere
    at = null_mean(fit) if mean is None else _checked(mean)
    found = _variance_at(family, phi, at, method)
    if not np.isfinite(found):
        raise NotApplicableError(
            f"method={method!r}: the variance of a row at a mean of {at:.3g} is "
            f"{found}. Give another mean= in the range of the response"
        )
    return found


def _variance_at(family: AbstractFamily, phi, mean: float, method: str) -> float:
    at = np.float64(mean)
    with np.errstate(all="ignore"):
        if method != "observation":
            return float(family.latent_variance(at, phi, 1.0, method))
        slope = np.asarray(family.link.slope(np.asarray(family.link.link(at))))
        return float(at * (1 - at) / slope**2)


def _checked(mean: float) -> float:
    if not _arguments.is_finite(mean):
        shown = _arguments.shown(mean)
        raise NotApplicableError(f"mean={shown} must be a finite number")
    return float(mean)


def one_row_a_level(design: Design) -> tuple[str, ...]:
    """Factors whose random effects are effects of single rows."""
    return tuple(
        factor
        for factor, ks in by_factor(design.terms).items()
        if design.levels_counted(design.terms[ks[0]]) == design.n_counted
    )


@once
def null_mean(fit: FittedGeneralised) -> float:
    """Mean of the response in the null model, found once a fit."""
    design = fit.design
    counted = design.counted
    X = design.X[counted]
    if design.p == 1 and (X[0] == X).all():
        estimates, eta = fit.estimates, float(X[0, 0] * fit.coefficients[0])
    else:
        estimates = null_estimates(fit)
        eta = float(estimates.beta[0])
    offset = 0.0 if design.offset is None else float(np.mean(design.offset[counted]))
    variance = random_variance(design.terms, covariances(estimates))
    sd = np.sqrt(np.mean(np.broadcast_to(variance, (design.n,))[counted]))
    found = averages.over_normal(fit.family, np.array([eta + offset]), np.array([sd]))
    value = float(found.value[0])
    if not np.isfinite(value):
        raise NotApplicableError(
            "the null model (no fixed effects but an intercept), at whose mean the "
            f"variance of a row is evaluated, has a mean of {value}. Pass mean="
        )
    return value


def null_estimates(fit: FittedGeneralised) -> Estimates:
    """The fit of the same random effects with an intercept for the fixed effects."""
    from jaxglmm.fitting import generalised as generalised_engine
    from jaxglmm.fitting.restricted import engine_of

    design = replace(
        fit.design,
        X=np.ones((fit.design.n, 1)),
        x_names=("(Intercept)",),
        fixed_terms=(),
        dropped_columns=(),
        null_space=None,
        formula=None,
        recipe=None,
    )
    engine = engine_of(design, fit.family, fit.marginal)
    return generalised_engine.estimates(engine, design, engine.fit())
