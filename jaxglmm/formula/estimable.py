"""Which linear functions of the coefficients the data can tell.

Where columns of X depend on others, X N = 0 for a matrix N, and l'beta is a function of
the expected responses only if l'N = 0: then it is the same whichever columns were left
out. Otherwise any number would do, since it depends on which of them went (Searle 1971,
Linear Models, section 5.4). The usual case is a cell of crossed factors without data.

Each dropped column d is a combination of the kept ones, so N has a column for each,
x_d - X_kept a_d = 0. The distance l_d - l_kept'a_d is compared with the numbers it is
made of, which needs no units. Where the constant is in the span of X, rows are measured
from the mean row first: a covariate of 1.7e9 seconds would hide a difference of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-6  # of a distance, relative to the numbers it is the difference of


@dataclass(frozen=True)
class NullSpace:
    """What is missing from the full X (n, p_all), of which p columns were kept.

    kept: (p,) and lost: (d,) positions in the full X
    weights: (p, d), each lost column as a combination of the kept ones, both centred
    centre: (p_all,) the row that was subtracted, zero where there is no constant
    constant: (p_all,) c with X c = 1, or zeros
    """

    kept: np.ndarray
    lost: np.ndarray
    weights: np.ndarray
    centre: np.ndarray
    constant: np.ndarray

    def inestimable(self, rows: np.ndarray) -> np.ndarray:
        """Whether l'beta cannot be told, (k,); rows: (k, p_all) of the full X.

        Rows with a missing value are not counted: they are missing anyway.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            moved = rows - np.outer(rows @ self.constant, self.centre)
            left, right = moved[:, self.lost], moved[:, self.kept]
            distance = np.abs(left - right @ self.weights)
            size = np.abs(left) + np.abs(right) @ np.abs(self.weights)
            return (distance > TOLERANCE * size).any(axis=1)

    def full(self, rows: np.ndarray) -> np.ndarray:
        """Rows (k, p) over the kept columns, zeros for the lost ones, (k, p_all)."""
        out = np.zeros((len(rows), len(self.centre)))
        out[:, self.kept] = rows
        return out

    def combination(self) -> np.ndarray:
        """(p, d): each lost column as a combination of the kept ones, uncentred."""
        out = self.weights.copy()
        here = self.constant[self.kept]
        if here.any():
            shift = self.centre[self.lost] - self.centre[self.kept] @ self.weights
            out += np.outer(here, shift)
        return out

    def restricted(self, kept: tuple[int, ...], more: NullSpace | None) -> NullSpace:
        """The null space where only some rows, and so fewer columns, are left.

        Args:
            kept: positions among this one's kept columns.
            more: what is missing among these, of the rows that are left.
        """
        if more is None:
            return self
        lost = np.concatenate([self.lost, self.kept[more.lost]])
        # what was lost here is a combination of columns that are now lost themselves
        old = self.combination()
        weights = old[list(kept)] + more.combination() @ old[more.lost]
        zero = np.zeros(len(self.centre))
        return NullSpace(
            self.kept[list(kept)],
            lost,
            np.hstack([weights, more.combination()]),
            zero,
            zero,
        )
