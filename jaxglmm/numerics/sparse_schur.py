"""The Schur complement of crossed factors whose coupling is sparse.

With factor 1 the one with most levels, C_1 C_1' = Lam_1'A_11 Lam_1 + I in blocks, and
N = C_1^-1 Lam_1'Z_1'Z_2 Lam_2 sparse,

    S = I + Lam_2'A_22 Lam_2 - N'N ;   log|M| = log|M_1| + log|S|

Two factors of M stand on it, on the host, in NumPy and SciPy. ``FilledFactor`` (in
``dense_schur``): S in full, made by pieces of levels, Cholesky in place.
``ProbedFactor`` (in ``probed_schur``): S is only multiplied with. Both divide S by the
blocks of its diagonal first: H = C^-1 S C^-T has ones there, and with many rows a level
it is near the identity.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.numerics import conjugate
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    inner_all,
    scale,
    scale_transposed,
)
from jaxglmm.runtime import executors

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

EXACT = 1e-12  # residual of solutions that the likelihood is made of
WORTH = 2_000_000  # products from which a second thread pays


class AbstractSparse(AbstractSystem):
    """A: (q, q, J) of factor 1; N: (J q, m) sparse; A22: (m, m) sparse.

    sides: (levels, columns) of every factor but the first; probes: random vectors by
    which log-determinants and traces are found, none where S is factored in full;
    keeps: whether the solutions for these are kept, for sums over rows.
    """

    if TYPE_CHECKING:  # fields of the subclass, in their order
        A: np.ndarray
        N: Any
        A22: Any
        sides: tuple[tuple[int, int], ...]
        probes: int
        keeps: bool

    @property
    def m(self) -> int:
        """Columns of the Schur complement."""
        return self.N.shape[1]

    def columns(self, w: Effects) -> np.ndarray:
        """Effects of the factors after the first as columns (m, K)."""
        return np.concatenate([flat(x) for x in w])

    def effects(self, v: np.ndarray) -> Effects:
        """The inverse of ``columns``."""
        out, start = [], 0
        for J, q in self.sides:
            part = v[start : start + J * q].reshape(J, q, v.shape[1])
            out.append(np.ascontiguousarray(part.transpose(1, 2, 0)))
            start += J * q
        return tuple(out)

    def normal(self, w: Effects) -> Effects:
        v, u = self.columns(w[1:]), flat(w[0])
        q, _, J = self.A.shape
        own = np.einsum("ijg,jkg->ikg", self.A, w[0])
        fine = own + (self.N @ v).reshape(J, q, -1).transpose(1, 2, 0)
        return (fine, *self.effects(self.N.T @ u + self.A22 @ v))

    def squares(self) -> tuple[np.ndarray, np.ndarray]:
        q, _, J = self.A.shape
        component, start = [], 0
        for levels, k in self.sides:
            component.append(np.tile(np.arange(start, start + k), levels))
            start += k
        member = np.equal.outer(np.concatenate(component), np.arange(start)) * 1.0
        own = np.sum(self.A**2, axis=2)
        cross = (self.N.multiply(self.N) @ member).reshape(J, q, start).sum(axis=0)
        rest = member.T @ (self.A22.multiply(self.A22) @ member)
        trace = np.sum(np.diagonal(self.A), axis=0), self.A22.diagonal() @ member
        return np.block([[own, cross], [cross.T, rest]]), np.concatenate(trace)


def flat(x: np.ndarray) -> np.ndarray:
    """(q, K, J) as (J q, K), level by level."""
    q, K, J = x.shape
    return np.ascontiguousarray(x.transpose(2, 0, 1)).reshape(J * q, K)


def blocks_times(blocks: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Block-diagonal (J, q, q), or (1, q, q) for all alike, times x (J q, K)."""
    q = blocks.shape[1]
    if q == 1:
        return x * blocks[:, 0, 0][:, None]
    return (blocks @ x.reshape(-1, q, x.shape[1])).reshape(x.shape)


def block_diagonal(blocks: np.ndarray, levels: int) -> Any:
    """(J, q, q), or (1, q, q) for all alike, as a sparse matrix."""
    from scipy.sparse import bsr_matrix, diags

    blocks = np.broadcast_to(blocks, (levels, *blocks.shape[1:]))
    if blocks.shape[1] == 1:
        return diags(np.ascontiguousarray(blocks[:, 0, 0]))
    at = np.arange(levels + 1)
    return bsr_matrix((np.ascontiguousarray(blocks), at[:-1], at)).tocsr()


class Product:
    """A sparse matrix times many vectors, its rows shared by threads."""

    def __init__(self, A: csr_matrix):
        self.A, threads = A, executors.threads()
        cuts = np.searchsorted(A.indptr, np.linspace(0, A.nnz, threads + 1))
        cuts[0], cuts[-1] = 0, len(A.indptr) - 1
        self.cuts = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if len(self.cuts) == 1 or self.A.nnz * x.shape[1] < WORTH:
            return self.A @ x
        out = np.empty((len(self.A.indptr) - 1, x.shape[1]))

        def part(cut: tuple[int, int]) -> None:
            a, b = cut
            if b > a:
                out[a:b] = self.parts[cut] @ x

        with ThreadPoolExecutor(len(self.cuts)) as pool:
            list(pool.map(part, self.cuts))
        return out

    @cached_property
    def parts(self) -> dict[tuple[int, int], Any]:
        """Rows of each thread, on the same memory."""
        from scipy.sparse import csr_matrix

        out, (_, columns) = {}, self.A.shape  # type: ignore[misc]
        for a, b in self.cuts:
            at = self.A.indptr[a : b + 1]
            here = slice(at[0], at[-1])
            parts = self.A.data[here], self.A.indices[here], at - at[0]
            out[a, b] = csr_matrix(parts, shape=(b - a, columns))
        return out


class AbstractSchurFactor(AbstractFactor):
    """What both factors share: block 1, and S by products.

    C1: (J, q, q) lower triangles of block 1; C1_inverse; C_inverse: the same of the
    diagonal blocks of S, a factor's; N: (J q, m) = C_1^-1 Lam_1'Z_1'Z_2 Lam_2 C^-T, so
    that H = D - N'N; D: (m, m) sparse.
    """

    system: AbstractSparse
    lam: Lambdas

    def __init__(self, system: AbstractSparse, lam: Lambdas):
        self.system, self.lam = system, lam

    @cached_property
    def first(self) -> tuple[np.ndarray, np.ndarray]:
        """C_1 and its inverse, (J, q, q) each."""
        lam = np.asarray(self.lam[0])
        A = np.moveaxis(self.system.A, 2, 0)
        C = np.linalg.cholesky(lam.T @ A @ lam + np.eye(len(lam)))
        return C, np.linalg.inv(C)

    @cached_property
    def parts(self) -> tuple[Any, Any, list[np.ndarray], float]:
        """N, D, the inverses of C a factor, and log of the determinant of C C'."""
        s = self.system
        J = s.A.shape[2]
        left = self.first[1] @ np.asarray(self.lam[0]).T
        lams = [np.asarray(x)[None] for x in self.lam[1:]]
        right = self._joined(lams)
        N = (block_diagonal(left, J) @ s.N @ right).tocsr()
        B = (right.T @ s.A22 @ right).tocsr()
        inverses, log_det, start = [], 0.0, 0
        for levels, q in s.sides:
            stop = start + levels * q
            own = np.empty((levels, q, q))
            part, other = N[:, start:stop], B[start:stop, start:stop]
            for i in range(q):
                for j in range(q):
                    inner = part[:, i::q].multiply(part[:, j::q]).sum(axis=0)
                    own[:, i, j] = other[i::q, j::q].diagonal() - np.ravel(inner)
            C = np.linalg.cholesky(own + np.eye(q))
            log_det += 2 * float(np.log(np.diagonal(C, axis1=1, axis2=2)).sum())
            inverses.append(np.linalg.inv(C))
            start = stop
        scaled = self._joined([np.swapaxes(x, 1, 2) for x in inverses])
        from scipy.sparse import identity

        D = (scaled.T @ (B + identity(s.m)) @ scaled).tocsr()
        return (N @ scaled).tocsr(), D, inverses, log_det

    def _joined(self, blocks: list[np.ndarray]) -> Any:
        from scipy.sparse import block_diag

        each = [
            block_diagonal(x, J)
            for x, (J, _) in zip(blocks, self.system.sides, strict=True)
        ]
        return each[0] if len(each) == 1 else block_diag(each, format="csr")

    @cached_property
    def products(self) -> tuple[Product, Product]:
        """Products with N and with N'."""
        N = self.parts[0]
        return Product(N), Product(N.T.tocsr())

    def apply(self, v: np.ndarray) -> np.ndarray:
        """H v for v (m, K)."""
        times, transposed = self.products
        return self.parts[1] @ v - transposed(times(v))

    def unscaled(self, v: np.ndarray) -> np.ndarray:
        """C^-T v."""
        return self._by_factor(v, [np.swapaxes(x, 1, 2) for x in self.parts[2]])

    def scaled(self, v: np.ndarray) -> np.ndarray:
        """C^-1 v."""
        return self._by_factor(v, self.parts[2])

    def _by_factor(self, v: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
        out, start = [], 0
        for (J, q), x in zip(self.system.sides, blocks, strict=True):
            out.append(blocks_times(x, v[start : start + J * q]))
            start += J * q
        return out[0] if len(out) == 1 else np.concatenate(out)

    def inverse_times(self, w: np.ndarray) -> np.ndarray:
        """H^-1 w for w (m, K)."""
        return conjugate.solve(self.apply, w, EXACT).x

    def solve(self, c: Effects) -> Effects:
        """M^-1 c."""
        times, transposed = self.products
        q, K, J = c[0].shape
        C1_inverse = self.first[1]
        z = blocks_times(C1_inverse, flat(c[0]))
        h = self.inverse_times(self.scaled(self.system.columns(c[1:])) - transposed(z))
        u = blocks_times(np.swapaxes(C1_inverse, 1, 2), z - times(h))
        fine = u.reshape(J, q, K).transpose(1, 2, 0)
        return (fine, *self.system.effects(self.unscaled(h)))

    def newton(self, c: Effects) -> tuple[Effects, Effects]:
        u = self.solve(c)
        return u, tuple(a * b for a, b in zip(c, u, strict=True))

    def first_log_det(self) -> float:
        """log |M_1|."""
        C = self.first[0]
        return 2 * float(np.log(np.diagonal(C, axis1=1, axis2=2)).sum())

    def project(self, B: Effects, RR: np.ndarray) -> tuple[np.ndarray, Effects]:
        c = scale_transposed(self.lam, B)
        u = self.solve(c)
        fitted = self.system.normal(scale(self.lam, u))
        T = tuple(b - f for b, f in zip(B, fitted, strict=True))
        return RR - inner_all(c, u), T

    def gram(self, w: Effects) -> np.ndarray:
        v = self.system.normal(w)
        c = scale_transposed(self.lam, v)
        return inner_all(w, v) - inner_all(c, self.solve(c))

    def sums_to_traces(self, sums: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Sums of the blocks of Z'V^-1Z from those of M^-1, (..., q, q) a factor."""
        out = []
        levels = [self.system.A.shape[2], *(J for J, _ in self.system.sides)]
        for lam, J, total in zip(self.lam, levels, sums, strict=True):
            inverse = np.linalg.inv(np.asarray(lam))
            out.append(inverse.T @ (J * np.eye(len(inverse)) - total) @ inverse)
        return tuple(out)

    def forward(self, c: Effects) -> Effects:
        raise NotApplicableError(_NO_TRIANGLE)

    def backward(self, z: Effects) -> Effects:
        raise NotApplicableError(_NO_TRIANGLE)

    def inverse_blocks(self) -> tuple[np.ndarray, ...]:
        raise NotApplicableError(_NO_TRIANGLE)


_NO_TRIANGLE = (
    "crossed factors this large have no triangle in memory, which this question needs; "
    "estimates, standard errors, random effects and predictions do without"
)
