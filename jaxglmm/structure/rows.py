"""Rows of a design for models whose weights change: Z'WZ again and again.

A row belongs to one level of every factor. ``weigh(w)`` makes the structured system of
``numerics`` from row weights, ``spread`` takes effects to rows (Z b), ``collect`` rows
to effects (Z'r). Rows are sorted by the largest factor; ``row_layout`` makes the index
arrays.

Of several linear predictors (``model.predictors``) every component of a factor belongs
to one: ``of`` says to which. Values of rows are then (K, n), weights (K, K, n), blocks
of a symmetric matrix, and an entry of Z'WZ takes the weight of the two predictors that
its components belong to. With one predictor (``of`` None) there is no such axis.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from itertools import combinations
from typing import Any

from jaxglmm._typing import Array, Float, Int
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.arrow import Arrow, DenseCoupling, PairedCoupling
from jaxglmm.numerics.blocks import Blocks, BlocksFactor
from jaxglmm.numerics.nested import Nested
from jaxglmm.numerics.system import AbstractSystem, Effects
from jaxglmm.numerics.wide import Wide
from jaxglmm.runtime.arrays import added, jnp, put, segment_sum
from jaxglmm.runtime.levels import constrained
from jaxglmm.runtime.trees import Module, field, tree_at
from jaxglmm.structure import moments_of_design as _build

Columns = Float[Array, "K n"] | list[Array]

LARGE_ROWS = 100_000  # padded rows beyond which columns outgrow the cache


class AbstractRows(Module):
    """Index and values of each factor: codes (n,), z (q, n), sizes of padded levels.

    of: the predictor of each component of each factor, None with one predictor; K: how
    many there are. Rows are flat, (n,), for every caller; ``folded`` gives the same
    rows in the shape that sums run best over, which is what loops use.
    """

    codes: tuple[Int[Array, " n"], ...]
    z: tuple[Float[Array, "q n"], ...]
    sizes: tuple[int, ...] = field(static=True)
    of: tuple[tuple[int, ...], ...] | None = field(
        static=True, default=None, kw_only=True
    )
    K: int = field(static=True, default=1, kw_only=True)

    @property
    def sides(self) -> tuple[int, ...]:
        """Columns of each factor."""
        return tuple(len(z) for z in self.z)

    def turned(self, k: int, T: Any) -> AbstractRows:
        """The rows with the columns of factor k turned, Z' = Z T."""
        z = list(self.z)
        z[k] = jnp.asarray(T).T @ jnp.asarray(z[k])
        return tree_at(lambda rows: rows.z, self, tuple(z))

    def folded(self) -> AbstractRows:
        """The same rows in their folded shape."""
        return self

    def fold(self, x: Float[Array, "... n"]) -> Array:
        """Values of flat rows to folded ones."""
        return x

    def unfold(self, x: Array) -> Float[Array, " n"]:
        """The inverse of ``fold`` for one column."""
        return x

    def spread(self, b: Effects) -> Float[Array, " n"]:
        """Z b for one vector of effects, (q, 1, J) a factor."""
        if self.of is not None:
            return self._spread_apart(b)
        total = 0.0
        for k, (z, x) in enumerate(zip(self.z, b, strict=True)):
            for i in range(len(z)):
                total = total + z[i] * self._at(k, x[i, 0])
        return total

    def _spread_apart(self, b: Effects) -> Float[Array, "K n"]:
        """Z_k b for each predictor k."""
        totals: list[Any] = [jnp.zeros_like(self.z[0][0])] * self.K
        for k, (z, x) in enumerate(zip(self.z, b, strict=True)):
            for i in range(len(z)):
                at = self.of[k][i]  # pyright: ignore[reportOptionalSubscript]
                totals[at] = totals[at] + z[i] * self._at(k, x[i, 0])
        return jnp.stack(totals)

    def collect(self, r: Columns) -> Effects:
        """Z'r, (q, c, J) a factor; r: (c, n), or c columns that need not be one array.

        Of several predictors a column is (K, n).
        """
        out = []
        for k, z in enumerate(self.z):
            rows = [
                [self._sum(k, z[i] * self._own(x, k, i)) for x in r]
                for i in range(len(z))
            ]
            out.append(jnp.stack([jnp.stack(row) for row in rows]))
        return tuple(out)

    def level_sum(self, r: Float[Array, " n"]) -> Float[Array, " J"]:
        """Sum over the rows of each level of the first factor."""
        return self._sum(0, r)

    def largest(self, b: Float[Array, "q 1 J"]) -> Float[Array, " J"]:
        """The largest |z'b_g| of each level of the first factor, or more."""
        z = self.z[0]
        return sum(jnp.max(jnp.abs(z[i])) * jnp.abs(b[i, 0]) for i in range(len(z)))

    def _at(self, k: int, x: Float[Array, " J"]) -> Float[Array, " n"]:
        """The value of each row's level of factor k."""
        return x[self.codes[k]]

    def _sum(self, k: int, x: Float[Array, " n"]) -> Float[Array, " J"]:
        return segment_sum(x, self.codes[k], self.sizes[k], indices_are_sorted=k == 0)

    def _own(self, r: Array, k: int, i: int) -> Array:
        """What rows' values say to component i of factor k."""
        return r if self.of is None else r[self.of[k][i]]

    def _between(self, w: Array, k: int, i: int, m: int, j: int) -> Array:
        """Weights between component i of factor k and component j of factor m."""
        return w if self.of is None else w[self.of[k][i], self.of[m][j]]

    def _blocks(self, k: int, w: Float[Array, " n"]) -> Float[Array, "q q J"]:
        z = self.z[k]
        q = len(z)
        half = [
            [
                self._sum(k, self._between(w, k, i, k, j) * z[i] * z[j])
                for j in range(i + 1)
            ]
            for i in range(q)
        ]
        full = [[half[max(i, j)][min(i, j)] for j in range(q)] for i in range(q)]
        return small.stack(full, half[0][0])

    def _quadratic(self, k: int, N: small.Matrix) -> Float[Array, " n"]:
        """z'N_g z for the symmetric block N_g of each row's level of factor k."""
        z = self.z[k]
        out = 0.0
        for i in range(len(z)):
            for j in range(i + 1):
                here = z[i] * z[j] * self._at(k, N[i][j])
                out = out + (here if i == j else 2 * here)
        return out

    @abc.abstractmethod
    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        """The system Z'WZ."""

    def leverages(self, factor: Any, selected: Any) -> Any:
        """d log|M| / dw, row by row: z'Lambda M^-1 Lambda'z, z the row of Z.

        factor: of ``weigh(w)``; selected: its ``selected()``. Of several predictors
        K rows of K entries (n,): z_k'Lambda M^-1 Lambda'z_l, z_k the part of z that is
        k's; 0.0 where there is none.
        """
        return self._by_predictor(lambda rows: rows.leverage(factor, selected))

    def quadratic(self, N: small.Matrix) -> Any:
        """z'N_g z, N_g the symmetric block of each row's level of the first factor."""
        return self._by_predictor(lambda rows: rows._quadratic(0, N))

    def _by_predictor(self, square: Callable[[AbstractRows], Array]) -> Any:
        """A quadratic form in the rows of Z, taken apart by predictors.

        By its values where the columns of one or two predictors alone are not zero.
        """
        if self.of is None:
            return square(self)

        def of_only(*kept: int) -> Array:
            z = tuple(
                jnp.stack([x if k in kept else jnp.zeros_like(x) for x, k in pairs])
                for pairs in map(_pairs, self.z, self.of)  # pyright: ignore
            )
            return square(tree_at(lambda rows: rows.z, self, z))

        used = sorted({k for own in self.of for k in own})
        out: small.Matrix = [[0.0] * self.K for _ in range(self.K)]
        for k in used:
            out[k][k] = square(self) if len(used) == 1 else of_only(k)
        for k, m in combinations(used, 2):
            both = (of_only(k, m) - out[k][k] - out[m][m]) / 2
            out[k][m] = out[m][k] = both
        return out

    @abc.abstractmethod
    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        """``leverages`` of all components of a row together."""


def _pairs(z: Array, of: tuple[int, ...]) -> list[tuple[Array, int]]:
    return list(zip(z, of, strict=True))


class NoRows(AbstractRows):
    """No factor at all: a generalised linear model."""

    def spread(self, b: Effects) -> Float[Array, " n"]:
        return jnp.zeros(())

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        raise NotImplementedError("a model without random effects has no system")

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        raise NotImplementedError("a model without random effects has no leverages")


class OneFactorRows(AbstractRows):
    """One factor, rows sorted by level."""

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        A = self._blocks(0, w)
        return Blocks(A) if len(A) <= _build.UNROLLED else Wide(A)

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        if isinstance(factor, BlocksFactor):
            return self._quadratic(0, selected)
        z, N = self.z[0], selected
        return sum(
            z[i] * jnp.sum(z * self._all_at(N[i]), axis=0) for i in range(len(z))
        )

    def _all_at(self, x: Float[Array, "q J"]) -> Array:
        """Values of the levels, several at once, at the rows."""
        return x[:, self.codes[0]]


class PaddedRows(OneFactorRows):
    """One factor whose levels have about as many rows each, all padded to ``height``.

    Row r of level g is at place r J + g, so that sums over rows run down columns.
    """

    height: int = field(static=True)
    mesh: Any = field(static=True, default=None, kw_only=True)  # that levels share

    def folded(self) -> AbstractRows:
        shape = (self.height, self.sizes[0])
        z = constrained(self.z[0].reshape(len(self.z[0]), *shape), self.mesh)
        rest = {"of": self.of, "K": self.K, "mesh": self.mesh}
        return FoldedRows(self.codes, (z,), self.sizes, self.height, **rest)

    def fold(self, x: Float[Array, "... n"]) -> Array:
        if x.shape[-1] == 1:  # one number for all rows
            return x[..., None]
        x = x.reshape(*x.shape[:-1], self.height, self.sizes[0])
        return constrained(x, self.mesh)

    def unfold(self, x: Array) -> Float[Array, " n"]:
        return x.reshape(-1) if self.of is None else x.reshape(len(x), -1)

    def _at(self, k: int, x: Float[Array, " J"]) -> Float[Array, " n"]:
        return jnp.tile(x, self.height)

    def _sum(self, k: int, x: Float[Array, " n"]) -> Float[Array, " J"]:
        return jnp.sum(x.reshape(self.height, self.sizes[k]), axis=0)


class FoldedRows(PaddedRows):
    """The same, arrays of rows in shape (height, J)."""

    def folded(self) -> AbstractRows:
        return self

    def collect(self, r: Columns) -> Effects:
        if self.of is not None:
            return super().collect(r)
        whole = jnp.stack(r) if isinstance(r, list) else r
        return (jnp.stack([jnp.sum(whole * z, axis=1) for z in self.z[0]]),)

    def _at(self, k: int, x: Float[Array, " J"]) -> Array:
        return x[None]

    def _all_at(self, x: Float[Array, "q J"]) -> Array:
        return x[:, None]

    def _sum(self, k: int, x: Float[Array, "height J"]) -> Float[Array, " J"]:
        return jnp.sum(x, axis=0)


class NestedRows(AbstractRows):
    """Each factor inside the next; ancestors as in ``numerics.nested``."""

    ancestors: tuple[tuple[Int[Array, " J"], ...], ...]

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        K = len(self.sizes)
        C = []
        for k in range(K):
            own = []
            for m in range(k + 1, K):
                rows = [
                    [
                        self._sum(k, self._between(w, k, i, m, j) * a * b)
                        for j, b in enumerate(self.z[m])
                    ]
                    for i, a in enumerate(self.z[k])
                ]
                own.append(small.stack(rows, rows[0][0]))
            C.append(tuple(own))
        A = tuple(self._blocks(k, w) for k in range(K))
        return Nested(A, tuple(C), self.ancestors, self.sizes)

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        K = len(self.sizes)
        scaled = [
            small.apply(small.transpose(small.lower(lam)), list(z))
            for lam, z in zip(factor.lam, self.z, strict=True)
        ]
        out = 0.0
        for k in range(K):
            for m in range(k, K):  # blocks live at the levels of the finer factor
                for i, x in enumerate(scaled[k]):
                    for j, y in enumerate(scaled[m]):
                        block = self._at(k, selected[k, m][i][j])
                        out = out + (1.0 if k == m else 2.0) * x * y * block
        return out


class ArrowRows(AbstractRows):
    """Crossed factors.

    columns: column of block 2 of each row's level, (n,) a later factor; entry: (n,) the
    row's entry of the coupling, a later factor (sparse coupling only); row, col, pairs:
    as in ``PairedCoupling``.
    """

    columns: tuple[Int[Array, " n"], ...]
    entry: tuple[Int[Array, " n"], ...] | None
    row: Int[Array, " E"] | None
    col: Int[Array, " E"] | None
    pair_one: Int[Array, " P"] | None
    pair_two: Int[Array, " P"] | None
    pair_target: Int[Array, " P"] | None

    @property
    def m(self) -> int:
        """Columns of block 2."""
        return sum(s * len(z) for s, z in zip(self.sizes[1:], self.z[1:], strict=True))

    def weigh(self, w: Float[Array, " n"]) -> AbstractSystem:
        A = self._blocks(0, w)
        head = Blocks(A) if len(A) <= _build.UNROLLED else Wide(A)
        sides = tuple(
            (s, len(z)) for s, z in zip(self.sizes[1:], self.z[1:], strict=True)
        )
        coupling = self._dense(w) if self.entry is None else self._sparse(w)
        return Arrow(head, coupling, self._second(w), sides)

    def _dense(self, w: Float[Array, " n"]) -> DenseCoupling:
        m = self.m
        out = []
        for i in range(len(self.z[0])):
            flat = jnp.zeros(self.sizes[0] * m, w.dtype)
            for k, (column, z) in enumerate(zip(self.columns, self.z[1:], strict=True)):
                for j in range(len(z)):
                    target = self.codes[0] * m + column + j
                    own = self._between(w, 0, i, k + 1, j)
                    flat = added(flat, target, own * self.z[0][i] * z[j])
            out.append(flat.reshape(self.sizes[0], m))
        return DenseCoupling(jnp.stack(out))

    def _sparse(self, w: Float[Array, " n"]) -> PairedCoupling:
        assert self.entry is not None
        E = len(self.row)  # pyright: ignore[reportArgumentType]
        value = []
        for i in range(len(self.z[0])):
            total = jnp.zeros(E, w.dtype)
            for k, (entry, z) in enumerate(zip(self.entry, self.z[1:], strict=True)):
                for j in range(len(z)):
                    own = self._between(w, 0, i, k + 1, j)
                    total = added(total, entry + j, own * self.z[0][i] * z[j])
            value.append(total)
        return PairedCoupling(
            self.row,  # pyright: ignore[reportArgumentType]
            self.col,  # pyright: ignore[reportArgumentType]
            jnp.stack(value),
            self.pair_one,  # pyright: ignore[reportArgumentType]
            self.pair_two,  # pyright: ignore[reportArgumentType]
            self.pair_target,  # pyright: ignore[reportArgumentType]
            self.sizes[0],
            self.m,
        )

    def leverage(self, factor: Any, selected: Any) -> Float[Array, " n"]:
        """From N = Lambda M^-1 Lambda' on the pattern of Z'Z.

        N_22 = P, N_12 = -F X, N_11 = F + F X N' F with the coupling N_g and X = N_g P.
        """
        F, P, X, outer = factor.F, selected.P, selected.across, selected.outer
        q, m = len(F), self.m
        inner = [[sum_products(F, outer, i, j) for j in range(q)] for i in range(q)]
        own = [[F[i, j] + inner[i][j] for j in range(q)] for i in range(q)]
        out = self._quadratic(0, own)
        z, half = self.z[0], []
        for i in range(q):
            half.append(sum(z[j] * self._at(0, F[i, j]) for j in range(q)))
        diagonal = P.reshape(-1)[:: m + 1]
        for a, (ca, za) in enumerate(zip(self.columns, self.z[1:], strict=True)):
            for i in range(len(za)):
                for r in range(q):
                    out = out - 2 * half[r] * za[i] * self._across(X[r], a, i)
                out = out + za[i] * za[i] * diagonal[ca + i]
                for j in range(i):
                    out = out + 2 * za[i] * za[j] * P[ca + i, ca + j]
            for cb, zb in zip(self.columns[:a], self.z[1 : a + 1], strict=True):
                for i in range(len(za)):
                    for j in range(len(zb)):
                        out = out + 2 * za[i] * zb[j] * P[ca + i, cb + j]
        return out

    def _across(self, X: Array, a: int, i: int) -> Float[Array, " n"]:
        """Entry of N_g P in the column of component i of later factor a."""
        if self.entry is None:
            return X[self.codes[0], self.columns[a] + i]
        return X[self.entry[a] + i]

    def _second(self, w: Float[Array, " n"]) -> Float[Array, "m m"]:
        m = self.m
        flat = jnp.zeros(m * m, w.dtype)
        start = 0
        for a, (ca, za) in enumerate(zip(self.columns, self.z[1:], strict=True)):
            q, J = len(za), self.sizes[a + 1]
            blocks = self._blocks(a + 1, w)
            level = start + jnp.arange(J) * q
            for i in range(q):
                for j in range(q):
                    flat = put(flat, (level + i) * m + level + j, blocks[i, j])
            for b, cb in enumerate(self.columns[:a]):
                zb = self.z[b + 1]
                for i in range(q):
                    for j in range(len(zb)):
                        x = self._between(w, a + 1, i, b + 1, j) * za[i] * zb[j]
                        flat = added(flat, (ca + i) * m + cb + j, x)
                        flat = added(flat, (cb + j) * m + ca + i, x)
            start += J * q
        return flat.reshape(m, m)


def sum_products(
    F: Float[Array, "q q J"], A: Float[Array, "q q J"], i: int, j: int
) -> Float[Array, " J"]:
    """Entry (i, j) of F A F for symmetric F."""
    q = len(F)
    return sum(F[i, a] * A[a, b] * F[b, j] for a in range(q) for b in range(q))
