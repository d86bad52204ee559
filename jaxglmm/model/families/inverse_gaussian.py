"""Inverse Gaussian: positive, strongly skewed values, Var y = phi mu^3."""

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
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.runtime.arrays import jnp


class InverseGaussian(PositiveFamily):
    """Positive values, Var y = phi mu^3 (lambda = 1 / phi).

    The default link is the logarithm, for the reason given at ``Gamma``; the canonical
    one is "1/mu^2".

    Example:
        >>> import jaxglmm as jg
        >>> jg.InverseGaussian(link="1/mu^2")
        InverseGaussian(link=InverseSquared())
    """

    name: ClassVar[str] = "inversegaussian"
    canonical: ClassVar[str | None] = "1/mu^2"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "1/mu^2", "inverse", "identity")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    phi_in_units: ClassVar[bool] = True

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        log_y = jnp.log(y)
        d = log_y - zeta.value
        scale = jnp.exp(-phi[0]) / y
        v, v1 = jnp.exp(d), jnp.expm1(d)
        value = -0.5 * phi[0] - HALF_LOG_2PI - 1.5 * log_y - 0.5 * scale * v1**2
        l = chain(
            (
                value,
                scale * v * v1,
                -scale * v * (2 * v - 1),
                scale * v * (4 * v - 1),
            ),
            zeta,
        )
        return where_inside(l, log_mu)

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        mu = self.link.inverse(eta)
        ratio = self.link.slope(eta) / mu
        return positive(jnp.exp(-phi[0]) * ratio**2 / mu)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu**3 * exp(phi[0])

    def sigma(self, phi: Any) -> float:
        return float(np.exp(0.5 * np.atleast_1d(phi)[0]))

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        y = np.asarray(y, float)
        phi = np.mean(1 / y) - 1 / np.mean(y)  # maximum likelihood of one sample
        return np.asarray(self.link.link(y)), np.log(np.maximum([phi / 2], 1e-10))

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        return (y - mu) ** 2 / (mu**2 * y) * np.exp(-phi[0])

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import stats

        scale = np.exp(-phi[0])
        return stats.invgauss.cdf(y, mu / scale, scale=scale)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        return rng.wald(mu, np.exp(-phi[0]), np.shape(mu))
