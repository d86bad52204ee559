"""Where lanes run: one device, or shared among several by JAX's own sharding.

Arrays of lanes are cut along their last axis, arrays that all lanes share are copied to
every device; compiled programs follow their arguments. On one CPU device two threads
run two chunks at a time instead; several devices talk to each other inside a program
(whether any lane is still running), so there one program runs at a time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxglmm._errors import ModelError

NAMES = ("all", "cpu", "gpu")
WORTH = 20_000_000  # cells x data sets from which an accelerator pays for its copies
ACCELERATOR_CELLS = 50_000_000  # cells x lanes in one chunk there
ACCELERATOR_LANES = 64, 131_072
THREADS = 2


@dataclass(frozen=True)
class Devices:
    """The devices that lanes are shared among."""

    devices: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """Platform: "cpu", "gpu", ..."""
        return self.devices[0].platform

    @property
    def threads(self) -> int:
        """Chunks at a time."""
        one = len(self.devices) == 1 and self.kind == "cpu"
        return min(THREADS, os.cpu_count() or 1) if one else 1

    def describe(self) -> str:
        """For a summary: ``2 x cpu``, ``NVIDIA H200``."""
        name = "cpu" if self.kind == "cpu" else str(self.devices[0].device_kind)
        return name if len(self.devices) == 1 else f"{len(self.devices)} x {name}"

    def chunk(self, cells: int, most: int, lanes: tuple[int, int]) -> int:
        """Lanes in a chunk, ``cells`` each: a power of two that suits the device.

        most, lanes: cells x lanes and bounds of the lanes for a CPU.
        """
        if self.kind != "cpu":
            most, lanes = ACCELERATOR_CELLS, ACCELERATOR_LANES
        size = 2 ** int(np.log2(max(most // max(cells, 1), 1)))
        return int(np.clip(size, *lanes)) * len(self.devices)

    def shared(self, tree: Any) -> Any:
        """Copied to every device."""
        if len(self.devices) == 1:
            return jax.device_put(tree, self.devices[0])
        return jax.device_put(tree, self._sharding(PartitionSpec()))

    def lanes(self, tree: Any) -> Any:
        """Arrays cut along their last axis."""
        if len(self.devices) == 1:
            if self.devices[0] == jax.devices()[0]:
                return tree  # a program takes NumPy arrays with less ado
            return jax.device_put(tree, self.devices[0])

        def cut(x: Any) -> Any:
            return jax.device_put(
                x, self._sharding(PartitionSpec(*[None] * (np.ndim(x) - 1), "lanes"))
            )

        return jax.tree.map(cut, tree)

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self.devices), ("lanes",)), spec)


def choose(wanted: Any, cells: float) -> Devices:
    """Devices for work of ``cells`` in all.

    Args:
        wanted: "all", "cpu", "gpu", a JAX device or several of them.
        cells: types of levels or rows, times data sets.

    Raises:
        ModelError: there is no such device.
    """
    if isinstance(wanted, str):
        if wanted not in NAMES:
            raise ModelError(
                f"devices={wanted!r} is not one of {', '.join(map(repr, NAMES))}, and "
                "no JAX device"
            )
        platform = None if wanted == "all" else wanted
        try:
            found = jax.local_devices(backend=platform)
        except RuntimeError:
            raise ModelError(
                f"devices={wanted!r}: JAX sees no {wanted.upper()} here; "
                f"jax.devices() says {jax.devices()}"
            ) from None
        if wanted == "all" and found[0].platform != "cpu" and cells < WORTH:
            found = jax.local_devices(backend="cpu")
        return Devices(tuple(found))
    several = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    if not several or not all(hasattr(d, "platform") for d in several):
        raise ModelError(
            f"devices={wanted!r}: pass 'all', 'cpu', 'gpu' or JAX devices, such as "
            "jax.devices()[:2]"
        )
    return Devices(tuple(several))
