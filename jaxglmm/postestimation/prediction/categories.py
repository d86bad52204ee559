"""Probabilities of ordered categories, and means of their numbers, with errors.

At eta = x'beta + z'b category k has the probability F(theta_k - eta) - F(theta_{k-1} -
eta); a *functional* is a weighted sum of these over the categories: one probability, or
the mean of the categories' numbers. Standard errors are by the delta method from the
joint covariance of all parameters (thresholds, beta, theta of the random effects), the
modes b moving with them, plus the variance of b given the parameters. ``re="marginal"``
is the mean over the random effects, by Gauss-Hermite quadrature in z'b.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.fitting.predictor import fixed_parts, random_parts
from jaxglmm.formula.design import NewRows
from jaxglmm.numerics.normal_rule import normal_rule
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction.generalised_means import spread
from jaxglmm.postestimation.prediction.means import MeanRows, Means, asymptotic

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_multinomial import FittedMultinomial
    from jaxglmm.fitting.fitted_ordinal import FittedOrdinal

    Categorical = FittedOrdinal | FittedMultinomial

STEP = 1e-5  # of a central difference in a predictor
NODES = 41  # of the mean over random effects


@dataclass(frozen=True)
class Latent:
    """eta (n,), its Jacobian in psi (n, k), and its variance given psi (n,).

    sd: (n,) of z'b where that is averaged over, with its Jacobian by_psi (n, k).
    """

    eta: np.ndarray
    jacobian: np.ndarray
    variance: np.ndarray
    sd: np.ndarray | None = None
    by_psi: np.ndarray | None = None


def latent(fit: Categorical, new: NewRows, re: str, errors: bool = True) -> Latent:
    """The linear predictor of rows; errors: whether the rest is wanted as well."""
    if fit.design.parts:
        return _latent_parts(fit, new, re, errors)
    eta = _predict.mean(fit, new, re)
    n, k = len(eta), fit.engine.location.k
    zero = np.zeros(n)
    averaged = re == "marginal" and bool(new.terms)
    if not errors and not averaged:
        return Latent(eta, np.zeros((n, 0)), zero)
    J = np.zeros((n, k))
    p, m = fit.engine.base.p, fit.engine.base.m
    J[:, :p] = new.X @ fit.engine.R_inverse
    if averaged:
        sd, by_theta = spread(fit, new)
        by_psi = np.zeros((n, k))
        by_psi[:, p : p + m] = by_theta
        return Latent(eta, J, zero, sd, by_psi)
    if re != "conditional" or not new.terms:
        return Latent(eta, J, zero)
    from jaxglmm.fitting import conditional_variance as given

    moved = J + given.effects_tangents(fit, new)
    return Latent(eta, moved, given.effects_variance(fit, new))


def _latent_parts(fit: Categorical, new: NewRows, re: str, errors: bool) -> Latent:
    """The predictors of rows, (K, n), with a Jacobian of each, (K, n, k)."""
    d, b = fit.design, fit.estimates
    K, terms = len(d.parts), new.terms
    if re == "marginal" and terms:
        raise NotApplicableError(
            "re='marginal' is not offered where thresholds or the scale depend on the "
            "row; use re='population'"
        )
    eta = fixed_parts(new.X, b.beta, new.offset, d.columns)
    if re == "conditional" and terms:
        eta = eta + random_parts(terms, b.b, K)
    n, k = eta.shape[1], fit.engine.location.k
    if not errors:
        return Latent(eta, np.zeros((K, n, 0)), np.zeros(n))
    if re == "conditional" and any(term.predictor != 0 for term in terms):
        raise NotApplicableError(
            "standard errors of conditional predictions are for random effects of the "
            "location; use re='population'"
        )
    J, stop = np.zeros((K, n, k)), np.cumsum([0, *d.columns])
    p = fit.engine.base.p
    for part, (a, z) in enumerate(pairwise(stop)):
        J[part, :, :p] = new.X[:, a:z] @ fit.engine.R_inverse[a:z]
    extra = np.zeros(n)
    if re == "conditional" and terms:
        from jaxglmm.fitting import conditional_variance as given

        J[0] += given.effects_tangents(fit, new)
        extra = given.effects_variance(fit, new)
    return Latent(eta, J, extra)


def _functionals_parts(
    fit: Categorical, at: Latent, weights: np.ndarray, errors: bool
) -> Functionals:
    """``functionals`` of several predictors, by central differences in each."""
    family, phi = fit.family, fit.estimates.phi
    value = family.probabilities(at.eta, phi) @ weights.T
    if not errors:
        return Functionals(value, np.zeros((*value.shape, 0)), np.zeros(value.shape))
    J = np.zeros((*value.shape, at.jacobian.shape[2]))
    extra = np.zeros(value.shape)
    for part in range(len(at.eta)):
        step = np.zeros((len(at.eta), 1))
        step[part] = STEP
        change = [
            family.probabilities(at.eta + sign * step, phi) @ weights.T
            for sign in (1, -1)
        ]
        slope = (change[0] - change[1]) / (2 * STEP)
        J += slope[:, :, None] * at.jacobian[part][:, None, :]
        if part == 0:
            extra = slope**2 * at.variance[:, None]
    return Functionals(value, J, extra)


@dataclass(frozen=True)
class Functionals:
    """Values of rows, (n, c), with Jacobian (n, c, k) and variance (n, c)."""

    value: np.ndarray
    jacobian: np.ndarray
    extra: np.ndarray

    def error(self, root: np.ndarray) -> np.ndarray:
        """Standard errors (n, c); root: (k, r) of the covariance of psi."""
        half = self.jacobian @ root
        return np.sqrt(np.sum(half * half, axis=-1) + self.extra)


def functionals(
    fit: Categorical, at: Latent, weights: np.ndarray, errors: bool = True
) -> Functionals:
    """Weighted sums of the probabilities, weights (c, K)."""
    if fit.design.parts:
        return _functionals_parts(fit, at, weights, errors)
    fit = cast("FittedOrdinal", fit)
    family, phi = fit.cumulative, fit.estimates.phi
    steps = [(1.0, at.eta)]
    z = np.zeros(1)
    if at.sd is not None:
        z, w = normal_rule(NODES)
        steps = [(a, at.eta + x * at.sd) for a, x in zip(w, z, strict=True)]
    n, c, k = len(at.eta), len(weights), at.jacobian.shape[1]
    value, by_eta, by_sd = np.zeros((n, c)), np.zeros((n, c)), np.zeros((n, c))
    by_phi = np.zeros((n, c, family.n_phi))
    inner = family.theta_jacobian(phi) if errors else None
    for (a, eta), x in zip(steps, z, strict=True):
        value += a * family.probabilities(eta, phi) @ weights.T
        if inner is None:
            continue
        f = family.densities(eta, phi)  # (n, K + 1), zero at both ends
        slope = -np.diff(f, axis=1) @ weights.T
        by_eta += a * slope
        by_sd += a * x * slope
        change = weights[:, :-1] - weights[:, 1:]  # theta_j moves two categories
        by_phi += a * np.einsum("nj,cj,jr->ncr", f[:, 1:-1], change, inner)
    if inner is None:
        return Functionals(value, np.zeros((n, c, 0)), np.zeros((n, c)))
    J = by_eta[:, :, None] * at.jacobian[:, None, :]
    J = J + by_phi @ fit.engine.location.jacobian
    if at.by_psi is not None:
        J = J + by_sd[:, :, None] * at.by_psi[:, None, :]
    assert J.shape[2] == k
    return Functionals(value, J, by_eta**2 * at.variance[:, None])


def bounded_limits(
    value: np.ndarray, half: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Limits on the scale of log((value - low) / (high - value)), half widths."""
    from scipy.special import expit

    share = (value - low) / (high - low)
    with np.errstate(all="ignore"):
        middle = np.log(share) - np.log1p(-share)
        wide = half / ((high - low) * share * (1 - share))
        ends = expit(middle - wide), expit(middle + wide)
    usable = (share > 0) & (share < 1) & np.isfinite(wide)
    lower, upper = (np.where(usable, low + (high - low) * end, value) for end in ends)
    return lower, upper


def _offset_of_mean(new: NewRows) -> np.ndarray:
    offset = np.asarray(new.offset, float)
    return np.broadcast_to(offset[0] if new.parts else offset, (len(new.X),))


class CategoryMeans(Means):
    """Means of one functional of the categories, for tables of predictions.

    weights: (K,) of the categories; limits keep between the least and largest of them.
    """

    fit: FittedOrdinal

    def __init__(self, fit: FittedOrdinal, weights: np.ndarray, re: str):
        self.fit, self.weights, self.re = fit, np.asarray(weights, float), re
        self.random = re == "marginal" and bool(fit.design.terms)
        self.covariance = fit.parameter_covariance

    def at(self, new: NewRows) -> MeanRows:
        offset = _offset_of_mean(new)
        found = functionals(
            self.fit, latent(self.fit, new, self.re), self.weights[None]
        )
        return MeanRows(found.value[:, 0], found.jacobian[:, 0], offset)

    def df(self, jacobian: np.ndarray) -> np.ndarray:
        """Infinite: tests are asymptotic; NaN where there is nothing to test."""
        return asymptotic(jacobian)

    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        half = t_quantile(level, df) * error
        return bounded_limits(estimate, half, self.weights.min(), self.weights.max())
