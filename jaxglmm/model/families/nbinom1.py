"""Negative binomial with linear variance, mu (1 + phi): size mu / phi."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.model.families import _checks, _negative_binomial, nbinom2
from jaxglmm.model.families._base import AbstractFamily, Rows, inside
from jaxglmm.numerics.either import exp


class NegativeBinomial1(AbstractFamily):
    """Counts with Var y = mu (1 + phi); phi to zero is the Poisson family.

    ``phi`` is glmmTMB's sigma.
    """

    name: ClassVar[str] = "nbinom1"
    default_link: ClassVar[str] = "log"
    links: ClassVar[tuple[str, ...]] = ("log", "sqrt", "identity")
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("phi",)
    discrete: ClassVar[bool] = True

    def log_density(
        self, y: Rows, eta: Rows, phi: Float[Array, " r"], trials: Rows | float = 1.0
    ) -> Rows:
        log_mu, ok = inside(self.link.log_inverse(eta))
        log_size = jnp.minimum(log_mu - jnp.clip(phi[0], -100.0, 300.0), 700.0)
        value = _negative_binomial.log_density(y, log_mu, log_size)
        return jnp.where(ok, value, -jnp.inf)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        return mu * (1 + exp(phi[0]))

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.counts(self.name, y, rows)
        _checks.not_all_zero(self.name, y)

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
