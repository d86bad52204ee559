"""Skew normal, by mean and standard deviation: residuals with one long tail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import JetFamily, Phi, Rows, Trials
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain, nested
from jaxglmm.numerics.scales import LOG, PLAIN, Scale
from jaxglmm.numerics.special import HALF_LOG_2PI, log_ndtr
from jaxglmm.runtime.arrays import jnp

TWO_OVER_PI = 2 / np.pi
LOG_2 = float(np.log(2.0))
SHARP = (
    "the residuals begin at a sharp edge: transform the response, or use a family of "
    "positive values ('gamma', 'lognormal') of the distance from the edge"
)


class SkewNormal(JetFamily):
    """Any numbers, Var y = sigma^2, skewed by ``alpha`` (zero: the Gaussian).

    Azzalini's distribution with mean mu and standard deviation sigma, as in glmmTMB:
    y = xi + omega z, z with density 2 f(z) F(alpha z), f and F those of the normal
    distribution; delta = alpha / sqrt(1 + alpha^2), omega = sigma / sqrt(1 - 2 delta^2
    / pi), xi = mu - omega delta sqrt(2 / pi). The likelihood is flat in alpha at zero.

    Example:
        >>> import jaxglmm as jg
        >>> jg.SkewNormal().dispersion([0.0, 3.0])
        {'sigma': 1.0, 'alpha': 3.0}
    """

    name: ClassVar[str] = "skewnormal"
    default_link: ClassVar[str] = "identity"
    links: ClassVar[tuple[str, ...]] = ("identity", "log", "inverse")
    n_phi: ClassVar[int] = 2
    phi_names: ClassVar[tuple[str, ...]] = ("sigma", "alpha")
    phi_scales: ClassVar[tuple[Scale, ...]] = (LOG, PLAIN)
    phi_stops: ClassVar[bool] = True
    phi_range: ClassVar[tuple[Any, Any]] = ((-np.inf, -100.0), (np.inf, 100.0))
    phi_in_units: ClassVar[bool] = True
    phi_ends: ClassVar[Mapping[str, tuple[str, str]]] = {"alpha": (SHARP, SHARP)}

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        mu = nested(self.link.inverse, eta, order)
        alpha = phi[1]
        shift, log_ratio = _shape(alpha)
        log_omega = phi[0] - log_ratio
        z = (mu - y) * -jnp.exp(-log_omega) + shift
        x = z.value
        parts = [LOG_2 - HALF_LOG_2PI - log_omega - 0.5 * x * x, -x, -1.0, 0.0]
        tails = [log_ndtr(alpha * x, k) * alpha**k for k in range(order + 1)]
        f = [a + b for a, b in zip(parts[: order + 1], tails, strict=True)]
        return chain(f, z)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return exp(2 * phi[0]) + 0 * mu

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.finite(y, rows)
        _checks.varies(self.name, y)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        sd = np.std(y)
        skewness = np.mean(((y - np.mean(y)) / sd) ** 3)
        phi = np.array([np.log(sd), 1.0 if skewness >= 0 else -1.0])
        return super().start(y, trials)[0], phi

    def _place(self, mu: Any, phi: Any) -> tuple[Any, Any, Any]:
        """xi, omega and delta."""
        alpha = np.asarray(phi[1], float)
        delta = alpha / np.hypot(1.0, alpha)
        omega = np.exp(phi[0]) / np.sqrt(1 - TWO_OVER_PI * delta**2)
        return mu - omega * delta * np.sqrt(TWO_OVER_PI), omega, delta

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special

        xi, omega, _ = self._place(mu, phi)
        z = (y - xi) / omega
        found = special.ndtr(z) - 2 * special.owens_t(z, phi[1])
        return np.clip(found, 0.0, 1.0)

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        xi, omega, delta = self._place(mu, phi)
        half, whole = rng.standard_normal((2, *np.shape(mu)))
        return xi + omega * (delta * np.abs(half) + np.sqrt(1 - delta**2) * whole)


def _shape(alpha: Array) -> tuple[Array, Array]:
    """(mu - xi) / omega, and log(sigma / omega)."""
    square = alpha * alpha / (1 + alpha * alpha)
    delta = alpha / jnp.sqrt(1 + alpha * alpha)
    return delta * float(np.sqrt(TWO_OVER_PI)), 0.5 * jnp.log1p(-TWO_OVER_PI * square)
