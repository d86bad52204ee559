"""Beta-binomial: successes whose probability varies from row to row.

P is Beta with mean mu and precision phi, y | P binomial. In terms of rising factorials,

    log f = log C(m, y) + y log mu + (m - y) log(1 - mu)
            + r(a, y) + r(b, m - y) - r(phi, m)

with a = mu phi, b = (1 - mu) phi and r(a, k) = lgamma(a + k) - lgamma(a) - k log a,
which vanishes for large a: the binomial limit.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import JetFamily, Method, Phi, Rows, Trials, positive
from jaxglmm.model.families.beta import only, probability_jets
from jaxglmm.model.families.binomial import probability_variance, saturated
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain, together
from jaxglmm.numerics.special import stirling_error
from jaxglmm.runtime.arrays import jnp, nn


class BetaBinomial(JetFamily):
    """Successes y out of trials m, Var y = m mu (1 - mu) (phi + m) / (phi + 1).

    ``phi`` is the precision, glmmTMB's sigma; to infinity it is the binomial family.

    Example:
        >>> import jaxglmm as jg
        >>> jg.BetaBinomial()
        BetaBinomial(link=Logit())
    """

    name: ClassVar[str] = "betabinomial"
    default_link: ClassVar[str] = "logit"
    links: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog", "cauchit", "log")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    phi_range: ClassVar[tuple[float, float]] = (-np.inf, 35.0)
    near_zero_dispersion: ClassVar[tuple[float, ...]] = (9.0, 25.0)
    family_kind: ClassVar[Literal["numeric", "binomial"]] = "binomial"
    discrete: ClassVar[bool] = True
    limit: ClassVar[str | None] = "binomial"
    phi_centre: ClassVar[float] = 2.0

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_p, log_q, ok = probability_jets(self.link, eta, order)
        log_size = jnp.clip(phi[0], -300.0, 100.0)
        m = jnp.broadcast_to(trials, y.shape)
        both = (y > 0) & (y < m)
        log_p0 = jnp.where(both, jnp.log(jnp.where(both, y / m, 1.0)), 0.0)
        log_q0 = jnp.where(both, jnp.log1p(-jnp.where(both, y / m, 0.0)), 0.0)
        flat = jnp.zeros_like(eta)
        size = Jet((flat + log_size, *(flat for _ in log_p.parts[1:])))
        up, down, whole = _log_rising(
            (log_p + log_size, log_q + log_size, size), (y, m - y, m)
        )
        l = (log_p - log_p0) * y + (log_q - log_q0) * (m - y) + up + down
        return only(ok, l + (saturated(y, m) - whole.value))

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        log_p, log_q = (j.value for j in probability_jets(self.link, eta, 0)[:2])
        binomial = trials * jnp.exp(2 * self.link.log_slope(eta) - log_p - log_q)
        share = nn.sigmoid(phi[0])  # phi / (phi + 1)
        # (phi + 1) / (phi + m)
        return positive(binomial / (share + trials * (1 - share)))

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        size = exp(phi[0])
        return trials * mu * (1 - mu) * (size + trials) / (size + 1)

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.out_of_trials(self.name, y, trials, rows)
        if trials is None or (np.asarray(trials) == 1).all():
            raise ModelError(
                "family='betabinomial' with one trial a row is the Bernoulli "
                "distribution: its dispersion cannot be estimated. Use "
                "family='binomial', or give counts out of several trials",
                status=_status.BAD_VALUES,
            )

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        m = 1.0 if trials is None else trials
        return np.asarray(self.link.link((y + 0.5) / (m + 1.0))), np.log([5.0])

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import stats

        size = np.exp(phi[0])
        if size > 1e8:
            return stats.binom.cdf(y, trials, mu)
        return stats.betabinom.cdf(y, trials, mu * size, (1 - mu) * size)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        size = np.exp(phi[0])
        p = rng.beta(mu * size, (1 - mu) * size, np.shape(mu))
        m = np.broadcast_to(np.asarray(trials, np.int64), np.shape(mu))
        return rng.binomial(m, p).astype(np.float64)

    def latent_variance(
        self, mu: Any, phi: Any, trials: Any = 1.0, method: Method = "lognormal"
    ) -> np.ndarray:
        return probability_variance(self.link, mu)


def _log_rising(log_a: tuple[Jet, ...], k: tuple[Rows, ...]) -> tuple[Jet, ...]:
    """lgamma(a + k) - lgamma(a) - k log a for counts k >= 0, small for large a.

    For several a at once, which share their special functions.
    """
    above = [_log_quotient(a, x) for a, x in zip(log_a, k, strict=True)]
    totals = [a + q for a, q in zip(log_a, above, strict=True)]
    errors = together(stirling_error, *totals, *log_a)
    out = []
    for i, (a, q, x) in enumerate(zip(log_a, above, k, strict=True)):
        some = x > 0
        count = jnp.where(some, x, 1.0)
        found = (a.exp() + (count - 0.5)) * q + errors[i] - errors[i + len(k)] - count
        out.append(Jet(tuple(jnp.where(some, part, 0.0) for part in found.parts)))
    return tuple(out)


def _log_quotient(log_a: Jet, k: Rows) -> Jet:
    """log((a + k) / a)."""
    k = jnp.where(k > 0, k, 1.0)
    t = log_a.value
    tiny = t < -100.0  # k / a must not overflow
    near = jnp.log1p(k * jnp.exp(-jnp.where(tiny, 0.0, t)))
    value = jnp.where(tiny, jnp.log(k) - t, near)
    gap = t - jnp.log(k)
    rho, sigma = nn.sigmoid(gap), nn.sigmoid(-gap)
    rho2 = rho * sigma
    return chain((value, -sigma, rho2, rho2 * (sigma - rho)), log_a)
