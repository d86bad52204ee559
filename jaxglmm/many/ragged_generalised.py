"""Many generalised models with designs of their own: the data sets of a long table.

Rows are sorted by data set and level and laid out (height, levels, lanes), as those of
one design are in ``generalised``, which has the engine of both.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy.linalg import block_diag

from jaxglmm import _status
from jaxglmm._errors import DataError, ModelError
from jaxglmm.fitting import ordinal
from jaxglmm.many.collection import ModelSource, status_of
from jaxglmm.many.columns import ALONE
from jaxglmm.many.generalised import LaneArrays
from jaxglmm.many.located import Categories, by_gaps, of_categories
from jaxglmm.many.located import guesses as of_thresholds
from jaxglmm.many.ragged import SplitTable, _cholesky, _Sums
from jaxglmm.many.response_rows import fine, fixed_parts
from jaxglmm.model import assemble, covariances
from jaxglmm.model.families import AbstractFamily
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import ColumnMaps, join
from jaxglmm.structure.fixed import orthonormal


class LongRows:
    """Data sets of a long table, one grouping factor, as ``generalised`` wants them."""

    @double_precision
    def __init__(self, source: ModelSource, J: int, which: np.ndarray):
        assert source.split is not None
        design = source.design
        self.source, self.design = source, design
        self.split: SplitTable = source.split
        self.located = ordinal.has_location(source.family)
        self.family: AbstractFamily = ordinal.core(source.family)
        (self.factor,) = join(assemble.columns(design))
        self.J = J
        order = self.split.order
        n = design.n
        Z = np.ones((1, n)) if self.factor.values is None else self.factor.values.T
        whole = fixed_parts(design, self.located)
        self.R, self.R_inverse, X = _coordinates(whole)
        self.spans = np.cumsum([0, *(x.shape[1] for x in whole)])
        self.X = np.ascontiguousarray(X.T[:, order])
        self.Z = np.ascontiguousarray(Z[:, order])
        self.y = design.y[order]
        given = (design.weights, design.offset, design.trials)
        self.w, self.o, self.m = (None if v is None else v[..., order] for v in given)
        self.h = fine(self._height(which))
        self.numbers = len(self.X) + len(self.Z)

    def _height(self, which: np.ndarray) -> int:
        """The most rows of a level of a data set."""
        _, lane, level = self.split.take(which)
        counts = np.bincount(lane * (self.J + 1) + level, minlength=1)
        return int(counts.max(initial=1))

    @property
    def common(self) -> dict[str, np.ndarray]:
        """Arrays by name that all data sets share."""
        return {} if self.m is not None else {"trials": np.ones((self.h, self.J, 1))}

    def rows(self, which: np.ndarray) -> LaneArrays:
        """The rows of data sets ``which`` (L,), each in coordinates of its own."""
        at, lane, level = self.split.take(which)
        L, p = len(which), len(self.X)
        sums = _Sums(lane, level, L, self.J)
        n = np.bincount(lane, minlength=L).astype(float)
        X, Z = self.X[:, at], self.Z[:, at]
        y = self.y[at]
        m = None if self.m is None else self.m[at]
        seen = self._categories(y, at, lane, L)
        status = self._check(y, m, lane, L, seen)
        few = (p >= n) | (self.split.levels[which] < 2)
        status[few] = _status.TOO_FEW
        with np.errstate(invalid="ignore", divide="ignore"):
            X, turn, dependent = self._fixed(sums, X, n, lane)
            Lz, size = self._standard(sums.products(Z, Z) / np.maximum(n, 1))
            Z = _forward(Lz, Z / size[:, lane], lane)
        status[dependent & (status == 0)] = ALONE
        good = status == 0
        X, Z = np.where(good[lane], X, 0.0), np.where(good[lane], Z, 0.0)
        y = np.where(good[lane], y, self.family.padding)
        if seen is not None and by_gaps(self.family):
            y = np.where(good[lane], seen.for_lanes(y, lane), y)
        eta, phi = self._guesses(y, m, lane, L, good, seen)
        row = _positions(sums, len(at))
        place = (row, level, lane)

        def put(values: Any, fill: float) -> np.ndarray:
            out = np.full((*np.shape(values)[:-1], self.h, self.J, L), fill)
            out[(..., *place)] = values
            return out

        plain = self.factor.values is None
        empty = np.zeros((0, self.h, self.J, L))
        there = {
            "X": np.stack([put(x, 0.0) for x in X]) if p else empty,
            "y": put(y, self.family.padding),
            "weights": put(1.0 if self.w is None else self.w[at], 0.0),
        }
        if not plain:
            there["Z"] = np.stack([put(z, 0.0) for z in Z])
        if m is not None:
            there["trials"] = put(m, 1.0)
        if self.o is not None:
            there["offset"] = put(self.o[at], 0.0)
        back = self.R_inverse @ np.moveaxis(turn, -1, 0)
        back = np.where(np.isfinite(back), back, 0.0)
        there["n_levels"] = self.split.levels[which].astype(float)
        named = back[:, int(self.located) :]
        there["back"] = np.ascontiguousarray(np.moveaxis(named, 0, -1))
        T_inverse = self.factor.T_inverse @ np.moveaxis(
            _inverse_transposed(Lz) / size[:, None], -1, 0
        )

        def rows_of(i: int, whole: np.ndarray, effects: np.ndarray) -> tuple:
            here = np.flatnonzero(lane == i)
            eta = whole @ self.R @ self.X[:, at[here]]
            if self.o is not None:
                eta = eta + self.o[at[here]]
            for k, z in enumerate(Z):
                eta = eta + z[here] * effects[k, level[here]]
            sort = np.argsort(self.split.order[at[here]], kind="stable")
            return self.source.design_of(int(which[i])), eta[sort], here[sort]

        start = (put(eta, 0.0), phi, status)
        wide = np.broadcast_to(y[:, None], (len(y), L))
        rest = (back, T_inverse, wide, seen, rows_of)
        return LaneArrays(self.common, there, *start, *rest)

    def _fixed(
        self, sums: _Sums, X: np.ndarray, n: np.ndarray, lane: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Orthonormal columns of each lane, predictor by predictor.

        X (p, n); (p, p, L) back to the columns that came in; (L,) where some depend on
        others.
        """
        p, L = len(X), len(n)
        out, back = np.empty_like(X), np.zeros((p, p, L))
        dependent = np.zeros(L, bool)
        for a, b in itertools.pairwise(self.spans):
            root, bad = _cholesky(sums.products(X[a:b], X[a:b]) / np.maximum(n, 1))
            out[a:b] = _forward(root, X[a:b], lane)
            back[a:b, a:b] = _inverse_transposed(root)
            dependent |= bad
        return out, back, dependent

    def _categories(self, y, at, lane: np.ndarray, L: int) -> Categories | None:
        """Which categories each data set has."""
        K = getattr(self.family, "categories", 0)
        if self.family.family_kind not in ("ordinal", "nominal"):
            return None
        used = np.ones(len(y), bool) if self.w is None else self.w[at] > 0
        key = y[used].astype(int) * L + lane[used]
        return Categories(np.bincount(key, minlength=K * L).reshape(K, L))

    def _check(self, y, m, lane: np.ndarray, L: int, seen: Any) -> np.ndarray:
        status = np.zeros(L, int)
        if seen is not None:
            return of_categories(self.family, seen)
        ends = np.searchsorted(lane, np.arange(L + 1))
        for i in range(L):
            here = slice(ends[i], ends[i + 1])
            if ends[i] == ends[i + 1]:
                status[i] = _status.TOO_FEW
                continue
            try:
                self.family.check(y[here], None if m is None else m[here])
            except (DataError, ModelError) as error:
                status[i] = status_of(error)
        return status

    def _guesses(self, y, m, lane, L: int, good: np.ndarray, seen: Any):
        family = self.family
        K = len(family.predictors)
        if seen is not None and family.family_kind == "ordinal" and K == 1:
            return of_thresholds(family, y, seen.in_lanes.count, lane)
        if family.starts_alone and family.link.name == family.default_link:
            return family.start(y, m)[0], np.zeros((0, L))
        eta = np.zeros(len(y) if K == 1 else (K, len(y)))
        phi = np.zeros((family.n_phi, L))
        ends = np.searchsorted(lane, np.arange(L + 1))
        for i in np.flatnonzero(good):
            here = slice(ends[i], ends[i + 1])
            with np.errstate(all="ignore"):
                eta[..., here], phi[:, i] = family.start(
                    y[here], None if m is None else m[here]
                )
        return eta, np.where(np.isfinite(phi), phi, 0.0)

    def _standard(self, ZZ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """L and sizes of T = L' diag(size), block by block of the terms."""
        q, L = len(ZZ), ZZ.shape[-1]
        size = np.sqrt(np.stack([ZZ[i, i] for i in range(q)]))
        size = np.where(size > 0, size, 1.0)
        out = np.zeros((q, q, L))
        for i in range(q):
            out[i, i] = 1.0
        for index, a, b in self.factor.spans:
            own = covariances.of(self.design.terms[index])
            if b - a > 1 and own.maps is ColumnMaps.ANY:
                unit = ZZ[a:b, a:b] / (size[a:b, None] * size[None, a:b])
                found, dependent = _cholesky(unit)
                bad = dependent | ~np.isfinite(found).all(axis=(0, 1))
                out[a:b, a:b] = np.where(bad, out[a:b, a:b], found)
        return out, size


def _coordinates(
    parts: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R, its inverse and X R^-1, predictor by predictor."""
    found = [orthonormal(X, None) for X in parts]
    inverses = [np.linalg.solve(R, np.eye(len(R))) for R, _ in found]
    if len(found) == 1:
        return found[0][0], inverses[0], found[0][1].whole
    X = np.concatenate([basis.whole for _, basis in found], axis=1)
    return block_diag(*(R for R, _ in found)), block_diag(*inverses), X


def _forward(L: np.ndarray, v: np.ndarray, lane: np.ndarray) -> np.ndarray:
    """L^-1 v for the rows of each lane, (k, n)."""
    out = np.empty_like(v)
    for i in range(len(v)):
        left = v[i]
        for j in range(i):
            left = left - L[i, j, lane] * out[j]
        out[i] = left / L[i, i, lane]
    return out


def _inverse_transposed(L: np.ndarray) -> np.ndarray:
    """L'^-1 of each lane, (k, k, L)."""
    k = len(L)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.zeros_like(L)
        for column in range(k):
            for i in reversed(range(k)):
                right = float(i == column) - np.einsum(
                    "jl,jl->l", L[i + 1 :, i], out[i + 1 :, column]
                )
                out[i, column] = right / L[i, i]
    return out


def _positions(sums: _Sums, n: int) -> np.ndarray:
    """Which row of its level each row is."""
    counts = np.diff(sums.starts, append=n)
    return np.arange(n) - np.repeat(sums.starts, counts)
