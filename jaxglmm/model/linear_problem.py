"""Problem: a linear mixed model as cross-products; no names, no n.

y = X beta + Z b + e, b = Lambda u, u ~ N(0, sigma^2 I), e ~ N(0, sigma^2 W^-1). Only
Z'WZ, Z'W[X y] and [X y]'W[X y] enter any criterion, so the rows are read once, when the
problem is built. A pytree: it can be jitted, differentiated and vmapped over.
"""

from __future__ import annotations

from typing import Any

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.model.covariances import base
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.numerics.system import AbstractSystem, Effects
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module, field, tree_at


class Problem(Module):
    """A Gaussian mixed model.

    system: Z'WZ by structure; B: Z'W[X y], a (q, p + 1, J) array a factor, y last;
    RR: (p + 1, p + 1), [X y]'W[X y]; n: rows; start: (m,) theta to start from;
    constant: what the criterion lacks (weights, scale of y), ML; constant_reml: same,
    REML; mesh: the devices that share levels.
    """

    system: AbstractSystem
    B: Effects
    RR: Float[Array, "r r"]
    n: Scalar
    start: Float[Array, " m"]
    constant: Scalar
    constant_reml: Scalar
    covariances: tuple[AbstractCovariance, ...] = field(static=True)
    mesh: Any = field(static=True, default=None, kw_only=True)

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        return self.RR.shape[-1] - 1

    @property
    def m(self) -> int:
        """Number of thetas."""
        return base.total(self.covariances)

    @property
    def sides(self) -> tuple[int, ...]:
        """Random effects a level, factor by factor."""
        return tuple(b.shape[-3] for b in self.B)

    def with_response(self, Zy: Effects, Xy: Float[Array, " p"], yy: Scalar) -> Problem:
        """The same design with another response, given as Z'y (q, J), X'y and y'y."""
        p = self.p
        B = tuple(
            jnp.concatenate([b[:, :p], z[:, None]], axis=1)
            for b, z in zip(self.B, Zy, strict=True)
        )
        # side by side, not by updates: each of these would be a kernel of its own
        top = jnp.concatenate([self.RR[:p, :p], Xy[:, None]], axis=1)
        RR = jnp.concatenate([top, jnp.append(Xy, yy)[None]])
        return tree_at(lambda s: (s.B, s.RR), self, (B, RR))

    def lambdas(self, theta: Float[Array, " m"]) -> tuple[Float[Array, "q q"], ...]:
        """Relative Cholesky factors from theta."""
        return base.lambdas(theta, self.covariances)
