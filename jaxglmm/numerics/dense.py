"""The dense twin: Z'Z as one matrix, M by one Cholesky. The executable specification.

Exact for every pattern, at O(m^3) for m random effects in all. The structured systems
are tested against it; it is never chosen for a fit.
"""

from __future__ import annotations

from typing import Any

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.numerics.system import AbstractFactor, AbstractSystem, Effects, Lambdas
from jaxglmm.runtime.arrays import cho_solve, jnp, put, solve_triangular
from jaxglmm.runtime.trees import field


def flatten(w: Effects) -> Float[Array, "m K"]:
    """Effects as columns: factor by factor, level by level, component by component."""
    return jnp.concatenate(
        [
            jnp.transpose(x, (2, 0, 1)).reshape(x.shape[2] * len(x), x.shape[1])
            for x in w
        ]
    )


class DenseSystem(AbstractSystem):
    """Z'Z (m, m), columns as in ``flatten``; sides = ((J, q), ...)."""

    ZZ: Float[Array, "m m"]
    sides: tuple[tuple[int, int], ...] = field(static=True)

    def unflatten(self, v: Float[Array, "m K"]) -> Effects:
        """The inverse of ``flatten``."""
        out, start = [], 0
        for J, q in self.sides:
            part = v[start : start + J * q].reshape(J, q, v.shape[1])
            out.append(jnp.transpose(part, (1, 2, 0)))
            start += J * q
        return tuple(out)

    def big_lambda(self, lam: Lambdas) -> Float[Array, "m m"]:
        """The block-diagonal Lambda in full."""
        out = jnp.zeros_like(self.ZZ)
        start = 0
        for (J, q), x in zip(self.sides, lam, strict=True):
            stop = start + J * q
            own = slice(start, stop)
            out = put(out, (own, own), jnp.kron(jnp.eye(J), x))
            start = stop
        return out

    def normal(self, w: Effects) -> Effects:
        return self.unflatten(self.ZZ @ flatten(w))

    def squares(self) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
        component, start = [], 0
        for J, q in self.sides:
            component += [start + i for _ in range(J) for i in range(q)]
            start += q
        member = (jnp.asarray(component)[:, None] == jnp.arange(start)).astype(float)
        return member.T @ self.ZZ**2 @ member, jnp.diagonal(self.ZZ) @ member

    def factor(self, lam: Lambdas) -> DenseFactor:
        big = self.big_lambda(lam)
        M = big.T @ self.ZZ @ big + jnp.eye(len(self.ZZ))
        return DenseFactor(self, lam, jnp.linalg.cholesky(M))


class DenseFactor(AbstractFactor):
    """M = L L', L (m, m)."""

    system: DenseSystem
    lam: Lambdas
    L: Float[Array, "m m"]

    def log_det(self) -> Scalar:
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.L)))

    def forward(self, c: Effects) -> Effects:
        return self.system.unflatten(solve_triangular(self.L, flatten(c), lower=True))

    def backward(self, z: Effects) -> Effects:
        return self.system.unflatten(
            solve_triangular(self.L, flatten(z), lower=True, trans=1)
        )

    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        return self._blocks(cho_solve((self.L, True), jnp.eye(len(self.L))))

    def traces(self, selected: Any = None) -> tuple[Float[Array, "q q"], ...]:
        big = self.system.big_lambda(self.lam)
        half = solve_triangular(self.L, big.T @ self.system.ZZ, lower=True)
        blocks = self._blocks(self.system.ZZ - half.T @ half)
        return tuple(jnp.sum(b, axis=-1) for b in blocks)

    def _blocks(self, A: Float[Array, "m m"]) -> tuple[Float[Array, "q q J"], ...]:
        out, start = [], 0
        for J, q in self.system.sides:
            stop = start + J * q
            part = A[start:stop, start:stop].reshape(J, q, J, q)
            out.append(jnp.einsum("gigj->ijg", part))
            start = stop
        return tuple(out)
