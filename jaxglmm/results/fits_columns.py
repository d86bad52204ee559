"""The table behind ``Fits``: one row a data set, named blocks of columns.

Every number that is kept of a data set is a double in one row of one array, so that a
table can live in memory or in a file, and a chunk of fits is written by one copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SINGLE = (
    "sigma",
    "log_likelihood",
    "df_sigma",
    "decrement",
    "steps",
    "singular",
    "status",
)


@dataclass(frozen=True)
class Columns:
    """Names of what is kept.

    coefficients: names of the fixed effects; sd: of the standard deviations of the
    random effects; theta: number of thetas; dispersion: names of dispersion parameters.
    """

    coefficients: tuple[str, ...]
    sd: tuple[str, ...]
    theta: int
    dispersion: tuple[str, ...] = ()

    def blocks(self) -> Iterator[tuple[str, int]]:
        """Name and width of each block, in order."""
        p = len(self.coefficients)
        for name in ("coefficients", "se", "df", "p_values"):
            yield name, p
        yield "sd", len(self.sd)
        yield "theta", self.theta
        yield "dispersion", len(self.dispersion)
        for name in SINGLE:
            yield name, 1

    @property
    def width(self) -> int:
        """Columns in all."""
        return sum(width for _, width in self.blocks())

    def slices(self) -> dict[str, slice]:
        """Block -> its columns."""
        out, start = {}, 0
        for name, width in self.blocks():
            out[name] = slice(start, start + width)
            start += width
        return out

    def fill(self, table: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """Write blocks (D, width) or (D,) into a table (D, columns); the rest is NaN."""
        table[:] = np.nan
        for name, where in self.slices().items():
            if name in found:
                table[:, where] = np.reshape(found[name], (len(table), -1))
