"""Poisson: counts with variance equal to their mean.

log f = -delta(y) - log(2 pi y) / 2 - y (exp(d) - 1 - d), d = log mu - log y: the
saturated likelihood less half the unit deviance, exact for counts of any size (Loader
2000); -mu where y = 0.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families import _draws
from jaxglmm.model.families._base import (
    Derivatives,
    Phi,
    Rows,
    Trials,
    gain,
    harmless,
    where_inside,
)
from jaxglmm.model.families._kinds import CountFamily
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.numerics.special import HALF_LOG_2PI, lgamma, stirling_error
from jaxglmm.runtime.arrays import jnp


class Poisson(CountFamily):
    """Counts, E y = Var y = inverse(eta).

    Example:
        >>> import jaxglmm as jg
        >>> jg.Poisson()
        Poisson(link=Log())
    """

    name: ClassVar[str] = "poisson"
    concave: ClassVar[tuple[str, ...]] = ("sqrt", "identity")
    canonical: ClassVar[str | None] = "log"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "sqrt", "identity")
    self_concordant: ClassVar[tuple[str, ...]] = ("log",)
    starts_alone: ClassVar[bool] = True
    overdispersed: ClassVar[str | None] = "nbinom2"

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        some = y > 0
        y1 = jnp.where(some, y, 1.0)
        log_y = jnp.log(y1)
        d = jnp.where(some, zeta.value - log_y, 0.0)
        value = (
            -stirling_error(log_y)
            - HALF_LOG_2PI
            - 0.5 * log_y
            - y1 * (jnp.expm1(d) - d)
        )
        mu = jnp.exp(zeta.value)
        l = chain((jnp.where(some, value, -mu), y - mu, -mu, -mu), zeta)
        return where_inside(l, log_mu)

    def log_base(self, y: Rows, trials: Trials = 1.0) -> Rows:
        return -lgamma(y + 1.0) if self.link.name == "log" else jnp.zeros_like(y)

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        if self.link.name != "log":
            return super().kernel_derivatives(y, eta, phi, trials)
        mu = jnp.exp(eta)
        return y * eta - mu, y - mu, mu, mu

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu

    def kernel_over_normal(
        self, y: Rows, mean: Rows, variance: Rows, phi: Phi, trials: Trials = 1.0
    ) -> tuple[Rows, Rows, Rows] | None:
        if self.link.name != "log":
            return None
        shift = variance / 2  # E exp(eta) is exp there
        l, s, w, _ = self.kernel_derivatives(y, mean + shift, phi, trials)
        # what is linear in eta has its mean at ``mean``, not at the shifted point
        return l - (s + w) * shift, s, w

    def worth(self, y: np.ndarray, trials: Any = None) -> np.ndarray:
        return 10.0 * np.asarray(y, float)

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        y, mu = np.asarray(y, float), np.asarray(mu, float)
        return 2 * (gain(y, mu) - (y - mu))

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import stats

        return stats.poisson.cdf(y, mu)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        return _draws.poisson(rng, mu)
