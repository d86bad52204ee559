"""S = I + Lam'G Lam where few columns of the sum G meet: sparse, and never factored.

Conjugate gradients with S's diagonal solve with it (Hestenes and Stiefel 1952), in a
few dozen products: columns of S are levels, which the identity keeps apart. What takes
S^-1 itself is asked of ``packed``, which stands S in one dense array, or estimated by
fixed random signs Z, S^-1 = E[S^-1 Z Z'] (Hutchinson 1990); as many signs as columns
are unit vectors, which is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm.numerics.packed_schur import PackedSchur, Sides, scaled

BUFFER = 8_000_000  # entries that wait until they are added up
EXACT = 1e-12  # residual of a solution, of its right side's length
LONGEST = 1_000  # products that a solution takes at most; then S is factored
SEED = 1


@dataclass(frozen=True)
class KnownInverse:
    """S^-1 whole, (m, m)."""

    A: np.ndarray

    def entries(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Of i and j alike in shape."""
        return self.A[i, j]

    def blocks(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Of i and j (J, h), (J, h, h)."""
        return self.A[i[:, :, None], j[:, None, :]]

    def after(self, x: np.ndarray) -> np.ndarray:
        """x S^-1 of x (K, m)."""
        return x @ self.A


@dataclass(frozen=True)
class ProbedInverse:
    """S^-1 as solved Z' of signs Z, both (m, N), solved = S^-1 Z / N."""

    solved: np.ndarray
    signs: np.ndarray

    def entries(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Of i and j alike in shape."""
        return np.einsum("...n,...n->...", self.solved[i], self.signs[j])

    def blocks(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Of i and j (J, h), (J, h, h)."""
        return self.solved[i] @ np.swapaxes(self.signs[j], 1, 2)

    def after(self, x: np.ndarray) -> np.ndarray:
        """x S^-1 of x (K, m)."""
        return (x @ self.solved) @ self.signs.T


Inverse = KnownInverse | ProbedInverse


def probes(m: int, count: int) -> np.ndarray:
    """(m, count) signs, the same ones always; unit vectors where these are as few."""
    if m <= count:
        return np.sqrt(m) * np.eye(m)
    rng = np.random.default_rng(SEED)
    return rng.choice([-1.0, 1.0], size=(m, count))


class SummedSchur:
    """See the module. sides: of the factors whose columns these are."""

    def __init__(self, sides: Sides):
        self.sides = tuple(sides)
        self.m = sum(J * q for J, q in sides)
        self.log_det = np.nan
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._count = 0
        self._G: Any = _nothing(self.m)
        self._S: Any = None
        self._lams: tuple[np.ndarray, ...] = ()

    def add(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        """Entries of G, none above the diagonal; arrays of one shape."""
        used = values != 0.0
        self._waiting.append((values[used], rows[used], columns[used]))
        self._count += len(self._waiting[-1][0])
        if self._count > BUFFER:
            self._gather()

    def subtract(self, N: np.ndarray) -> None:
        """Take N'N off G; N: (k, m)."""
        from scipy import sparse

        own = sparse.csr_array(N)
        self._G = self._G - sparse.tril(own.T @ own, format="csr")

    def close(self) -> None:
        """All pieces are in: G above the diagonal too."""
        from scipy import sparse

        self._gather()
        G = sparse.csr_array(self._G)
        self._G = sparse.csr_array(G + sparse.tril(G, -1).T)

    def _gather(self) -> None:
        from scipy import sparse

        if not self._waiting:
            return
        values, rows, columns = (
            np.concatenate([x[k] for x in self._waiting]) for k in range(3)
        )
        self._waiting, self._count = [], 0
        new = sparse.coo_array((values, (rows, columns)), shape=(self.m, self.m))
        self._G = self._G + new.tocsr()

    def times(self, x: np.ndarray) -> np.ndarray:
        """G x of x (m, K)."""
        return self._G @ x

    def factor(self, lams: Sequence[np.ndarray]) -> bool:
        """Make S; False where its diagonal already says that it has no factor."""
        from scipy import sparse

        blocks = [
            sparse.kron(sparse.identity(J), lam, format="csr")
            for (J, _), lam in zip(self.sides, lams, strict=True)
        ]
        Lam = sparse.block_diag(blocks, format="csr")
        S = sparse.identity(self.m, format="csr") + Lam.T @ self._G @ Lam
        self._S, self._lams = sparse.csr_array(S), tuple(lams)
        diagonal = self._S.diagonal()
        return bool(np.isfinite(diagonal).all() and (diagonal > 0).all())

    def solve(self, x: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """S^-1 x of x (m, K), from start; NaN where S is not positive definite.

        Where conjugate gradients come to no end, by a factor.
        """
        S, inverse = self._S, 1.0 / self._S.diagonal()[:, None]
        enough = EXACT * np.linalg.norm(x, axis=0)
        # nothing solves for nothing, from wherever it starts
        out = np.zeros_like(x) if start is None else np.where(enough > 0, start, 0.0)
        r = x.copy() if start is None else x - S @ out
        z = inverse * r
        p, rz = z.copy(), np.sum(r * z, axis=0)
        for _ in range(LONGEST):
            left = ~(np.linalg.norm(r, axis=0) <= enough)
            if not left.any():
                return out
            Sp = S @ p
            curvature = np.sum(p * Sp, axis=0)
            if not (curvature[left] > 0).all():
                break
            # a column that is done stands still
            a = np.where(left, rz / np.where(left, curvature, 1.0), 0.0)
            out += a * p
            r -= a * Sp
            z = inverse * r
            new = np.sum(r * z, axis=0)
            p = z + np.where(left, new / np.where(rz > 0, rz, 1.0), 0.0) * p
            rz = new
        return self._factored(x)

    def _factored(self, x: np.ndarray) -> np.ndarray:
        """S^-1 x by one dense factor; NaN where there is none."""
        dense = self.packed()
        if not dense.factor(self._lams):
            return np.full_like(x, np.nan)
        return dense.solve(x)

    def packed(self) -> PackedSchur:
        """G in one dense array."""
        out = PackedSchur(self.sides)
        own = self._G.tocoo()
        out.A[own.row, own.col] = own.data
        out.diagonal = self._G.diagonal()
        return out

    def probed(
        self,
        lams: Sequence[np.ndarray],
        signs: np.ndarray,
        start: np.ndarray | None = None,
    ) -> tuple[ProbedInverse, list[np.ndarray]]:
        """S^-1 by signs, and what ``PackedSchur.invert`` returns."""
        count = signs.shape[1]
        solved = self.solve(signs, None if start is None else start * count) / count
        there = self.times(scaled(lams, self.sides, solved))
        sums, at = [], 0
        for J, q in self.sides:
            here = slice(at, at + J * q)
            one, two = (x[here].reshape(J, q, count) for x in (there, signs))
            sums.append(np.einsum("jan,jbn->ab", one, two))
            at += J * q
        return ProbedInverse(solved, signs), sums


def _nothing(m: int) -> Any:
    from scipy import sparse

    return sparse.csr_array((m, m))
