"""Reduced rank: q effects are combinations of d < q factors, glmmTMB's ``rr``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.covariances.base import Entry
from jaxglmm.model.covariances.free import AbstractFree
from jaxglmm.structure.factors import ColumnMaps


@dataclass(frozen=True)
class FactorAnalytic(AbstractFree):
    """Sigma = Lambda Lambda' of rank d: the first d columns of a lower triangle.

    Loadings are identified by the triangle's zeros and the signs of its diagonal; only
    Sigma has a meaning (Bartholomew, Knott and Moustaki 2011).
    """

    q: int
    d: int
    maps: ClassVar[ColumnMaps] = ColumnMaps.SCALES

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Column by column."""
        return tuple((i, j) for j in range(self.d) for i in range(j, self.q))

    def curves(self, theta: np.ndarray, sigma2: float) -> tuple[np.ndarray, np.ndarray]:
        """In the loadings sigma Lambda, in which G is quadratic."""
        lam = np.sqrt(sigma2) * self.matrix(theta)
        m, q = self.m, self.q
        first, second = np.zeros((m, q, q)), np.zeros((m, m, q, q))
        for a, (i, j) in enumerate(self.entries):
            first[a, i] += lam[:, j]
            first[a, :, i] += lam[:, j]
            for b, (k, h) in enumerate(self.entries):
                if j == h:
                    second[a, b, i, k] += 1.0
                    second[a, b, k, i] += 1.0
        return first, second

    @property
    def is_scale(self) -> tuple[bool, ...]:
        """None: a loading of zero is no variance of zero."""
        return (False,) * self.m

    def start(self, sd: Sequence[Any]) -> list[Any]:
        """Rows that differ in direction, for zero is a stationary point."""
        out = []
        for i, j in self.entries:
            share = 1.0 if i == j else (-0.5) ** ((i + j) % 2) * 0.6
            out.append(sd[i] * share)
        return out
