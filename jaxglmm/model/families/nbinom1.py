"""Negative binomial with linear variance, mu (1 + phi): size mu / phi."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families import _negative_binomial, nbinom2
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
from jaxglmm.runtime.arrays import jnp


class NegativeBinomial1(CountFamily):
    """Counts with Var y = mu (1 + phi); phi to zero is the Poisson family.

    ``phi`` is glmmTMB's sigma.
    """

    name: ClassVar[str] = "nbinom1"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "sqrt", "identity")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    phi_range: ClassVar[tuple[float, float]] = (-35.0, np.inf)
    near_zero_dispersion: ClassVar[tuple[float, ...]] = (-9.0, -25.0)
    limit: ClassVar[str | None] = "poisson"

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        log_mu = self.link.log_jet(eta, order)
        zeta = harmless(log_mu)
        log_ratio = jnp.clip(phi[0], -100.0, 300.0)
        found = _negative_binomial.fixed_ratio(y, zeta.value, log_ratio, order)
        return where_inside(chain(found.parts, zeta), log_mu)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu * (1 + exp(phi[0]))

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        ratio = np.var(y) / max(np.mean(y), 1e-8) - 1
        return (
            np.asarray(self.link.link(y + 0.3)),
            np.log(np.clip([ratio / 2], 0.01, 100.0)),
        )

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        return nbinom2.cdf(y, mu, mu * np.exp(-phi[0]))

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        return nbinom2.simulate(rng, mu, mu * np.exp(-phi[0]))
