"""Grouping factors in the order the linear algebra wants, in coordinates it likes.

Terms on one factor are joined: their columns side by side, their covariance in diagonal
blocks. Columns are rescaled, and those of an unstructured term rotated, so that over
all rows, under the prior weights, they have mean square one and are uncorrelated: Z =
Z~ T with T upper triangular, hence b = T^-1 b~ and Sigma = T^-1 Sigma~ T^-T. Then theta
is of order one whatever the units and the origin of a covariate and of the weights, and
the factors of well-posed problems are well conditioned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxglmm._brief import brief
from jaxglmm.structure.fixed import slices, triangle

Entry = tuple[int, int]

COLLINEAR = 1e-13  # of a column's length that is left after those before it
FAR = 1e-4  # the same, where one pass loses digits
ZERO = 1e-12  # of a row of Lambda: rounding of a diagonal that is exactly zero


@dataclass(frozen=True)
class Columns:
    """One term's columns for one factor: codes (n,), values (n, q), J levels."""

    factor: str
    codes: np.ndarray
    values: np.ndarray
    n_levels: int
    covariance: str


@brief
@dataclass(frozen=True)
class Factor:
    """A grouping factor with all its columns.

    codes: (n,) int32; values: (n, q) in internal coordinates, None for all ones;
    T: (q, q), values in the user's coordinates = values @ T; pattern: free entries of
    Lambda; spans: for each of its terms (index of the term, first column, last + 1).
    """

    name: str
    codes: np.ndarray
    values: np.ndarray | None
    n_levels: int
    T: np.ndarray
    pattern: tuple[Entry, ...]
    spans: tuple[tuple[int, int, int], ...]

    @property
    def q(self) -> int:
        return len(self.T)

    @cached_property
    def T_inverse(self) -> np.ndarray:
        """(q, q) T^-1: takes internal effects to the user's coordinates."""
        return np.linalg.solve(self.T, np.eye(len(self.T)))

    def column(self, i: int) -> np.ndarray | None:
        """Values of one column; None for all ones."""
        return None if self.values is None else self.values[:, i]


def join(terms: list[Columns], weights: np.ndarray | None = None) -> list[Factor]:
    """Terms to factors, the one with most levels first (ties: as written).

    weights: (n,) prior weights of a Gaussian response, all positive.
    """
    names = list(dict.fromkeys(t.factor for t in terms))
    factors = [_join_one(name, terms, weights) for name in names]
    return sorted(factors, key=lambda f: -f.n_levels)


def _join_one(name: str, terms: list[Columns], w: np.ndarray | None) -> Factor:
    spans, pattern, values, blocks = [], [], [], []
    start = 0
    for index, term in enumerate(terms):
        if term.factor != name:
            continue
        q = term.values.shape[1]
        stop = start + q
        T, new = standardise(term.values, term.covariance, w)
        values.append(new)
        blocks.append(T)
        spans.append((index, start, stop))
        pattern += [
            (start + i, start + j)
            for j in range(q)
            for i in range(j, q if term.covariance == "us" else j + 1)
        ]
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
    return Factor(
        name, first.codes, joined, first.n_levels, T, tuple(pattern), tuple(spans)
    )


def standardise(
    Z: np.ndarray, covariance: str, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """T and Z T^-1 (None where the only column is constant one, without weights)."""
    n, q = Z.shape
    if q == 1 and weights is None and (Z[:, 0] == 1.0).all():
        return np.eye(1), None
    size, root = 1.0, None
    if weights is not None:
        root = np.sqrt(weights)
        size = float(root.max())
        root = root / size  # sums of weights near the largest double would overflow
    scale = _lengths(Z, root) / np.sqrt(n)
    scale[(scale == 0) | ~np.isfinite(scale)] = 1.0
    if q == 1 or covariance != "us":
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

    No n x q temporary, and a column far from zero loses its mean exactly.
    """
    new = np.empty(Z.shape)
    for j in range(Z.shape[1]):
        column = Z[:, j]
        for i in range(j):
            if T[i, j] != 0.0:
                column = column - new[:, i] * T[i, j]
        np.divide(column, T[j, j], out=new[:, j])
    return new


def to_user(lam: np.ndarray, factor: Factor) -> np.ndarray:
    """Lambda in the user's coordinates: lower triangular, diagonal >= 0, same Sigma.

    T^-1 Lambda~ is not triangular; its LQ decomposition is, for singular Lambda~ too.
    """
    L = factor.T_inverse @ lam
    if len(L) > 1 and np.triu(L, 1).any():
        L = np.linalg.qr(L.T, mode="r").T
    return with_zeros(L, bool((np.diagonal(lam) == 0).any()))


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
