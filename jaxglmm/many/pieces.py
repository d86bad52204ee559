"""One call of an engine as a record, and the plain function that does it.

A piece is host arrays and static facts, so it can be sent to another thread or another
process. What an engine keeps on a device is ``placed``: made where it is first asked
for, and left behind when the engine goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from jaxglmm.many.columns import AGAIN, ALONE, KeptColumns
from jaxglmm.runtime.precision import double_precision

T = TypeVar("T")


class LanesEngine(Protocol):
    """Fits data sets by number.

    columns: of the table; lanes: data sets in a chunk; surer_alone: whether a fit of
    its own is worth it after few steps.
    """

    columns: KeptColumns
    lanes: int
    surer_alone: bool

    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for the data sets ``which``."""
        ...


class placed(cached_property[T]):
    """An attribute of an engine that lies on a device."""

    def __init__(self, make: Callable[[Any], T]):
        super().__init__(double_precision(make))


class OnHost:
    """An engine that is pickled without what is ``placed``.

    JAX's arrays of doubles would come back as floats outside double precision.
    """

    def __getstate__(self) -> dict[str, Any]:
        kind = type(self)
        return {
            name: value
            for name, value in self.__dict__.items()
            if not isinstance(getattr(kind, name, None), placed)
        }


@dataclass(frozen=True)
class Piece:
    """Data sets ``which``, padded to ``size`` lanes, at most ``steps`` steps.

    last: whether the engine takes no more of those that it does not finish.
    """

    engine: LanesEngine
    which: np.ndarray
    size: int
    steps: int
    last: bool


def rows(piece: Piece) -> np.ndarray:
    """Rows of the table, (len(which), columns)."""
    which = piece.which
    padded = np.resize(which, piece.size) if len(which) < piece.size else which
    with np.errstate(all="ignore"):  # bad data sets say so by their status
        out = piece.engine.fit(padded, piece.steps)[: len(which)]
    if piece.last:
        out[:, -1] = np.where(out[:, -1] == AGAIN, ALONE, out[:, -1])
    return out
