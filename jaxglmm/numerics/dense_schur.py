"""M of large crossed factors with the Schur complement in full, in one array.

H is made by pieces of its rows, factored in place by LAPACK, and its inverse takes the
place of the factor when traces are asked for: the memory is one (m, m) matrix and a
piece. Solutions are refined by products with the sparse coupling.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from jaxglmm.numerics.sparse_schur import AbstractSchurFactor, block_diagonal

PIECE = 16_000_000  # numbers in one piece of rows
FILLED = 0.07  # share of N from which its rows are multiplied in full


class FilledFactor(AbstractSchurFactor):
    """M with H = L L', then H^-1, held in Fortran's order, lower triangle."""

    def log_det(self) -> float:
        """log |M|."""
        return self.first_log_det() + self.parts[3] + self.held[1]

    @cached_property
    def held(self) -> tuple[np.ndarray, float]:
        """L in the lower triangle, and log |H|."""
        from scipy.linalg import lapack

        H = self._filled()
        L, info = lapack.dpotrf(H, lower=1, clean=0, overwrite_a=1)
        if info:
            return L, np.nan
        return L, 2 * float(np.log(np.diagonal(L)).sum())

    def _filled(self) -> np.ndarray:
        from scipy.linalg import blas

        N, D = self.parts[:2]
        m = self.system.m
        H = np.zeros((m, m), order="F")
        rows = max(PIECE // m, 1)
        dense = N.nnz > FILLED * N.shape[0] * m
        turned = N.T.tocsr()
        for a in range(0, m, rows):
            b = min(a + rows, m)
            piece = D[a:b] if dense else D[a:b] - turned[a:b] @ N
            H[a:b] = piece.toarray()
        for a in range(0, N.shape[0] if dense else 0, rows):
            part = N[a : a + rows].toarray().T
            H = blas.dsyrk(-1.0, part, 1.0, H, lower=1, overwrite_c=1)
        return H

    @cached_property
    def inverse(self) -> np.ndarray:
        """H^-1 in the place of L."""
        from scipy.linalg import lapack

        L, log_det = self.held
        if not np.isfinite(log_det):
            return np.full((1, 1), np.nan)
        return lapack.dpotri(L, lower=1, overwrite_c=1)[0]

    def inverse_times(self, w: np.ndarray) -> np.ndarray:
        if not np.isfinite(self.held[1]):
            return np.full(w.shape, np.nan)
        x = self._once(w)
        return x + self._once(w - self.apply(x))

    def _once(self, w: np.ndarray) -> np.ndarray:
        from scipy.linalg import blas, lapack

        if "inverse" in self.__dict__:
            return blas.dsymm(1.0, self.inverse, w, lower=1)
        return lapack.dpotrs(self.held[0], w, lower=1)[0]

    def traces(self, selected=None) -> tuple[np.ndarray, ...]:
        inverse = self.inverse
        if not np.isfinite(self.held[1]):
            nothing = [np.full(x.shape, np.nan) for x in self.lam]
            return self.sums_to_traces(nothing)
        sums, start = [self._fine(inverse)], 0
        for (J, q), C_inverse in zip(self.system.sides, self.parts[2], strict=True):
            own = np.empty((J, q, q))
            at = start + q * np.arange(J)
            for i in range(q):
                for j in range(i + 1):
                    own[:, i, j] = own[:, j, i] = inverse[at + i, at + j]
            sums.append(np.einsum("gai,gab,gbj->ij", C_inverse, own, C_inverse))
            start += J * q
        return self.sums_to_traces(sums)

    def _fine(self, inverse: np.ndarray) -> np.ndarray:
        """Sum of the blocks of factor 1: C_1^-T (I + N H^-1 N') C_1^-1."""
        C1_inverse, N = self.first[1], self.parts[0]
        J, q, _ = C1_inverse.shape
        back = np.swapaxes(C1_inverse, 1, 2)
        Y = (block_diagonal(back, J) @ N).tocsr()
        out = np.einsum("gai,gaj->ij", C1_inverse, C1_inverse)
        for i in range(q):
            for j in range(i + 1):
                more = self._product_trace(inverse, Y[i::q], Y[j::q])
                out[i, j] += more
                if i != j:
                    out[j, i] += more
        return out

    def _product_trace(self, inverse: np.ndarray, A, B) -> float:
        """tr(H^-1 A'B) for sparse A and B (J, m), from the lower triangle."""
        from scipy.linalg import blas

        m, total = self.system.m, 0.0
        rows = max(PIECE // m, 1)
        if A.nnz > FILLED * A.shape[0] * m:
            for a in range(0, A.shape[0], rows):
                left, right = A[a : a + rows].toarray(), B[a : a + rows].toarray()
                total += np.sum(left.T * blas.dsymm(1.0, inverse, right.T, lower=1))
            return float(total)
        turned = A.T.tocsr()
        for a in range(0, m, rows):
            G = (turned[a : a + rows] @ B).tocoo()
            row, col = G.row + a, G.col
            low, high = np.minimum(row, col), np.maximum(row, col)
            total += G.data @ inverse[high, low]
        return float(total)
