"""Representations in a line: the shape of what is long, the value of what is short.

A record that prints every row of its arrays fills the cell of a notebook with numbers
that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T", bound=type)

FEW, LONG = 6, 60  # items that are shown; characters of a text


def brief(record: T) -> T:
    """A dataclass whose representation has its fields in brief; above ``dataclass``."""

    def __repr__(self: Any) -> str:
        known = [(f.name, getattr(self, f.name)) for f in fields(record) if f.repr]
        shown = [f"{name}={value(v)}" for name, v in known if v is not None]
        return f"{type(self).__name__}({', '.join(shown)})"

    record.__repr__ = __repr__
    return record


def value(item: Any) -> str:
    """A value in brief."""
    if hasattr(item, "columns") and hasattr(item, "shape"):
        return f"{type(item).__name__}[{', '.join(map(str, item.shape))}]"
    if hasattr(item, "shape") and hasattr(item, "dtype"):
        return _array(item)
    if isinstance(item, str):
        return repr(cut(item))
    if isinstance(item, float):
        return f"{item:.6g}"
    if isinstance(item, Mapping):
        inner = [f"{cut(str(k), 30)!r}: {value(v)}" for k, v in _first(item.items())]
        return _joined("{", inner, len(item), "}")
    if isinstance(item, tuple | list):
        inner = [value(v) for v in _first(item)]
        return _joined("(", inner, len(item), ")")
    if is_dataclass(item) and not isinstance(item, type):
        return f"<{type(item).__name__}>"
    return cut(" ".join(repr(item).split()))


def _array(item: Any) -> str:
    """The numbers of a few, dtype and shape of many."""
    if item.size <= FEW and item.ndim < 2 and item.dtype.kind in "fiub":
        numbers = [f"{v:.4g}" for v in item.ravel().tolist()]
        return f"[{', '.join(numbers)}]" if item.ndim else numbers[0]
    return f"{item.dtype}[{', '.join(map(str, item.shape))}]"


def _first(items: Iterable[Any]) -> list[Any]:
    return [item for item, _ in zip(items, range(FEW), strict=False)]


def _joined(left: str, inner: list[str], count: int, right: str) -> str:
    more = [f"... {count} in all"] if count > len(inner) else []
    return f"{left}{', '.join([*inner, *more])}{right}"


def cut(text: str, most: int = LONG) -> str:
    """A text, its middle left out where it is long."""
    if len(text) <= most:
        return text
    tail = (most - 5) // 2
    return f"{text[: most - 5 - tail]} ... {text[len(text) - tail :]}"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names with commas between them, the last ones left out where there are many."""
    known = list(names)
    shown = [cut(str(name), 40) for name in known[:most]]
    more = len(known) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
