"""Independent rows of a few variances beside one random effect: cells of rows.

The n rows of one level and one stratum (those of one variance) have a covariance
s^2 I + t^2 z z'. Turned by an orthogonal matrix whose first row is z'/|z|, they are one
row with the random effect |z|, and n - 1 rows without, of variance s^2. The first rows
of a level's strata are a block, of which the squares |z|^2 say all; the others are
known by their cross-products, summed over all levels. So the data is read once,
whatever the strata's variances are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxglmm._typing import Float, Int
from jaxglmm.structure.patterns import WORTH, distinct, fewest, root_of

Pieces = Iterable[tuple[slice, np.ndarray]]
MANY = 1_000_000  # numbers of rows up to which these are looked up in a table


@dataclass(frozen=True)
class Strata:
    """stratum: (n,); scales: (S, s) of each; level: (n,) of J, z: (n,), None: ones.

    Without a random effect J is zero.
    """

    stratum: Int[np.ndarray, " n"]
    scales: Float[np.ndarray, "S s"]
    level: Int[np.ndarray, " n"] | None
    J: int
    z: Float[np.ndarray, " n"] | None

    @property
    def S(self) -> int:
        """Number of strata."""
        return len(self.scales)

    @cached_property
    def size(self) -> np.ndarray:
        """(S,) rows."""
        return np.bincount(self.stratum, minlength=self.S).astype(float)

    @cached_property
    def cell(self) -> np.ndarray:
        """(n,) of level and stratum."""
        assert self.level is not None
        return self.level.astype(np.int64) * self.S + self.stratum

    @cached_property
    def square(self) -> np.ndarray:
        """(J, S) z'z of every cell."""
        z = self.z
        if not self.J:
            return np.zeros((0, self.S))
        return self._count(None if z is None else z * z)

    def _count(self, column: np.ndarray | None) -> np.ndarray:
        found = np.bincount(self.cell, column, self.J * self.S)
        return found.reshape(self.J, self.S).astype(float, copy=False)

    def mean(self, column: np.ndarray) -> np.ndarray:
        """(J, S) sums of z times a column over |z|^2, zero in empty cells."""
        total = self._count(column if self.z is None else column * self.z)
        total *= self._inverse
        return total

    @cached_property
    def _inverse(self) -> np.ndarray:
        square = self.square
        return np.divide(1.0, square, out=np.zeros_like(square), where=square > 0)

    def rest(self, pieces: Pieces, means: np.ndarray) -> np.ndarray:
        """(S, c, c) cross-products of what a cell's first row leaves.

        pieces: [X y] (m, c) of some rows; means: (J, S, c) of each column.
        """
        c, flat = means.shape[-1], means.reshape(-1, means.shape[-1])
        out = np.zeros((self.S, c, c))
        for here, rows in pieces:
            if self.J:
                fitted = flat[self.cell[here]]
                rows = rows - (
                    fitted if self.z is None else fitted * self.z[here, None]
                )
            # small integers are sorted by their digits
            mine = self.stratum[here].astype(np.uint8)
            rows = rows.take(np.argsort(mine, kind="stable"), axis=0)
            ends = np.cumsum(np.bincount(mine, minlength=self.S)).tolist()
            for s, (start, stop) in enumerate(itertools.pairwise([0, *ends])):
                out[s] += rows[start:stop].T @ rows[start:stop]
        return out

    @cached_property
    def kinds(self) -> Kinds:
        """The levels by their squares."""
        return kinds_of(self.square, self.z is None)

    def blocks(self, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, T, c) first rows of each level's strata, as few as will do; patterns."""
        k = self.kinds
        cell = k.level[:, None] * self.S + k.slots[k.pattern]
        rows = means.reshape(-1, means.shape[-1]).take(cell, axis=0)
        rows *= k.length[k.pattern][..., None]  # zero where there is no row
        if WORTH * len(k.mask) > len(rows):
            return rows, k.pattern
        return fewest(rows, k.pattern, k.mask)

    def roots(self, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 1, c) rows with the same cross-products, and their strata."""
        found = [root_of(gram) for gram in rest]
        pattern = np.repeat(np.arange(self.S), [len(x) for x in found])
        return np.concatenate(found)[:, None], pattern

    @cached_property
    def left(self) -> np.ndarray:
        """(S,) rows that are no cell's first."""
        return self.size - (self.square > 0).sum(axis=0)


@dataclass(frozen=True)
class Kinds:
    """Levels that have rows, by kinds of the same squares.

    level: (N,) in the order of pattern (N,); mask: (K, T) of each kind its strata
    that have rows, slots: (K, T) which these are; length: (K, T) |z|
    """

    level: np.ndarray
    pattern: np.ndarray
    mask: np.ndarray
    slots: np.ndarray
    length: np.ndarray


def kinds_of(square: Float[np.ndarray, "J S"], whole: bool) -> Kinds:
    """whole: squares are numbers of rows."""
    there = square.any(axis=1)
    level = np.flatnonzero(there)
    square = square if len(level) == len(square) else square[level]
    base = square.max(initial=0.0) + 1
    if whole and base ** square.shape[1] < MANY:
        code = (square @ base ** np.arange(square.shape[1])).astype(np.int64)
        seen = np.bincount(code) > 0
        pattern = (np.cumsum(seen) - 1)[code]
        first = np.empty(int(seen.sum()), np.int64)
        first[pattern] = np.arange(len(pattern))
    else:
        first, pattern = distinct(np.ascontiguousarray(square).view(np.uint8))
    few = np.uint16 if len(first) < 65_536 else np.int64  # sorted by their digits
    order = np.argsort(pattern.astype(few), kind="stable")
    found = square[first]
    slots = np.argsort(found == 0, axis=1, kind="stable")
    slots = slots[:, : int((found > 0).sum(axis=1).max(initial=1))]
    found = np.take_along_axis(found, slots, axis=1)
    mask = (found > 0).astype(float)
    return Kinds(level[order], pattern[order], mask, slots, np.sqrt(found))


def columns_of(
    strata: Strata, column: Callable[[int], np.ndarray], c: int
) -> np.ndarray:
    """(J, S, c) means of c columns, which are made one by one."""
    out = np.zeros((strata.J, strata.S, c))
    for j in range(c if strata.J else 0):
        out[..., j] = strata.mean(column(j))
    return out
