"""Binomial: successes out of trials; Bernoulli is one trial a row.

log f = log C(m, y) + y log p + (m - y) log q. The binomial coefficient is merged with
the saturated likelihood, so that large counts lose nothing: with p0 = y / m,

    log f = c(y, m) + y (log p - log p0) + (m - y) (log q - log q0),
    c = delta(m) - delta(y) - delta(m - y) + log(m / (2 pi y (m - y))) / 2,

and c = 0 where y is 0 or m, hence for every Bernoulli row (Loader 2000).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import (
    Derivatives,
    JetFamily,
    Method,
    Phi,
    Rows,
    Trials,
    gain,
    positive,
)
from jaxglmm.model.links import Link
from jaxglmm.numerics.jets import Jet
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error
from jaxglmm.runtime.arrays import jnp


class Binomial(JetFamily):
    """Successes y out of ``trials``, P(success) = inverse(eta).

    Example:
        >>> import jaxglmm as jg
        >>> jg.Binomial(link="probit")
        Binomial(link=Probit())
    """

    name: ClassVar[str] = "binomial"
    concave: ClassVar[tuple[str, ...]] = ("probit", "cloglog")
    canonical: ClassVar[str | None] = "logit"
    default_link: ClassVar[str] = "logit"
    links: ClassVar[tuple[str, ...]] = (
        "logit",
        "probit",
        "cloglog",
        "cauchit",
        "log",
        "identity",
    )
    family_kind: ClassVar[Literal["numeric", "binomial"]] = "binomial"
    discrete: ClassVar[bool] = True
    self_concordant: ClassVar[tuple[str, ...]] = ("logit",)
    starts_alone: ClassVar[bool] = True
    overdispersed: ClassVar[str | None] = "betabinomial"

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        p, q = self.link.log_jet(eta, order), self.link.log_complement_jet(eta, order)
        allowed = (p.value > -jnp.inf) & (q.value > -jnp.inf)
        both = (y > 0) & (y < trials)
        y1, m1 = jnp.where(both, y, 1.0), jnp.where(both, trials, 2.0)
        log_p0 = jnp.where(both, jnp.log(y1) - jnp.log(m1), 0.0)
        log_q0 = jnp.where(both, jnp.log1p(-y1 / m1), 0.0)
        l = (_finite(p) - log_p0) * y + (_finite(q) - log_q0) * (trials - y)
        parts = (jnp.where(allowed, part, 0.0) for part in l.parts[1:])
        value = l.value + saturated(y, trials)
        return Jet((jnp.where(allowed, value, -jnp.inf), *parts))

    def log_base(self, y: Rows, trials: Trials = 1.0) -> Rows:
        if self.link.name != "logit":
            return jnp.zeros_like(y)
        return log_choose(y, trials)

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        if self.link.name != "logit":
            return super().kernel_derivatives(y, eta, phi, trials)
        e = jnp.exp(-jnp.abs(eta))  # the only exponential of the row
        r = 1 / (1 + e)
        up = eta >= 0
        p, q = jnp.where(up, 1.0, e) * r, jnp.where(up, e, 1.0) * r
        # y eta - m softplus(eta), the large parts cancelled
        kernel = jnp.where(up, (y - trials) * eta, y * eta) - trials * jnp.log1p(e)
        w = trials * (e * r * r)
        return kernel, y * q - (trials - y) * p, w, w * (q - p)

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        log_p, log_q = self.link.log_inverse(eta), self.link.log_complement(eta)
        allowed = (log_p > -jnp.inf) & (log_q > -jnp.inf)
        log_p, log_q = jnp.where(allowed, log_p, 0.0), jnp.where(allowed, log_q, 0.0)
        return positive(trials * jnp.exp(2 * self.link.log_slope(eta) - log_p - log_q))

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return trials * mu * (1 - mu)

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.out_of_trials(self.name, y, trials, rows)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        m = 1.0 if trials is None else trials
        return np.asarray(self.link.link((y + 0.5) / (m + 1.0))), np.zeros(0)

    def worth(self, y: np.ndarray, trials: Any = None) -> np.ndarray:
        return np.ones(len(y)) if trials is None else np.asarray(trials)

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        y, mu = np.asarray(y, float), np.asarray(mu, float)
        return 2 * (gain(y, trials * mu) + gain(trials - y, trials * (1 - mu)))

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import stats

        return stats.binom.cdf(y, trials, mu)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        m = np.broadcast_to(np.asarray(trials, np.int64), np.shape(mu))
        return rng.binomial(m, mu).astype(np.float64)

    def latent_variance(
        self, mu: Any, phi: Any, trials: Any = 1.0, method: Method = "lognormal"
    ) -> np.ndarray:
        return probability_variance(self.link, mu)


def Bernoulli(link: str | Link = "logit") -> Binomial:
    """A response of 0 and 1: the binomial family with one trial a row.

    Example:
        >>> import jaxglmm as jg
        >>> jg.Bernoulli().name
        'binomial'
    """
    return Binomial(link)


def saturated(y: Rows, trials: Trials) -> Rows:
    """log f(y) at p = y / m: the constant c above."""
    both = (y > 0) & (y < trials)
    y1, m = jnp.where(both, y, 1.0), jnp.where(both, trials, 2.0)
    rest = m - y1
    logs = jnp.log(jnp.stack(jnp.broadcast_arrays(m, y1, rest)))
    log_m, log_y, log_rest = logs
    of_m, of_y, of_rest = stirling_error(logs)
    value = of_m - of_y - of_rest + 0.5 * (log_m - log_y - log_rest) - HALF_LOG_2PI
    return jnp.where(both, value, 0.0)


def log_choose(y: Rows, trials: Trials) -> Rows:
    """log of the binomial coefficient."""
    both = (y > 0) & (y < trials)
    y1, m = jnp.where(both, y, 1.0), jnp.where(both, trials, 2.0)
    entropy = y1 * jnp.log(y1 / m) + (m - y1) * jnp.log1p(-y1 / m)
    return saturated(y, trials) - jnp.where(both, entropy, 0.0)


def probability_variance(link: Link, mu: Any) -> np.ndarray:
    """Variance of the latent tolerance of a binary response, by its link."""
    if link.tolerance is not None:
        return np.full(np.shape(mu), link.tolerance)
    if link.name == "cauchit":
        raise NotApplicableError(
            "the Cauchy distribution behind link='cauchit' has no variance, so there "
            "is no latent-scale ICC or R2; use link='logit' or 'probit'"
        )
    mu = np.asarray(mu, np.float64)
    slope = np.asarray(link.slope(np.asarray(link.link(mu))))
    return mu * (1 - mu) / slope**2


def _finite(log_p: Jet) -> Jet:
    value = jnp.where(log_p.value > -jnp.inf, log_p.value, 0.0)
    return Jet((value, *log_p.parts[1:]))
