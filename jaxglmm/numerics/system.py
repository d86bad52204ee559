"""The one Gaussian problem under everything: M = Lambda' Z'Z Lambda + I.

A *system* holds the cross-products Z'Z of a design (weights inside) for a list of
grouping factors; ``factor(lam)`` factors M at one set of relative Cholesky factors. All
that a likelihood, its score, its average information and its conditional variances need
then is

    log|M|                                ``log_det``
    L^-1 c and L'^-1 z, M = L L'          ``forward``, ``backward``
    Z'Z w                                 ``normal``
    sums of diagonal blocks of Z'V^-1Z    ``traces``,   V = I + Z Lambda Lambda' Z'
    diagonal blocks of M^-1               ``inverse_blocks``

and what follows from them (``project``, ``gram``). ``dense`` is the specification;
``blocks``, ``wide``, ``nested`` and ``arrow`` are fast for one pattern each.

A vector in the space of random effects is a tuple with one array (q, K, J) a factor:
q components, K vectors at once, J levels. Levels come last so that every operation runs
along them.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module

Effects = tuple[Float[Array, "q K J"], ...]
Lambdas = tuple[Float[Array, "q q"], ...]

FLOOR = 1e-5  # smallest diagonal of Lambda where its inverse is needed (see ``traces``)


def inner(a: Float[Array, "q K J"], b: Float[Array, "q H J"]) -> Float[Array, "K H"]:
    """Sum over components and levels of a[i, k, g] b[i, h, g].

    Few vectors: fused multiply and add, which beats a matrix product on tiny shapes.
    """
    if a.shape[1] * b.shape[1] <= 64:
        return jnp.sum(a[:, :, None, :] * b[:, None, :, :], axis=(0, 3))
    left = jnp.swapaxes(a, 0, 1).reshape(a.shape[1], -1)
    right = jnp.swapaxes(b, 0, 1).reshape(b.shape[1], -1)
    return left @ right.T


def inner_all(a: Effects, b: Effects) -> Float[Array, "K H"]:
    """``inner`` summed over the factors."""
    total = inner(a[0], b[0])
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + inner(x, y)
    return total


def scale(lam: Lambdas, w: Effects) -> Effects:
    """Lambda w."""
    return tuple(_mix(small_lam, x) for small_lam, x in zip(lam, w, strict=True))


def scale_transposed(lam: Lambdas, w: Effects) -> Effects:
    """Lambda' w."""
    return tuple(_mix(small_lam.T, x) for small_lam, x in zip(lam, w, strict=True))


def _mix(A: Float[Array, "q q"], x: Float[Array, "q K J"]) -> Float[Array, "q K J"]:
    if A.shape[0] == 1:
        return A[0, 0] * x
    if A.shape[0] <= 4:
        return jnp.stack(
            [sum(A[i, k] * x[k] for k in range(len(A))) for i in range(len(A))]
        )
    return jnp.tensordot(A, x, axes=1)


def at_least(lam: Lambdas, floor: float = FLOOR) -> Lambdas:
    """Lambda with the absolute values of its diagonal raised to ``floor``."""
    return tuple(
        jnp.where(
            jnp.eye(len(x), dtype=bool) & (jnp.abs(x) < floor),
            jnp.where(x < 0, -floor, floor),
            x,
        )
        for x in lam
    )


class AbstractSystem(Module):
    """Z'Z of a design, and how to factor M."""

    @abc.abstractmethod
    def factor(self, lam: Lambdas) -> AbstractFactor:
        """Factor M = Lambda' Z'Z Lambda + I."""

    @abc.abstractmethod
    def normal(self, w: Effects) -> Effects:
        """Z'Z w."""

    @abc.abstractmethod
    def squares(self) -> tuple[Float[Array, "k k"], Float[Array, " k"]]:
        """||Z_k'Z_l||^2 and tr(Z_k'Z_k) for every single column k of Z."""


class AbstractFactor(Module):
    """M = L L' at one Lambda."""

    if TYPE_CHECKING:  # fields of the subclasses, in their order
        system: AbstractSystem
        lam: Lambdas

    @abc.abstractmethod
    def log_det(self) -> Scalar:
        """log |M|."""

    @abc.abstractmethod
    def forward(self, c: Effects) -> Effects:
        """L^-1 c."""

    @abc.abstractmethod
    def backward(self, z: Effects) -> Effects:
        """L'^-1 z."""

    def solve(self, c: Effects) -> Effects:
        """M^-1 c."""
        return self.backward(self.forward(c))

    def newton(self, c: Effects) -> tuple[Effects, Effects]:
        """M^-1 c, and what adds up to c'M^-1c, level by level of a single factor."""
        z = self.forward(c)
        return self.backward(z), tuple(x * x for x in z)

    @abc.abstractmethod
    def inverse_blocks(self) -> tuple[Float[Array, "q q J"], ...]:
        """The diagonal blocks of M^-1, a factor's (q, q, J)."""

    def selected(self) -> Any:
        """What ``traces`` and leverages share: entries of M^-1 on Z's pattern."""
        return self.inverse_blocks()

    def traces(self, selected: Any = None) -> tuple[Float[Array, "q q"], ...]:
        """Sums over the levels of the diagonal blocks of Z'V^-1Z, one (q, q) a factor.

        From Lambda' Z'V^-1Z Lambda = I - M^-1. Lambda is inverted, so a caller keeps
        its diagonal away from zero (``at_least``); at the floor the relative error is
        1e-6.
        """
        out = []
        known = self.inverse_blocks() if selected is None else self.blocks_of(selected)
        for lam, blocks in zip(self.lam, known, strict=True):
            J = blocks.shape[-1]
            middle = J * jnp.eye(len(lam), dtype=lam.dtype) - jnp.sum(blocks, axis=-1)
            if len(lam) == 1:
                out.append(middle / lam**2)
            else:
                right = jnp.linalg.solve(lam.T, middle)
                out.append(jnp.linalg.solve(lam.T, right.T))
        return tuple(out)

    def blocks_of(self, selected: Any) -> tuple[Float[Array, "q q J"], ...]:
        """``inverse_blocks`` from ``selected``."""
        return selected

    def project(
        self, B: Effects, RR: Float[Array, "r r"]
    ) -> tuple[Float[Array, "r r"], Effects]:
        """R'V^-1R and Z'V^-1R for right-hand sides with Z'R = B and R'R = RR."""
        z = self.forward(scale_transposed(self.lam, B))
        u = self.backward(z)
        fitted = self.system.normal(scale(self.lam, u))
        T = tuple(b - f for b, f in zip(B, fitted, strict=True))
        return RR - inner_all(z, z), T

    def gram(self, w: Effects) -> Float[Array, "K K"]:
        """w'Z'V^-1Zw."""
        v = self.system.normal(w)
        z = self.forward(scale_transposed(self.lam, v))
        return inner_all(w, v) - inner_all(z, z)
