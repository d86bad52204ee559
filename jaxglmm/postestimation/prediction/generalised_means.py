"""What a row of a generalised model is expected to be, and its Jacobian.

By ``type`` and ``re``, with h the inverse link and g the link,

    link, population       eta = X beta + offset                     parameters beta
    response, population   h(eta)                                    beta
    response, marginal     m = E h(eta + z'b), b ~ N(0, Sigma)       (beta, theta, phi)
    link, marginal         g(m): population-averaged                 (beta, theta, phi)

with one-dimensional means (``averages``), since eta + z'b is a normal scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.fitting.components import covariances
from jaxglmm.fitting.predictor import random_variance
from jaxglmm.formula.design import NewRows
from jaxglmm.model.links import Link
from jaxglmm.postestimation.prediction import averages
from jaxglmm.postestimation.prediction.means import MeanRows, Means, asymptotic

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised


class GeneralisedMeans(Means):
    """Means of a generalised model; see the module for what they are."""

    fit: FittedGeneralised

    def __init__(self, fit: FittedGeneralised, type: str, re: str):
        self.fit, self.family = fit, fit.family
        self.is_link, self.link = type == "link", self.family.link
        self.random = re == "marginal" and bool(fit.design.terms)
        self.is_linear = self.is_link and not self.random
        plain = averages.has_plain_mean(self.family)
        identity = plain and self.family.link.name == "identity"
        self.is_affine = self.is_linear or identity
        self.covariance = (
            fit.parameter_covariance if self.random else fit.coefficient_covariance()
        )

    def at(self, new: NewRows) -> MeanRows:
        offset = np.broadcast_to(np.asarray(new.offset, float), (len(new.X),))
        eta = new.X @ self.fit.coefficients + offset
        if self.is_linear:
            return MeanRows(eta, new.X, offset)
        if not self.random:
            slope = averages.slope(self.family, eta)
            value = np.asarray(self.family.mean(eta), float)
            return MeanRows(value, slope[:, None] * new.X, offset)
        value, jacobian = marginal_means(self.fit, new, eta)
        if self.is_link:
            value, slope = link_of(self.family.link, value)
            jacobian = jacobian / slope[:, None]
        return MeanRows(value, jacobian, offset)

    def df(self, jacobian: np.ndarray) -> np.ndarray:
        """Infinite: tests are asymptotic; NaN where there is nothing to test."""
        return asymptotic(jacobian)

    def limits(
        self, estimate: np.ndarray, error: np.ndarray, df: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those of means of the response are made on the link scale."""
        half = t_quantile(level, df) * error
        if self.is_link:
            return estimate - half, estimate + half
        return through_link(self.family.link, estimate, half)


def marginal_means(
    fit: FittedGeneralised, new: NewRows, eta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """E h(eta + z'b) of every row, and its Jacobian in the internal (beta, theta, phi).

    With s^2 = z'Lambda Lambda'z, ds / dLambda_ij = z_i (Lambda'z)_j / s.
    """
    engine = fit.engine
    sd, by_theta = spread(fit, new)
    found = averages.over_normal(fit.family, eta, sd)
    jacobian = np.concatenate(
        [
            found.by_eta[:, None] * (new.X @ engine.R_inverse),
            found.by_sd[:, None] * by_theta,
            np.zeros((len(eta), fit.family.n_phi)),
        ],
        axis=1,
    )
    return found.value, jacobian


def marginal_values(fit: FittedGeneralised, new: NewRows, type: str) -> np.ndarray:
    """The same means alone, (n,); with ``type="link"`` their link."""
    eta = new.X @ fit.coefficients + new.offset
    variance = random_variance(new.terms, covariances(fit.estimates))
    value = averages.over_normal(fit.family, eta, np.sqrt(variance)).value
    return link_of(fit.family.link, value)[0] if type == "link" else value


def spread(fit: FittedGeneralised, new: NewRows) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations of z'b, (n,), and their derivatives in theta, (n, m).

    Where one is zero so are its derivatives: the mean does not feel their direction.
    """
    from jaxglmm.fitting.linear import lambdas

    engine = fit.engine
    n = len(new.X)
    variance, columns = np.zeros(n), []
    theta = engine.base.split(fit.internal()[0])[1]
    factors = engine.factors
    for factor, lam in zip(factors, lambdas(engine.base, theta), strict=True):
        terms = [new.terms[k] for k, _, _ in factor.spans]
        z = np.concatenate([t.values for t in terms], axis=1) @ factor.T_inverse
        u = z @ lam
        variance = variance + np.einsum("ij,ij->i", u, u)
        columns += [z[:, i] * u[:, j] for i, j in factor.covariance.entries]
    sd = np.sqrt(variance)
    by_theta = np.array(columns).reshape(len(columns), n).T
    return sd, by_theta / np.where(sd > 0, sd, 1.0)[:, None]


def link_of(link: Link, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g(mean) and the slope of the inverse link there."""
    with np.errstate(all="ignore"):
        eta = np.asarray(link.link(mean), float)
        return eta, np.asarray(link.slope(eta), float)


def through_link(
    link: Link, mean: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of means, from a half width on their own scale: h(g(mean) +- half / h').

    They keep to the range of the mean. Where g is not finite (a probability of one)
    there is nothing to transform, and the limits are symmetric.
    """
    eta, slope = link_of(link, mean)
    with np.errstate(all="ignore"):
        wide = half / np.abs(slope)
        low, high = between(link.inverse, link, eta - wide, eta + wide)
    usable = np.isfinite(eta) & np.isfinite(wide)
    return np.where(usable, low, mean - half), np.where(usable, high, mean + half)


def between(
    mean: Callable, link: Link, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest mean between two linear predictors.

    A predictor below zero is none for the inverse links, whose mean grows without
    bound on the way there; the square of one that may be zero may be zero.
    """
    if link.positive:
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    with np.errstate(all="ignore"):
        ends = np.asarray(mean(low), float), np.asarray(mean(high), float)
    smallest, largest = np.minimum(*ends), np.maximum(*ends)
    if link.even:
        smallest = np.where((low < 0) & (high > 0), 0.0, smallest)
    return smallest, largest
