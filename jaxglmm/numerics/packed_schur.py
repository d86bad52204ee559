"""A sum G of many small pieces, then S = I + Lam'G Lam and S^-1, in one dense array.

G (m, m) comes by entries or as products, one triangle of it. The lower triangle of S
takes the place of G's, is factored by LAPACK and inverted in place; the upper one keeps
G, so that traces with both need no second matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

PIECE = 8_000_000  # numbers in one piece of columns

Sides = Sequence[tuple[int, int]]  # (levels, columns a level) of each factor


def scaled(lams: Sequence[np.ndarray], sides: Sides, x: np.ndarray) -> np.ndarray:
    """Lam x of x (m, K), Lam with one (q, q) block a level of each factor."""
    out, start = [], 0
    for (J, q), lam in zip(sides, lams, strict=True):
        part = x[start : start + J * q].reshape(J, q, -1)
        out.append(np.einsum("ab,jbk->jak", lam, part).reshape(J * q, -1))
        start += J * q
    return np.concatenate(out)


class PackedSchur:
    """See the module. sides: of the factors whose columns these are."""

    def __init__(self, sides: Sides):
        self.sides = tuple(sides)
        self.m = sum(J * q for J, q in sides)
        self.A = np.zeros((self.m, self.m), order="F")
        self.diagonal = np.zeros(self.m)  # of G
        self.log_det = np.nan

    @staticmethod
    def memory(m: int) -> float:
        """Bytes that it takes."""
        return 8.0 * m * m

    def add(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        """Entries of G, none above the diagonal; arrays of one shape."""
        at = columns.astype(np.int64) * self.m + rows
        np.add.at(self.A.T.reshape(-1), at.ravel(), values.ravel())

    def subtract(self, N: np.ndarray) -> None:
        """Take N'N off G; N: (k, m)."""
        from scipy.linalg import blas

        self.A = blas.dsyrk(-1.0, N, 1.0, self.A, trans=1, lower=1, overwrite_c=1)

    def close(self) -> None:
        """All pieces are in: G above the diagonal too."""
        self._mirror()
        self.diagonal = np.diagonal(self.A).copy()

    def times(self, x: np.ndarray) -> np.ndarray:
        """G x of x (m, K), before it is factored."""
        return self.A @ x

    def factor(self, lams: Sequence[np.ndarray]) -> bool:
        """S in the lower triangle as its Cholesky factor; False where it has none."""
        from scipy.linalg import lapack

        A = self.A
        for a, b, k in self._pieces():
            block = A[a:, a:b]
            S = np.zeros_like(block)
            start = 0
            for (J, q), lam in zip(self.sides, lams, strict=True):
                low, high = max(start, a), start + J * q
                start = high
                if high <= a:
                    continue
                part = block[low - a : high - a].reshape(-1, q, b - a)
                left = np.einsum("ab,jac->jbc", lam, part)
                both = left.reshape(left.shape[0], q, -1, len(lams[k]))
                both = np.einsum("jbld,de->jble", both, lams[k])
                S[low - a : high - a] = both.reshape(-1, b - a)
            size = b - a
            S[np.arange(size), np.arange(size)] += 1.0
            A[b:, a:b] = S[size:]
            low = np.tril_indices(size)
            A[a:b, a:b][low] = S[:size][low]
        if not np.isfinite(np.diagonal(A)).all():
            return False
        self.A, info = lapack.dpotrf(A, lower=1, clean=0, overwrite_a=1)
        if info:
            return False
        self.log_det = 2.0 * float(np.log(np.diagonal(self.A)).sum())
        return True

    def solve(self, x: np.ndarray) -> np.ndarray:
        """S^-1 x of x (m, K), factored."""
        from scipy.linalg import lapack

        return lapack.dpotrs(self.A, x, lower=1)[0]

    def invert(self, lams: Sequence[np.ndarray]) -> list[np.ndarray]:
        """S^-1 in the place of its factor, whole, and then G is gone.

        Returns:
            A factor's (q, q) sum over its levels of the blocks of G Lam S^-1.
        """
        from scipy.linalg import lapack

        self.A = lapack.dpotri(self.A, lower=1, overwrite_c=1)[0]
        sums = [np.zeros((q, q)) for _, q in self.sides]
        for a, b, k in self._pieces():
            q = self.sides[k][1]
            G, inverse = self._columns(a, b)
            right = scaled(lams, self.sides, inverse)
            shape = (self.m, -1, q)
            sums[k] += np.einsum("jla,jlb->ab", G.reshape(shape), right.reshape(shape))
        self._mirror()
        return sums

    def _columns(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns a to b of G and of S^-1."""
        A, own = self.A, np.arange(b - a)
        G, inverse = np.empty((self.m, b - a)), np.empty((self.m, b - a))
        middle = A[a:b, a:b]
        upper, lower = np.triu(middle, 1), np.tril(middle, -1)
        G[:a], G[b:] = A[:a, a:b], A[a:b, b:].T
        G[a:b] = upper + upper.T
        G[a + own, own] = self.diagonal[a:b]
        inverse[:a], inverse[b:] = A[a:b, :a].T, A[b:, a:b]
        inverse[a:b] = lower + lower.T
        inverse[a + own, own] = np.diagonal(middle)
        return G, inverse

    def _mirror(self) -> None:
        """The lower triangle above the diagonal too."""
        A = self.A
        for a, b, _ in self._pieces():
            A[a:b, b:] = A[b:, a:b].T
            middle = np.tril(A[a:b, a:b], -1)
            A[a:b, a:b] = middle + middle.T + np.diag(np.diagonal(A[a:b, a:b]))

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        """Columns from a to b, whole levels of factor k."""
        start = 0
        for k, (J, q) in enumerate(self.sides):
            step = q * max(1, min(J, PIECE // (self.m * q)))
            for a in range(start, start + J * q, step):
                yield a, min(a + step, start + J * q), k
            start += J * q
