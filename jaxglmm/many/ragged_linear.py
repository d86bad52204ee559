"""Linear mixed models of many data sets in one long table, one grouping factor."""

from __future__ import annotations

import numpy as np

from jaxglmm.estimate import linear_lanes as linear
from jaxglmm.formula.design import Design
from jaxglmm.many import linear as fits_linear
from jaxglmm.many.coordinates import Coordinates
from jaxglmm.many.level_sums import LevelSums
from jaxglmm.many.linear import Settings, lanes_table
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.precision import double_precision

CELLS = 4096  # levels x lanes in one chunk on a CPU
CHUNKS = 4  # in a block there


class RaggedLinear:
    """Data sets with up to J levels."""

    surer_alone = True

    def __init__(
        self,
        design: Design,
        where: Coordinates,
        sums: LevelSums,
        J: int,
        settings: Settings,
        devices: Devices,
    ):
        self.design, self.where, self.settings = design, where, settings
        self.columns = fits_linear.columns(design)
        self.sums, self.J, self.devices = sums, J, devices
        (factor,) = where.factors
        self.chunk = devices.chunk(J, CELLS, fits_linear.LANES)
        self.lanes = devices.block(self.chunk, 8 * J, CHUNKS)
        self.unit = devices.unit(self.chunk)
        self.program = linear.OwnFit(
            factor.covariance, fits_linear.spans(design, factor), settings.reml
        )

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for data sets ``which`` (L,), at most ``steps`` steps."""
        raw = self.sums.raw(which, self.J)
        R_inverse = self.where.fixed.R_inverse
        common = (None, R_inverse, self.settings.stop, np.int64(steps))
        found = self.devices.run(self.program, common, raw, self.chunk, apart=True)
        nothing = np.zeros(len(which), bool)
        return lanes_table(
            self.design, self.columns, self.where, found, self.settings, nothing
        )
