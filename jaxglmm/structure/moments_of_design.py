"""From a design's arrays to one Gaussian problem: order, cross-products, padding.

The pattern of the factors decides the structure, on the host:

    one factor, few columns        Blocks     unrolled along the levels
    one factor, many columns       Wide       batched LAPACK
    each factor inside the next    Nested     eliminated fine to coarse, no fill
    anything else                  Arrow      largest factor eliminated, the rest dense
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm._brief import brief
from jaxglmm._errors import ModelError
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.arrow import (
    AbstractCoupling,
    Arrow,
    DenseCoupling,
    PairedCoupling,
    SparseCoupling,
)
from jaxglmm.numerics.blocks import Blocks
from jaxglmm.numerics.chains import ChainSystem
from jaxglmm.numerics.dense import DenseSystem
from jaxglmm.numerics.nested import Nested
from jaxglmm.numerics.system import AbstractSystem
from jaxglmm.numerics.wide import Wide
from jaxglmm.runtime.shares import Share
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure.alike import (
    chain_of,
    is_of_all_rows,
    is_of_one_level,
    padded_levels,
)
from jaxglmm.structure.factors import Factor, join
from jaxglmm.structure.factors import TermColumns as TermColumns
from jaxglmm.structure.fixed import Basis, FixedBasis, orthonormal, residual
from jaxglmm.structure.padding import bucket, pad
from jaxglmm.structure.sparse_cross import sparse_arrow

UNROLLED = 4  # columns up to which one factor is unrolled
FILLED = 0.07  # share of occupied cells above which a product beats the pair list
MOST_PAIRS = 100_000_000
MOST_DENSE = 20_000  # columns of the dense Schur complement: 3.2 GB


@brief
@dataclass(frozen=True)
class Moments:
    """Cross-products of a design in internal coordinates, and the way back.

    system; ZX: Z'WX, (q, p, J) a factor; XX: X'WX; Zy: Z'Wy, (q, J) a factor; Xy; yy:
    of the residual response; sizes: padded levels a factor;
    n: rows of positive weight; log_weights: sum of the logs of the weights; keep: which
    rows these are where there are others; counts: where there are no rows, their sums
    by level, ``moments_of_sums.SummedCounts``.
    """

    system: AbstractSystem
    ZX: tuple[np.ndarray, ...]
    XX: np.ndarray
    Zy: tuple[np.ndarray, ...]
    Xy: np.ndarray
    yy: float
    n: int
    log_weights: float
    factors: tuple[Factor, ...]
    sizes: tuple[int, ...]
    fixed: FixedBasis
    basis: Basis
    weights: np.ndarray | None
    keep: np.ndarray | None = None
    counts: Any = None

    def respond(self, y: np.ndarray) -> Moments:
        """The same design with another response (n,), offset taken off."""
        y_new, coefficients, scale = residual(y, self.basis, self.weights)
        column = y_new if self.weights is None else y_new * self.weights
        Zy = tuple(
            cross.times(f, column[:, None], size)[:, 0]
            for f, size in zip(self.factors, self.sizes, strict=True)
        )
        out = copy.copy(self)
        change = {
            "Zy": Zy,
            "Xy": self.basis.dot(column),
            "yy": float(y_new @ column),
            "fixed": self.fixed.with_response(coefficients, scale),
        }
        for name, value in change.items():  # a frozen record, copied
            object.__setattr__(out, name, value)
        return out


def coarse_system(m: Moments) -> Moments:
    """The same moments of crossed factors with a dense Schur complement, for a device.

    m: of sparse form, unpadded.
    """
    system, factors, sizes = _arrow(list(m.factors), cross.RowCounts(m.weights), None)
    out = replace(m, system=system, factors=tuple(factors), sizes=tuple(sizes))
    padded = [
        tuple(pad(x, s) for x, s in zip(side, sizes, strict=True))
        for side in (m.ZX, m.Zy)
    ]
    return replace(out, ZX=padded[0], Zy=padded[1])


def rotated(m: Moments, turns: Sequence[np.ndarray]) -> AbstractSystem:
    """The system of the columns Z U, U (q, q) orthogonal a factor, in internal order.

    One factor is turned block by block; others are put together from the rows again.
    """
    system = m.system
    if isinstance(system, Blocks | Wide):
        (U,) = turns
        return type(system)(np.einsum("ia,ijg,jb->abg", U, np.asarray(system.A), U))
    if m.counts is not None:
        return of_counts(list(m.factors), m.counts.turned(m.factors, turns))[0]
    factors = [
        f if f.values is None else replace(f, values=f.values @ U, T=U.T @ f.T)
        for f, U in zip(m.factors, turns, strict=True)
    ]
    dense = "dense" if isinstance(system, DenseSystem) else None
    return _system(factors, m.weights, dense)[0]


def build(
    y: np.ndarray,
    X: np.ndarray,
    terms: list[TermColumns],
    weights: np.ndarray | None,
    structure: str | None = None,
    share: Share | None = None,
) -> Moments:
    """Cross-products of a linear mixed model, by structure.

    y: (n,) with the offset taken off; X: (n, p) of full rank; weights: (n,) or None.
    structure: force "nested", "arrow", "arrow-sparse", "wide" or "dense" (for tests);
        "sparse": crossed factors that are too large for a device.
    share: the rows that are read here, where several processes add their sums.
    """
    keep = None
    if weights is not None and not (weights > 0).all():
        keep = weights > 0
        y, X, weights = y[keep], X[keep], weights[keep]
        terms = [replace(t, codes=t.codes[keep], values=t.values[keep]) for t in terms]
        share = None  # of all rows, whose number is another
    factors = join(terms, weights)
    R, basis = orthonormal(X, weights, share)
    y_new, coefficients, scale = residual(y, basis, weights)
    system, factors, sizes = _system(factors, weights, structure, share)
    ZX, XX, Zy, Xy, yy = _right_sides(factors, basis, weights, sizes, y_new, share)
    log_weights = 0.0 if weights is None else float(np.sum(np.log(weights)))
    return Moments(
        system,
        ZX,
        XX,
        Zy,
        Xy,
        yy,
        len(y),
        log_weights,
        tuple(factors),
        tuple(sizes),
        FixedBasis(R, coefficients, scale),
        basis,
        weights,
        keep,
    )


def _right_sides(
    factors: list[Factor],
    basis: Basis,
    w: np.ndarray | None,
    sizes: list[int],
    y: np.ndarray,
    share: Share | None,
) -> tuple[Any, np.ndarray, Any, np.ndarray, float]:
    """Z'WX and Z'Wy a factor, X'WX, X'Wy and y'Wy."""
    if share is not None:
        factors = [cross.of_rows(f, share.rows) for f in factors]
        basis, y = basis.of_rows(share.rows), y[share.rows]
        w = None if w is None else w[share.rows]
    column = y if w is None else y * w
    Zy = [
        cross.times(f, column[:, None], size)[:, 0]
        for f, size in zip(factors, sizes, strict=True)
    ]
    ZX = cross.times_basis(factors, basis, w, sizes)
    XX, Xy, yy = basis.gram(w), basis.dot(column), float(y @ column)
    if share is not None:
        k, parts = len(ZX), [*ZX, *Zy, XX, np.asarray(Xy), np.array(yy)]
        own = share.added(parts)
        ZX, Zy, XX, Xy, yy = own[:k], own[k : 2 * k], *own[2 * k :]
    return tuple(ZX), XX, tuple(Zy), Xy, float(yy)


def _system(
    factors: list[Factor],
    w: np.ndarray | None,
    structure: str | None,
    share: Share | None = None,
) -> tuple[AbstractSystem, list[Factor], list[int]]:
    """The structured system, its factors in its order, and their padded levels."""
    if structure == "dense":
        return _dense(factors, w)
    if len(factors) == 1 and structure != "nested":
        size = padded_levels(factors[0])
        chain = None if structure else chain_of(factors[0])
        if chain is not None:
            return _chains(factors[0], *chain, w, size), factors, [size]
        if structure is None and is_of_one_level(factors[0]):
            return _orthogonal(factors[0], w, size)
        counts = cross.RowCounts(w, share)
        return _single(factors, counts, size, structure == "wide")
    if structure in (None, "nested", "sparse"):
        found = _nested(factors, cross.RowCounts(w, share))
        if found is not None:
            return found
    others = factors[1:]
    if structure == "sparse":
        return sparse_arrow(factors, cross.RowCounts(w))
    if structure is None and any(map(is_of_all_rows, others)):
        return _beside_one_level(factors, w)
    return _arrow(factors, cross.RowCounts(w, share), structure)


def of_counts(
    factors: list[Factor], counts: cross.AbstractCounts
) -> tuple[AbstractSystem, list[Factor], list[int]]:
    """The structured system of factors without rows, and their padded levels."""
    if len(factors) == 1:
        return _single(factors, counts, bucket(factors[0].n_levels))
    found = _nested(factors, counts)
    if found is None and sum(f.n_levels * f.q for f in factors[1:]) > MOST_DENSE:
        return sparse_arrow(factors, counts)
    return found or _arrow(factors, counts, None)


def _single(
    factors: list[Factor], counts: cross.AbstractCounts, size: int, wide: bool = False
) -> tuple[AbstractSystem, list[Factor], list[int]]:
    """One factor, of few columns or of many."""
    A = counts.gram(factors[0], size)
    wide = wide or factors[0].q > UNROLLED
    return (Wide(A) if wide else Blocks(A)), factors, [size]


def _chains(
    factor: Factor, column: np.ndarray, value: np.ndarray, w: Any, size: int
) -> ChainSystem:
    """Sums of squares by cell."""
    cell = column * size + factor.codes
    square = value**2 if w is None else w * value**2
    A = np.bincount(cell, square, factor.q * size).reshape(factor.q, size)
    return ChainSystem(A)


def _orthogonal(
    factor: Factor, w: np.ndarray | None, size: int
) -> tuple[AbstractSystem, list[Factor], list[int]]:
    """Many effects whose Lambda is a number, turned until Z'WZ is diagonal.

    Nothing else changes with it: their covariance is a multiple of the identity.
    """
    Z = factor.whole
    G = Z.T @ (Z if w is None else Z * w[:, None])
    own = np.diagonal(G).copy()
    if np.abs(G - np.diag(own)).max() > 1e-12 * np.abs(own).max():
        own, V = np.linalg.eigh(G)
        factor = replace(factor, values=Z @ V, T=V.T @ factor.T)
    A = np.zeros((factor.q, size))
    A[:, 0] = np.maximum(own, 0.0)
    return ChainSystem(A), [factor], [size]


def _beside_one_level(
    factors: list[Factor], w: np.ndarray | None
) -> tuple[AbstractSystem, list[Factor], list[int]]:
    """An arrow whose later factors have many columns: by products of whole columns."""
    first, others = factors[0], factors[1:]
    sizes = [padded_levels(f) for f in factors]
    sides = tuple((s, f.q) for s, f in zip(sizes[1:], others, strict=True))
    n, at = len(first.codes), np.arange(len(first.codes))
    columns = []
    for f, (J, q) in zip(others, sides, strict=True):
        Z = np.zeros((n, J, q))
        Z[at, f.codes] = f.whole
        columns.append(Z.reshape(n, J * q))
    Z = np.concatenate(columns, axis=1)
    check_size(factors, Z.shape[1])
    WZ = Z if w is None else Z * w[:, None]
    A = cross.gram(first, w, sizes[0])
    head = Wide(A) if first.q > UNROLLED else Blocks(A)
    if first.n_levels == 1:
        N = (first.whole.T @ WZ)[:, None]
        N = np.pad(N, ((0, 0), (0, sizes[0] - 1), (0, 0)))
    else:
        each = (cross.indicator(first, i, sizes[0]) @ WZ for i in range(first.q))
        N = np.stack(list(each))
    return Arrow(head, DenseCoupling(N), Z.T @ WZ, sides), factors, sizes


def _nested(
    factors: list[Factor], counts: cross.AbstractCounts
) -> tuple[AbstractSystem, list[Factor], list[int]] | None:
    """A nested system where every factor lies inside the next, else None."""
    if max(f.q for f in factors) > small.UNROLL or any(map(is_of_all_rows, factors)):
        return None
    chain = []
    for fine, coarse in itertools.pairwise(factors):
        parent = counts.parents(fine, coarse)
        if parent is None:
            return None
        chain.append(parent)
    sizes = [bucket(f.n_levels) for f in factors]
    ancestors, C = [], []
    for k, fine in enumerate(factors):
        up: list[np.ndarray] = []
        for m in range(k + 1, len(factors)):
            up.append(chain[m - 1] if m == k + 1 else chain[m - 1][up[-1]])
        ancestors.append(tuple(pad(a, sizes[k]) for a in up))
        C.append(tuple(counts.coupling(fine, f, sizes[k]) for f in factors[k + 1 :]))
    A = tuple(counts.gram(f, s) for f, s in zip(factors, sizes, strict=True))
    return Nested(A, tuple(C), tuple(ancestors), tuple(sizes)), factors, sizes


def _arrow(
    factors: list[Factor], counts: cross.AbstractCounts, structure: str | None
) -> tuple[AbstractSystem, list[Factor], list[int]]:
    first, others = factors[0], factors[1:]
    sizes = [bucket(first.n_levels)] + [bucket(f.n_levels, 16) for f in others]
    m = sum(s * f.q for s, f in zip(sizes[1:], others, strict=True))
    check_size(factors, m)
    entries = cross.Entries(first, others, sizes[1:], counts)
    A = counts.gram(first, sizes[0])
    head = Wide(A) if first.q > UNROLLED else Blocks(A)
    sides = tuple((s, f.q) for s, f in zip(sizes[1:], others, strict=True))
    coupling = _coupling(entries, first, sizes[0], structure)
    return (
        Arrow(head, coupling, _second(others, sizes[1:], counts), sides),
        factors,
        sizes,
    )


def check_size(factors: list[Factor], m: int) -> None:
    """Refuse a dense Schur complement that would not fit."""
    if m > MOST_DENSE:
        names = " and ".join(f"{f.name} ({f.n_levels:,})" for f in factors)
        raise ModelError(
            f"the crossed factors {names} leave {m:,} random effects for a dense "
            f"matrix after the largest factor is eliminated; at most {MOST_DENSE:,} "
            "are supported here. jg.lmm goes on by fixed random vectors without "
            "known= and residual structures, jg.glmm where the model has one linear "
            "predictor, by method=jg.Laplace(); generalised models exactly where the "
            "rows come in files, table.to_parquet('rows.parquet') and jg.glmm(formula, "
            "'rows.parquet', ...), which hold that matrix once, "
            f"{8e-9 * m * m:.3g} GB"
        )


def _coupling(
    entries: cross.Entries, first: Factor, size: int, structure: str | None
) -> AbstractCoupling:
    degree = entries.degrees(size).astype(float)
    n_pairs = float(np.sum(degree * (degree + 1) / 2))
    filled = len(entries) / (first.n_levels * entries.m)
    dense = filled > FILLED or n_pairs > MOST_PAIRS
    if dense and structure != "arrow-sparse":
        N = np.zeros((first.q, size, entries.m))
        N[:, entries.row, entries.col] = entries.value
        return DenseCoupling(N)
    n_entries = bucket(len(entries) + 1)  # at least one is padding: padded pairs
    listed = (
        pad_index(entries.row, n_entries),
        pad(entries.col, n_entries),
        pad(entries.value, n_entries),
    )
    if first.q == 1:
        pairs = _products(entries, size)
        return SparseCoupling(*listed, *pairs, size, entries.m)
    pairs = _paired(entries, size, n_entries - 1)
    return PairedCoupling(*listed, *pairs, size, entries.m)


# The list of pairs is the one array that outgrows the data: it is filled piece by
# piece, in the smallest types that are exact.


def _products(
    entries: cross.Entries, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, target, product and multiplicity of every pair, padded; one component."""
    row, value, used = entries.row, entries.value[0], entries.n_pairs(size)
    if value.min() >= 0 and value.max() < 256 and (value == np.rint(value)).all():
        value = value.astype(np.uint16)  # counts of rows
    n_pairs = bucket(used)
    rows = np.empty(n_pairs, np.int32)
    rows[used:] = row[-1]  # keeps sorted indices sorted
    target = np.zeros(n_pairs, np.int32)
    products = np.zeros((1, 1, n_pairs), value.dtype)
    once = np.zeros(n_pairs, np.uint8)
    for here, e1, e2 in entries.pieces(size):
        rows[here] = row[e1]
        target[here] = entries.target(e1, e2)
        np.multiply(value[e1], value[e2], out=products[0, 0, here])
        once[here] = 2
        once[here] -= e1 == e2
    return rows, target, products, once


def _paired(
    entries: cross.Entries, size: int, empty: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of every pair and its target; padded pairs are of entry ``empty``."""
    n_pairs = bucket(entries.n_pairs(size))
    one, two = np.full((2, n_pairs), empty, np.int32)
    target = np.zeros(n_pairs, np.int32)
    for here, e1, e2 in entries.pieces(size):
        one[here], two[here] = e1, e2
        target[here] = entries.target(e1, e2)
    return one, two, target


def pad_index(index: np.ndarray, size: int) -> np.ndarray:
    """Padding repeats the last index: it keeps sorted indices sorted."""
    fill = np.full(size - len(index), index[-1] if len(index) else 0, index.dtype)
    return np.concatenate([index, fill])


def _second(
    factors: list[Factor], sizes: list[int], counts: cross.AbstractCounts
) -> np.ndarray:
    """Z_2'WZ_2 of all factors but the first, (m2, m2)."""
    starts = np.cumsum([0] + [s * f.q for s, f in zip(sizes, factors, strict=True)])
    out = np.zeros((starts[-1], starts[-1]))
    for a, f in enumerate(factors):
        for b, g in enumerate(factors[: a + 1]):
            block = out[starts[a] : starts[a + 1], starts[b] : starts[b + 1]]
            if a == b:
                blocks = counts.gram(f, sizes[a])
                level = np.arange(sizes[a]) * f.q
                for i in range(f.q):
                    for j in range(f.q):
                        block[level + i, level + j] = blocks[i, j]
            else:
                for row, level, j, value in counts.pairs(f, g):
                    for i in range(f.q):
                        block[row * f.q + i, level * g.q + j] = value[i]
                mirror = out[starts[b] : starts[b + 1], starts[a] : starts[a + 1]]
                mirror[...] = block.T
    return out


def _dense(
    factors: list[Factor], w: np.ndarray | None
) -> tuple[AbstractSystem, list[Factor], list[int]]:
    """The dense twin, unpadded."""
    n = len(factors[0].codes)
    columns = []
    for f in factors:
        Z = np.zeros((n, f.n_levels, f.q))
        Z[np.arange(n), f.codes] = 1.0 if f.values is None else f.values
        columns.append(Z.reshape(n, -1))
    Z = np.concatenate(columns, axis=1)
    ZZ = Z.T @ (Z if w is None else Z * w[:, None])
    sides = tuple((f.n_levels, f.q) for f in factors)
    return DenseSystem(ZZ, sides), factors, [f.n_levels for f in factors]
