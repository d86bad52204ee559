"""Gaussian with any link: y = inverse(eta) + noise of standard deviation sigma."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import (
    AbstractFamily,
    Derivatives,
    Phi,
    Rows,
    Trials,
    positive,
)
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.runtime.arrays import jnp


class Gaussian(AbstractFamily):
    """Real values, Var y = sigma^2 / m; phi = log sigma, m the row's ``trials`` or 1.

    Prior weights multiply the log density here as in every family. Linear mixed models
    read them as R does, residual variance sigma^2 / weight: a row of weight m is like
    the mean of m observations, so that they are this family's trials (``precise``).

    Example:
        >>> import jaxglmm as jg
        >>> jg.Gaussian(link="log")
        Gaussian(link=Log())
    """

    name: ClassVar[str] = "gaussian"
    canonical: ClassVar[str | None] = "identity"
    default_link: ClassVar[str] = "identity"
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("sigma",)
    phi_in_units: ClassVar[bool] = True

    @property
    def is_linear_model(self) -> bool:
        return self.link.name == "identity"

    def log_density(self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        z = (y - self.link.inverse(eta)) * jnp.exp(-phi[0])
        base = 0.5 * jnp.log(trials) - HALF_LOG_2PI
        return base - phi[0] - 0.5 * trials * z * z

    def log_base(self, y: Rows, trials: Trials = 1.0) -> Rows:
        return 0.5 * jnp.log(trials) + jnp.zeros_like(y)

    def kernel_derivatives(
        self, y: Rows, eta: Rows, phi: Phi, trials: Trials = 1.0
    ) -> Derivatives:
        if self.link.name != "identity":
            return super().kernel_derivatives(y, eta, phi, trials)
        w = trials * jnp.exp(-2 * phi[0]) * jnp.ones_like(eta)
        r = y - eta
        l = -HALF_LOG_2PI - phi[0] - 0.5 * w * r * r
        return l, r * w, w, jnp.zeros_like(eta)

    def kernel_over_normal(
        self, y: Rows, mean: Rows, variance: Rows, phi: Phi, trials: Trials = 1.0
    ) -> tuple[Rows, Rows, Rows] | None:
        if not self.is_linear_model:
            return None
        l, s, w, _ = self.kernel_derivatives(y, mean, phi, trials)
        return l - w * variance / 2, s, w

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        return positive(trials * (self.link.slope(eta) * jnp.exp(-phi[0])) ** 2)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return exp(2 * phi[0]) / trials + 0 * mu

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.finite(y, rows)
        _checks.varies(self.name, y)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        spread = np.log([np.std(y) / 2])
        if trials is not None:
            spread = spread + np.mean(np.log(trials)) / 2
        return super().start(y, trials)[0], spread

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        return trials * ((y - mu) * np.exp(-phi[0])) ** 2

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special

        return special.ndtr(np.sqrt(trials) * (y - mu) * np.exp(-phi[0]))

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        noise = rng.standard_normal(np.shape(mu))
        return mu + np.exp(phi[0]) / np.sqrt(trials) * noise
