"""Saving many posteriors without pickle, in the file of many fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError
from jaxglmm.fitting import storage as store
from jaxglmm.many.archive import read, write
from jaxglmm.many.posteriors import FittedPosteriors

POSTERIORS, VERSION = "jaxglmm posteriors", 1
LEFT_OUT = ("make",)

F = TypeVar("F", bound=FittedPosteriors)


def save(posteriors: FittedPosteriors, path: Any, draws: bool) -> None:
    """Write to ``path``; without the draws where they are not wanted."""
    kept = (
        posteriors
        if _arguments.flag("draws", draws)
        else replace(posteriors, draws=None)
    )
    arrays: dict[str, np.ndarray] = {}
    own = [f.name for f in fields(kept) if f.name not in LEFT_OUT]
    tree = {
        "format": POSTERIORS,
        "version": VERSION,
        "fields": {n: store._pack(getattr(kept, n), arrays, n) for n in own},
    }
    write(path, tree, arrays)


def load(path: Any, make: Callable[..., F]) -> F:
    """Read what ``save`` wrote; make: the class of what is made.

    Raises:
        DataError: no such file, or another kind of file.
    """
    path = _arguments.file(path)
    tree, arrays = read(path)
    if tree.get("format") != POSTERIORS:
        raise DataError(f"{str(path)!r} is not a file that Posteriors.save wrote")
    return unpacked(tree, arrays, make)


def unpacked(
    tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray], make: Callable[..., F]
) -> F:
    """The posteriors of a file; single fits are not in it."""
    if tree["version"] > VERSION:
        raise DataError(
            f"these posteriors were written by a newer jaxglmm (format "
            f"{tree['version']}, this one reads up to {VERSION}): upgrade jaxglmm"
        )
    given = {k: store._unpack(v, arrays) for k, v in tree["fields"].items()}
    return make(**given)
