"""Rows of many generalised models with one grouping factor, lanes last.

Row r of level g of lane k is at place (r, g, k): sums over the rows of a level run down
the first axis, and every operation is long in the lanes. Arrays that all lanes share
end in 1. Levels with fewer rows are padded with weight zero.

Of several linear predictors (``model.predictors``) what a row has begins with one axis
of length K, or two, or three, as it does for one model; X has the columns of all.
"""

from __future__ import annotations

from typing import Any

from jaxglmm._typing import Array, Float
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.predictors import Predictors
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module, field


class LaneRows(Module):
    """Rows of L lanes; l is L, or 1 for what the lanes share.

    X: (p, h, J, l); Z: (q, h, J, l), None for one column of ones; y: (h, J, L);
    trials, weights: (h, J, l); offset: (h, J, l) or None. Of a family with a separable
    term, values and many: the distinct values of y, (v, L), and the weight of their
    rows; or tails: the weight of the rows beyond 0, 1, ... v - 1, of counts, (v, L).
    None where every row is looked at.
    """

    X: Float[Array, "p h J l"]
    Z: Float[Array, "q h J l"] | None
    y: Float[Array, "h J L"]
    trials: Float[Array, "h J l"]
    weights: Float[Array, "h J l"]
    offset: Float[Array, "h J l"] | None
    family: AbstractFamily
    values: Float[Array, "v L"] | None = None
    many: Float[Array, "v L"] | None = None
    tails: Float[Array, "v L"] | None = None
    predictors: Predictors = field(static=True, default=Predictors())
    of: tuple[int, ...] | None = field(static=True, default=None)

    @property
    def p(self) -> int:
        """Fixed effects."""
        return self.X.shape[0]

    @property
    def q(self) -> int:
        """Random effects a level."""
        return 1 if self.Z is None else self.Z.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, J, L)."""
        return self.y.shape

    def z(self, i: int) -> Array | float:
        """One column of Z."""
        return 1.0 if self.Z is None else self.Z[i]

    @property
    def rows_shape(self) -> tuple[int, ...]:
        """Of the values of predictors: ``shape``, after K where there are several."""
        K = self.predictors.K
        return self.shape if K == 1 else (K, *self.shape)

    def predictor(self, beta: list[Array], b: list[Array]) -> Array:
        """offset + X beta + Z b, (h, J, L); beta: (L,) each, b: (J, L) each."""
        eta = jnp.zeros(self.rows_shape) if self.offset is None else self.offset
        if self.predictors.K == 1:
            for x, coefficient in zip(self.X, beta, strict=True):
                eta = eta + x * coefficient
            return self.ahead(eta, b)
        parts = list(jnp.broadcast_to(eta, self.rows_shape))
        columns = zip(self.predictors.of, self.X, beta, strict=True)
        for k, x, coefficient in columns:
            parts[k] = parts[k] + x * coefficient
        return self.ahead(jnp.stack(parts), b)

    def ahead(self, eta: Array, b: list[Array]) -> Array:
        """eta + Z b."""
        if self.of is None:
            for i, effect in enumerate(b):
                eta = eta + self.z(i) * effect[None]
            return eta
        parts = list(eta)
        for i, effect in enumerate(b):
            parts[self.of[i]] = parts[self.of[i]] + self.z(i) * effect[None]
        return jnp.stack(parts)

    def collect(self, r: Array) -> list[Array]:
        """Z'r of each level, q arrays (J, L)."""
        return [levels(self.z(i) * self._own(r, i)) for i in range(self.q)]

    def blocks(self, w: Array) -> small.Matrix:
        """Z'WZ of each level, entries (J, L)."""
        out: small.Matrix = [[0.0] * self.q for _ in range(self.q)]
        for i in range(self.q):
            for j in range(i + 1):
                between = self._between(w, i, j)
                out[i][j] = out[j][i] = levels(self.z(i) * self.z(j) * between)
        return out

    def across(self, w: Array) -> list[list[Array]]:
        """Z'WX of each level, q rows of p arrays (J, L)."""
        return [
            [
                levels(self.z(i) * x * (w if self.of is None else w[self.of[i], k]))
                for x, k in zip(self.X, self._columns, strict=True)
            ]
            for i in range(self.q)
        ]

    def quadratic(self, N: small.Matrix) -> Any:
        """z'N z, (h, J, L); of several K rows of K such, 0.0 where there is none."""
        if self.of is None:
            out = 0.0
            for i in range(self.q):
                for j in range(i + 1):
                    here = self.z(i) * self.z(j) * jnp.asarray(N[i][j])[None]
                    out = out + (here if i == j else 2 * here)
            return out
        K = self.predictors.K
        parts: small.Matrix = [[0.0] * K for _ in range(K)]
        for i, k in enumerate(self.of):
            for j, m in enumerate(self.of):
                here = self.z(i) * self.z(j) * jnp.asarray(N[i][j])[None]
                parts[k][m] = parts[k][m] + here
        return parts

    def along(self, v: Array) -> list[Array]:
        """X'v of each lane, p arrays (L,)."""
        if self.predictors.K == 1:
            return _products(self.X, v)
        own = self.predictors.parts(self.X)
        return [x for k, X in enumerate(own) for x in _products(X, v[k])]

    def gram(self, w: Array) -> list[list[Array]]:
        """X'WX of each lane, p rows of p arrays (L,)."""
        p, X = self.p, self.X
        pairs = [(a, b) for a in range(p) for b in range(a + 1)]
        if X.shape[-1] == 1 and p and self.predictors.K == 1:
            flat = X.reshape(p, -1)
            products = jnp.stack([flat[a] * flat[b] for a, b in pairs])
            sums = products @ w.reshape(-1, w.shape[-1])
        else:
            of = self._columns
            own = w[None, None] if self.of is None else w
            sums = [lanes(X[a] * X[b] * own[of[a], of[b]]) for a, b in pairs]
        found = dict(zip(pairs, sums, strict=True))
        return [[found[max(a, b), min(a, b)] for b in range(p)] for a in range(p)]

    @property
    def _columns(self) -> tuple[int, ...]:
        """(p,) the predictor of each column of X."""
        return (0,) * self.p if self.predictors.K == 1 else self.predictors.of

    def _own(self, r: Array, i: int) -> Array:
        return r if self.of is None else r[self.of[i]]

    def _between(self, w: Array, i: int, j: int) -> Array:
        return w if self.of is None else w[self.of[i], self.of[j]]

    @property
    def has_separable_term(self) -> bool:
        """Whether ``apart`` is known without a look at each row."""
        return self.values is not None or self.tails is not None

    def apart(self, phi: Float[Array, "r L"]) -> Array:
        """The part of the log-likelihoods that eta does not enter, (L,)."""
        if self.tails is not None:  # summed by parts
            steps = jnp.arange(1.0 * len(self.tails))[:, None]
            return jnp.sum(
                self.tails * self.family.log_separable_step(steps, phi), axis=0
            )
        assert self.values is not None
        assert self.many is not None
        found = self.family.log_separable(self.values, phi)
        return jnp.sum(jnp.where(self.many > 0, self.many * found, 0.0), axis=0)


def _products(X: Array, v: Array) -> list[Array]:
    """X'v of each lane for columns of one predictor."""
    if X.shape[-1] == 1 and len(X):  # one product for all lanes
        return list(X.reshape(len(X), -1) @ v.reshape(-1, v.shape[-1]))
    return [lanes(x * v) for x in X]


def levels(x: Array) -> Array:
    """Sum over the rows of a level, (J, L)."""
    return jnp.sum(x, axis=0)


def lanes(x: Array) -> Array:
    """Sum over all rows, (L,)."""
    return jnp.sum(x, axis=(0, 1))
