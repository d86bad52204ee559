"""Forward derivatives in NumPy, for functions made of elementwise operations.

A ``Dual`` is a value and its tangent; either may be a ``Dual`` of an outer derivative,
so derivatives nest, each with a level of its own. What a row of a likelihood is made of
is here: arithmetic, the elementary functions, choices, sums and shapes. The linear
algebra above it is differentiated by a complex step (``runtime.arrays.jvp``), whose
numbers may be inside a ``Dual``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

_levels = itertools.count(1)  # later ones are further in


class Dual:
    """value + epsilon tangent, epsilon^2 = 0, for one derivative (``level``)."""

    __array_ufunc__ = None  # NumPy leaves mixed operations to the methods below
    __slots__ = ("level", "tangent", "value")

    def __init__(self, value: Any, tangent: Any, level: int):
        self.value, self.tangent, self.level = value, tangent, level

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(primal(self))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def dtype(self) -> Any:
        return np.asarray(primal(self)).dtype

    @property
    def T(self) -> Dual:
        return self._linear(lambda x: x.T)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Dual:
        return self._linear(lambda x: x[index])

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Dual:
        return self._linear(lambda x: x.reshape(*shape))

    def astype(self, dtype: Any) -> Dual:
        return self._linear(lambda x: x.astype(dtype))

    def _linear(self, function: Callable[[Any], Any]) -> Dual:
        return Dual(function(self.value), function(self.tangent), self.level)

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.tangent, self.level)

    def __add__(self, other: Any) -> Dual:
        a, da, b, db, level = parts(self, other)
        return dual(a + b, spread(da, db), level)

    def __sub__(self, other: Any) -> Dual:
        a, da, b, db, level = parts(self, other)
        return dual(a - b, spread(da, None if db is None else -db), level)

    def __mul__(self, other: Any) -> Dual:
        a, da, b, db, level = parts(self, other)
        left = None if da is None else da * b
        right = None if db is None else a * db
        return dual(a * b, spread(left, right), level)

    def __truediv__(self, other: Any) -> Dual:
        a, da, b, db, level = parts(self, other)
        out = a / b
        left = None if da is None else da / b
        right = None if db is None else -out * db / b
        return dual(out, spread(left, right), level)

    def __pow__(self, power: Any) -> Dual:
        if power == 2:
            return self * self
        slope = power * self.value ** (power - 1)
        return Dual(self.value**power, slope * self.tangent, self.level)

    def __radd__(self, other: Any) -> Dual:
        return self + other

    def __rsub__(self, other: Any) -> Dual:
        return -self + other

    def __rmul__(self, other: Any) -> Dual:
        return self * other

    def __rtruediv__(self, other: Any) -> Dual:
        out = other / self.value
        return Dual(out, -out * self.tangent / self.value, self.level)

    def __lt__(self, other: Any) -> Any:
        return primal(self) < primal(other)

    def __le__(self, other: Any) -> Any:
        return primal(self) <= primal(other)

    def __gt__(self, other: Any) -> Any:
        return primal(self) > primal(other)

    def __ge__(self, other: Any) -> Any:
        return primal(self) >= primal(other)

    def __eq__(self, other: object) -> Any:
        return primal(self) == primal(other)

    def __ne__(self, other: object) -> Any:
        return primal(self) != primal(other)

    __hash__ = None  # type: ignore[assignment]


def dual(value: Any, tangent: Any, level: int) -> Dual:
    """A ``Dual`` whose tangent has the shape of its value."""
    shape = np.shape(primal(value))
    if np.shape(primal(tangent)) != shape:
        tangent = tangent + np.zeros(shape)
    return Dual(value, tangent, level)


def spread(a: Any, b: Any) -> Any:
    """The sum of two tangents of which one may be missing, hence zero."""
    if a is None:
        return b
    return a if b is None else a + b


def primal(x: Any) -> Any:
    """The number itself, of real parts where it carries a complex step."""
    while isinstance(x, Dual):
        x = x.value
    return np.real(x) if np.iscomplexobj(x) else x


def level_of(*xs: Any) -> int:
    """The innermost derivative that any of them takes part in; 0 for none."""
    return max((x.level for x in xs if isinstance(x, Dual)), default=0)


def split(x: Any, level: int) -> tuple[Any, Any]:
    """Value and tangent at a level; what is of outer ones is constant there."""
    if isinstance(x, Dual) and x.level == level:
        return x.value, x.tangent
    return x, None


def parts(a: Any, b: Any) -> tuple[Any, Any, Any, Any, int]:
    """Values and tangents of two at the level of the inner one."""
    level = level_of(a, b)
    return *split(a, level), *split(b, level), level


def jvp(function: Callable[..., Any], primals: Any, tangents: Any, tree: Any) -> Any:
    """Value and directional derivative; ``tree`` is ``jax.tree``."""
    level = next(_levels)
    given = tree.map(lambda x, t: Dual(x, t, level), primals, tangents)
    found = function(*given)

    def value(x: Any) -> Any:
        return split(x, level)[0]

    def tangent(x: Any) -> Any:
        v, t = split(x, level)
        return np.zeros(np.shape(primal(v))) if t is None else t

    def leaf(x: Any) -> bool:
        return isinstance(x, Dual)

    return tree.map(value, found, is_leaf=leaf), tree.map(tangent, found, is_leaf=leaf)
