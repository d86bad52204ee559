"""Data sets of one long table as lanes of linear mixed models, one grouping factor."""

from __future__ import annotations

import numpy as np

from jaxglmm.many.coordinates import Coordinates
from jaxglmm.many.level_sums import LevelSums
from jaxglmm.many.linear import OwnLanes
from jaxglmm.structure import per_dataset_design as own


class LongTable(OwnLanes):
    """Data sets with up to J levels, by their sums; see ``linear.LanesOfData``."""

    cells, chunks, apart = 4096, 4, True

    def __init__(self, where: Coordinates, sums: LevelSums, J: int):
        self.where, self.sums, self.levels, self.numbers = where, sums, J, 8 * J

    def lanes(self, which: np.ndarray) -> tuple[own.DatasetProducts, np.ndarray]:
        """Products of each data set; values that are infinite were found before."""
        return self.sums.raw(which, self.levels), np.zeros(len(which), int)
