"""Student's t: a Gaussian that forgives outliers. The degrees of freedom are fixed."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm._typing import Array, Float
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import AbstractFamily, Rows, positive
from jaxglmm.model.links import Link
from jaxglmm.numerics.either import exp
from jaxglmm.numerics.special import HALF_LOG_2PI, log_rising


class StudentT(AbstractFamily):
    """y = inverse(eta) + sigma t, t with ``df`` degrees of freedom; phi = log sigma.

    sigma is the scale, not the standard deviation: Var y = sigma^2 df / (df - 2).

    Args:
        link: of the location.
        df: degrees of freedom, a known positive number.

    Example:
        >>> import jaxglmm as jg
        >>> jg.StudentT(df=6).df
        6.0
    """

    name: ClassVar[str] = "student"
    default_link: ClassVar[str] = "identity"
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("sigma",)

    df: float = eqx.field(static=True)

    def __init__(self, link: str | Link | None = None, df: float = 4.0):
        super().__init__(link)
        if not df > 0 or not np.isfinite(df):
            raise ModelError(f"df must be a positive number, not {df!r}")
        self.df = float(df)

    def log_density(
        self, y: Rows, eta: Rows, phi: Float[Array, " r"], trials: Rows | float = 1.0
    ) -> Rows:
        z = (y - self.link.inverse(eta)) * jnp.exp(-phi[0])
        half = jnp.asarray(self.df / 2, z.dtype)
        # lgamma((df + 1) / 2) - lgamma(df / 2) - log(df / 2) / 2
        constant = log_rising(half, jnp.log(half), jnp.asarray(0.5, z.dtype))
        return (
            constant
            - HALF_LOG_2PI
            - phi[0]
            - 0.5 * (self.df + 1) * jnp.log1p(z * z / self.df)
        )

    def expected_weight(
        self, eta: Rows, phi: Float[Array, " r"], trials: Rows | float = 1.0
    ) -> Rows:
        scale = (self.df + 1) / (self.df + 3)
        return positive(scale * (self.link.slope(eta) * jnp.exp(-phi[0])) ** 2)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        ratio = self.df / (self.df - 2) if self.df > 2 else np.inf
        return exp(2 * phi[0]) * ratio + 0 * mu

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.finite(y, rows)
        _checks.varies(self.name, y)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        spread = np.median(np.abs(y - np.median(y))) or np.std(y)
        return super().start(y, trials)[0], np.log([spread])

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        z = (y - mu) * np.exp(-phi[0])
        return (self.df + 1) * np.log1p(z * z / self.df)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special

        return special.stdtr(self.df, (y - mu) * np.exp(-phi[0]))

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        return mu + np.exp(phi[0]) * rng.standard_t(self.df, np.shape(mu))
