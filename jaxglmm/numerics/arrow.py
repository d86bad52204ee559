"""Crossed factors: the largest is eliminated block by block, the rest is dense.

With factor 1 the one with most levels, N its coupling with the m2 columns of all others
and F_g = Lam_1 M_g^-1 Lam_1',

    G = Z_2'V_1^-1Z_2 = Z_2'Z_2 - sum_g N_g' F_g N_g ;   S = I + Lam_2' G Lam_2 = L L'
    log|M| = sum_g log|M_g| + log|S|

No n enters. The coupling is held in one of three forms. ``SparseCoupling``: the entries
(g, c, N_gc) and the list of all pairs of entries of one g with the products of their
values; the sum over g is one scatter-add over the pairs (2.4 to 4 ns a pair on a CPU).
``PairedCoupling``: the same without the products, of which q columns would need q^2.
``DenseCoupling``: N in full, and matrix products, right where more than a few percent
of N is filled. (Bates et al. 2015 describe the same elimination for sparse matrices.)
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._typing import Array, Float, Int, Scalar
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics import spd
from jaxglmm.numerics.blocks import Blocks
from jaxglmm.numerics.system import AbstractFactor, AbstractSystem, Effects, Lambdas
from jaxglmm.numerics.wide import Wide
from jaxglmm.runtime.arrays import added, cho_solve, jnp, segment_sum, solve_triangular
from jaxglmm.runtime.trees import Module, field

Columns = Float[Array, "m K"]

INSIDE = "promise_in_bounds"  # of indices: no check on the device


class AbstractCoupling(Module):
    """N = Z_1'Z_2, one (q, m2) block a level of factor 1."""

    @abc.abstractmethod
    def times(self, x: Columns) -> Float[Array, "q K J"]:
        """N x."""

    @abc.abstractmethod
    def transposed(self, v: Float[Array, "q K J"]) -> Columns:
        """N'v."""

    @abc.abstractmethod
    def sandwich(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        """sum_g N_g' F_g N_g for symmetric F_g."""

    def sandwich_lower(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        """``sandwich`` where what is above the diagonal is not read."""
        return self.sandwich(F)

    @abc.abstractmethod
    def squares(self, member: Float[np.ndarray, "m k"]) -> Float[Array, "q k"]:
        """Sums of the squares of N by its component and the group of its column."""

    @abc.abstractmethod
    def outer(self, P: Float[Array, "m m"]) -> Float[Array, "q q J"]:
        """N_g P N_g' for symmetric P."""

    def across(self, P: Float[Array, "m m"]) -> Array:
        """N_g P for symmetric P, where N_g is not zero: (q, E), or in full."""
        raise NotImplementedError

    def outer_of(self, across: Array) -> Float[Array, "q q J"]:
        """``outer`` from ``across``."""
        raise NotImplementedError


class DenseCoupling(AbstractCoupling):
    """N: (q, J, m2)."""

    N: Float[Array, "q J m"]

    def times(self, x: Columns) -> Float[Array, "q K J"]:
        return jnp.swapaxes(self.N @ x, 1, 2)

    def transposed(self, v: Float[Array, "q K J"]) -> Columns:
        return jnp.einsum("igm,ikg->mk", self.N, v)

    def sandwich(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        FN = jnp.einsum("ijg,jgm->igm", F, self.N)
        m = self.N.shape[-1]
        return self.N.reshape(-1, m).T @ FN.reshape(-1, m)

    def squares(self, member: Float[np.ndarray, "m k"]) -> Float[Array, "q k"]:
        return jnp.sum(self.N**2, axis=1) @ member

    def outer(self, P: Float[Array, "m m"]) -> Float[Array, "q q J"]:
        return self.outer_of(self.across(P))

    def across(self, P: Float[Array, "m m"]) -> Float[Array, "q J m"]:
        return self.N @ P

    def outer_of(self, across: Float[Array, "q J m"]) -> Float[Array, "q q J"]:
        return jnp.einsum("igm,jgm->ijg", across, self.N)


class AbstractEntries(AbstractCoupling):
    """The occupied entries of N, and all pairs of entries of one row.

    Entries e = (row[e], col[e], value[:, e]) are sorted by row; pairs (e1 >= e2) have
    the flat target col[e1] m2 + col[e2] in the lower triangle.
    """

    if TYPE_CHECKING:  # declared here they would come before the pairs
        row: Int[Array, " E"]
        col: Int[Array, " E"]
        value: Float[Array, "q E"]
        n_rows: int
        m: int

    def times(self, x: Columns) -> Float[Array, "q K J"]:
        columns = x[self.col]  # (E, K)
        q = self.value.shape[0]
        out = [
            added(
                jnp.zeros((self.n_rows, x.shape[1]), x.dtype),
                self.row,
                self.value[i][:, None] * columns,
                mode=INSIDE,
            )
            for i in range(q)
        ]
        return jnp.stack([o.T for o in out])

    def transposed(self, v: Float[Array, "q K J"]) -> Columns:
        total = sum(
            self.value[i][:, None] * v[i].T[self.row]
            for i in range(self.value.shape[0])
        )
        out = jnp.zeros((self.m, v.shape[1]), v.dtype)
        return added(out, self.col, total, mode=INSIDE)

    def squares(self, member: Float[np.ndarray, "m k"]) -> Float[Array, "q k"]:
        return self.value**2 @ jnp.asarray(member)[self.col]

    def _collect(
        self, terms: Float[Array, " P"], target: Int[Array, " P"]
    ) -> Float[Array, "m m"]:
        """A symmetric matrix from what every pair adds to its lower triangle."""
        lower = self._lower(terms, target)
        return lower + jnp.tril(lower, -1).T

    def _lower(
        self, terms: Float[Array, " P"], target: Int[Array, " P"]
    ) -> Float[Array, "m m"]:
        """The lower triangle of ``_collect``, zeros above."""
        flat = jnp.zeros(self.m * self.m, terms.dtype)
        flat = added(flat, target, terms, mode=INSIDE)
        return flat.reshape(self.m, self.m)


class SparseCoupling(AbstractEntries):
    """Pairs with the products of their values.

    value: (q, E); pair_value: (q, q, P), symmetric in i, j:
    value[i, e1] value[j, e2] + value[j, e1] value[i, e2], halved where i = j.
    once: (P,) 1 where e1 = e2, else 2: how often the pair counts in a full double sum.
    Padding: entries and pairs of value 0.
    """

    row: Int[Array, " E"]
    col: Int[Array, " E"]
    value: Float[Array, "q E"]
    pair_row: Int[Array, " P"]
    pair_target: Int[Array, " P"]
    pair_value: Array  # whole numbers in a smaller type where that is exact
    once: Array
    n_rows: int = field(static=True)
    m: int = field(static=True)

    def sandwich(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        return self._collect(self._terms(F), self.pair_target)

    def sandwich_lower(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        return self._lower(self._terms(F), self.pair_target)

    def _terms(self, F: Float[Array, "q q J"]) -> Float[Array, " P"]:
        q = F.shape[0]
        terms = 0.0
        for i in range(q):
            for j in range(i + 1):
                terms = terms + F[i, j][self.pair_row] * self.pair_value[i, j]
        return terms

    def outer(self, P: Float[Array, "m m"]) -> Float[Array, "q q J"]:
        weight = P.reshape(-1)[self.pair_target] * self.once
        q = self.value.shape[0]
        half = [
            [
                segment_sum(
                    weight * self.pair_value[i, j] * (1.0 if i == j else 0.5),
                    self.pair_row,
                    self.n_rows,
                )
                for j in range(q)
            ]
            for i in range(q)
        ]
        return small.stack(half, half[0][0])


class PairedCoupling(AbstractEntries):
    """Pairs as two entries, whose values are looked up.

    pair_one, pair_two: entries e1 >= e2, sorted by e1. Padding: entries of value 0, and
    pairs of the last of these.
    """

    row: Int[Array, " E"]
    col: Int[Array, " E"]
    value: Float[Array, "q E"]
    pair_one: Int[Array, " P"]
    pair_two: Int[Array, " P"]
    pair_target: Int[Array, " P"]
    n_rows: int = field(static=True)
    m: int = field(static=True)

    def sandwich(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        return self._collect(self._terms(F), self.pair_target)

    def sandwich_lower(self, F: Float[Array, "q q J"]) -> Float[Array, "m m"]:
        return self._lower(self._terms(F), self.pair_target)

    def _terms(self, F: Float[Array, "q q J"]) -> Float[Array, " P"]:
        v, q = self.value, F.shape[0]
        terms = jnp.zeros(len(self.pair_one), F.dtype)
        for j in range(q):
            Fv = jnp.zeros(len(self.row), F.dtype)
            for i in range(q):
                Fv = Fv + F[i, j][self.row] * v[i]
            terms = terms + Fv[self.pair_one] * v[j][self.pair_two]
        return terms

    def outer(self, P: Float[Array, "m m"]) -> Float[Array, "q q J"]:
        # P N_g' over the entries up to each one, its own by half; then with the mirror
        half = jnp.where(self.pair_one == self.pair_two, 0.5, 1.0)
        weight = P.reshape(-1)[self.pair_target] * half
        v, q = self.value, self.value.shape[0]
        up_to = [
            segment_sum(
                weight * v[j][self.pair_two],
                self.pair_one,
                len(self.row),
                indices_are_sorted=True,
            )
            for j in range(q)
        ]
        out: small.Matrix = [[0.0] * q for _ in range(q)]
        for i in range(q):
            for j in range(i + 1):
                both = v[i] * up_to[j] + v[j] * up_to[i]
                out[i][j] = out[j][i] = segment_sum(both, self.row, self.n_rows)
        return small.stack(out, out[0][0])

    def across(self, P: Float[Array, "m m"]) -> Float[Array, "q E"]:
        weight = P.reshape(-1)[self.pair_target]
        apart = jnp.where(self.pair_one == self.pair_two, 0.0, weight)
        out = []
        for v in self.value:
            to_one, to_two = weight * v[self.pair_two], apart * v[self.pair_one]
            total = added(jnp.zeros_like(v), self.pair_one, to_one, mode=INSIDE)
            total = added(total, self.pair_two, to_two, mode=INSIDE)
            out.append(total)
        return jnp.stack(out)

    def outer_of(self, across: Float[Array, "q E"]) -> Float[Array, "q q J"]:
        q = len(self.value)
        out: small.Matrix = [[0.0] * q for _ in range(q)]
        for i in range(q):
            for j in range(i + 1):
                each = self.value[i] * across[j]
                out[i][j] = out[j][i] = segment_sum(each, self.row, self.n_rows)
        return small.stack(out, out[0][0])


class Arrow(AbstractSystem):
    """Factor 1 in blocks, all others in one dense matrix.

    first: the blocks of factor 1; A22: (m2, m2) of all others; sides: ((J, q), ...) of
    these, columns level by level and within a level component by component.
    """

    first: Blocks | Wide
    coupling: AbstractCoupling
    A22: Float[Array, "m m"]
    sides: tuple[tuple[int, int], ...] = field(static=True)

    def columns(self, w: Effects) -> Columns:
        """Effects of the factors after the first as columns."""
        return jnp.concatenate(
            [
                jnp.transpose(x, (2, 0, 1)).reshape(x.shape[2] * len(x), x.shape[1])
                for x in w
            ]
        )

    def effects(self, v: Columns) -> Effects:
        """The inverse of ``columns``."""
        out, start = [], 0
        for J, q in self.sides:
            part = v[start : start + J * q].reshape(J, q, v.shape[1])
            out.append(jnp.transpose(part, (1, 2, 0)))
            start += J * q
        return tuple(out)

    def scale_rows(self, lam: Lambdas, G: Array, transposed: bool = True) -> Array:
        """Lam_2' G (or Lam_2 G) for G with m2 rows."""
        out, start = [], 0
        for (J, q), x in zip(self.sides, lam, strict=True):
            part = G[start : start + J * q]
            if q == 1:
                out.append(x[0, 0] * part)
            else:
                A = x.T if transposed else x
                out.append((A @ part.reshape(J, q, part.shape[1])).reshape(part.shape))
            start += J * q
        return out[0] if len(out) == 1 else jnp.concatenate(out)

    def diagonal_scale(self, lam: Lambdas) -> Float[Array, " m"] | None:
        """Lam_2 where it is diagonal for having one column a level, else None."""
        if any(q > 1 for _, q in self.sides):
            return None
        parts = [
            jnp.broadcast_to(x[0, 0], J)
            for (J, _), x in zip(self.sides, lam, strict=True)
        ]
        return jnp.concatenate(parts)

    def normal(self, w: Effects) -> Effects:
        v = self.columns(w[1:])
        (own,) = self.first.normal((w[0],))
        fine = own + self.coupling.times(v)
        rest = self.coupling.transposed(w[0]) + self.A22 @ v
        return (fine, *self.effects(rest))

    def squares(self) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
        component, start = [], 0
        for J, q in self.sides:
            component.append(np.tile(np.arange(start, start + q), J))
            start += q
        member = np.equal.outer(np.concatenate(component), np.arange(start)) * 1.0
        own, trace = self.first.squares()
        cross = self.coupling.squares(member)
        rest = member.T @ (self.A22**2 @ member)
        traces = jnp.concatenate([trace, jnp.diagonal(self.A22) @ member])
        return jnp.block([[own, cross], [cross.T, rest]]), traces

    def factor(self, lam: Lambdas) -> ArrowFactor:
        head = self.first.factor((lam[0],))
        F = _sandwich_inverse(head, lam[0])
        t = self.diagonal_scale(lam[1:])
        if t is not None:  # the lower triangle is enough, in one pass
            S = t[:, None] * t * (self.A22 - self.coupling.sandwich_lower(F))
        else:
            G = self.A22 - self.coupling.sandwich(F)
            S = self.scale_rows(lam[1:], self.scale_rows(lam[1:], G).T)
        S = S + jnp.eye(len(S), dtype=S.dtype)
        return ArrowFactor(self, lam, head, F, spd.cholesky_of_lower(S))


def _sandwich_inverse(head: AbstractFactor, lam: Float[Array, "q q"]) -> Array:
    """F_g = Lam M_g^-1 Lam', (q, q, J)."""
    (inverse,) = head.inverse_blocks()
    if len(lam) == 1:
        return lam[0, 0] ** 2 * inverse
    return jnp.einsum("iag,ja->ijg", jnp.tensordot(lam, inverse, 1), lam)


class Selected(Module):
    """inverse: S^-1; P: Lam_2 S^-1 Lam_2'; across: N_g P; outer: N_g P N_g'."""

    inverse: Float[Array, "m m"]
    P: Float[Array, "m m"]
    across: Array
    outer: Float[Array, "q q J"]


class ArrowFactor(AbstractFactor):
    """head: factor of the blocks of factor 1; F: (q, q, J); L: (m2, m2), L L' = S."""

    system: Arrow
    lam: Lambdas
    head: AbstractFactor
    F: Float[Array, "q q J"]
    L: Float[Array, "m m"]

    def log_det(self) -> Scalar:
        return self.head.log_det() + 2 * jnp.sum(jnp.log(jnp.diagonal(self.L)))

    def _couple(self, v: Columns) -> Float[Array, "q K J"]:
        """Lam_1' N Lam_2 v."""
        scaled = self.system.scale_rows(self.lam[1:], v, transposed=False)
        return _mix(self.lam[0].T, self.system.coupling.times(scaled))

    def _couple_transposed(self, x: Float[Array, "q K J"]) -> Columns:
        """Lam_2' N' Lam_1 x."""
        back = self.system.coupling.transposed(_mix(self.lam[0], x))
        return self.system.scale_rows(self.lam[1:], back)

    def forward(self, c: Effects) -> Effects:
        (z,) = self.head.forward((c[0],))
        (x,) = self.head.backward((z,))
        rest = self.system.columns(c[1:]) - self._couple_transposed(x)
        return (z, *self.system.effects(solve_triangular(self.L, rest, lower=True)))

    def backward(self, z: Effects) -> Effects:
        rest = self.system.columns(z[1:])
        v = solve_triangular(self.L, rest, lower=True, trans=1)
        (change,) = self.head.forward((self._couple(v),))
        (u,) = self.head.backward((z[0] - change,))
        return (u, *self.system.effects(v))

    def _inverse(self) -> Float[Array, "m m"]:
        return cho_solve((self.L, True), jnp.eye(len(self.L), dtype=self.L.dtype))

    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        return self._inverse_blocks(self._inverse())

    def selected(self) -> Selected:
        """S^-1 and what follows from it where Z'Z is not zero."""
        inverse = self._inverse()
        P = self._scaled(inverse)
        across = self.system.coupling.across(P)
        return Selected(inverse, P, across, self.system.coupling.outer_of(across))

    def blocks_of(self, selected: Selected) -> tuple[Float[Array, "q q J"], ...]:
        return self._blocks(selected.inverse, selected.outer)

    def _inverse_blocks(self, inverse: Array) -> tuple[Array, ...]:
        return self._blocks(inverse, self.system.coupling.outer(self._scaled(inverse)))

    def _blocks(
        self, inverse: Array, middle: Float[Array, "q q J"]
    ) -> tuple[Array, ...]:
        (own,) = self.head.inverse_blocks()
        lam = self.lam[0]
        if len(lam) == 1:
            fine = own + own**2 * lam[0, 0] ** 2 * middle
        else:
            left = jnp.einsum("ijg,kj->ikg", own, lam)  # M_g^-1 Lam'
            both = jnp.einsum("iag,abg->ibg", left, middle)
            fine = own + jnp.einsum("ibg,jbg->ijg", both, left)
        return (fine, *self._rest_blocks(inverse))

    def _scaled(self, inverse: Array) -> Array:
        """Lam_2 S^-1 Lam_2'."""
        t = self.system.diagonal_scale(self.lam[1:])
        if t is not None:
            return t[:, None] * t * inverse
        rows = self.system.scale_rows(self.lam[1:], inverse, transposed=False)
        return self.system.scale_rows(self.lam[1:], rows.T, transposed=False)

    def _rest_blocks(self, inverse: Array) -> tuple[Array, ...]:
        out, start = [], 0
        for J, q in self.system.sides:
            stop = start + J * q
            part = inverse[start:stop, start:stop]
            if q == 1:
                out.append(jnp.diagonal(part)[None, None])
            else:
                out.append(jnp.einsum("gigj->ijg", part.reshape(J, q, J, q)))
            start = stop
        return tuple(out)


def _mix(A: Float[Array, "q q"], x: Float[Array, "q K J"]) -> Float[Array, "q K J"]:
    return A[0, 0] * x if len(A) == 1 else jnp.tensordot(A, x, axes=1)
