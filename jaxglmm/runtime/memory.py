"""Compiled programs in memory: which are kept, and which go when there are too many.

A program takes some 12 MB and 250 memory maps. Linux grants a process 65,530 maps, and
the compiler crashes where there is none left; 4 GiB are gone before that. So programs
of single fits are kept here in the order of their last use, a fixed number of them, and
what JAX keeps besides is dropped as a whole where the maps still run short. What was
dropped is compiled again when needed, or read again from disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's name of the event
MOST = 64  # programs in memory: some 800 MB
OFTEN = 10  # programs compiled between two looks at the memory maps
MAPS = 20_000  # in use at which programs are dropped: some 1 GB of programs
FULL = 0.5  # share of the maps that the system grants, if that is less


class Programs:
    """Programs by what they are for, the least recently used going first."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.compiled: int | None = None  # since the last look; None: never looked
        self._held: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._dropped = False

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable) -> Any:
        """The program, which is now the most recently used; None if there is none."""
        with self._lock:
            program = self._held.get(key)
            if program is not None:
                self._held.move_to_end(key)
            return program

    def keep(self, key: Hashable, program: Any) -> None:
        """Keep it, and drop the oldest beyond the number that may be kept."""
        with self._lock:
            self._held[key] = program
            self._held.move_to_end(key)
            self._drop_to(self.most)

    def drop(self) -> None:
        """Keep none."""
        with self._lock:
            self._drop_to(0)

    def _drop_to(self, number: int) -> None:
        while len(self._held) > number:
            self._held.popitem(last=False)
            self._dropped = True

    def count(self) -> None:
        """One more program is in memory."""
        if self.compiled is not None:
            self.compiled += 1

    def spare(self) -> None:
        """To be called between computations; costs nothing while nothing compiles."""
        if self.compiled is None:
            self.compiled = 0
            jax.monitoring.register_event_duration_secs_listener(self._count)
        if self.compiled >= OFTEN:
            self.compiled = 0
            if maps_in_use() > maps_granted():
                self._make_room()
        if self._dropped:
            self._dropped = False
            give_back()

    def _make_room(self) -> None:
        """The older half goes; where that is not enough, all that JAX keeps."""
        with self._lock:
            self._drop_to(len(self._held) // 2)
        gc.collect()
        if maps_in_use() > maps_granted():
            self.drop()
            jax.clear_caches()
            self._dropped = True

    def _count(self, event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            self.count()


programs = Programs()


def maps_in_use() -> int:
    """Memory maps of this process; 0 if unknown."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


@functools.cache
def maps_granted() -> int:
    """How many of them may be in use before programs are dropped."""
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_text("ascii"))
    except (OSError, ValueError):
        return MAPS
    return min(MAPS, int(FULL * limit))


def give_back() -> None:
    """What dropped programs held goes back to the system, where glibc can be asked.

    Programs are freed piece by piece: without this the pages between stay.
    """
    gc.collect()
    trim: Callable[[int], int] | None = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``, if that is the allocator."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return ctypes.CDLL(None).malloc_trim
    return None


def available() -> float | None:
    """Bytes of memory that are free here, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * float(found[0]) if found else None
