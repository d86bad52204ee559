"""Student's t: a Gaussian that forgives outliers. The degrees of freedom are fixed."""

from __future__ import annotations

from math import lgamma, log
from typing import Any, ClassVar

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ModelError
from jaxglmm._typing import Array, Float
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import JetFamily, Rows, positive
from jaxglmm.model.links import Link
from jaxglmm.numerics.array_namespace import exp
from jaxglmm.numerics.jets import Jet, chain, nested
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field

LARGEST = float(np.finfo(float).max)


class StudentT(JetFamily):
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
    phi_in_units: ClassVar[bool] = True

    df: float = field(static=True)

    def __init__(self, link: str | Link | None = None, df: float = 4.0):
        super().__init__(link)
        if not _arguments.is_number(df) or not 0 < df <= LARGEST:
            shown = _arguments.shown(df)
            raise ModelError(f"df must be a positive number, not {shown}")
        self.df = float(df)

    def log_jet(
        self,
        y: Rows,
        eta: Rows,
        phi: Float[Array, " r"],
        trials: Rows | float,
        order: int,
    ) -> Jet:
        mu = nested(self.link.inverse, eta, order)
        z = (mu - y) * -jnp.exp(-phi[0])
        half = 0.5 * self.df
        constant = _rising_half(half) - HALF_LOG_2PI - phi[0]
        v = 1 / (1 + z.value**2 / self.df)  # of -(df + 1) / 2 log(1 + z^2 / df)
        c, u = (half + 0.5) / half, z.value / self.df
        return chain(
            (
                constant - (half + 0.5) * jnp.log1p(z.value**2 / self.df),
                -c * z.value * v,
                -c * v * (2 * v - 1),
                2 * c * u * v * v * (4 * v - 1),
            ),
            z,
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


def _rising_half(x: float) -> float:
    """lgamma(x + 1/2) - lgamma(x) - log(x) / 2, small for large x."""
    if x < 1e5:
        return lgamma(x + 0.5) - lgamma(x) - 0.5 * log(x)
    return -1 / (8 * x) + 1 / (192 * x**3)
