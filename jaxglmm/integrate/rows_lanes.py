"""Rows of many generalised models with one grouping factor, lanes last.

Row r of level g of lane k is at place (r, g, k): sums over the rows of a level run down
the first axis, and every operation is long in the lanes. Arrays that all lanes share
end in 1. Levels with fewer rows are padded with weight zero.
"""

from __future__ import annotations

import equinox as eqx

from jaxglmm._typing import Array, Float
from jaxglmm.model.families import AbstractFamily
from jaxglmm.runtime.arrays import jnp


class LaneRows(eqx.Module):
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

    def predictor(self, beta: list[Array], b: list[Array]) -> Array:
        """offset + X beta + Z b, (h, J, L); beta: (L,) each, b: (J, L) each."""
        eta = jnp.zeros(self.shape) if self.offset is None else self.offset
        for x, coefficient in zip(self.X, beta, strict=True):
            eta = eta + x * coefficient
        for i, effect in enumerate(b):
            eta = eta + self.z(i) * effect[None]
        return eta

    def along(self, v: Array) -> list[Array]:
        """X'v of each lane, p arrays (L,)."""
        if self.X.shape[-1] == 1 and self.p:  # one product for all lanes
            return list(self.X.reshape(self.p, -1) @ v.reshape(-1, v.shape[-1]))
        return [lanes(x * v) for x in self.X]

    def gram(self, w: Array) -> list[list[Array]]:
        """X'diag(w) X of each lane, p rows of p arrays (L,)."""
        p, X = self.p, self.X
        pairs = [(a, b) for a in range(p) for b in range(a + 1)]
        if X.shape[-1] == 1 and p:
            flat = X.reshape(p, -1)
            products = jnp.stack([flat[a] * flat[b] for a, b in pairs])
            sums = products @ w.reshape(-1, w.shape[-1])
        else:
            sums = [lanes(X[a] * X[b] * w) for a, b in pairs]
        found = dict(zip(pairs, sums, strict=True))
        return [[found[max(a, b), min(a, b)] for b in range(p)] for a in range(p)]

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


def levels(x: Array) -> Array:
    """Sum over the rows of a level, (J, L)."""
    return jnp.sum(x, axis=0)


def lanes(x: Array) -> Array:
    """Sum over all rows, (L,)."""
    return jnp.sum(x, axis=(0, 1))
