"""Sums over rows that several processes share: each reads its own, then they are added.

Every process has the whole table (``levels.on_devices``), and what is a sum over its
rows is made of a share of them in each. The parts are exchanged once for many sums, end
to end: an exchange costs a millisecond however small it is. All processes get the same
numbers to the last bit, so that what they decide by them is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxglmm.runtime import levels
from jaxglmm.runtime.precision import double_precision

LEAST = 50_000  # rows of a process, below which an exchange costs more than it saves
PROCESSES = "processes"  # the axis of the mesh


@dataclass(frozen=True)
class Share:
    """The rows of one of several processes.

    rows: those of this process; number: of this process; count: processes; mesh: a
    device of each.
    """

    rows: slice
    number: int
    count: int
    mesh: Any = None

    def added(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums over the processes of arrays that all of them have in one shape."""
        flat = self._total(np.concatenate([np.ravel(x) for x in parts]))
        ends = np.cumsum([np.size(x) for x in parts])
        own = np.split(flat, ends[:-1])
        return [x.reshape(np.shape(y)) for x, y in zip(own, parts, strict=True)]

    def stacked(self, part: np.ndarray) -> np.ndarray:
        """(processes, ...) what each of them has."""
        table = np.zeros((self.count, *part.shape))
        table[self.number] = part
        return self.added([table])[0]

    @double_precision
    def _total(self, flat: np.ndarray) -> np.ndarray:
        """The sum of one vector (k,), exchanged between the processes."""
        devices = self.mesh.devices.flat
        (here,) = (d for d in devices if d.process_index == jax.process_index())
        whole = jax.make_array_from_single_device_arrays(
            (self.count, len(flat)),
            NamedSharding(self.mesh, PartitionSpec(PROCESSES)),
            [jax.device_put(flat[None], here)],
        )
        return np.array(_summed(self.mesh)(whole))


@functools.cache
def _summed(mesh: Mesh) -> Any:
    """The program of an exchange."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda x: x.sum(axis=0), out_shardings=everywhere)


def of_rows(n: int, p: int) -> Share | None:
    """What this process reads of n rows; None where it reads all of them.

    p: columns of X, of which a share has to have a triangle.
    """
    mesh = levels.mesh()
    if mesh is None:
        return None
    first = {d.process_index: d for d in reversed(list(mesh.devices.flat))}
    count = len(first)
    if count == 1 or n // count < max(LEAST, p) or jax.process_index() not in first:
        return None
    order = sorted(first)
    number = order.index(jax.process_index())
    ends = np.linspace(0, n, count + 1).astype(int)
    rows = slice(int(ends[number]), int(ends[number + 1]))
    found = np.array([first[k] for k in order])
    return Share(rows, number, count, Mesh(found, (PROCESSES,)))
