"""Grouping factors in the order the linear algebra wants, in coordinates it likes.

Terms on one factor are joined: their columns side by side, their covariance in diagonal
blocks. Columns are rescaled, and rotated where their covariance lets them be, so that
over all rows, under the prior weights, they have mean square one and are uncorrelated:
Z = Z~ T with T upper triangular, hence b = T^-1 b~ and Sigma = T^-1 Sigma~ T^-T. Then
theta is of order one whatever the units and the origin of a covariate and of the
weights, and the factors of well-posed problems are well conditioned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm._brief import brief
from jaxglmm.structure.fixed import slices, triangle

CACHED = 8_192  # rows of which all columns stay in the cache
COLLINEAR = 1e-13  # of a column's length that is left after those before it
FAR = 1e-4  # the same, where one pass loses digits
ZERO = 1e-12  # of a row of Lambda: rounding of a diagonal that is exactly zero


class ColumnMaps(Enum):
    """Maps of a term's columns under which its covariance stays of its kind.

    Columns are taken to coordinates in which numbers are of order one; what such a map
    does to Sigma has to be something that theta can follow.
    """

    ANY = "any linear map"
    SCALES = "a scale for each column"
    COMMON = "one scale for all"
    NONE = "none"


@dataclass(frozen=True)
class TermColumns:
    """One term's columns for one factor: codes (n,), values (n, q), J levels.

    covariance: a ``model.covariances.AbstractCovariance``, which stands above this
    room; maps: fewer than the covariance allows, where the columns must not be mixed.
    predictor: number of the linear predictor that the term belongs to, or of each of
    its columns: then their effects are correlated across predictors.
    """

    factor: str
    codes: np.ndarray
    values: np.ndarray
    n_levels: int
    covariance: Any
    maps: ColumnMaps | None = None
    predictor: int | tuple[int, ...] = 0


@brief
@dataclass(frozen=True)
class Factor:
    """A grouping factor with all its columns.

    codes: (n,) int32; values: (n, q) in internal coordinates, None for all ones;
    T: (q, q), values in the user's coordinates = values @ T; covariance: of all its
    columns, a ``model.covariances.AbstractCovariance``; spans: for each of its terms
    (index of the term, first column, last + 1); predictors: of each column, the linear
    predictor that it belongs to.
    """

    name: str
    codes: np.ndarray
    values: np.ndarray | None
    n_levels: int
    T: np.ndarray
    covariance: Any
    spans: tuple[tuple[int, int, int], ...]
    predictors: tuple[int, ...] = ()

    @property
    def q(self) -> int:
        return len(self.T)

    @cached_property
    def T_inverse(self) -> np.ndarray:
        """(q, q) T^-1: takes internal effects to the user's coordinates."""
        return np.linalg.solve(self.T, np.eye(len(self.T)))

    @cached_property
    def runs(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Rows in order of their levels, None where they are, and where each begins."""
        starts = np.zeros(self.n_levels + 1, np.int64)
        np.cumsum(np.bincount(self.codes, minlength=self.n_levels), out=starts[1:])
        if (self.codes[1:] >= self.codes[:-1]).all():
            return None, starts
        return by_level(self.codes), starts

    @property
    def whole(self) -> np.ndarray:
        """(n, q) values, ones too."""
        return np.ones((len(self.codes), 1)) if self.values is None else self.values

    def column(self, i: int) -> np.ndarray | None:
        """Values of one column; None for all ones."""
        return None if self.values is None else self.values[:, i]


def by_level(codes: np.ndarray) -> np.ndarray:
    """(n,) rows in the order of their codes, rows of one code as they were.

    By halves of 16 bits, which NumPy sorts by counting: a tenth of the time.
    """
    high = codes >> 16
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    if high.any():
        order = order[np.argsort(high.astype(np.uint16)[order], kind="stable")]
    return order


def join(terms: list[TermColumns], weights: np.ndarray | None = None) -> list[Factor]:
    """Terms to factors, the one with most levels first (ties: as written).

    weights: (n,) prior weights of a Gaussian response, all positive.
    """
    names = list(dict.fromkeys(t.factor for t in terms))
    factors = [_join_one(name, terms, weights) for name in names]
    return sorted(factors, key=lambda f: -f.n_levels)


def _join_one(name: str, terms: list[TermColumns], w: np.ndarray | None) -> Factor:
    spans, own, values, blocks, predictors = [], [], [], [], []
    start = 0
    for index, term in enumerate(terms):
        if term.factor != name:
            continue
        q = term.values.shape[1]
        stop = start + q
        T, new = standardise(term.values, term.maps or term.covariance.maps, w)
        values.append(new)
        blocks.append(T)
        spans.append((index, start, stop))
        own.append(term.covariance)
        own_predictor = term.predictor
        one = isinstance(own_predictor, int)
        predictors += [own_predictor] * q if one else list(own_predictor)
        start = stop
    first = next(t for t in terms if t.factor == name)
    T = np.zeros((start, start))
    for (_, a, b), block in zip(spans, blocks, strict=True):
        T[a:b, a:b] = block
    joined = None
    if start > 1 or values[0] is not None:
        n = len(first.codes)
        joined = np.concatenate(
            [np.ones((n, 1)) if v is None else v for v in values], axis=1
        )
    covariance = own[0].beside(own[1:])
    return Factor(
        name,
        first.codes,
        joined,
        first.n_levels,
        T,
        covariance,
        tuple(spans),
        tuple(predictors),
    )


def standardise(
    Z: np.ndarray, maps: ColumnMaps, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """T and Z T^-1 (None where the only column is constant one, without weights)."""
    n, q = Z.shape
    if maps is ColumnMaps.NONE:
        return np.eye(q), Z
    if q == 1 and weights is None and (Z[:, 0] == 1.0).all():
        return np.eye(1), None
    size, root = 1.0, None
    if weights is not None:
        root = np.sqrt(weights)
        size = float(root.max())
        root = root / size  # sums of weights near the largest double would overflow
    scale = _lengths(Z, root) / np.sqrt(n)
    scale[(scale == 0) | ~np.isfinite(scale)] = 1.0
    if maps is ColumnMaps.COMMON:
        scale = np.full(q, np.sqrt(np.mean(scale**2)))
    if q == 1 or maps is not ColumnMaps.ANY:
        T = np.diag(scale * size)
        return T, Z / (scale * size)
    R = _triangle(Z / scale, root)
    diagonal = np.abs(np.diag(R))
    if len(R) < q or diagonal.min() < COLLINEAR:  # scale them only
        return np.diag(scale * size), Z / (scale * size)
    T = R * scale
    if R[0, 0] > 0 and root is None and (Z[:, 0] == 1.0).all():
        T[0, 0] = 1.0
    new = _divided(Z, T)
    if diagonal.min() < FAR:  # T is good to eps / diagonal, what is made anew to eps
        again = _triangle(new, root)
        new, T = _divided(new, again), again @ T
    return (T * size, new / size) if size != 1.0 else (T, new)


def _lengths(Z: np.ndarray, root: np.ndarray | None) -> np.ndarray:
    W = Z if root is None else Z * root[:, None]
    return np.sqrt(np.einsum("ij,ij->j", W, W))


def _triangle(Z: np.ndarray, root: np.ndarray | None) -> np.ndarray:
    """R of Z = QR, Q of mean square one."""
    pieces = (Z[a] if root is None else Z[a] * root[a, None] for a in slices(len(Z)))
    return triangle(pieces) / np.sqrt(len(Z))


def _divided(Z: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Z T^-1 column by column: Z~_j = (Z_j - sum_{i<j} Z~_i T_ij) / T_jj.

    No n x q temporary, and a column far from zero loses its mean exactly. Some rows
    at a time, whose columns stay in the cache.
    """
    new = np.empty(Z.shape)
    for start in range(0, len(Z), CACHED):
        old, out = Z[start : start + CACHED], new[start : start + CACHED]
        for j in range(Z.shape[1]):
            column = old[:, j]
            for i in range(j):
                if T[i, j] != 0.0:
                    column = column - out[:, i] * T[i, j]
            np.divide(column, T[j, j], out=out[:, j])
    return new


def to_user(lam: np.ndarray, factor: Factor) -> np.ndarray:
    """Lambda in the user's coordinates: lower triangular, diagonal >= 0, same Sigma.

    T^-1 Lambda~ is not triangular; its LQ decomposition is, for singular Lambda~ too.
    """
    L = factor.T_inverse @ lam
    if len(L) > 1 and np.triu(L, 1).any():
        L = np.linalg.qr(L.T, mode="r").T
    return with_zeros(L, bool((np.diagonal(lam) == 0).any()))


def triangular(lam: np.ndarray) -> np.ndarray:
    """Lower triangles of lam lam', (D, q, q) each, diagonals not negative.

    An exact zero of the diagonal is one again; what is not finite is NaN.
    """
    q = lam.shape[-1]
    if q == 2:
        lam = _triangular_pairs(lam)
    elif q > 2:
        finite = np.all(np.isfinite(lam), axis=(1, 2), keepdims=True)
        safe = np.swapaxes(np.where(finite, lam, 0.0), 1, 2)
        lower = np.swapaxes(np.linalg.qr(safe, mode="r"), 1, 2)
        lam = np.where(finite, lower, np.nan)
    lam = lam * np.where(np.diagonal(lam, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None, :]
    size = np.sqrt(np.sum(lam**2, axis=-1))
    at = np.arange(q)
    diagonal = lam[:, at, at]
    lam[:, at, at] = np.where(diagonal < ZERO * size, 0.0, diagonal)
    return lam


def _triangular_pairs(x: np.ndarray) -> np.ndarray:
    """L of x = L Q for (D, 2, 2), without a call of LAPACK for each."""
    (a, b), (c, d) = np.moveaxis(x, 0, -1)
    r = np.hypot(a, b)
    zero = r == 0.0
    safe = np.where(zero, 1.0, r)
    out = np.zeros_like(x)
    out[:, 0, 0] = r
    out[:, 1, 0] = np.where(zero, c, (a / safe) * c + (b / safe) * d)
    out[:, 1, 1] = np.where(zero, d, (a / safe) * d - (b / safe) * c)
    return out


def with_zeros(L: np.ndarray, singular: bool) -> np.ndarray:
    """A triangle with its diagonal not negative; exact zeros where it is ``singular``.

    Covariates far from zero have diagonals that are small beside their row and not
    zero: they hold what the data say of the slopes.
    """
    L = np.tril(L * np.where(np.diagonal(L) < 0, -1.0, 1.0))
    if singular:
        size = np.sqrt(np.einsum("ij,ij->i", L, L))
        for i in range(len(L)):
            if L[i, i] < ZERO * size[i]:
                L[i, i] = 0.0
    return L
