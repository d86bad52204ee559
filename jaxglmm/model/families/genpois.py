"""Generalised Poisson counts: more spread than Poisson's, or less."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families import _draws
from jaxglmm.model.families._base import (
    Phi,
    Rows,
    Trials,
    harmless,
    where_inside,
)
from jaxglmm.model.families._kinds import CountFamily
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error
from jaxglmm.runtime.arrays import jnp


class GeneralisedPoisson(CountFamily):
    """Counts with Var y = phi mu; phi = 1 is the Poisson family.

    Consul and Famoye's distribution, P(y) = a (a + b y)^(y - 1) exp(-a - b y) / y! with
    a = mu / sqrt(phi), b = 1 - 1 / sqrt(phi). With phi < 1 it ends where a + b y is no
    longer positive, and does not quite sum to one; glmmTMB's is the same, and ``phi``
    its sigma.

    Example:
        >>> import jaxglmm as jg
        >>> jg.GeneralisedPoisson().variance(2.0, [0.0])
        np.float64(2.0)
    """

    name: ClassVar[str] = "genpois"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "sqrt", "identity")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    phi_range: ClassVar[tuple[float, float]] = (-30.0, 60.0)

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        half = 0.5 * phi[0]
        log_a, b = zeta.value - half, -jnp.expm1(-half)
        a = jnp.exp(log_a)
        some = y > 0
        y1 = jnp.where(some, y, 1.0)
        A = a + b * y
        inside = A > 0
        A = jnp.where(inside, A, 1.0)
        r = (A - y) / y1
        share = a / A
        # (y - 1) log A - A - log y! with the large parts cancelled, and log a
        gap = y1 * _log1p_less(r)
        value = (
            gap
            + log_a
            - jnp.log(A)
            - HALF_LOG_2PI
            - 0.5 * jnp.log(y1)
            - stirling_error(jnp.log(y1))
        )
        value = jnp.where(inside, jnp.where(some, value, -a), -jnp.inf)
        if order == 0:
            return where_inside(Jet((value,)), log_mu)
        spread = (y - 1) * share * (1 - share)
        one = jnp.where(some, 1 + (y - 1) * share - a, -a)
        two = jnp.where(some, spread - a, -a)
        three = jnp.where(some, spread * (1 - 2 * share) - a, -a)
        parts = (jnp.where(inside, x, 0.0) for x in (one, two, three))
        return where_inside(chain((value, *parts), zeta), log_mu)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu * exp(phi[0])

    def start_phi(self, mean: Any, variance: Any) -> np.ndarray:
        # below one not all y have a density at every mean: from near one
        ratio = variance / np.maximum(mean, 1e-8)
        return np.log(np.clip((1 + ratio) / 2, 0.9, 100.0))[None]

    def _log_mass(self, j: Any, mu: Any, log_phi: Any) -> np.ndarray:
        """The log density on the host."""
        from scipy import special

        a, b = mu * np.exp(-log_phi / 2), -np.expm1(-log_phi / 2)
        A = a + b * j
        out = np.log(a) + (j - 1) * np.log(A) - A - special.gammaln(j + 1)
        return np.where(A > 0, out, -np.inf)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        mu = np.asarray(mu, float)
        sd = np.sqrt(self.variance(mu, phi))

        def mass(j, mu, log_phi):
            return np.exp(self._log_mass(j, mu, log_phi))

        return _draws.summed(mass, mu, sd, y, mu, phi[0])

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        mu = np.asarray(mu, float)
        sd = np.sqrt(self.variance(mu, phi))

        def mass(j, mu, log_phi):
            return np.exp(self._log_mass(j, mu, log_phi))

        return _draws.by_inversion(rng, mass, mu, sd, mu, phi[0])


def _log1p_less(r: Array) -> Array:
    """log(1 + r) - r."""
    return jnp.log1p(r) - r
