"""Where lanes run: one device, or shared among several by JAX's own sharding.

A program takes what all lanes share and arrays of lanes, the lanes last. Each device
has its part of the lanes (``jax.shard_map``) and goes through it chunk by chunk
(``lax.map``), so that no lane waits for lanes of another chunk or device. On one CPU
device two threads run two blocks at a time instead.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxglmm._errors import ModelError
from jaxglmm.runtime import executors, hosted, placement
from jaxglmm.runtime.compile import jit, options

NAMES = ("all", "cpu", "gpu")
LITTLE = 200_000  # cells x data sets up to which NumPy is sooner done than compiling
WORTH = 20_000_000  # cells x data sets from which an accelerator pays for its copies
ACCELERATOR_CELLS = 50_000_000  # cells x lanes in one chunk there
ACCELERATOR_LANES = 64, 131_072
CHUNKS = 8  # in a block on a CPU
MEMORY = 200_000_000  # bytes of a block
LOCK = threading.Lock()


@dataclass(frozen=True)
class Devices:
    """The devices that lanes are shared among.

    little: there is so little to do that it may be done in NumPy, without a program.
    """

    devices: tuple[Any, ...]
    little: bool = False

    def __reduce__(self) -> Any:
        return _like, (self.kind, len(self.devices))

    @property
    def kind(self) -> str:
        """Platform: "cpu", "gpu", ..."""
        return placement.platform(self.devices[0])

    @property
    def threads(self) -> int:
        """Chunks at a time."""
        one = len(self.devices) == 1 and self.kind == "cpu"
        return executors.threads() if one else 1

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
        return int(np.clip(size, *lanes))

    def block(self, chunk: int, numbers: int, chunks: int = CHUNKS) -> int:
        """Lanes in one call: some chunks for each device.

        numbers: doubles that a lane brings, which bounds the memory of a block; chunks:
        of a block on a CPU, less where memory says so.
        """
        chunks = chunks if self.kind == "cpu" else 1
        most = MEMORY // (8 * max(numbers, 1))
        while chunks > 1 and chunk * chunks * len(self.devices) > most:
            chunks //= 2
        return chunk * chunks * len(self.devices)

    def unit(self, chunk: int) -> int | None:
        """What lanes come in multiples of where chunks go ``apart``; None: blocks."""
        return chunk if len(self.devices) == 1 else None

    def shared(self, tree: Any) -> Any:
        """What all lanes share, copied to every device."""
        if len(self.devices) == 1:
            return jax.device_put(tree, self.devices[0])
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    @property
    def mesh(self) -> Mesh:
        """The devices in a row."""
        return Mesh(np.array(self.devices), ("lanes",))

    def run(
        self, program: Program, shared: Any, lanes: Any, chunk: int, apart: bool = False
    ) -> Any:
        """``program`` for all lanes, ``chunk`` at a time on each device.

        program: hashable; (shared, lanes) -> lanes, every array of lanes with the lanes
        last; shared: as ``shared`` puts it, or NumPy; apart: one device takes chunk by
        chunk in calls of their own, so that one program serves any number of chunks.
        """
        compiled = functools.partial(
            self._in_chunks, program, shared, lanes, chunk, apart
        )
        if not self._on_host:
            return compiled()
        leaves, tree = jax.tree.flatten((shared, lanes))
        key = program, tree, tuple(map(_kind, leaves))

        def in_numpy() -> Any:
            return program(*jax.tree.map(np.asarray, (shared, lanes)))

        return hosted.attempt(key, leaves, in_numpy, compiled)

    def _in_chunks(
        self, program: Program, shared: Any, lanes: Any, chunk: int, apart: bool
    ) -> Any:
        L = jax.tree.leaves(lanes)[0].shape[-1] // len(self.devices)
        if apart and len(self.devices) == 1 and chunk < L:
            parts = [
                self._call(program, shared, _part_of(lanes, k, k + chunk), chunk, apart)
                for k in range(0, L, chunk)
            ]
            return jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *parts)
        return self._call(program, shared, lanes, min(chunk, L), apart)

    @property
    def _on_host(self) -> bool:
        return self.little and len(self.devices) == 1 and self.kind == "cpu"

    def _call(
        self, program: Program, shared: Any, lanes: Any, chunk: int, apart: bool
    ) -> Any:
        with LOCK:  # else two threads that come at once make two of it
            run = _compiled(program, self.devices, chunk, apart)
        if len(self.devices) == 1 and self.devices[0] != jax.local_devices()[0]:
            lanes = jax.device_put(lanes, self.devices[0])
        return run(shared, lanes)


Program = Callable[[Any, Any], Any]


@functools.cache
def _compiled(
    program: Program, devices: tuple[Any, ...], chunk: int, apart: bool
) -> Program:
    """One jit for each program, set of devices and chunk."""

    def local(shared: Any, lanes: Any) -> Any:
        L = jax.tree.leaves(lanes)[0].shape[-1]
        if chunk == L:
            return program(shared, lanes)

        def cut(x: Any) -> Any:
            return jnp.moveaxis(x.reshape(*x.shape[:-1], L // chunk, chunk), -2, 0)

        def join(x: Any) -> Any:
            return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], L)

        found = lax.map(lambda x: program(shared, x), jax.tree.map(cut, lanes))
        return jax.tree.map(join, found)

    if len(devices) == 1:
        return _Once(jax.jit(local, compiler_options=_alone()) if apart else jit(local))

    def everywhere(shared: Any, lanes: Any) -> Any:
        mesh = Mesh(np.array(devices), ("lanes",))
        found = jax.eval_shape(local, shared, jax.tree.map(_part, lanes))
        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(PartitionSpec(), jax.tree.map(_last, lanes)),
            out_specs=jax.tree.map(_last, found),
            check_vma=False,
        )(shared, lanes)

    def _part(x: Any) -> Any:
        shape = (*x.shape[:-1], x.shape[-1] // len(devices))
        return jax.ShapeDtypeStruct(shape, x.dtype)

    return _Once(jit(everywhere))


class _Once:
    """A jitted function that is compiled once, whatever threads call it at once."""

    def __init__(self, run: Program):
        self.run, self.lock = run, threading.Lock()
        self.known: set[Any] = set()

    def __call__(self, shared: Any, lanes: Any) -> Any:
        leaves, tree = jax.tree.flatten((shared, lanes))
        kind = tree, tuple(map(_kind, leaves))
        if kind in self.known:
            return self.run(shared, lanes)
        with self.lock:
            found = self.run(shared, lanes)
            self.known.add(kind)
        return found


def _kind(x: Any) -> Any:
    return np.shape(x), getattr(x, "dtype", type(x))


def _alone() -> dict[str, Any] | None:
    """``options``, and no threads of XLA's own beside those of the chunks."""
    known = options()
    return known if known is None else known | {"xla_cpu_multi_thread_eigen": False}


def _part_of(lanes: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda x: np.ascontiguousarray(x[..., start:stop]), lanes)


def _last(x: Any) -> PartitionSpec:
    return PartitionSpec(*[None] * (x.ndim - 1), "lanes")


def _like(kind: str, count: int) -> Devices:
    """Devices of another process: as many of the kind as it has, up to ``count``."""
    try:
        return Devices(tuple(jax.local_devices(backend=kind)[:count]))
    except RuntimeError:  # no such kind there
        return Devices(tuple(jax.local_devices(backend="cpu")[:count]))


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
        if wanted == "all" and cells < WORTH and placement.platform(found[0]) != "cpu":
            found = jax.local_devices(backend="cpu")
        return Devices(tuple(found), little=cells <= LITTLE)
    several = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
    if not several or not all(hasattr(d, "platform") for d in several):
        raise ModelError(
            f"devices={wanted!r}: pass 'all', 'cpu', 'gpu' or JAX devices, such as "
            "jax.devices()[:2]"
        )
    return Devices(tuple(several), little=cells <= LITTLE)
