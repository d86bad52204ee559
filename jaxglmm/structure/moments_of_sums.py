"""From sums over rows to one Gaussian problem in internal coordinates.

The sums are those of columns moved to about zero and unit size, X = X' R0, Z = Z' T0,
y = s0 y' + X' b0. What ``structure.fixed`` and ``structure.factors`` find by QR from
rows is found here by Cholesky from their cross-products, which squares the condition
number: ``loss`` says by how much, and where it is large the rows are read once more, in
the coordinates found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.structure.crossproducts import AbstractCounts, Pairs
from jaxglmm.structure.factors import COLLINEAR, ColumnMaps, Factor
from jaxglmm.structure.fixed import EXACT, Basis, FixedBasis
from jaxglmm.structure.moments_of_design import Moments, of_counts
from jaxglmm.structure.padding import pad
from jaxglmm.structure.row_sums import RowSums

SURE = 1e-6  # share of a square that is left: cross-products know it to ten digits
DEPENDENT = 1e-7  # share of a length that is left: the column depends on others
LOSSY = 1e5  # loss of digits from which the rows are read again in new coordinates


@dataclass(frozen=True)
class TermFrame:
    """One random term: its columns' coordinates and what may be done to them.

    start, stop: its columns among those of its factor; T: (q, q), Z = Z' T.
    """

    factor: str
    start: int
    stop: int
    T: np.ndarray
    covariance: Any

    @property
    def q(self) -> int:
        """Number of columns."""
        return self.stop - self.start


@dataclass(frozen=True)
class SumFrame:
    """Coordinates of the columns that were summed.

    R: (p, p), X = X' R; b: (p,) and s of y = s y' + X' b; terms: in the order of the
    formula.
    """

    R: np.ndarray
    b: np.ndarray
    s: float
    terms: tuple[TermFrame, ...]


@dataclass(frozen=True)
class Reduced:
    """What the cross-products of X and y say.

    C: (p, p) upper triangular, X' = X~ C; c: (p,) least squares of y' on X~; s: its
    residual's root mean square; loss: of digits, as a condition number squared.
    """

    C: np.ndarray
    c: np.ndarray
    s: float
    loss: float


def sure_columns(gram: np.ndarray) -> tuple[int, ...]:
    """Positions of columns that those before do not determine beyond doubt.

    Of the others cross-products cannot tell: see ``apart`` and ``settled``.
    """
    size = np.sqrt(np.diagonal(gram))
    kept: list[int] = []
    for j in range(len(gram)):
        if size[j] > 0 and _left(gram, kept, j) > SURE:
            kept.append(j)
    return tuple(kept)


def _left(gram: np.ndarray, kept: Sequence[int], j: int) -> float:
    """Share of a column's square that is left after projection on others."""
    if not kept:
        return 1.0
    size = np.sqrt(np.diagonal(gram))
    G = gram[np.ix_(kept, kept)] / np.outer(size[kept], size[kept])
    g = gram[kept, j] / (size[kept] * size[j])
    return 1.0 - float(g @ np.linalg.solve(G, g))


def apart(gram: np.ndarray, sure: Sequence[int]) -> np.ndarray:
    """C (p, p) upper triangular, X' = X~ C: columns after the sure ones before them.

    In X~ the doubtful ones are what is left of them, as rows and not as differences of
    sums, so that one more pass tells how much that is.
    """
    p = len(gram)
    C = np.eye(p)
    size = np.sqrt(np.diagonal(gram))
    for j in range(p):
        before = [k for k in sure if k < j]
        left = 1.0
        if before and size[j] > 0:
            G = gram[np.ix_(before, before)] / np.outer(size[before], size[before])
            g = gram[before, j] / size[before]
            coefficients = np.linalg.solve(G, g) / size[before]
            C[:, j] = C[:, before] @ coefficients
            left = _left(gram, before, j)
        C[j, j] = size[j] * np.sqrt(max(left, DEPENDENT**2)) if size[j] > 0 else 1.0
    return C


def settled(
    gram: np.ndarray, sure: Sequence[int], C: np.ndarray, square: np.ndarray
) -> tuple[int, ...]:
    """Positions of the columns to be kept, from the pass after ``apart``.

    gram: X~'WX~; square: (p,) of the columns, about their means beside a constant.
    """
    kept: list[int] = []
    for j in range(len(gram)):
        if j in set(sure):
            kept.append(j)
        elif gram[j, j] > 0:
            left = gram[j, j] * C[j, j] ** 2 * _left(gram, kept, j)
            if left > DEPENDENT**2 * square[j]:
                kept.append(j)
    return tuple(kept)


def squares(gram: np.ndarray, constant: bool) -> np.ndarray:
    """(p,) squares of the columns, about their means where the first is constant."""
    own = np.diagonal(gram).copy()
    if constant and len(gram):
        own[1:] -= gram[0, 1:] ** 2 / gram[0, 0]
        own = np.maximum(own, 64 * np.finfo(float).eps * np.diagonal(gram))
    return own


def reduced(sums: RowSums, n: int) -> Reduced:
    """An orthonormal basis of X and the residual of y, from cross-products."""
    G = sums.gram
    p = len(G) - 1
    scale = np.sqrt(np.diagonal(G)[:p])
    C = np.zeros((p, p))
    c = np.zeros(p)
    loss = 1.0
    if p:
        C = np.linalg.cholesky(G[:p, :p] / np.outer(scale, scale)).T * scale
        c = np.linalg.solve(C.T, G[:p, p])
        loss = float(np.max(np.diagonal(G)[:p] / np.diagonal(C) ** 2))
    rest = float(G[p, p] - c @ c)
    least = EXACT**2 * float(G[p, p])
    if rest > least:
        loss = max(loss, float(G[p, p]) / rest)
    else:
        loss, rest = np.inf, max(rest, least)
    return Reduced(C, c, float(np.sqrt(rest / n)), loss)


def refuse_exact(found: Reduced, size: float) -> None:
    """Raise ``ModelError`` where the fixed effects reproduce the response.

    size: root mean square of the response, in the units of ``found.s``.
    """
    if not found.s > EXACT * size:
        raise ModelError(
            "the fixed effects reproduce the response exactly: nothing is left for "
            "random effects and residuals. Is the response also a predictor?",
            status=_status.EXACT,
        )


def turned(sums: RowSums, frame: SumFrame, n: int) -> tuple[np.ndarray, ...]:
    """T (q, q) of each term: the moved columns = internal ones times T."""
    out = []
    names = [f.name for f in sums.factors]
    for term in frame.terms:
        k = names.index(term.factor)
        at = sums.factors[k].at[term.start : term.stop]
        G = sums.between(k, at, at).sum(axis=-1) / n
        out.append(_turn(G, term.covariance.maps))
    return tuple(out)


def _turn(G: np.ndarray, maps: ColumnMaps) -> np.ndarray:
    """(q, q) upper triangular T, Z'WZ / n = T'T as far as the covariance allows."""
    q = len(G)
    scale = np.sqrt(np.diagonal(G))
    scale = np.where(scale > 0, scale, 1.0)
    if maps is ColumnMaps.NONE:
        return np.eye(q)
    if maps is ColumnMaps.COMMON:
        return np.eye(q) * np.sqrt(np.mean(scale**2))
    if q == 1 or maps is not ColumnMaps.ANY:
        return np.diag(scale)
    try:
        L = np.linalg.cholesky(G / np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return np.diag(scale)
    if np.diagonal(L).min() ** 2 < COLLINEAR:
        return np.diag(scale)
    return L.T * scale


class SummedCounts(AbstractCounts):
    """Blocks of Z'WZ from sums; turns: factor -> (q, q), internal Z = moved Z turn."""

    def __init__(self, sums: RowSums, turns: Mapping[str, np.ndarray]):
        self.sums, self.turns = sums, dict(turns)
        self.place = {f.name: k for k, f in enumerate(sums.factors)}
        for cells in sums.cells.values():
            cells.join()

    def turned(
        self, factors: Sequence[Factor], more: Sequence[np.ndarray]
    ) -> SummedCounts:
        """The blocks of columns that are turned further."""
        own = {
            f.name: self.turns[f.name] @ U for f, U in zip(factors, more, strict=True)
        }
        return SummedCounts(self.sums, own)

    def gram(self, factor: Factor, size: int) -> np.ndarray:
        at = self.sums.factors[self.place[factor.name]].at
        back = self.turns[factor.name]
        block = self.sums.between(self.place[factor.name], at, at)
        return _padded(_rotated(block, left=back, right=back), size)

    def _blocks(
        self, one: Factor, two: Factor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Levels of both and blocks (q_one, q_two, E), in the order of the sums."""
        a, b = self.place[one.name], self.place[two.name]
        if a > b:
            level, row, block = self._blocks(two, one)
            return row, level, np.swapaxes(block, 0, 1)
        cells = self.sums.cells[a, b]
        row, level = np.divmod(cells.keys, cells.J2)
        block = cells.values.reshape(one.q, two.q, -1)
        back = self.turns[one.name], self.turns[two.name]
        return row, level, _rotated(block, left=back[0], right=back[1])

    def pairs(self, one: Factor, two: Factor) -> Pairs:
        row, level, block = self._blocks(one, two)
        order = np.lexsort((level, row))
        row, level = row[order].astype(np.int32), level[order].astype(np.int32)
        for j in range(two.q):
            yield row, level, j, block[:, j, order]

    def parents(self, fine: Factor, coarse: Factor) -> np.ndarray | None:
        row, level, _ = self._blocks(fine, coarse)
        if len(np.unique(row)) < len(row):
            return None
        out = np.zeros(fine.n_levels, np.int32)
        out[row] = level
        return out

    def coupling(self, fine: Factor, coarse: Factor, size: int) -> np.ndarray:
        row, _, block = self._blocks(fine, coarse)
        out = np.zeros((fine.q, coarse.q, size))
        out[..., row] = block
        return out


def moments(
    sums: RowSums, frame: SumFrame, n: int, log_weights: float, rows: Any
) -> Moments:
    """Cross-products in internal coordinates.

    Args:
        sums: over rows of the moved columns, X of full rank.
        frame: their coordinates.
        n: rows that count.
        log_weights: sum of the logs of the weights.
        rows: what stands for the arrays by rows, which are not there.
    """
    found = reduced(sums, n)
    p = len(found.c)
    inverse = np.linalg.solve(found.C, np.eye(p))
    XX = inverse.T @ sums.gram[:p, :p] @ inverse
    Xy = (inverse.T @ sums.gram[:p, p] - XX @ found.c) / found.s
    yy = float(sums.gram[p, p] - found.c @ found.c) / found.s**2
    T = turned(sums, frame, n)
    order = sorted(range(len(sums.factors)), key=lambda k: -sums.factors[k].n_levels)
    factors, ZX, Zy = [], [], []
    turns: dict[str, np.ndarray] = {}
    for k in order:
        factor, own = factor_of_sums(sums, frame, T, k, rows)
        back = turns[factor.name] = np.linalg.solve(own, np.eye(len(own)))
        at = sums.factors[k].at
        B = sums.between(k, at, (*sums.x_at, sums.y_at))
        B = _rotated(B, left=back)
        Bx = _rotated(B[:, :p], right=inverse)
        By = (B[:, p] - found.c @ Bx) / found.s
        factors.append(factor)
        ZX.append(Bx)
        Zy.append(By)
    R = found.C @ frame.R
    fixed = FixedBasis(R, frame.s * found.c + found.C @ frame.b, frame.s * found.s)
    counts = SummedCounts(sums, turns)
    system, factors, sizes = of_counts(factors, counts)
    ZX = [_padded(x, size) for x, size in zip(ZX, sizes, strict=True)]
    Zy = [_padded(x, size) for x, size in zip(Zy, sizes, strict=True)]
    return Moments(
        system,
        tuple(ZX),
        XX,
        tuple(Zy),
        Xy,
        yy,
        n,
        log_weights,
        tuple(factors),
        tuple(sizes),
        fixed,
        Basis(rows, R),
        None,
        counts=counts,
    )


def factor_of_sums(
    sums: RowSums, frame: SumFrame, T: Sequence[np.ndarray], k: int, rows: Any
) -> tuple[Factor, np.ndarray]:
    """A factor without its rows, and the map (q, q) of its moved columns."""
    shape = sums.factors[k]
    q = len(shape.at)
    own, whole = np.zeros((q, q)), np.zeros((q, q))
    spans, kinds = [], []
    for index, term in enumerate(frame.terms):
        if term.factor != shape.name:
            continue
        here = slice(term.start, term.stop)
        own[here, here] = T[index]
        whole[here, here] = T[index] @ term.T
        spans.append((index, term.start, term.stop))
        kinds.append(term.covariance)
    covariance = kinds[0].beside(kinds[1:])
    factor = Factor(
        shape.name,
        rows,
        rows,
        shape.n_levels,
        whole,
        covariance,
        tuple(spans),
        (0,) * q,
    )
    return factor, own


def _rotated(
    B: np.ndarray, left: np.ndarray | None = None, right: np.ndarray | None = None
) -> np.ndarray:
    """left' B right of blocks (a, b, J), by products of whole matrices."""
    if left is not None:
        B = np.tensordot(left, B, axes=(0, 0))
    return B if right is None else np.matmul(right.T, B)


def _padded(blocks: np.ndarray, size: int) -> np.ndarray:
    """(..., size) with empty levels behind."""
    return np.ascontiguousarray(pad(blocks, size))
