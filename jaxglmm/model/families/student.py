"""Student's t: a Gaussian that forgives outliers; degrees of freedom known or not."""

from __future__ import annotations

from collections.abc import Mapping
from math import lgamma, log
from typing import Any, ClassVar

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ModelError
from jaxglmm._typing import Array
from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import JetFamily, Phi, Rows, Trials, positive
from jaxglmm.model.links import Link
from jaxglmm.numerics.array_namespace import exp, functions
from jaxglmm.numerics.jets import Jet, chain, nested
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field

LOG_2 = log(2.0)
LARGEST = float(np.finfo(float).max)


class StudentT(JetFamily):
    """y = inverse(eta) + sigma t, t with ``df`` degrees of freedom; phi = log sigma.

    sigma is the scale, not the standard deviation: Var y = sigma^2 df / (df - 2). With
    df to infinity it is the Gaussian family.

    Args:
        link: of the location.
        df: degrees of freedom, a positive number, or None where they are estimated, as
            by ``family="t"`` and glmmTMB's ``t_family()``.

    Example:
        >>> import jaxglmm as jg
        >>> jg.StudentT(df=6).df, jg.StudentT(df=None).phi_names
        (6.0, ('sigma', 'df'))
    """

    default_link: ClassVar[str] = "identity"
    phi_in_units: ClassVar[bool] = True
    phi_ends: ClassVar[Mapping[str, tuple[str, str]]] = {
        "df": (
            "residuals differ by orders of magnitude: look at the largest ones, or "
            "transform the response",
            "there are no outliers, and family='gaussian' fits as well",
        )
    }

    df: float | None = field(static=True)

    def __init__(self, link: str | Link | None = None, df: float | None = 4.0):
        super().__init__(link)
        if df is None:
            self.df = None
            return
        if not _arguments.is_number(df) or not 0 < df <= LARGEST:
            shown = _arguments.shown(df)
            raise ModelError(f"df must be a positive number or None, not {shown}")
        self.df = float(df)

    @property
    def name(self) -> str:  # type: ignore[override]
        return "t" if self.df is None else "student"

    @property
    def n_phi(self) -> int:  # type: ignore[override]
        return len(self.phi_names)

    @property
    def phi_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("sigma", "df") if self.df is None else ("sigma",)

    @property
    def phi_range(self) -> tuple[Any, Any]:  # type: ignore[override]
        if self.df is not None:
            return -np.inf, np.inf
        return (-np.inf, -3.0), (np.inf, 16.0)

    @property
    def phi_centre(self) -> Any:  # type: ignore[override]
        return (0.0, 2.0) if self.df is None else 0.0

    @property
    def phi_stops(self) -> bool:  # type: ignore[override]
        return self.df is None

    def _df(self, phi: Any) -> Any:
        """Degrees of freedom, known or from phi."""
        return exp(phi[1]) if self.df is None else self.df

    def log_jet(self, y: Rows, eta: Rows, phi: Phi, trials: Trials, order: int) -> Jet:
        mu = nested(self.link.inverse, eta, order)
        z = (mu - y) * -jnp.exp(-phi[0])
        df = self._df(phi)
        half = 0.5 * df
        rising = _rising_half(half) if self.df else _rising(phi[1] - LOG_2)
        constant = rising - HALF_LOG_2PI - phi[0]
        v = 1 / (1 + z.value**2 / df)  # of -(df + 1) / 2 log(1 + z^2 / df)
        c, u = (half + 0.5) / half, z.value / df
        return chain(
            (
                constant - (half + 0.5) * jnp.log1p(z.value**2 / df),
                -c * z.value * v,
                -c * v * (2 * v - 1),
                2 * c * u * v * v * (4 * v - 1),
            ),
            z,
        )

    def expected_weight(self, eta: Rows, phi: Phi, trials: Trials = 1.0) -> Rows:
        df = self._df(phi)
        scale = (df + 1) / (df + 3)
        return positive(scale * (self.link.slope(eta) * jnp.exp(-phi[0])) ** 2)

    def variance(self, mu: Any, phi: Any, trials: Any = 1.0) -> Any:
        df = self._df(phi)
        f = functions(df)
        ratio = f.where(df > 2, df / f.where(df > 2, df - 2, 1.0), np.inf)
        return exp(2 * phi[0]) * ratio + 0 * mu

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.finite(y, rows)
        _checks.varies(self.name, y)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        spread = np.median(np.abs(y - np.median(y))) or np.std(y)
        phi = np.log([spread] if self.df else [spread, 8.0])
        return super().start(y, trials)[0], phi

    def unit_deviance(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        z = (y - mu) * np.exp(-phi[0])
        df = self._df(phi)
        return (df + 1) * np.log1p(z * z / df)

    def cdf(
        self, y: np.ndarray, mu: np.ndarray, phi: np.ndarray, trials: Any = 1.0
    ) -> np.ndarray:
        from scipy import special

        return special.stdtr(self._df(phi), (y - mu) * np.exp(-phi[0]))

    def simulate(
        self,
        rng: np.random.Generator,
        mu: np.ndarray,
        phi: np.ndarray,
        trials: Any = 1.0,
    ) -> np.ndarray:
        return mu + np.exp(phi[0]) * rng.standard_t(self._df(phi), np.shape(mu))


def _rising_half(x: float) -> float:
    """lgamma(x + 1/2) - lgamma(x) - log(x) / 2, small for large x."""
    if x < 1e5:
        return lgamma(x + 0.5) - lgamma(x) - 0.5 * log(x)
    return -1 / (8 * x) + 1 / (192 * x**3)


def _rising(t: Array) -> Array:
    """The same of x = exp(t), by Stirling's formula: its large parts cancel.

    x log(1 + 1 / (2 x)) - 1 / 2 + delta(x + 1/2) - delta(x).
    """
    x, half = jnp.exp(t), 0.5 * jnp.exp(-t)
    more = t + jnp.log1p(half)
    return x * jnp.log1p(half) - 0.5 + stirling_error(more) - stirling_error(t)
