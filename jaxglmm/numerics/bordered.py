"""The precision of random and fixed effects together, by the structured systems.

    P = [Z'WZ + Sigma^-1   Z'WX       ]
        [X'WZ              X'WX + P_x ]

With M = Lambda'Z'WZ Lambda + I factored by structure and Q = X'V^-1X + P_x for V = W^-1
+ Z Sigma Z', everything follows from thin solves:

    log|P| + log|Sigma| = log|M| + log|Q| ;
    spherical u, b = Lambda u, for a right-hand side (r, s) in the space of (u, beta):
    x = Q^-1 (s - U'r),  u = M^-1 r - U x,  U = M^-1 Lambda'Z'WX

Nothing divides by Lambda, so a variance may be zero.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.numerics import spd
from jaxglmm.numerics.system import (
    AbstractFactor,
    AbstractSystem,
    Effects,
    Lambdas,
    inner_all,
    scale,
    scale_transposed,
)
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module


class Bordered(Module):
    """factor: of M; U, T = Z'V^-1X: (q, p, J) a factor; Q, L: (p, p), Q = LL'."""

    factor: AbstractFactor
    U: Effects
    T: Effects
    Q: Float[Array, "p p"]
    L: Float[Array, "p p"]

    def log_det(self) -> Scalar:
        """log|M| + log|Q|."""
        if not len(self.L):
            return self.factor.log_det()
        return self.factor.log_det() + spd.log_det(self.L)

    def solve(
        self, r: Effects, s: Float[Array, "p K"]
    ) -> tuple[Effects, Float[Array, "p K"]]:
        """u and x for K right-hand sides."""
        u = self.factor.backward(self.factor.forward(r))
        if not len(self.L):
            return u, s
        x = spd.solve(self.L, s - inner_all(self.U, r))
        return self._less(u, x), x

    def draw(
        self, z: Effects, e: Float[Array, "p K"]
    ) -> tuple[Effects, Float[Array, "p K"]]:
        """Standard normals to draws of (u, beta) with covariance P^-1."""
        u = self.factor.backward(z)
        if not len(self.L):
            return u, e
        x = spd.backward(self.L, e)
        return self._less(u, x), x

    def _less(self, u: Effects, x: Float[Array, "p K"]) -> Effects:
        change = tuple(jnp.einsum("ipg,pk->ikg", U, x) for U in self.U)
        return tuple(a - c for a, c in zip(u, change, strict=True))


def through(factor: AbstractFactor, v: Effects) -> Effects:
    """Lambda M^-1 Lambda'v."""
    lam = factor.lam
    return scale(lam, factor.backward(factor.forward(scale_transposed(lam, v))))


def bordered(
    system: AbstractSystem,
    lam: Lambdas,
    ZX: Effects,
    XX: Float[Array, "p p"],
    prior: Float[Array, "p p"],
) -> Bordered:
    """Factor the whole; ZX = Z'WX, XX = X'WX, prior: P_x of the coefficients."""
    factor = system.factor(lam)
    z = factor.forward(scale_transposed(lam, ZX))
    U = factor.backward(z)
    fitted = system.normal(scale(lam, U))
    T = tuple(a - c for a, c in zip(ZX, fitted, strict=True))
    Q = XX - inner_all(z, z) + prior
    return Bordered(factor, U, T, Q, spd.cholesky(Q))
