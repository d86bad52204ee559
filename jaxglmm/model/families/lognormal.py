"""Lognormal, by mean and standard deviation of the response itself."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families._base import (
    Phi,
    Rows,
    Trials,
    harmless,
    where_inside,
)
from jaxglmm.model.families._kinds import PositiveFamily
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.runtime.arrays import jnp, nn


class LognormalFamily(PositiveFamily):
    """Positive values whose logarithm is normal, Var y = sigma^2.

    The link is that of E y, and ``sigma`` the standard deviation of y, as glmmTMB has
    it; log y has variance v = log(1 + sigma^2 / mu^2) and mean log mu - v / 2. For a
    constant variance of log y fit log(y) as a Gaussian.

    Example:
        >>> import jaxglmm as jg
        >>> jg.glmm("y ~ 1", {"y": [1.0, 2, 4, 3]}, family="lognormal").family_name
        'lognormal'
    """

    name: ClassVar[str] = "lognormal"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "identity", "inverse", "sqrt")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("sigma",)
    phi_in_units: ClassVar[bool] = True

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        log_y, r = jnp.log(y), 2 * (phi[0] - zeta.value)
        p, q = nn.sigmoid(r), nn.sigmoid(-r)
        pq = p * q
        v = Jet((nn.softplus(r), -2 * p, 4 * pq, -8 * pq * (q - p))[: order + 1])
        u = 1 / v.value
        log_v = chain((jnp.log(v.value), u, -u * u, 2 * u**3), v)
        inverse = chain((u, -u * u, 2 * u**3, -6 * u**4), v)
        one, zero = jnp.ones_like(r), jnp.zeros_like(r)
        d = Jet((log_y - zeta.value, -one, zero, zero)[: order + 1]) + v * 0.5
        l = (log_v + d * d * inverse) * -0.5 - log_y - HALF_LOG_2PI
        return where_inside(chain(l.parts, zeta), log_mu)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return exp(2 * phi[0]) + 0 * mu

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        eta = np.asarray(self.link.link(np.asarray(y, float)), float)
        return eta, self.start_phi(np.mean(y), np.var(y))

    def start_phi(self, mean: Any, variance: Any) -> np.ndarray:
        return np.log(np.maximum(variance, 1e-300) / 2)[None] / 2

    def _of_logs(self, mu: Any, phi: Any) -> tuple[Any, Any]:
        """Mean and standard deviation of log y."""
        with np.errstate(over="ignore"):
            v = np.log1p(np.exp(2 * (phi[0] - np.log(mu))))
        return np.log(mu) - v / 2, np.sqrt(v)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special

        mean, sd = self._of_logs(mu, phi)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (np.log(np.maximum(y, 0.0)) - mean) / sd
        return special.ndtr(z)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        mean, sd = self._of_logs(mu, phi)
        drawn = np.exp(mean + sd * rng.standard_normal(np.shape(mu)))
        return np.maximum(drawn, np.finfo(float).tiny)
