"""Sums by pairs of levels of two factors, where most pairs do not occur.

Pieces of rows are summed by themselves, and the sums of several pieces are joined by
sorting their keys, when these have grown to some times what is kept already.
"""

from __future__ import annotations

import numpy as np

from jaxglmm.structure.crossproducts import count, occupied

JOINED = 2  # times the cells that are kept, of new ones that wait to be joined
LEAST = 1_000_000  # new cells that may always wait


class CellSums:
    """Sums by cell, key = level of the first factor * J2 + level of the second.

    m: sums a cell; J1, J2: levels.
    """

    def __init__(self, m: int, J1: int, J2: int):
        self.J1, self.J2 = J1, J2
        self.keys = np.zeros(0, np.int64)
        self.values = np.zeros((m, 0))
        self._keys: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._waiting = 0

    @property
    def nbytes(self) -> int:
        """Memory of the sums."""
        return 8 * (1 + len(self.values)) * (len(self.keys) + self._waiting)

    def add(
        self,
        one: np.ndarray,
        two: np.ndarray,
        products: list[tuple[np.ndarray | None, ...]],
    ) -> None:
        """More rows: levels (n,) of both, and m products of columns (None: ones)."""
        key = one.astype(np.int64) * self.J2 + two
        cells, entry = occupied(key, self.J1 * self.J2)
        sums = np.stack([count(entry, len(cells), *factors) for factors in products])
        self.add_sums(cells, sums)

    def add_sums(self, cells: np.ndarray, sums: np.ndarray) -> None:
        """Sums (m, c) of other rows by cell: keys (c,)."""
        self._keys.append(cells)
        self._values.append(sums)
        self._waiting += len(cells)
        if self._waiting > max(JOINED * len(self.keys), LEAST):
            self.join()

    def join(self) -> None:
        """Put together what waits."""
        if not self._keys:
            return
        keys = np.concatenate([self.keys, *self._keys])
        values = np.concatenate([self.values, *self._values], axis=1)
        self._keys, self._values, self._waiting = [], [], 0
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        self.keys = keys[first]
        self.values = np.add.reduceat(values[:, order], first, axis=1)
