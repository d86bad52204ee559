"""Independent columns: theta is the diagonal alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from jaxglmm.model.covariances.base import AbstractCovariance, Entry
from jaxglmm.model.covariances.free import AbstractFree
from jaxglmm.structure.factors import ColumnMaps


@dataclass(frozen=True)
class Diagonal(AbstractFree):
    """Variances alone: columns may be scaled, and not mixed."""

    q: int
    maps: ClassVar[ColumnMaps] = ColumnMaps.SCALES

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        return tuple((i, i) for i in range(self.q))

    @property
    def pairs(self) -> tuple[Entry, ...]:
        return ()

    def beside(self, others: Sequence[AbstractCovariance]) -> AbstractCovariance:
        """Of others that are diagonal too one of all columns.

        Programs are compiled for a covariance, so that what is the same has one name.
        """
        if all(isinstance(other, Diagonal) for other in others):
            return Diagonal(self.q + sum(other.q for other in others))
        return super().beside(others)
