"""Cross-products of all data sets of a long table, level by level, in one pass.

The rows are read in pieces that fit the cache, in the order of the split, so that a sum
over a level is a sum over a slice, and pieces go to as many threads as there are. Of
each data set least squares is taken off, and what is left is scaled to unit size, as
for a single fit (``structure.fixed``), so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.many.coordinates import Coordinates
from jaxglmm.many.ragged import SplitTable, _cholesky, _solve
from jaxglmm.runtime.executors import executor
from jaxglmm.structure import per_dataset_design as own
from jaxglmm.structure.fixed import EXACT

NUMBERS = 200_000  # at a time, which stay in the cache: products of a piece's columns
LEAST = 4096  # rows of a piece, for the sake of what a piece costs by itself


class LevelSums:
    """Sums of D data sets with G levels in all.

    A: (q, q, G + 1) Z'WZ of each level; X: (q, p, G + 1) Z'WX; y: (q, G + 1) Z'We; the
    last place is an empty level. XX, ZZ, Xy, b, n, scale, log_w and flags: (..., D) as
    in ``own.DatasetProducts``.
    """

    def __init__(
        self, design: Design, where: Coordinates, split: SplitTable, threads: int
    ):
        self.design, self.where, self.split = design, where, split
        self.offset = design.offset
        p, q = design.p, len(where.B.T)
        D, G = len(split.levels), len(split.begins)
        self.first = np.cumsum(split.levels) - split.levels
        self.n = np.diff(split.starts).astype(float)
        self.A, self.X = np.zeros((q, q, G + 1)), np.zeros((q, p, G + 1))
        self.y, self.XX = np.zeros((q, G + 1)), np.zeros((p, p, D))
        self.ZZ, self.Xy, self.b = np.zeros((q, q, D)), *np.zeros((2, p, D))
        self.scale, self.log_w = np.full(D, np.nan), np.zeros(D)
        self.constant, self.exact, self.dependent = np.zeros((3, D), bool)
        pieces = list(self._pieces())
        with executor(threads if len(pieces) > 1 else 1) as pool:
            list(pool.map(self._fill, pieces))

    def raw(self, which: np.ndarray, J: int) -> own.DatasetProducts:
        """The data sets ``which`` (L,) as lanes, padded to J levels."""
        levels = self.split.levels[which]
        j = np.arange(J)[:, None]
        at = np.where(j < levels, self.first[which] + j, -1)
        n = self.n[which]
        flags = (self.constant, self.exact, self.dependent)
        return own.DatasetProducts(
            np.take(self.A, at, axis=-1),
            np.take(self.X, at, axis=-1),
            np.take(self.XX, which, axis=-1),
            np.take(self.ZZ, which, axis=-1),
            n,
            levels.astype(float),
            np.take(self.y, at, axis=-1),
            np.take(self.Xy, which, axis=-1),
            n.copy(),
            np.take(self.b, which, axis=-1),
            self.scale[which],
            self.log_w[which],
            *(flag[which].astype(int) for flag in flags),
        )

    def _pieces(self) -> Iterator[slice]:
        """Consecutive data sets that bring about ``NUMBERS`` products."""
        r = len(self.where.B)
        rows = max(NUMBERS // (r * (r + 1) // 2 + r + 1), LEAST)
        ends, start = self.split.starts[1:], 0
        while start < len(ends):
            done = self.split.starts[start]
            stop = int(np.searchsorted(ends, done + rows, "right"))
            stop = max(stop, start + 1)
            yield slice(start, stop)
            start = stop

    def _fill(self, here: slice) -> None:
        """The sums of some consecutive data sets."""
        s = self.split
        rows = slice(s.starts[here.start], s.starts[here.stop])
        if rows.start == rows.stop:
            self.dependent[here] = self.design.p > 0
            return
        with np.errstate(all="ignore"):  # bad data sets say so by their status
            self._sums(here, rows, _Levels(s, here, rows))

    def _sums(self, here: slice, rows: slice, by: _Levels) -> None:
        p, B, root = self.design.p, self.where.B, np.sqrt(self.design.n)
        U, y, w = self._rows(rows)
        WU, Wy = (U, y) if w is None else (U * w, w * y)
        r = len(U)
        pairs = [(i, j) for i in range(r) for j in range(i + 1)]
        first = by.sums(np.stack([*_pairwise(U, WU, pairs), *(U * Wy), y * Wy]))
        gram = _square(first, pairs, r)
        lanes = by.lanes(first)
        G = _square(lanes, pairs, r)
        XX = G[:p, :p] / self.design.n
        factor, dependent = _cholesky(XX)
        b = _solve(factor, lanes[len(pairs) : -1][:p] / root)
        E = y - _fitted(U, b / root, by)
        WE = E if w is None else w * E
        second = by.sums(np.stack([*(U * WE), E * WE]))
        UE, rest = second[:r], by.lanes(second)
        Xe = rest[:p] / root
        change = _solve(factor, Xe)
        Xy = Xe - np.einsum("abl,bl->al", XX, change)
        UE = UE - np.einsum("iag,ag->ig", gram[:, :p], by.repeated(change / root))
        n = self.n[here]
        scale = np.sqrt(np.maximum(rest[-1] - np.sum(change * Xe, axis=0), 0.0) / n)
        exact = ~(scale > EXACT * np.sqrt(lanes[-1] / n))
        levels = by.where
        BG = np.einsum("iq,ijg->qjg", B, gram)
        self.A[:, :, levels] = np.einsum("qjg,jr->qrg", BG, B)
        self.X[:, :, levels] = BG[:, :p] / root
        self.y[:, levels] = B.T @ (UE / by.repeated(scale[None]))
        if w is not None:
            self.log_w[here] = by.lanes(by.sums(np.log(w)[None]))[0]
        ZZ = np.einsum("iq,ijl,jr->qrl", B, G, B)
        self.XX[:, :, here], self.ZZ[:, :, here] = XX, ZZ / n
        self.Xy[:, here], self.b[:, here] = Xy / scale, b + change
        self.scale[here], self.dependent[here] = scale, dependent
        self.exact[here] = exact
        self._constant(here, y, rows)

    def _rows(self, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """U (r, m), the response less the offset (m,), weights (m,) or None."""
        d, where = self.design, self.where
        at = rows if self.split.sorted else self.split.order[rows]
        X, extra = d.X[at].T, where.extra[at].T
        p, root = d.p, np.sqrt(d.n)
        back = where.fixed.R_inverse * root
        U = np.empty((p + len(extra), X.shape[1]))
        for j in range(p):  # R^-1 is triangular
            np.multiply(X[j], back[j, j], out=U[j])
            for i in range(j):
                if back[i, j] != 0.0:
                    U[j] += X[i] * back[i, j]
        U[p:] = extra
        y = d.y[at] if d.offset is None else d.y[at] - d.offset[at]
        return U, y, None if d.weights is None else d.weights[at]

    def _constant(self, here: slice, y: np.ndarray, rows: slice) -> None:
        """Whether all responses of a data set are the same, among ``exact`` ones."""
        ends = self.split.starts
        for k in here.start + np.flatnonzero(self.exact[here]):
            values = y[ends[k] - rows.start : ends[k + 1] - rows.start]
            self.constant[k] = len(values) > 0 and np.ptp(values) == 0


class _Levels:
    """Rows, levels and data sets of one piece.

    where: the levels among all; sums over a level, and of those over a data set.
    """

    def __init__(self, split: SplitTable, here: slice, rows: slice):
        self.counts = split.levels[here]
        first = int(np.searchsorted(split.begins, rows.start))
        self.where = slice(first, first + int(self.counts.sum()))
        self.begins = split.begins[self.where] - rows.start
        self.sizes = np.diff(split.starts[here.start : here.stop + 1])
        self.filled = np.flatnonzero(self.counts)
        self.lane_begins = (np.cumsum(self.counts) - self.counts)[self.filled]

    def sums(self, V: np.ndarray) -> np.ndarray:
        """(k, m) -> (k, levels)."""
        return np.add.reduceat(V, self.begins, axis=1)

    def lanes(self, by_level: np.ndarray) -> np.ndarray:
        """(k, levels) -> (k, data sets)."""
        found = np.add.reduceat(by_level, self.lane_begins, axis=1)
        if len(self.filled) == len(self.counts):
            return found
        out = np.zeros((len(by_level), len(self.counts)))
        out[:, self.filled] = found
        return out

    def repeated(self, values: np.ndarray) -> np.ndarray:
        """(k, data sets) -> (k, levels)."""
        return np.repeat(values, self.counts, axis=-1)


def _pairwise(A: np.ndarray, B: np.ndarray, pairs: list[tuple[int, int]]):
    return [A[i] * B[j] for i, j in pairs]


def _square(values: np.ndarray, pairs: list[tuple[int, int]], r: int) -> np.ndarray:
    """(pairs, k) -> symmetric (r, r, k)."""
    out = np.empty((r, r, values.shape[1]))
    for (i, j), v in zip(pairs, values, strict=False):
        out[i, j] = out[j, i] = v
    return out


def _fitted(U: np.ndarray, b: np.ndarray, by: _Levels) -> np.ndarray:
    """The predictor of each row (m,) from coefficients of its data set (p, lanes)."""
    out = np.zeros(U.shape[1])
    for x, values in zip(U, b, strict=False):
        out += x * np.repeat(values, by.sizes)
    return out
