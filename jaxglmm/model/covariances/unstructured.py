"""All variances and covariances: theta is the lower triangle, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxglmm.model.covariances.free import AbstractFree
from jaxglmm.structure.factors import ColumnMaps


@dataclass(frozen=True)
class Unstructured(AbstractFree):
    """Any positive semidefinite matrix, hence any linear map of the columns."""

    q: int
    maps: ClassVar[ColumnMaps] = ColumnMaps.ANY
