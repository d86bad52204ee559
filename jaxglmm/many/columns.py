"""The table behind ``Fits``: one row a data set, named blocks of columns.

Every number that is kept of a data set is a double in one row of one array, so that a
table can live in memory or in a file, and a chunk of fits is written by one copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxglmm.many.correlations import Terms

SINGLE = (
    "sigma",
    "log_likelihood",
    "df_sigma",
    "decrement",
    "steps",
    "singular",
    "separated",
    "status",
)

# In a table that is not finished: what a data set is waiting for.
AGAIN = -1  # more steps
MISSING = -2  # an engine that takes missing values
ALONE = -3  # a fit of its own
PENDING = -4  # its turn


@dataclass(frozen=True)
class KeptColumns:
    """Names of what is kept.

    coefficients: names of the fixed effects; sd: of the standard deviations of the
    random effects; theta: number of thetas; dispersion: names of dispersion parameters;
    terms: label, columns and covariance of each random term; errors: whether the
    dispersion parameters have standard errors.
    """

    coefficients: tuple[str, ...]
    sd: tuple[str, ...]
    theta: int
    dispersion: tuple[str, ...] = ()
    terms: Terms = ()
    errors: bool = False

    def blocks(self) -> Iterator[tuple[str, int]]:
        """Name and width of each block, in order."""
        p = len(self.coefficients)
        for name in ("coefficients", "se", "df", "p_values"):
            yield name, p
        yield "sd", len(self.sd)
        yield "theta", self.theta
        yield "dispersion", len(self.dispersion)
        yield "dispersion_se", len(self.dispersion) * self.errors
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

    def table(self, rows: int, **found: np.ndarray) -> np.ndarray:
        """Blocks (rows, width) or (rows,) side by side; NaN for those not given."""
        out = np.full((rows, self.width), np.nan)
        for name, where in self.slices().items():
            if name in found and where.stop > where.start:
                out[:, where] = np.reshape(found[name], (rows, -1))
        return out
