"""Tensor products of smooths: a diagonal covariance of a few standard deviations.

The precision of effect k is sum_j a_jk / sd_j^2, a_jk >= 0 the penalty of margin j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.covariances import names
from jaxglmm.model.covariances.base import AbstractCovariance, Entry, Natural
from jaxglmm.runtime.arrays import jnp
from jaxglmm.structure.factors import ColumnMaps

NEAREST = 1e-12  # a standard deviation is at least that where it divides


@dataclass(frozen=True)
class Tensor(AbstractCovariance):
    """shares: the penalties a (t, q), as tuples."""

    shares: tuple[tuple[float, ...], ...]
    maps: ClassVar[ColumnMaps] = ColumnMaps.COMMON
    has_own: ClassVar[bool] = True

    @property
    def q(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return len(self.shares[0])

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The diagonal."""
        return tuple((i, i) for i in range(self.q))

    @property
    def m(self) -> int:
        """One a margin."""
        return len(self.shares)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Standard deviations."""
        return ((0.0, np.inf),) * self.m

    @property
    def pairs(self) -> tuple[Entry, ...]:
        """None."""
        return ()

    @cached_property
    def _own(self) -> tuple[int, ...]:
        """For each margin a column that it penalises most, beside the others."""
        a = np.array(self.shares)
        share = a / a.sum(axis=0)
        return tuple(int(x) for x in np.argmax(share, axis=1))

    @property
    def sharing(self) -> tuple[int, ...]:
        """Columns are shared by the margins; each counts where it is penalised most."""
        a = np.array(self.shares)
        return tuple(int(x) for x in np.argmax(a, axis=0))

    def values(self, theta: Sequence[Any]) -> list[Any]:
        """Roots of the variances."""
        size = [jnp.sqrt(x * x + NEAREST**2) for x in theta]
        out = []
        for k in range(self.q):
            rates = [
                (a[k] / (s * s)) for a, s in zip(self.shares, size, strict=True) if a[k]
            ]
            out.append(1.0 / jnp.sqrt(sum(rates[1:], rates[0])))
        return out

    def start(self, sd: Sequence[Any]) -> list[Any]:
        """Each margin as large as what was found for the columns, on average."""
        mean = (sum(x * x for x in sd) / len(sd)) ** 0.5
        return [mean + 0.0 for _ in range(self.m)]

    def theta(self, lam: np.ndarray) -> np.ndarray:
        """Standard deviations of the margins, by least squares on the precisions."""
        with np.errstate(divide="ignore"):
            rate = 1.0 / np.maximum(np.diagonal(lam, axis1=-2, axis2=-1), NEAREST) ** 2
        a = np.array(self.shares).T  # (q, t)
        flat = rate.reshape(-1, self.q)
        found = [
            np.linalg.lstsq(a / r[:, None], np.ones(self.q), rcond=None)[0]
            for r in flat
        ]
        inverse = np.maximum(np.array(found), 1e-300).reshape(*rate.shape[:-1], self.m)
        return 1.0 / np.sqrt(inverse)

    def sd_names(self, columns: Sequence[str], label: str) -> list[str]:
        """``sd_s.1|te(x,z)``."""
        return [names.sd(word, label) for (word,) in self.parameters(columns)[0]]

    def parameters(
        self, columns: Sequence[str]
    ) -> tuple[list[tuple[str, ...]], list[Natural]]:
        """As ``base`` has them."""
        return [(f"s.{j + 1}",) for j in range(self.m)], []

    def natural(self, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``base`` has them."""
        cov = np.asarray(cov)
        each = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
        lam = each[..., None] * np.eye(self.q)
        sd = self.theta(lam)
        return sd, np.zeros((*sd.shape[:-1], 0))

    def curves(self, theta: np.ndarray, sigma2: float) -> tuple[np.ndarray, np.ndarray]:
        """In the variances of the margins."""
        a = np.array(self.shares)
        v = np.maximum(sigma2 * np.asarray(theta) ** 2, NEAREST**2)
        rate = (a / v[:, None]).sum(axis=0)
        slope = a / v[:, None] ** 2 / rate**2  # d (1 / rate) / d v_j
        m, q = a.shape
        first, second = np.zeros((m, q, q)), np.zeros((m, m, q, q))
        d = np.arange(q)
        first[:, d, d] = slope
        for i in range(m):
            for j in range(m):
                bend = 2 * (a[i] / v[i] ** 2) * (a[j] / v[j] ** 2) / rate**3
                if i == j:
                    bend = bend - 2 * a[i] / v[i] ** 3 / rate**2
                second[i, j, d, d] = bend
        return first, second

    def from_natural(self, x: np.ndarray) -> np.ndarray:
        """theta."""
        return x

    def natural_jacobian(self, theta: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """d sd / d theta, NumPy."""
        return np.diag(np.where(theta < 0, -1.0, 1.0)) / scale[0]
