"""Negative binomial with quadratic variance, mu + mu^2 / phi: a gamma mixture."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families import _draws, _negative_binomial
from jaxglmm.model.families._base import (
    Derivatives,
    Method,
    Phi,
    Rows,
    Trials,
    gain,
    harmless,
    where_inside,
)
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.model.families._kinds import CountFamily
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.runtime.arrays import jnp


class NegativeBinomial2(CountFamily):
    """Counts with Var y = mu + mu^2 / phi; phi to infinity is the Poisson family.

    ``phi`` is glmmTMB's sigma, MASS's theta, SciPy's n.
    """

    name: ClassVar[str] = "nbinom2"
    concave: ClassVar[tuple[str, ...]] = ("log",)
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "sqrt", "identity")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    phi_range: ClassVar[tuple[float, float]] = (-np.inf, 35.0)
    near_zero_dispersion: ClassVar[tuple[float, ...]] = (9.0, 25.0)
    self_concordant: ClassVar[tuple[str, ...]] = ("log",)
    limit: ClassVar[str | None] = "poisson"

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        log_size = jnp.broadcast_to(_bounded(phi), zeta.value.shape)
        found = _negative_binomial.fixed_size(y, zeta.value, log_size, order)
        return where_inside(chain(found.parts, zeta), log_mu)

    @property
    def has_separable_term(self) -> bool:
        return self.link.name == "log"

    def log_separable(self, y: Rows, phi: Phi) -> Rows:
        if not self.has_separable_term:
            return jnp.zeros_like(y)
        return _negative_binomial.coefficient(y, _bounded(phi))

    def log_separable_step(self, y: Rows, phi: Phi) -> Rows:
        if not self.has_separable_term:
            return jnp.zeros_like(y)
        return jnp.log1p(y * jnp.exp(-_bounded(phi))) - jnp.log1p(y)

    def coupled_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        if not self.has_separable_term:
            return super().coupled_derivatives(y, eta, phi, trials)
        return _negative_binomial.kernel(y, eta, _bounded(phi))

    @property
    def knows_phi(self) -> bool:
        return self.link.name == "log"

    def by_phi(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> ByPhi:
        return _negative_binomial.kernel_by_size(y, eta, _bounded(phi))

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        if self.link.name != "log":
            return super().expected_weight(eta, phi, trials)
        log_size = _bounded(phi)
        e = jnp.exp(-jnp.abs(eta - log_size))
        return jnp.exp(jnp.minimum(eta, log_size)) / (1 + e)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu + mu * mu * exp(-phi[0])

    def start_phi(self, mean: Any, variance: Any) -> np.ndarray:
        extra = np.asarray(variance - mean)
        # y varies for other reasons too: this size is too small, seldom by tenfold
        size = 2 * mean**2 / np.where(extra > 0, extra, 1.0)
        size = np.where(extra > 0, size, 100.0)
        return np.log(np.clip(size, 0.1, 100.0))[None]

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        y, mu = np.asarray(y, float), np.asarray(mu, float)
        size = np.exp(np.minimum(phi[0], 300.0))
        return 2 * (gain(y, mu) - (y + size) * np.log1p((y - mu) / (mu + size)))

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        return cdf(y, mu, np.exp(phi[0]))

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        return simulate(rng, mu, np.exp(phi[0]))

    def latent_variance(
        self, mu: Any, phi: Any, trials: Any = 1.0, method: Method = "lognormal"
    ) -> np.ndarray:
        return super().latent_variance(mu, phi, trials, method)


def cdf(y: np.ndarray, mu: np.ndarray, size: Any) -> np.ndarray:
    """P(Y <= y) for mean and size; the Poisson one where the size is beyond 1e10."""
    from scipy import stats

    size = np.asarray(size, float)
    return np.where(
        size > 1e10,
        stats.poisson.cdf(y, mu),
        stats.nbinom.cdf(y, np.minimum(size, 1e10), size / (size + mu)),
    )


def simulate(rng: np.random.Generator, mu: np.ndarray, size: Any) -> np.ndarray:
    """Poisson counts with a gamma mean."""
    mu, size = np.broadcast_arrays(np.asarray(mu, float), np.minimum(size, 1e10))
    return _draws.poisson(rng, rng.gamma(size, mu / size))


def _bounded(phi: Array) -> Array:
    """log phi where its exponential and the inverse of that are numbers."""
    return jnp.clip(phi[0], -300.0, 100.0)
