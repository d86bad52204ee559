"""Several processes that work together (``jax.distributed``): who fits what.

Each process fits its share of the data sets on its own devices; the rows are exchanged
once, at the end. With one process all of this is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxglmm.runtime.precision import double_precision


def share(which: np.ndarray) -> np.ndarray:
    """The part of ``which`` that this process fits."""
    count = jax.process_count()
    if count == 1:
        return which
    return np.array_split(which, count)[jax.process_index()]


def own_path(path: Any) -> Any:
    """A file of this process alone."""
    return path if jax.process_count() == 1 else f"{path}.{jax.process_index()}"


def spans(x: Any) -> bool:
    """Whether an array is on devices of several processes."""
    return isinstance(x, jax.Array) and not x.is_fully_addressable


def mesh_of(leaves: Iterable[Any]) -> Mesh | None:
    """The devices of several processes that one of the arrays is on."""
    found = (x.sharding for x in leaves if _is_concrete(x) and spans(x))
    return next((s.mesh for s in found if isinstance(s, NamedSharding)), None)


def put(x: Any, sharding: NamedSharding) -> Any:
    """An array that every process has to devices of all; nothing is exchanged."""
    if sharding.is_fully_addressable or spans(x):
        return jax.device_put(x, sharding)
    own = np.asarray(x)
    return jax.make_array_from_callback(own.shape, sharding, own.__getitem__)


def to_share(tree: Any) -> Any:
    """Arguments of a program of several processes: what is a device's own, as NumPy."""

    def one(x: Any) -> Any:
        own = isinstance(x, jax.Array) and x.is_fully_addressable
        return np.asarray(x) if own else x

    return jax.tree.map(one, tree)


def _is_concrete(x: Any) -> bool:
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)


@double_precision
def gather(table: np.ndarray, mine: np.ndarray) -> None:
    """Fill the rows of ``table`` that other processes have; ``mine`` (D,) are ours."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    tables, owned = multihost_utils.process_allgather((table, mine))
    for rows, own in zip(np.asarray(tables), np.asarray(owned), strict=True):
        table[own] = rows[own]
