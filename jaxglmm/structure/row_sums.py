"""Cross-products of rows that come in pieces: sums that only grow.

Over all rows [X y]'W[X y], by level of each factor Z'WZ and Z'W[X y], and by pair of
levels of two factors what couples them. Rows are given as distinct columns, so that a
product that several blocks hold is summed once. The sums of two halves of the rows add
up to those of the whole, in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxglmm.structure.cell_sums import CellSums
from jaxglmm.structure.crossproducts import count

Products = Callable[[int, int], np.ndarray]
BLOCK = 16_384  # rows of which the columns of X stay in the cache
SPARSE = 8  # levels a row above which a table of all levels is not filled anew


@dataclass(frozen=True)
class FactorShape:
    """Of one grouping factor: name, levels, and which columns are those of Z."""

    name: str
    n_levels: int
    at: tuple[int, ...]


class RowSums:
    """Sums over rows.

    x_at: which of the columns are X's; y_at: which is the response; coupled: with the
    sums by pairs of levels of two factors.
    """

    def __init__(
        self,
        x_at: tuple[int, ...],
        y_at: int,
        factors: Sequence[FactorShape],
        coupled: bool = True,
    ):
        self.x_at, self.y_at = x_at, y_at
        self.factors = tuple(factors)
        r = len(x_at) + 1
        self.gram = np.zeros((r, r))
        self.plain = np.zeros((r, r))  # the same without weights
        self.pairs = [self._pairs_of(f) for f in self.factors]
        self.by_level = [
            np.zeros((len(pairs), f.n_levels))
            for pairs, f in zip(self.pairs, self.factors, strict=True)
        ]
        self.counts = [np.zeros(f.n_levels, np.int64) for f in self.factors]
        self.cells = {
            (a, b): CellSums(len(f.at) * len(g.at), f.n_levels, g.n_levels)
            for (a, f), (b, g) in itertools.combinations(enumerate(self.factors), 2)
            if coupled
        }

    def _pairs_of(self, factor: FactorShape) -> dict[tuple[int, int], int]:
        """Products of two columns, each once, and their rows among the sums."""
        others = (*factor.at, *self.x_at, self.y_at)
        pairs = {(min(i, j), max(i, j)): 0 for i in factor.at for j in others}
        return {pair: k for k, pair in enumerate(pairs)}

    @property
    def nbytes(self) -> int:
        """Memory of the sums."""
        parts = [*self.by_level, *self.counts]
        cells = sum(c.nbytes for c in self.cells.values())
        return 2 * self.gram.nbytes + cells + sum(part.nbytes for part in parts)

    def add(
        self,
        columns: Sequence[np.ndarray | None],
        w: np.ndarray | None,
        codes: Sequence[np.ndarray],
    ) -> None:
        """More rows.

        Args:
            columns: (n,) each, None for ones.
            w: (n,) weights, None for ones.
            codes: (n,) levels, for each factor.
        """
        if not len(codes[0]):
            return
        self._add_gram(columns, w, len(codes[0]))
        for k, own in enumerate(codes):
            low, high = int(own.min()), int(own.max()) + 1
            place, size = (own - low if low else own), high - low
            here = slice(low, high)
            one = _sum_by(place, size, None, None, None, self.counts[k][here])
            for (i, j), at in self.pairs[k].items():
                out = self.by_level[k][at, here]
                if w is None and columns[i] is None and columns[j] is None:
                    out += one
                else:
                    _sum_by(place, size, w, columns[i], columns[j], out)

        for (a, b), cells in self.cells.items():
            at = itertools.product(self.factors[a].at, self.factors[b].at)
            products = [(w, columns[i], columns[j]) for i, j in at]
            cells.add(codes[a], codes[b], products)

    def add_sums(
        self,
        weighted: Products,
        plain: Products | None,
        codes: Sequence[np.ndarray],
        n: np.ndarray,
    ) -> None:
        """More rows, summed over groups in which all levels are the same already.

        Args:
            weighted: two columns -> (G,) sums of w times their product.
            plain: the same without weights; None where there are none.
            codes: (G,) levels, for each factor.
            n: (G,) rows.
        """
        at = (*self.x_at, self.y_at)
        for i, one in enumerate(at):
            for j, two in enumerate(at[: i + 1]):
                both = [f(one, two).sum() for f in (weighted, plain or weighted)]
                for gram, value in zip((self.gram, self.plain), both, strict=True):
                    gram[i, j] += value
                    gram[j, i] = gram[i, j]
        for k, own in enumerate(codes):
            np.add.at(self.counts[k], own, n.astype(np.int64))
            for (i, j), place in self.pairs[k].items():
                np.add.at(self.by_level[k][place], own, weighted(i, j))
        for (a, b), cells in self.cells.items():
            pairs = itertools.product(self.factors[a].at, self.factors[b].at)
            products = [(weighted(i, j),) for i, j in pairs]
            cells.add(codes[a], codes[b], products)

    def _add_gram(
        self, columns: Sequence[np.ndarray | None], w: np.ndarray | None, n: int
    ) -> None:
        """X'WX and its border, by blocks of rows."""
        used = [columns[j] for j in (*self.x_at, self.y_at)]
        F = np.empty((len(used), min(n, BLOCK)))
        for start in range(0, n, BLOCK):
            here = slice(start, min(start + BLOCK, n))
            block = F[:, : here.stop - start]
            for row, column in zip(block, used, strict=True):
                row[:] = 1.0 if column is None else column[here]
            product = block @ block.T
            self.plain += product
            self.gram += product if w is None else (block * w[here]) @ block.T

    def state(self) -> dict[str, np.ndarray]:
        """All sums as arrays by name."""
        out = {"gram": self.gram, "plain": self.plain}
        for k, (sums, counts) in enumerate(
            zip(self.by_level, self.counts, strict=True)
        ):
            out |= {f"level{k}": sums, f"count{k}": counts}
        for (a, b), cells in self.cells.items():
            cells.join()
            out |= {f"key{a}.{b}": cells.keys, f"cell{a}.{b}": cells.values}
        return out

    def resume(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what ``state`` gave for the same columns and levels."""
        self.gram, self.plain = state["gram"], state["plain"]
        for k in range(len(self.factors)):
            self.by_level[k], self.counts[k] = state[f"level{k}"], state[f"count{k}"]
        for (a, b), cells in self.cells.items():
            cells.keys, cells.values = state[f"key{a}.{b}"], state[f"cell{a}.{b}"]

    def packed(self) -> dict[str, np.ndarray]:
        """``state``, of the levels alone that were seen."""
        out = self.state()
        for k, counts in enumerate(self.counts):
            seen = np.flatnonzero(counts)
            out |= {
                f"seen{k}": seen,
                f"count{k}": counts[seen],
                f"level{k}": self.by_level[k][:, seen],
            }
        return out

    def add_packed(self, other: Mapping[str, np.ndarray]) -> None:
        """What ``packed`` gave of other rows, of the same columns and levels."""
        self.gram += other["gram"]
        self.plain += other["plain"]
        for k in range(len(self.factors)):
            seen = other[f"seen{k}"]
            self.by_level[k][:, seen] += other[f"level{k}"]
            self.counts[k][seen] += other[f"count{k}"]
        for (a, b), cells in self.cells.items():
            cells.add_sums(other[f"key{a}.{b}"], other[f"cell{a}.{b}"])

    def drop(self, kept: Sequence[int]) -> None:
        """Go on with some of the columns of X only."""
        self.x_at = tuple(self.x_at[j] for j in kept)
        index = [*kept, len(self.gram) - 1]
        self.gram = self.gram[np.ix_(index, index)]
        self.plain = self.plain[np.ix_(index, index)]

    def between(
        self, k: int, rows: Sequence[int], columns: Sequence[int]
    ) -> np.ndarray:
        """(rows, columns, J) products of columns by level of the k-th factor."""
        at = [[self.pairs[k][min(i, j), max(i, j)] for j in columns] for i in rows]
        return self.by_level[k][np.asarray(at, int).reshape(len(rows), len(columns))]


def _sum_by(
    codes: np.ndarray,
    size: int,
    w: np.ndarray | None,
    one: np.ndarray | None,
    two: np.ndarray | None,
    out: np.ndarray,
) -> np.ndarray:
    """Adds the sums by code to ``out``, and gives what was added where it is new."""
    if size <= SPARSE * len(codes):
        new = count(codes, size, w, one, two)
        out += new.astype(out.dtype, copy=False)
        return new
    product = np.ones(len(codes))
    for column in (w, one, two):
        if column is not None:
            product = product * column
    np.add.at(out, codes, product.astype(out.dtype, copy=False))
    return np.bincount(codes, minlength=size)
