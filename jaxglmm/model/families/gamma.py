"""Gamma: positive values with a constant coefficient of variation.

With shape k = 1 / phi and d = log y - log mu,

    log f = log(k / (2 pi)) / 2 - delta(k) - log y - k (exp(d) - 1 - d).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families._base import (
    Phi,
    Rows,
    Trials,
    harmless,
    positive,
    where_inside,
)
from jaxglmm.model.families._kinds import PositiveFamily
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error
from jaxglmm.runtime.arrays import jnp


class Gamma(PositiveFamily):
    """Positive values, Var y = phi mu^2; the shape is 1 / phi.

    ``phi`` is the dispersion of a GLM, the squared coefficient of variation; glmmTMB's
    sigma is its root. The default link is the logarithm: with the canonical inverse
    link eta must stay positive, which Gaussian random effects do not respect.

    Example:
        >>> import jaxglmm as jg
        >>> jg.Gamma()
        Gamma(link=Log())
    """

    name: ClassVar[str] = "gamma"
    concave: ClassVar[tuple[str, ...]] = ("log",)
    canonical: ClassVar[str | None] = "inverse"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "inverse", "identity", "sqrt")
    n_phi: ClassVar[int] = 1
    self_concordant: ClassVar[tuple[str, ...]] = ("log",)
    phi_centre: ClassVar[float] = -1.0
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        shape, log_y = jnp.exp(-phi[0]), jnp.log(y)
        d = log_y - zeta.value
        excess = shape * jnp.expm1(d)
        value = (
            -0.5 * phi[0]
            - HALF_LOG_2PI
            - stirling_error(-phi[0])
            - log_y
            - (excess - shape * d)
        )
        w = shape * jnp.exp(d)
        return where_inside(chain((value, excess, -w, w), zeta), log_mu)

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        if self.link.name == "log":
            return jnp.exp(-phi[0]) * jnp.ones_like(eta)
        ratio = self.link.slope(eta) / self.link.inverse(eta)
        return positive(jnp.exp(-phi[0]) * ratio**2)

    def kernel_over_normal(
        self, y: Rows, mean: Rows, variance: Rows, phi: Phi, trials: Trials = 1.0
    ) -> tuple[Rows, Rows, Rows] | None:
        if self.link.name != "log":
            return None
        shift = -variance / 2  # E exp(-eta) is exp there
        l, s, w, _ = self.kernel_derivatives(y, mean + shift, phi, trials)
        # what is linear in eta has its mean at ``mean``, not at the shifted point
        return l - (s - w) * shift, s, w

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu * mu * exp(phi[0])

    def sigma(self, phi: Any) -> float:
        return float(np.exp(0.5 * np.atleast_1d(phi)[0]))

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        eta = np.asarray(self.link.link(np.asarray(y, float)))
        return eta, self.start_phi(np.mean(y), np.var(y))

    def start_phi(self, mean: Any, variance: Any) -> np.ndarray:
        return np.log(np.clip(variance / mean**2 / 2, 1e-6, 10.0))[None]

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        d = np.log(y) - np.log(mu)
        return 2 * (np.expm1(d) - d) * np.exp(-phi[0])

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special

        shape = np.exp(-phi[0])
        return special.gammainc(shape, shape * y / mu)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        draws = rng.gamma(np.exp(-phi[0]), mu * np.exp(phi[0]), np.shape(mu))
        return np.maximum(draws, np.finfo(float).tiny)
