"""Beta: proportions that are not counts, with mean mu and precision phi.

With a = mu phi, b = (1 - mu) phi the gamma functions and the powers merge into

    log f = delta(phi) - delta(a) - delta(b) + log(phi mu (1 - mu) / (2 pi)) / 2
            - a (log mu - log y) - b (log(1 - mu) - log(1 - y)) - log y - log(1 - y).

Ferrari and Cribari-Neto (2004), J. Applied Statistics 31.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import JetFamily, Phi, Rows, Trials, positive
from jaxglmm.model.links import Link
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, together
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error, trigamma
from jaxglmm.runtime.arrays import jnp


class Beta(JetFamily):
    """Values in (0, 1), Var y = mu (1 - mu) / (1 + phi); phi is glmmTMB's sigma.

    Example:
        >>> import jaxglmm as jg
        >>> jg.Beta().dispersion([0.0])
        {'phi': 1.0}
    """

    name: ClassVar[str] = "beta"
    default_link: ClassVar[str] = "logit"
    links: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog", "cauchit", "log")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    padding: ClassVar[float] = 0.5
    has_zeros: ClassVar[bool] = False
    phi_centre: ClassVar[float] = 2.0

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_p, log_q, ok = probability_jets(self.link, eta, order)
        log_a, log_b = log_p + phi[0], log_q + phi[0]
        a, b = log_a.exp(), log_b.exp()
        log_y, log_1y = jnp.log(y), jnp.log1p(-y)
        size = (phi[0], *(jnp.zeros_like(phi[0]) for _ in log_a.parts[1:]))
        of_a, of_b, of_size = together(stirling_error, log_a, log_b, Jet(size))
        constant = of_size.value + 0.5 * phi[0] - HALF_LOG_2PI
        l = (
            (log_p + log_q) * 0.5
            - of_a
            - of_b
            - a * (log_p - log_y)
            - b * (log_q - log_1y)
        )
        return only(ok, l + (constant - log_y - log_1y))

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        log_p, log_q = (j.value for j in probability_jets(self.link, eta, 0)[:2])
        slope = self.link.log_slope(eta)
        total = 0.0
        for part in (log_p, log_q):  # a^2 trigamma(a) = 1 + a^2 trigamma(1 + a)
            a = jnp.exp(phi[0] + part)
            total += (1 + a * a * trigamma(1 + a)) * jnp.exp(2 * (slope - part))
        return positive(total)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu * (1 - mu) / (1 + exp(phi[0]))

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.between(self.name, y, rows)
        _checks.varies(self.name, y)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = np.mean(y), np.var(y)
        phi = mean * (1 - mean) / max(variance / 2, 1e-8) - 1
        return np.asarray(self.link.link(y)), np.log(np.clip([phi], 0.5, 1e6))

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special

        return special.betainc(mu * np.exp(phi[0]), (1 - mu) * np.exp(phi[0]), y)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        size = np.exp(phi[0])
        draws = rng.beta(mu * size, (1 - mu) * size, np.shape(mu))
        return np.clip(draws, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)


def probability_jets(link: Link, eta: Rows, order: int) -> tuple[Jet, Jet, Rows]:
    """log mu and log(1 - mu), harmless where eta is outside, and where it is inside."""
    p, q = link.log_jet(eta, order), link.log_complement_jet(eta, order)
    ok = (p.value > -jnp.inf) & (q.value > -jnp.inf)
    half = -0.6931471805599453
    return (
        Jet((jnp.where(ok, p.value, half), *p.parts[1:])),
        Jet((jnp.where(ok, q.value, half), *q.parts[1:])),
        ok,
    )


def only(ok: Rows, found: Jet) -> Jet:
    """``found``, minus infinity and flat elsewhere."""
    parts = (jnp.where(ok, part, 0.0) for part in found.parts[1:])
    return Jet((jnp.where(ok, found.value, -jnp.inf), *parts))
