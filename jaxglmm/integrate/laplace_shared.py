"""Laplace's approximation where levels of one factor share the effects of others.

Given v of the shared effects, o = Z_2 Lam_2 v is an offset, and levels of the first
factor are independent. With u at its mode given v, w and s as in
``laplace_derivatives``, z and A = Z'WZ of the first factor, F = Lam M^-1 Lam',

    K = W - W Z F Z'W      minus the second derivative of the log density in o
    G = Z_2'K Z_2,  S = I + Lam_2'G Lam_2,  r = v - Lam_2'Z_2's
    d = -2 sum l + u'u + v'v + log|M| + log|S|

M and K are blocks of levels, so sums over blocks of levels make G and r, and v moves by
-S^-1 r: Newton's method with u eliminated. What log|M| + log|S| moves with follows from
leverages: with P = Z_2 Lam_2 S^-1 Lam_2'Z_2', Y = Z'W P and Q = Y W Z of one level,

    lev = z'F z + P_ii - 2 z'F Y_i + z'F Q F z,   g = (I - W Z F Z') (w1 lev)

g is the derivative in o, X'g in beta, and so on (``Leverages``). Rows are NumPy arrays
(h, J), h rows a level; the density's derivatives come from one program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from jaxglmm._typing import Array, Scalar
from jaxglmm.integrate import laplace
from jaxglmm.integrate.laplace_derivatives import predictor
from jaxglmm.integrate.row_terms import constant, row_terms, separable
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.packed_schur import PackedSchur
from jaxglmm.numerics.summed_schur import Inverse, SummedSchur
from jaxglmm.numerics.system import scale
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.compile import stored
from jaxglmm.runtime.trees import Module

PAIRS = 2_000_000  # pairs of rows of a level that are looked at together
DENSE = 10  # share of all columns, 1 / this, that rows of a level are many from


class RowsAtMode(Module):
    """value: -2 l + u'u, with its constant; dl: -2 l in phi (r,), summed.

    u: (q, J); s, w, w1: (h, J); ds, dw: in phi, (r, h, J).
    """

    value: Scalar
    decrement: Scalar
    u: Array
    s: Array
    w: Array
    w1: Array
    dl: Array
    ds: Array
    dw: Array


@stored(host=True)
def rows_at_mode(problem: GeneralisedProblem, psi: Array, u: Array) -> RowsAtMode:
    """What rows say at the mode of one factor's u (q, 1, J), found from u."""
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    mode = laplace.find_mode(problem, beta, lam, phi, (u,))
    rows = problem.folded()
    family = problem.family
    alone = family.discrete and family.has_separable_term
    apart = partial(separable, rows) if alone else None
    eta = predictor(rows, beta, scale(lam, mode.u))
    r = row_terms(rows, eta, phi, "observed", total=jnp.sum, second=False, apart=apart)
    value = -2 * jnp.sum(r.l) + jnp.sum(mode.u[0] ** 2) + constant(rows)
    slopes = [-2 * jnp.sum(x) for x in r.dl]
    if alone:
        value = value - 2 * jnp.asarray(r.apart)
        slopes = [x - 2 * y for x, y in zip(slopes, r.dapart, strict=True)]
    nothing = jnp.zeros((0, *r.s.shape))
    return RowsAtMode(
        value,
        mode.decrement,
        mode.u[0][:, 0],
        r.s,
        r.w,
        r.w1,
        jnp.stack(slopes) if slopes else jnp.zeros(0),
        jnp.stack(r.ds) if slopes else nothing,
        jnp.stack(r.dw) if slopes else nothing,
    )


@dataclass(frozen=True)
class SharedRows:
    """Rows of a block of levels: X (p, h, J), z (q, h, J) of the first factor.

    at, values: (c, h, J) columns of the shared effects that a row has, and their
    values; m: of these columns in all.
    """

    X: np.ndarray
    z: np.ndarray
    at: np.ndarray
    values: np.ndarray
    m: int

    def spread(self, b: np.ndarray) -> np.ndarray:
        """Z_2 b of b (m,)."""
        return np.sum(self.values * b[self.at], axis=0)

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """Z_2'r of r (h, J), (m,)."""
        products = self.values * rows
        return np.bincount(self.at.ravel(), products.ravel(), self.m)


@dataclass(frozen=True)
class ReducedRows:
    """A block of levels at one point, u at its mode; lam: (q, q) of the first factor.

    slopes: derivatives of lam in its parameters.
    """

    rows: SharedRows
    at: RowsAtMode
    lam: np.ndarray
    slopes: Sequence[np.ndarray]

    @cached_property
    def wz(self) -> np.ndarray:
        """W Z, (q, h, J)."""
        return self.at.w * self.rows.z

    @cached_property
    def A(self) -> np.ndarray:
        """Z'WZ, (J, q, q)."""
        return np.einsum("ahj,bhj->jab", self.wz, self.rows.z)

    @cached_property
    def root(self) -> np.ndarray:
        """Lam L^-T, F = root root', (J, q, q); NaN where M is not positive."""
        return self._factored[0]

    @property
    def log_det(self) -> float:
        """Sum of log|M|."""
        return self._factored[1]

    @cached_property
    def _factored(self) -> tuple[np.ndarray, float]:
        q = len(self.lam)
        M = np.eye(q) + self.lam.T @ self.A @ self.lam
        try:
            L = np.linalg.cholesky(M)
        except np.linalg.LinAlgError:
            return np.full(M.shape, np.nan), np.nan
        inverse = np.linalg.inv(L)
        log_det = 2.0 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum()
        return self.lam @ np.swapaxes(inverse, 1, 2), float(log_det)

    @cached_property
    def F(self) -> np.ndarray:
        """Lam M^-1 Lam', (J, q, q)."""
        return self.root @ np.swapaxes(self.root, 1, 2)

    @cached_property
    def t(self) -> np.ndarray:
        """Z's, (q, J)."""
        return self.summed(self.at.s)

    def summed(self, rows: np.ndarray) -> np.ndarray:
        """Z'r of r (h, J), (q, J)."""
        return np.einsum("ahj,hj->aj", self.rows.z, rows)

    def profiled(self, rows: np.ndarray) -> np.ndarray:
        """(I - W Z F Z') r: what moves of r when u follows."""
        moved = np.einsum("jab,bj->aj", self.F, self.summed(rows))
        return rows - np.einsum("ahj,aj->hj", self.wz, moved)

    def effect_moves(self) -> Iterator[np.ndarray]:
        """How the predictor moves with each parameter of lam, before u follows."""
        for slope in self.slopes:
            b = slope @ self.at.u + self.lam @ (slope.T @ self.t)
            yield np.einsum("ahj,aj->hj", self.rows.z, b)

    def gradient_moves(self) -> np.ndarray:
        """Derivatives of -Z_2's in (beta, theta, phi), u at its mode, (m, k)."""
        out = [*self.rows.X, *self.effect_moves()]
        moved = [self.profiled(self.at.w * x) for x in out]
        moved += [-self.profiled(x) for x in self.at.ds]
        return np.stack([self.rows.collect(x) for x in moved], axis=1)

    def add_to(self, G: PackedSchur | SummedSchur) -> None:
        """Z_2'K Z_2 into G."""
        if self._is_dense:
            self._add_dense(G)
            return
        c, h, _ = self.rows.at.shape
        first, second = np.tril_indices(c * h)  # of a level's rows, column by column
        for here in self._pieces():
            K = -self._inner(self.wz[..., here], here)
            K[:, np.arange(h), np.arange(h)] += self.at.w[:, here].T
            at = self.rows.at[..., here].reshape(c * h, -1).T
            values = self.rows.values[..., here].reshape(c * h, -1).T
            one, two = at[:, first], at[:, second]
            entries = K[:, first % h, second % h]
            entries *= values[:, first] * values[:, second]
            # two entries of G, of which one is below the diagonal, or both on it
            entries[(one == two) & (first != second)] *= 2.0
            G.add(np.maximum(one, two), np.minimum(one, two), entries)

    def _inner(self, wz: np.ndarray, here: slice) -> np.ndarray:
        """W Z F Z'W of some levels, (J, h, h)."""
        left = np.einsum("ahj,jab->jhb", wz, self.root[here])
        return left @ np.swapaxes(left, 1, 2)

    def _add_dense(self, G: PackedSchur | SummedSchur) -> None:
        at, values, w = self.rows.at, self.rows.values, self.at.w
        for one, x in zip(at, values, strict=True):
            for two, y in zip(at, values, strict=True):
                low = one >= two
                G.add(one[low], two[low], (x * y * w)[low])
        for here in self._pieces():
            N = self._coupling(values[..., here], here)
            N = np.swapaxes(self.root[here], 1, 2) @ N
            G.subtract(N.reshape(-1, self.rows.m))

    def _coupling(self, values: np.ndarray, here: slice) -> np.ndarray:
        """Z'W Z_2 with other values of Z_2, of some levels in full, (J, q, m)."""
        wz, at = self.wz[..., here], self.rows.at[..., here]
        q, m, J = len(wz), self.rows.m, wz.shape[2]
        level = np.arange(J) * m
        out = [
            np.bincount((at + level).ravel(), (values * x).ravel(), J * m) for x in wz
        ]
        return np.stack(out).reshape(q, J, m).swapaxes(0, 1)

    @property
    def _is_dense(self) -> bool:
        """Whether rows of a level are so many that columns are taken in full."""
        return DENSE * self.rows.z.shape[1] > self.rows.m

    def _pieces(self) -> Iterator[slice]:
        """Levels that are looked at together."""
        q, h, J = self.rows.z.shape
        size = q * self.rows.m if self._is_dense else h * h
        step = max(1, PAIRS // size)
        for a in range(0, J, step):
            yield slice(a, min(a + step, J))

    def leverages(self, inverse: Inverse, scaled: np.ndarray) -> Leverages:
        """What log|M| + log|S| moves with.

        inverse: S^-1; scaled: (c, h, J) the values of Z_2 Lam_2.
        """
        q, h, J = self.rows.z.shape
        P, Y = np.empty((h, J)), np.empty((q, h, J))
        at = self.rows.at
        for here in self._pieces():
            own, x = at[..., here], scaled[..., here]
            P[:, here] = sum(
                a * b * inverse.entries(i, j)
                for i, a in zip(own, x, strict=True)
                for j, b in zip(own, x, strict=True)
            )
            if self._is_dense:
                N = self._coupling(x, here)
                N = inverse.after(N.reshape(-1, self.rows.m)).reshape(N.shape)
                level = np.arange(len(N))
                found = [
                    b * N[level, :, j].transpose(2, 0, 1)
                    for j, b in zip(own, x, strict=True)
                ]
                Y[..., here] = sum(found)
                continue
            pairs = 0.0
            for i, a in zip(own, x, strict=True):
                for j, b in zip(own, x, strict=True):
                    block = inverse.blocks(i.T, j.T)
                    pairs = pairs + a.T[:, :, None] * b.T[:, None, :] * block
            Y[..., here] = np.einsum("aij,jik->akj", self.wz[..., here], pairs)
        return self._leverages(P, Y)

    def _leverages(self, P: np.ndarray, Y: np.ndarray) -> Leverages:
        z, F, A, at = self.rows.z, self.F, self.A, self.at
        Q = np.einsum("ahj,bhj->jab", Y, self.wz)
        Q = (Q + np.swapaxes(Q, 1, 2)) / 2
        Fz = np.einsum("jab,bhj->ahj", F, z)
        lev = P + np.sum(Fz * (z - 2 * Y), axis=0)
        lev += np.einsum("ahj,jab,bhj->hj", Fz, Q, Fz, optimize=True)
        g = self.profiled(at.w1 * lev)
        rest = np.eye(len(self.lam)) - A @ F
        middle = rest @ Q @ np.swapaxes(rest, 1, 2)
        S = np.sum(A - A @ F @ A - middle, axis=0)
        zg = self.summed(g)
        lam_score = np.einsum("aj,bj->ab", zg - 2 * self.t, at.u)
        lam_score += np.einsum("aj,bj->ab", self.t, self.lam.T @ zg)
        lam_score += 2 * S @ self.lam
        own = [np.sum(slope * lam_score) for slope in self.slopes]
        back = np.einsum("ab,bc,cj->aj", self.lam, self.lam.T, zg)
        phi = [
            dl + np.sum(lev * dw) + np.sum(self.summed(ds) * back)
            for dl, ds, dw in zip(at.dl, at.ds, at.dw, strict=True)
        ]
        beta = [np.sum(x * (g - 2 * at.s)) for x in self.rows.X]
        return Leverages(np.array([*beta, *own, *phi]), self.rows.collect(g))


@dataclass(frozen=True)
class Leverages:
    """What a block adds to the derivatives.

    score: (k,) in (beta, theta, phi), v held; shared: (m,) Z_2'g, of log|M| + log|S| in
    Lam_2 v.
    """

    score: np.ndarray
    shared: np.ndarray
