"""Tweedie: a Poisson number of gamma amounts, zeros among them; the power estimated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families import _checks, _draws, _series
from jaxglmm.model.families._base import (
    Derivatives,
    JetFamily,
    Phi,
    Rows,
    Trials,
    harmless,
    where_inside,
)
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain
from jaxglmm.numerics.scales import LOG, Scale, between
from jaxglmm.numerics.special import LOG_2PI, stirling_error
from jaxglmm.runtime.arrays import detached, jnp, nn
from jaxglmm.runtime.host import is_host

NEAR = 64.0  # (1 + a) times the largest term below which all terms are summed
TERMS = 160


class Tweedie(JetFamily):
    """Values of zero and above, Var y = phi mu^power with 1 < power < 2.

    The sum of N gamma amounts, N ~ Poisson: rain, insurance claims, biomass. Power
    towards one is a scaled Poisson distribution, towards two a gamma one; it is
    estimated between 1.01 and 1.99. ``phi`` is glmmTMB's sigma, ``power`` its Tweedie
    power.

    Example:
        >>> import jaxglmm as jg
        >>> jg.Tweedie().dispersion([0.0, 0.0])
        {'phi': 1.0, 'power': 1.5}
    """

    name: ClassVar[str] = "tweedie"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "identity", "sqrt", "inverse")
    atoms: ClassVar[tuple[float, ...]] = (0.0,)
    n_phi: ClassVar[int] = 2
    phi_names: ClassVar[tuple[str, ...]] = ("phi", "power")
    phi_scales: ClassVar[tuple[Scale, ...]] = (LOG, between(1.0, 2.0))
    phi_stops: ClassVar[bool] = True
    phi_range: ClassVar[tuple[Any, Any]] = (
        (-np.inf, -float(np.log(99.0))),
        (np.inf, float(np.log(99.0))),
    )
    phi_ends: ClassVar[Mapping[str, tuple[str, str]]] = {
        "power": (
            "the response is as good as a count times a constant: for counts use "
            "family='poisson', 'nbinom1' or 'nbinom2'",
            "for a response without zeros use family='gamma', which fits as well",
        )
    }

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        found = self._coupled(y, eta, phi, order)
        return found + self.log_separable(y, phi)

    def coupled_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        l, s, s1, s2 = self._coupled(y, eta, phi, 3).parts
        return l, s, -s1, -s2

    def _coupled(self, y: Rows, eta: Rows, phi: Any, order: int) -> Jet:
        """Minus half the deviance over phi, as a jet in eta.

        With d = log(y / mu) and q = 2 - power it is mu^q / phi times
        e^d (e^((q-1) d) - 1) / (q - 1) - (e^(q d) - 1) / q, or 1 / q where y = 0.
        """
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        q, up = _shares(phi[1])  # 2 - power, power - 1
        some = y > 0
        y1 = jnp.where(some, y, 1.0)
        d = jnp.log(y1) - zeta.value
        size = jnp.exp(q * zeta.value - phi[0])
        inside = jnp.expm1(q * d) / q + jnp.exp(d) * jnp.expm1(-up * d) / up
        value = jnp.where(some, size * inside, -size / q)
        if order == 0:
            return where_inside(Jet((value,)), log_mu)
        lead = jnp.where(some, jnp.exp(d), 0.0)  # y / mu
        one = size * (lead - 1)
        two = size * (-up * lead - q)
        three = size * (up * up * lead - q * q)
        return where_inside(chain((value, one, two, three), zeta), log_mu)

    @property
    def has_separable_term(self) -> bool:
        return True

    def log_separable(self, y: Rows, phi: Phi) -> Rows:
        some = y > 0
        log_y = jnp.log(jnp.where(some, y, 1.0))
        return jnp.where(some, _log_factor(log_y, phi[0], phi[1]), 0.0)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        power = self.scales[1].back(phi[1])
        return exp(phi[0]) * mu**power

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.not_negative(self.name, y, rows)
        _checks.not_all_zero(self.name, y)
        _checks.varies(self.name, y)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = np.mean(y), np.var(y)
        eta = np.asarray(self.link.link(y + 0.1 * mean), float)
        return eta, self.start_phi(mean, variance)

    def start_phi(self, mean: Any, variance: Any) -> np.ndarray:
        log_phi = np.log(np.maximum(variance, 1e-300)) - 1.5 * np.log(mean)
        return np.stack([log_phi - np.log(2.0), np.zeros_like(log_phi)])

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        p = self.scales[1].back(phi[1])
        y, mu = np.asarray(y, float), np.asarray(mu, float)
        a, b = 1 - p, 2 - p
        found = y * (_power(y, a) - mu**a) / a - (y**b - mu**b) / b
        return 2 * np.maximum(found, 0.0) * np.exp(-phi[0])

    def _amounts(self, mu: Any, phi: Any) -> tuple[Any, Any, Any]:
        """Mean number, shape of one amount, scale of an amount."""
        p = self.scales[1].back(phi[1])
        dispersion = np.exp(phi[0])
        number = mu ** (2 - p) / (dispersion * (2 - p))
        return number, (2 - p) / (p - 1), dispersion * (p - 1) * mu ** (p - 1)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special, stats

        number, shape, scale = self._amounts(np.asarray(mu, float), phi)

        def terms(j, y, number, shape, scale):
            weights = stats.poisson.pmf(j, number)
            inside = special.gammainc(np.maximum(j * shape, 1e-300), y / scale)
            return weights * np.where(j == 0, y >= 0, inside * (y > 0))

        sd = np.sqrt(number)
        return _draws.summed(terms, number, sd, np.inf, y, number, shape, scale)

    def below(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        return np.where(y > 0, self.cdf(y, mu, phi, trials), 0.0)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        number, shape, scale = self._amounts(np.asarray(mu, float), phi)
        drawn = _draws.poisson(rng, number)
        return np.where(drawn > 0, rng.gamma(np.maximum(drawn, 1) * shape, scale), 0.0)


def _shares(x: Array) -> tuple[Array, Array]:
    """2 - power and power - 1 from the logit of the second."""
    return nn.sigmoid(-x), nn.sigmoid(x)


def _log_factor(log_y: Array, log_phi: Array, x: Array) -> Array:
    """log of the density at the mean y, y > 0 (Dunn and Smyth 2005).

    Of the series over j amounts of Gamma(j a), a = (2 - p) / (p - 1), the largest term
    is near m = y^(2 - p) / (phi (2 - p)). By Stirling's formula each is exp of

        -(1 + a) (j log(j / m) - j + m) - delta(j) - delta(j a),

    times sqrt(a) / (2 pi y): nothing is large where phi is small.
    """
    q, up = _shares(x)
    log_m = q * log_y - log_phi - jnp.log(q)
    log_m, _ = jnp.broadcast_arrays(log_m, log_y)
    far = detached(log_m) > detached(jnp.log(NEAR) + jnp.log(up))
    found = _all_terms(jnp.where(far, 0.0, log_m), x, up)
    if not (is_host() and not far.any()):
        found = jnp.where(far, _some_terms(jnp.where(far, log_m, 10.0), x, up), found)
    return found - 0.5 * x - LOG_2PI - log_y


def _all_terms(log_m: Array, x: Array, up: Array) -> Array:
    """log of the sum of the terms, j = 1, ..., 160."""
    count = TERMS
    if is_host():  # the terms that are something
        m = np.exp(np.max(detached(log_m)))
        count = int(min(TERMS, m + 9 * np.sqrt(m) + 24))
    nodes = np.arange(1, count + 1.0)
    log_j = _series.column(np.log(nodes), jnp.ndim(x))
    errors = stirling_error(log_j + 0.0 * x) + stirling_error(log_j - x)
    errors = jnp.reshape(errors, _aligned(errors, jnp.ndim(log_m)))
    j = _series.column(nodes, jnp.ndim(log_m))
    distance = j * (np.log(j) - log_m) - j + jnp.exp(log_m)
    return _series.log_sum(-distance / up - errors)


def _some_terms(log_m: Array, x: Array, up: Array) -> Array:
    """The same by terms around the largest, of which j is far above one."""
    m = jnp.exp(log_m)
    j, step = _series.around(m, jnp.sqrt(m * up))
    inside = j >= 1
    j = jnp.where(inside, j, 1.0)
    distance = j * jnp.log1p((j - m) / m) - (j - m)
    log_j = jnp.log(j)
    errors = stirling_error(log_j) + stirling_error(log_j - x)
    e = jnp.where(inside, -distance / up - errors, -jnp.inf)
    return _series.log_sum(e) + jnp.log(step)


def _aligned(x: Array, ndim: int) -> tuple[int, ...]:
    """The shape of (N, ...) with axes for rows after the first."""
    first, *rest = jnp.shape(x)
    return (first, *(1,) * (ndim - len(rest)), *rest)


def _power(y: np.ndarray, a: Any) -> np.ndarray:
    """y^a for negative a, times a y of zero: zero."""
    return np.where(y > 0, np.where(y > 0, y, 1.0) ** a, 0.0)
