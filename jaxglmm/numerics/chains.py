"""One factor, many columns in a row, of which each row of the data uses one.

Effects b_g of a level follow each other as AR(1) and Ornstein-Uhlenbeck processes do:
with Lambda = D L, D the standard deviation and L L' the correlations, B = L^-1 has a
diagonal and the one below it. Z_g'WZ_g = A_g is diagonal, so

    M_g = Lambda'A_g Lambda + I = L'H_g L,   H_g = D^2 A_g + B'B  tridiagonal,
    N_g = Lambda M_g^-1 Lambda' = D^2 H_g^-1,   S_g = A_g - A_g N_g A_g,

and all of a level costs O(q) along the levels, O(q^2) for the sum of S_g. H = C d C', C
with ones and l below them; entries of H^-1 from the last row up (Takahashi, Fagan, Chin
1973). A standard deviation of zero is an ordinary point.
"""

from __future__ import annotations

from typing import Any

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    inner,
)
from jaxglmm.runtime.arrays import jnp, lax, put
from jaxglmm.runtime.trees import Module


class ChainSystem(AbstractSystem):
    """A: (q, J), the diagonals of Z_g'WZ_g."""

    A: Float[Array, "q J"]

    def normal(self, w: Effects) -> Effects:
        return (self.A[:, None] * w[0],)

    def squares(self) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
        return jnp.diag(jnp.sum(self.A**2, axis=1)), jnp.sum(self.A, axis=1)

    def factor(self, lam: Lambdas) -> ChainFactor:
        D = lam[0][0, 0]
        L = lam[0] / jnp.where(D == 0, 1.0, D)
        L = jnp.where(D == 0, jnp.eye(len(L), dtype=L.dtype), L)
        own = jnp.diagonal(L)
        below = -jnp.diagonal(L, -1) / (own[1:] * own[:-1])
        above = jnp.concatenate([below, jnp.zeros(1, L.dtype)])
        own = 1.0 / own
        h = D**2 * self.A + (own**2 + above**2)[:, None]
        e = below * own[1:]  # of H, below its diagonal

        def step(d: Array, x: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            off, diagonal = x
            l = off / d
            new = diagonal - l * off
            return new, (new, l)

        _, (d, l) = lax.scan(step, h[0], (e, h[1:]))
        d = jnp.concatenate([h[:1], d])
        return ChainFactor(self, lam, D, own, below, d, l)


class ChainEntries(Module):
    """diagonal: (q, J) of N; products: (q, q) sum of A_g N_g A_g over the levels."""

    diagonal: Float[Array, "q J"]
    products: Float[Array, "q q"]


class ChainFactor(AbstractFactor):
    """H = C d C' of every level, and B = L^-1.

    D: the standard deviation; own: (q,), below (q - 1,): of B; d: (q, J); l: (q - 1,
    J) of C.
    """

    system: ChainSystem
    lam: Lambdas
    D: Scalar
    own: Float[Array, " q"]
    below: Float[Array, " q-1"]
    d: Float[Array, "q J"]
    l: Float[Array, "q-1 J"]

    def log_det(self) -> Scalar:
        J = self.d.shape[1]
        return jnp.sum(jnp.log(self.d)) - 2 * J * jnp.sum(jnp.log(self.own))

    def _down(self, x: Float[Array, "q K J"]) -> Float[Array, "q K J"]:
        """d^-1/2 C^-1 x."""

        def step(before: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            new = at[1] - at[0][None] * before
            return new, new

        _, rest = lax.scan(step, x[0], (self.l, x[1:]))
        return jnp.concatenate([x[:1], rest]) / jnp.sqrt(self.d)[:, None]

    def _up(self, x: Float[Array, "q K J"]) -> Float[Array, "q K J"]:
        """C'^-1 d^-1/2 x."""
        x = x / jnp.sqrt(self.d)[:, None]

        def step(after: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            new = at[1] - at[0][None] * after
            return new, new

        _, rest = lax.scan(step, x[-1], (self.l[::-1], x[:-1][::-1]))
        return jnp.concatenate([rest[::-1], x[-1:]])

    def forward(self, c: Effects) -> Effects:
        x = self.own[:, None, None] * c[0]
        moved = self.below[:, None, None] * c[0][1:]
        x = x + jnp.concatenate([moved, jnp.zeros_like(x[:1])])
        return (self._down(x),)

    def backward(self, z: Effects) -> Effects:
        x = self._up(z[0])
        out = self.own[:, None, None] * x
        moved = self.below[:, None, None] * x[:-1]
        return (out + jnp.concatenate([jnp.zeros_like(x[:1]), moved]),)

    def _half(self, w: Float[Array, "q K J"]) -> Float[Array, "q K J"]:
        """L_M^-1 Lambda'w, M = L_M L_M'."""
        return self._down(self.D * w)

    def project(
        self, B: Effects, RR: Float[Array, "r r"]
    ) -> tuple[Float[Array, "r r"], Effects]:
        z = self._half(B[0])
        fitted = self.system.A[:, None] * (self.D * self._up(z))
        return RR - inner(z, z), (B[0] - fitted,)

    def gram(self, w: Effects) -> Float[Array, "K K"]:
        v = self.system.A[:, None] * w[0]
        z = self._half(v)
        return inner(w[0], v) - inner(z, z)

    def _rows(self, see: Any, x: Float[Array, "q J"]) -> Any:
        """see(row i of H^-1 from its diagonal on, that, x_i) of every i, last first."""
        place = jnp.arange(len(self.d))[:, None]
        l = jnp.concatenate([self.l, jnp.zeros_like(self.d[:1])])

        def step(state: tuple[Array, Array], at: tuple[Array, ...]) -> Any:
            after, following = state
            i, d, l, own = at
            diagonal = 1.0 / d + l * l * following
            row = jnp.where(place == i, diagonal[None], -l[None] * after)
            return (row, diagonal), see(row, diagonal, own)

        start = jnp.zeros_like(self.d), jnp.zeros_like(self.d[0])
        xs = (jnp.arange(len(self.d))[::-1], self.d[::-1], l[::-1], x[::-1])
        return lax.scan(step, start, xs)[1]

    def selected(self) -> ChainEntries:
        weighted = self.D * self.system.A

        def see(row: Array, diagonal: Array, own: Array) -> tuple[Array, Array]:
            return diagonal, jnp.sum(weighted * row * own[None], axis=1)

        diagonal, upper = self._rows(see, weighted)
        upper = jnp.triu(upper[::-1])
        products = upper + jnp.triu(upper, 1).T
        return ChainEntries(self.D**2 * diagonal[::-1], products)

    def traces(self, selected: ChainEntries | None = None) -> tuple[Array, ...]:
        known = self.selected() if selected is None else selected
        total = jnp.diag(jnp.sum(self.system.A, axis=1))
        return (total - known.products,)

    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        """B H^-1 B', in full."""
        half = self._rows(lambda row, *_: row, self.d)[::-1]
        q = len(half)
        later = jnp.arange(q)[:, None] < jnp.arange(q)[None]
        whole = half + jnp.swapaxes(jnp.where(later[:, :, None], half, 0.0), 0, 1)
        B = put(jnp.zeros((q, q), half.dtype), (jnp.arange(q), jnp.arange(q)), self.own)
        B = put(B, (jnp.arange(1, q), jnp.arange(q - 1)), self.below)
        return (jnp.einsum("ibg,jb->ijg", jnp.tensordot(B, whole, 1), B),)

    def blocks_of(self, selected: ChainEntries) -> tuple[Float[Array, "q q J"], ...]:
        return self.inverse_blocks()
