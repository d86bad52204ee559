"""Many data sets in one long table: ragged sizes, in few shapes.

The columns of the model are coded once, over all rows, so that a coefficient means the
same in every data set. The rows are then sorted by data set and level, sums over a
level are sums over a slice, and data sets go to lanes with as many levels as the
largest of their bucket; levels that a data set does not have are empty, which changes
nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.structure import per_dataset_design as own
from jaxglmm.structure.padding import bucket

SHAPES = ((5_000, 1), (100_000, 2), (1_000_000, 3))  # data sets up to, buckets


class SplitTable:
    """Rows of a long design by data set.

    Args:
        codes: (n,) the data set of each row; D: how many there are.
        level: (n,) the level of the one grouping factor, of ``n_levels`` in all.
        rows: those that are used (all of them).

    Attributes:
        order: rows of the design sorted by data set and level; starts: (D + 1,) where
            each data set begins in it; level: of these rows, 0 .. J_d - 1; levels: (D,)
            J_d; sorted: whether ``order`` is the identity.
    """

    def __init__(
        self,
        codes: np.ndarray,
        D: int,
        level: np.ndarray,
        n_levels: int,
        rows: np.ndarray | None = None,
    ):
        small = D * n_levels < 2**31
        key = codes.astype(np.int32 if small else np.int64)
        key *= n_levels
        key += level
        n = len(key) if rows is None else len(rows)
        self.order = np.arange(len(key)) if rows is None else rows
        key = key if rows is None else key[rows]
        self.sorted = rows is None
        new = np.ones(n, bool)
        np.not_equal(key[1:], key[:-1], out=new[1:])
        self.begins = np.flatnonzero(new)
        some = key[self.begins]
        if (some[1:] < some[:-1]).any():  # never falls within a level
            sort = np.argsort(key, kind="stable")
            self.order, key = self.order[sort], key[sort]
            self.sorted = False
            np.not_equal(key[1:], key[:-1], out=new[1:])
            self.begins = np.flatnonzero(new)
        owner = key[self.begins] // n_levels
        self.levels = np.bincount(owner, minlength=D)
        first = np.cumsum(self.levels) - self.levels
        local = np.arange(len(owner)) - first[owner]
        sizes = np.diff(self.begins, append=n)
        self.level = np.repeat(local, sizes)
        rows_of = np.bincount(owner, sizes, minlength=D).astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(rows_of)])

    def parts(self) -> dict[str, Any]:
        """What ``from_parts`` makes the same split of."""
        return dict(self.__dict__)

    @staticmethod
    def from_parts(parts: dict[str, Any]) -> SplitTable:
        """The inverse of ``parts``."""
        out = object.__new__(SplitTable)
        out.__dict__.update(parts)
        return out

    def rows(self, i: int) -> np.ndarray:
        """Rows of the design that data set i has, in their own order."""
        return np.sort(self.order[self.starts[i] : self.starts[i + 1]])

    def take(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of data sets ``which``: places in ``order``, lane and level of each row."""
        sizes = np.diff(self.starts)[which]
        lane = np.repeat(np.arange(len(which)), sizes)
        offset = np.repeat(self.starts[which] - (np.cumsum(sizes) - sizes), sizes)
        place = np.arange(len(lane)) + offset
        return place, lane, self.level[place]


def buckets(levels: np.ndarray) -> np.ndarray:
    """(D,) the padded number of levels of each data set: a few values."""
    most = next((k for limit, k in SHAPES if len(levels) < limit), 4)
    distinct, place = np.unique(levels, return_inverse=True)
    sizes = np.array([bucket(int(J), 2) for J in distinct], int)
    edges, wanted = sorted(set(sizes.tolist())), sizes[place]
    while len(edges) > most:  # merge the step that costs least
        counts = [int(np.sum(wanted == e)) for e in edges]
        cost = [counts[k] * (edges[k + 1] - edges[k]) for k in range(len(edges) - 1)]
        k = int(np.argmin(cost))
        wanted[wanted == edges[k]] = edges[k + 1]
        edges.pop(k)
    return wanted


class _Sums:
    """Sums of row values by data set, or by level of a data set, lanes last."""

    def __init__(self, lane: np.ndarray, level: np.ndarray, L: int, J: int):
        self.L, self.J, self.n = L, J, len(lane)
        new = np.empty(self.n, bool)
        if self.n:
            new[0] = True
            new[1:] = (lane[1:] != lane[:-1]) | (level[1:] != level[:-1])
        self.starts = np.flatnonzero(new)
        self.lane, self.level = lane[self.starts], level[self.starts]
        first = np.ones(len(self.lane), bool)
        first[1:] = self.lane[1:] != self.lane[:-1]
        self.lane_starts = np.flatnonzero(first)
        self.lanes = self.lane[self.lane_starts]

    def of(self, V: np.ndarray, levels: bool = False) -> np.ndarray:
        """(k, n) -> (k, L), or (k, J, L)."""
        by_level = np.add.reduceat(V, self.starts, axis=1) if self.n else V
        if levels:
            out = np.zeros((len(V), self.J, self.L))
            out[:, self.level, self.lane] = by_level
            return out
        out = np.zeros((len(V), self.L))
        if self.n:
            out[:, self.lanes] = np.add.reduceat(by_level, self.lane_starts, axis=1)
        return out

    def products(
        self, A: np.ndarray, B: np.ndarray, levels: bool = False
    ) -> np.ndarray:
        """Symmetric sums of A_i B_j, (k, k, L) or (k, k, J, L)."""
        k = len(A)
        out = np.empty((k, k, *((self.J, self.L) if levels else (self.L,))))
        for i in range(k):
            found = self.of(A[i] * B[: i + 1], levels)
            out[i, : i + 1] = found
            out[: i + 1, i] = found
        return out

    def cross(self, Z: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Sums of Z_i X_a by level, (q, p, J, L)."""
        out = np.empty((len(Z), len(X), self.J, self.L))
        for i in range(len(Z)):
            out[i] = self.of(Z[i] * X, levels=True)
        return out


def _cholesky(XX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L (p, p, L) of each X'WX; whether a column depends on those before it."""
    p = len(XX)
    L = np.zeros_like(XX)
    dependent = np.zeros(XX.shape[-1], bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        for j in range(p):
            pivot = XX[j, j] - np.einsum("kl,kl->l", L[j, :j], L[j, :j])
            dependent |= ~(pivot > own.DEPENDENT * XX[j, j])
            L[j, j] = np.sqrt(pivot)
            for i in range(j + 1, p):
                inner = np.einsum("kl,kl->l", L[i, :j], L[j, :j])
                L[i, j] = (XX[i, j] - inner) / L[j, j]
    return L, dependent


def _solve(L: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(L L')^-1 v for each lane, (p, L)."""
    p = len(L)
    x = v.copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        for i in range(p):
            x[i] = (x[i] - np.einsum("kl,kl->l", L[i, :i], x[:i])) / L[i, i]
        for i in reversed(range(p)):
            x[i] = (x[i] - np.einsum("kl,kl->l", L[i + 1 :, i], x[i + 1 :])) / L[i, i]
    return x
