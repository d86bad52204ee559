"""Value and first three derivatives along one variable: truncated Taylor arithmetic.

A likelihood is a short formula of a few functions whose derivatives are known. Carried
through the formula by the rules of Leibniz and of Faa di Bruno they cost a handful of
products each, where three nested automatic derivatives of the same formula make
thousands of operations to compile. A jet of order 0 is the value alone, so one formula
serves for the density and for its derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement, product
from typing import Any

from jaxglmm._typing import Array
from jaxglmm.runtime.arrays import jnp, jvp_rows, put
from jaxglmm.runtime.trees import Module


class Jet(Module):
    """(f, f', f'', f''') or the first of them alone."""

    parts: tuple[Array, ...]

    @property
    def value(self) -> Array:
        return self.parts[0]

    @property
    def order(self) -> int:
        """Number of derivatives."""
        return len(self.parts) - 1

    def __add__(self, other: Any) -> Jet:
        if isinstance(other, Jet):
            return Jet(
                tuple(a + b for a, b in zip(self.parts, other.parts, strict=True))
            )
        return Jet((self.parts[0] + other, *self.parts[1:]))

    def __sub__(self, other: Any) -> Jet:
        return self + (-1.0 * other if isinstance(other, Jet) else -other)

    def __mul__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return Jet(tuple(a * other for a in self.parts))
        a, b = self.parts, other.parts
        if self.order == 0:
            return Jet((a[0] * b[0],))
        return Jet(
            (
                a[0] * b[0],
                a[1] * b[0] + a[0] * b[1],
                a[2] * b[0] + 2 * a[1] * b[1] + a[0] * b[2],
                a[3] * b[0] + 3 * (a[2] * b[1] + a[1] * b[2]) + a[0] * b[3],
            )
        )

    __rmul__ = __mul__

    def of(self, derivatives: Callable[[Array, int], Array]) -> Jet:
        """f(self), from ``derivatives(x, k)``, the k-th derivative of f."""
        x = self.parts
        f = [derivatives(x[0], k) for k in range(len(x))]
        return chain(f, self)

    def exp(self) -> Jet:
        e = jnp.exp(self.parts[0])
        return chain([e] * len(self.parts), self)


def together(
    derivatives: Callable[[Array, int], Array], *arguments: Jet
) -> tuple[Jet, ...]:
    """f of several jets, evaluated once on all of them: a program a fraction as long.

    ``derivatives`` as in ``Jet.of``.
    """
    shape = jnp.broadcast_shapes(*(a.value.shape for a in arguments))
    x = jnp.stack([jnp.broadcast_to(a.value, shape) for a in arguments])
    f = [derivatives(x, k) for k in range(arguments[0].order + 1)]
    return tuple(chain([g[i] for g in f], a) for i, a in enumerate(arguments))


def chain(f: Any, x: Jet) -> Jet:
    """f(x) from the derivatives f of the outer function at x."""
    if x.order == 0:
        return Jet((f[0],))
    _, x1, x2, x3 = x.parts
    return Jet(
        (
            f[0],
            f[1] * x1,
            f[2] * x1**2 + f[1] * x2,
            f[3] * x1**3 + 3 * f[2] * x1 * x2 + f[1] * x3,
        )
    )


def variable(x: Array, order: int) -> Jet:
    """x itself."""
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    return Jet((x, one, zero, zero)[: order + 1])


def nested(function: Callable[[Array], Array], x: Array, order: int) -> Jet:
    """The jet of a function by automatic differentiation, three tangents deep."""
    if order == 0:
        return Jet((function(x),))
    one = jnp.ones_like(x)

    def first(t):
        return jvp_rows(function, (t,), (one,))

    def second(t):
        (f, f1), (_, f2) = jvp_rows(first, (t,), (one,))
        return f, f1, f2

    (f, f1, f2), (_, _, f3) = jvp_rows(second, (x,), (one,))
    return Jet((f, f1, f2, f3))


def gradients(function: Callable[[Array], Array], x: Array) -> tuple[Array, ...]:
    """A function of K variables, elementwise, with its first three derivatives.

    x: (K, n); returns (n,), (K, n), (K, K, n), (K, K, K, n), symmetric in all but n.
    """
    K = len(x)
    units = [put(jnp.zeros_like(x), k, 1.0) for k in range(K)]

    def along(f: Callable[[Array], Any], k: int) -> Callable[[Array], Any]:
        return lambda t: jvp_rows(f, (t,), (units[k],))

    value: Any = None
    one, two, three = {}, {}, {}
    for k, m, r in combinations_with_replacement(range(K), 3):
        found = along(along(along(function, k), m), r)(x)
        ((value, one[k]), (_, two[k, m])), (_, (_, three[k, m, r])) = found
    return (
        value,
        jnp.stack([one[k] for k in range(K)]),
        _symmetric(two, K, 2),
        _symmetric(three, K, 3),
    )


def _symmetric(parts: dict[tuple[int, ...], Array], K: int, order: int) -> Array:
    """The full array from the entries whose indices do not fall."""
    flat = [parts[tuple(sorted(index))] for index in product(range(K), repeat=order)]
    return jnp.stack(flat).reshape(*(K,) * order, *flat[0].shape)


def where(condition: Array, a: Jet, b: Jet) -> Jet:
    """Elementwise choice."""
    return Jet(
        tuple(jnp.where(condition, u, v) for u, v in zip(a.parts, b.parts, strict=True))
    )
