"""Classes whose objects JAX takes apart: frozen dataclasses that are pytrees.

The problems, systems, families and results of the core are such objects. A class costs
a fraction of a millisecond to make and an object a microsecond, and an attribute is
found by Python alone, because small fits (``runtime.arrays``) make thousands of objects
and a fresh process makes all classes before its first fit.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax
import numpy as np

from jaxglmm._brief import value as brief

T = TypeVar("T")


def field(*, static: bool = False, **settings: Any) -> Any:
    """A field of a ``Module``; static: part of the structure, no leaf."""
    metadata = {"static": True} if static else None
    return dataclasses.field(metadata=metadata, **settings)


@dataclass_transform(field_specifiers=(field, dataclasses.field))
class Module(abc.ABC):
    """Base of such classes: what is annotated is a field, as in a dataclass.

    Fields are set once, by the ``__init__`` that dataclasses write or by one's own,
    which subclasses then inherit. Objects are equal if all their fields are.
    """

    _names: ClassVar[tuple[str, ...]] = ()
    _all: ClassVar[Any]  # from an object to the tuple of its fields
    _writes_init: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls._writes_init = False
        dataclasses.dataclass(init=cls._writes_init, repr=False, eq=False)(cls)
        fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
        cls._names = tuple(f.name for f in fields)
        cls._all = staticmethod(_getter(cls._names))
        _register(cls, [bool(f.metadata.get("static")) for f in fields])

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) or name not in self._names:
            raise dataclasses.FrozenInstanceError(f"{name!r} of {self!r} stays")
        vars(self)[name] = value

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"{name!r} of {self!r} stays")

    def __hash__(self) -> int:
        return hash((type(self), self._all(self)))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return _same(self._all(self), self._all(other))

    def __repr__(self) -> str:
        parts = zip(self._names, self._all(self), strict=True)
        shown = ", ".join(
            f"{k}={x if type(x) is float else brief(x)}" for k, x in parts
        )
        return f"{type(self).__name__}({shown})"


def _shown(x: Any) -> str:
    if isinstance(x, Module):
        return Module.__repr__(x)
    return brief(x) if hasattr(x, "shape") or isinstance(x, tuple | list) else repr(x)


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """A function from an object to the tuple of these attributes."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda x: tuple(getattr(x, name) for name in names)


def _register(cls: type, static: list[bool]) -> None:
    """Tell JAX how objects of the class are taken apart and put together."""
    pairs = list(zip(cls._names, static, strict=True))  # type: ignore[attr-defined]
    of_leaves = tuple(name for name, fixed in pairs if not fixed)
    of_structure = tuple(name for name, fixed in pairs if fixed)
    leaves, structure = _getter(of_leaves), _getter(of_structure)
    keys = [jax.tree_util.GetAttrKey(name) for name in of_leaves]

    def apart(x: Any) -> tuple[Any, Any]:
        return leaves(x), structure(x)

    def apart_by_key(x: Any) -> tuple[Any, Any]:
        return list(zip(keys, leaves(x), strict=True)), structure(x)

    def together(fixed: Any, parts: Any) -> Any:
        out = object.__new__(cls)
        out.__dict__.update(zip(of_leaves, parts, strict=True))
        out.__dict__.update(zip(of_structure, fixed, strict=True))
        return out

    jax.tree_util.register_pytree_with_keys(cls, apart_by_key, together, apart)


def _same(a: Any, b: Any) -> bool:
    """Whether two fields are equal, arrays by type, shape and values."""
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "dtype") or hasattr(b, "dtype"):
        kinds = (getattr(x, "dtype", None) for x in (a, b))
        return operator.eq(*kinds) and np.array_equal(a, b)
    return bool(a == b)


# Parts of a tree that are others ------------------------------------------------------


class _Path:
    """Where something is in a tree, by the attributes and indices that lead there."""

    def __init__(self, steps: tuple[tuple[bool, Any], ...] = ()):
        self._steps = steps

    def __getattr__(self, name: str) -> _Path:
        return _Path((*self._steps, (True, name)))

    def __getitem__(self, index: Any) -> _Path:
        return _Path((*self._steps, (False, index)))

    def __iter__(self) -> Any:  # by indices it would go on for ever
        raise TypeError("a path has no length: name its parts by their indices")


def tree_at(where: Callable[[Any], Any], tree: T, replacements: Any) -> T:
    """A copy of the tree in which some parts are others; the rest is shared.

    where: leads to the part, or to a tuple or list of parts, by attributes and indices.

    >>> class Pair(Module):
    ...     a: float
    ...     b: tuple
    >>> tree_at(lambda p: (p.a, p.b[1]), Pair(1.0, (2.0, 3.0)), (4.0, 5.0))
    Pair(a=4.0, b=(2, 5))
    """
    places = where(_Path())
    if isinstance(places, _Path):
        places, replacements = (places,), (replacements,)
    for place, new in zip(places, replacements, strict=True):
        tree = _with(tree, place._steps, new)
    return tree


def _with(tree: Any, steps: tuple[tuple[bool, Any], ...], new: Any) -> Any:
    if not steps:
        return new
    (is_name, key), *rest = steps
    if is_name:
        out = object.__new__(type(tree))
        inner = _with(getattr(tree, key), tuple(rest), new)
        out.__dict__.update(tree.__dict__, **{key: inner})
        return out
    inner = _with(tree[key], tuple(rest), new)
    parts = [inner if i == range(len(tree))[key] else x for i, x in enumerate(tree)]
    return type(tree)(parts)


# Compiled functions of anything -------------------------------------------------------


def filter_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit`` where arrays among the leaves are traced and all else is static."""

    @functools.partial(jax.jit, static_argnums=0)
    def compiled(rest: tuple[Any, ...], arrays: list[Any]) -> Any:
        tree, others = rest
        found = iter(arrays)
        leaves = [next(found) if x is _ARRAY else x for x in others]
        return function(*jax.tree.unflatten(tree, leaves))

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        is_array = [isinstance(x, np.ndarray | np.generic | jax.Array) for x in leaves]
        others = tuple(
            _ARRAY if here else x for x, here in zip(leaves, is_array, strict=True)
        )
        arrays = [x for x, here in zip(leaves, is_array, strict=True) if here]
        return compiled((tree, others), arrays)

    return call


_ARRAY = object()  # stands where an array was
