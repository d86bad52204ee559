"""Counts without zeros: Poisson and negative binomial given y > 0.

With t = -log f(0) of the whole family, log f(y | y > 0) = log f(y) - log(1 - exp(-t)).
In tau = log t and with k = t / (exp(t) - 1), which is one at t = 0, the derivatives of
the last logarithm are k, k c and k (c^2 - t - k c), c = 1 - t - k: nothing overflows
where t vanishes with the mean. Alone these are models of positive counts; with a model
of zeros (``zi=``) hurdle models (Mullahy 1986, J. Econometrics 33, 341).
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import JetFamily, Phi, Rows, Trials
from jaxglmm.model.families.nbinom1 import NegativeBinomial1
from jaxglmm.model.families.nbinom2 import NegativeBinomial2
from jaxglmm.model.families.poisson import Poisson
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.numerics.special import log1mexp_exp
from jaxglmm.runtime.arrays import jnp, nn

SMALLEST = -700.0  # logarithm of a mean over a size that is a number


class Truncated(JetFamily):
    """A family of counts given that they are not zero, with link log.

    ``mu`` in the functions of the distribution is the mean before truncation, as in
    glmmTMB; ``mean`` and ``mean_of`` are of what is left.
    """

    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log",)
    discrete: ClassVar[bool] = True
    padding: ClassVar[float] = 1.0
    has_zeros: ClassVar[bool] = False
    whole: ClassVar[JetFamily]
    known: ClassVar[tuple[float, ...] | None] = None  # phi, of what ``at`` makes

    def at(self, phi: Any) -> Truncated:
        """The same family, whose mean is that at phi."""
        out = type(self)(self.link)
        object.__setattr__(out, "known", tuple(np.asarray(phi, float).tolist()))
        return out

    @abc.abstractmethod
    def log_t_jet(self, eta: Rows, phi: Phi, order: int) -> Jet:
        """The logarithm of -log f(0) of the whole family, as a jet in eta."""

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        tau = self.log_t_jet(eta, phi, order)
        t = jnp.exp(jnp.minimum(tau.value, 300.0))
        small = t < 1e-4
        ratio = t / jnp.expm1(jnp.minimum(jnp.where(small, 1.0, t), 700.0))
        k = jnp.where(small, 1 - t / 2 + t * t / 12, ratio)
        c = jnp.where(small, -t / 2 - t * t / 12, 1 - t - k)
        outer = (log1mexp_exp(tau.value), k, k * c, k * (c * c - t - k * c))
        whole = self.whole.log_jet(y, eta, phi, trials, order)
        return whole - chain(outer, tau)

    # -- on the host -----------------------------------------------------------------

    def mean(self, eta: Any) -> Any:
        return self.mean_of(self.parameters(eta), self.known or (0.0,) * self.n_phi)

    def parameters(self, eta: Any) -> Any:
        return self.link.inverse(eta)

    def _positive(self, mu: Any, phi: Any) -> np.ndarray:
        """P(Y > 0) of the whole family."""
        return -np.expm1(-self._t(mu, phi))

    @abc.abstractmethod
    def _t(self, mu: Any, phi: Any) -> Any:
        """-log f(0) of the whole family."""

    def mean_of(self, mu: Any, phi: Any = ()) -> Any:
        share = np.asarray(self._positive(mu, phi))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(share > 0, mu / share, 1.0)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        share = np.maximum(self._positive(mu, phi), np.finfo(float).tiny)
        square = (self.whole.variance(mu, phi) + mu * mu) / share
        return np.maximum(square - self.mean_of(mu, phi) ** 2, 0.0)

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.counts(self.name, y, rows)
        other = f"Model them by zi='~ 1' (a hurdle), or use family={self.whole.name!r}"
        _checks.no_zeros(self.name, y, rows, other)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        return self.whole.start(np.maximum(y - 0.5, 0.2), trials)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        share = np.maximum(self._positive(mu, phi), np.finfo(float).tiny)
        found = self.whole.cdf(y, mu, phi) - (1 - share)
        return np.where(np.asarray(y) >= 1, np.clip(found / share, 0.0, 1.0), 0.0)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        """By the inverse of the distribution function above its value at zero."""
        share = self._positive(mu, phi)
        u = 1 - share * rng.uniform(size=np.shape(mu))
        return np.maximum(self._quantile(u, mu, phi), 1.0)

    @abc.abstractmethod
    def _quantile(self, u: np.ndarray, mu: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Of the whole family."""


class TruncatedPoisson(Truncated):
    """Poisson counts given y > 0.

    Example:
        >>> import jaxglmm as jg
        >>> float(jg.TruncatedPoisson().mean(0.0).round(3))
        1.582
    """

    name: ClassVar[str] = "truncated_poisson"
    concave: ClassVar[tuple[str, ...]] = ("log",)
    overdispersed: ClassVar[str | None] = "truncated_nbinom2"
    whole: ClassVar[JetFamily] = Poisson("log")

    def log_t_jet(self, eta: Rows, phi: Phi, order: int) -> Jet:
        return self.link.log_jet(eta, order)

    def _t(self, mu: Any, phi: Any) -> Any:
        return mu

    def _quantile(self, u: np.ndarray, mu: np.ndarray, phi: np.ndarray) -> np.ndarray:
        from scipy import stats

        return stats.poisson.ppf(u, mu)


class _TruncatedNegativeBinomial(Truncated):
    """What both have."""

    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)

    @abc.abstractmethod
    def _size(self, mu: Any, phi: Any) -> Any:
        """Of the negative binomial distribution."""

    def _t(self, mu: Any, phi: Any) -> Any:
        size = self._size(mu, phi)
        return size * np.log1p(mu / size)

    def _quantile(self, u: np.ndarray, mu: np.ndarray, phi: np.ndarray) -> np.ndarray:
        from scipy import stats

        size = np.minimum(self._size(mu, phi), 1e10)
        return stats.nbinom.ppf(u, size, size / (size + mu))


class TruncatedNegativeBinomial2(_TruncatedNegativeBinomial):
    """Negative binomial counts, mu + mu^2 / phi before truncation, given y > 0."""

    name: ClassVar[str] = "truncated_nbinom2"
    phi_range: ClassVar[tuple[float, float]] = (-35.0, 35.0)
    near_zero_dispersion: ClassVar[tuple[float, ...]] = (9.0, 25.0)
    whole: ClassVar[JetFamily] = NegativeBinomial2("log")

    def log_t_jet(self, eta: Rows, phi: Phi, order: int) -> Jet:
        """t = r log(1 + mu / r): with a = p / log(1 + mu / r), a' = a (q - a)."""
        log_size = jnp.clip(phi[0], -300.0, 100.0)
        d = jnp.maximum(eta - log_size, SMALLEST)
        s, p, q = nn.softplus(d), nn.sigmoid(d), nn.sigmoid(-d)
        value = log_size + jnp.log(s)
        if order == 0:
            return Jet((value,))
        a = p / s
        rest = q - a
        second = a * rest
        return Jet((value, a, second, second * rest - a * (p * q + second)))

    def _size(self, mu: Any, phi: Any) -> Any:
        return np.exp(np.minimum(phi[0], 100.0)) + 0 * mu


class TruncatedNegativeBinomial1(_TruncatedNegativeBinomial):
    """Negative binomial counts, mu (1 + phi) before truncation, given y > 0."""

    name: ClassVar[str] = "truncated_nbinom1"
    phi_range: ClassVar[tuple[float, float]] = (-35.0, 35.0)
    near_zero_dispersion: ClassVar[tuple[float, ...]] = (-9.0, -25.0)
    whole: ClassVar[JetFamily] = NegativeBinomial1("log")

    def log_t_jet(self, eta: Rows, phi: Phi, order: int) -> Jet:
        """t = mu log(1 + phi) / phi."""
        log_ratio = jnp.clip(phi[0], -100.0, 300.0)
        shift = jnp.log(nn.softplus(log_ratio)) - log_ratio
        return self.link.log_jet(eta, order) + shift

    def _size(self, mu: Any, phi: Any) -> Any:
        return mu * np.exp(-np.maximum(phi[0], -100.0))
