"""Covariances of packed unknowns: variances at once, products on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Covariance(Protocol):
    """``vector``: statsmodels gives variances alone where this is the covariance."""

    vector: bool

    def variances(self) -> np.ndarray:
        """(k,)."""
        ...

    def times(self, v: np.ndarray) -> np.ndarray:
        """The covariance times v (k, K)."""
        ...


@dataclass(frozen=True)
class Independent:
    """Variances alone."""

    values: np.ndarray
    vector: bool = True

    def variances(self) -> np.ndarray:
        return self.values

    def times(self, v: np.ndarray) -> np.ndarray:
        return self.values[:, None] * v


@dataclass(frozen=True)
class FullCovariance:
    """A covariance in full."""

    values: np.ndarray
    vector: bool = False

    def variances(self) -> np.ndarray:
        return np.diag(self.values).copy()

    def times(self, v: np.ndarray) -> np.ndarray:
        return self.values @ v


@dataclass(frozen=True)
class Recoded:
    """The covariance after A (p, p) on the first coordinates, others as they are."""

    inner: Covariance
    A: np.ndarray

    @property
    def vector(self) -> bool:
        return self.inner.vector

    def variances(self) -> np.ndarray:
        out = self.inner.variances().copy()
        p = len(self.A)
        unit = np.zeros((len(out), p))
        unit[:p] = self.A.T
        block = self.inner.times(unit)[:p]
        out[:p] = np.einsum("ij,ji->i", self.A, block)
        return out

    def times(self, v: np.ndarray) -> np.ndarray:
        p = len(self.A)
        back = np.concatenate([self.A.T @ v[:p], v[p:]])
        out = self.inner.times(back)
        return np.concatenate([self.A @ out[:p], out[p:]])


def covariance(values: object) -> Covariance:
    """An array as a covariance; anything else as it is."""
    if not isinstance(values, np.ndarray):
        return values  # type: ignore[return-value]
    return FullCovariance(values) if values.ndim == 2 else Independent(values)
