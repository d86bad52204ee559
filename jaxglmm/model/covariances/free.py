"""Covariances whose parameters are the entries of Lambda."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglmm.model.covariances.base import AbstractCovariance


class AbstractFree(AbstractCovariance):
    """theta are the entries of Lambda themselves."""

    free = True

    @property
    def m(self) -> int:
        return len(self.entries)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return tuple((0.0 if i == j else -np.inf, np.inf) for i, j in self.entries)

    @property
    def sharing(self) -> tuple[int, ...]:
        """For each column the number of its standard deviation."""
        return tuple(range(self.q))

    @property
    def is_scale(self) -> tuple[bool, ...]:
        return tuple(i == j for i, j in self.entries)

    def values(self, theta: Sequence[Any]) -> Sequence[Any]:
        return theta

    def start(self, sd: Sequence[Any]) -> list[Any]:
        return [sd[i] if i == j else 0 * sd[0] for i, j in self.entries]

    def theta(self, lam: np.ndarray) -> np.ndarray:
        i, j = zip(*self.entries, strict=True)
        return lam[..., i, j]
