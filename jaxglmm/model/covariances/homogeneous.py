"""One standard deviation for all columns, which are independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.covariances import names
from jaxglmm.model.covariances.base import AbstractCovariance, Natural
from jaxglmm.runtime.arrays import jnp
from jaxglmm.structure.factors import ColumnMaps


@dataclass(frozen=True)
class Homogeneous(AbstractCovariance):
    """Independent columns with one standard deviation."""

    q: int
    is_chain: ClassVar[bool] = True
    maps: ClassVar[ColumnMaps] = ColumnMaps.COMMON
    has_own: ClassVar[bool] = True

    @cached_property
    def entries(self) -> tuple[tuple[int, int], ...]:
        """The diagonal."""
        return tuple((i, i) for i in range(self.q))

    @property
    def m(self) -> int:
        """One."""
        return 1

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """A standard deviation."""
        return ((0.0, np.inf),)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """None."""
        return ()

    @property
    def sharing(self) -> tuple[int, ...]:
        """One for all."""
        return (0,) * self.q

    def values(self, theta: Sequence[Any]) -> list[Any]:
        """The same for all."""
        return [theta[0]] * self.q

    def bend_matrix(self, theta: Sequence[Array], slopes: Array) -> None:
        """Zero."""

    def start(self, sd: Sequence[Any]) -> list[Any]:
        """The root of their mean square."""
        return [(sum(x * x for x in sd) / len(sd)) ** 0.5]

    def theta(self, lam: np.ndarray) -> np.ndarray:
        """Its first."""
        return lam[..., 0, :1]

    def sd_names(self, columns: Sequence[str], label: str) -> list[str]:
        """One."""
        return [names.sd("homdiag", label)]

    def parameters(
        self, columns: Sequence[str]
    ) -> tuple[list[tuple[str, ...]], list[Natural]]:
        """As ``base`` has them."""
        return [("homdiag",)], []

    def natural(self, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``base`` has them."""
        sd = np.sqrt(np.asarray(cov)[..., 0, 0])[..., None]
        return sd, np.zeros((*sd.shape[:-1], 0))

    def curves(self, theta: np.ndarray, sigma2: float) -> tuple[np.ndarray, None]:
        """In the variance."""
        return np.eye(self.q)[None], None

    def from_natural(self, x: np.ndarray) -> np.ndarray:
        """theta."""
        return x

    def natural_jacobian(self, theta: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """d sd / d theta, NumPy."""
        return np.array([[np.where(theta[0] < 0, -1.0, 1.0) / scale[0]]])


@dataclass(frozen=True)
class KnownBetweenLevels(Homogeneous):
    """The same, whose columns are those of a root of a known covariance.

    column: what varies by level, in whose name the standard deviation is.
    """

    column: str = "(Intercept)"
    is_multiple: ClassVar[bool] = True

    def jacobian_matrix(self, theta: Sequence[Array]) -> Array:
        """(q, 1) ones: levels are many, so nothing is done one by one."""
        return jnp.ones((self.q, 1), jnp.asarray(theta[0]).dtype)

    def sd_names(self, columns: Sequence[str], label: str) -> list[str]:
        """One."""
        return [names.sd(self.column, label)]

    def parameters(
        self, columns: Sequence[str]
    ) -> tuple[list[tuple[str, ...]], list[Natural]]:
        """As ``base`` has them."""
        return [(self.column,)], []
