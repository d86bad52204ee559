"""Where one fit runs: on JAX's default device, and on the host where it is small.

On a machine without an accelerator all is on the CPU. With one, a program begins there
in tens of microseconds an operation and its data have to be copied, so that a fit of a
few thousand rows is over on the host before: such fits run there as on any other
machine, in NumPy or by a program of the CPU. ``jg.on_devices`` chooses for all fits.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax

WORTH_ONE = 1_000_000  # numbers in the arguments from which an accelerator pays
_chosen: ContextVar[Any] = ContextVar("chosen", default=None)


def platform(device: Any) -> str:
    """Of a device: "cpu", "gpu", ..."""
    return device.platform


@functools.cache
def first() -> Any:
    """JAX's default device, if the user's settings name no other."""
    return jax.local_devices()[0]


@functools.cache
def host() -> Any:
    """The CPU as a device; None where JAX was told to do without."""
    if platform(first()) == "cpu":
        return first()
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


@functools.cache
def accelerated() -> bool:
    """Whether JAX's default device is something else than a CPU."""
    return platform(first()) != "cpu"


def memory() -> float | None:
    """Bytes that large fits may take of an accelerator; None on a CPU, or unknown."""
    chosen = _chosen.get()
    if not accelerated() or (chosen is not None and platform(chosen) == "cpu"):
        return None
    return (first().memory_stats() or {}).get("bytes_limit")


def on_host(leaves: Sequence[Any]) -> bool:
    """Whether a program of these arguments runs on the CPU.

    leaves: NumPy's or numbers, which may go anywhere, and arrays of JAX on the CPU.
    """
    if not accelerated():
        return True
    if host() is None:
        return False
    if any(isinstance(x, jax.Array) for x in leaves):
        return True  # where the others were put, by the same rule
    chosen = _chosen.get()
    if chosen is not None:
        return platform(chosen) == "cpu"
    return sum(getattr(x, "size", 1) for x in leaves) < WORTH_ONE


@contextlib.contextmanager
def defaulting_to_host() -> Iterator[None]:
    """In here NumPy's arrays go to the CPU; nothing where they do anyway."""
    if not accelerated():
        yield
        return
    with jax.default_device(host()):
        yield


@contextlib.contextmanager
def chosen(device: Any) -> Iterator[None]:
    """In here fits are on ``device``, whatever their size; None: by size."""
    token = _chosen.set(device)
    try:
        if device is None or device == first():
            yield
            return
        with jax.default_device(device):
            yield
    finally:
        _chosen.reset(token)


def put(tree: Any) -> Any:
    """Arrays on the device of their size."""
    if accelerated() and on_host(jax.tree.leaves(tree)):
        return jax.device_put(tree, host())
    return jax.device_put(tree)


def beside(tree: Any, base: Any) -> Any:
    """Arrays where those of ``base`` are."""
    if accelerated():
        there = [x for x in jax.tree.leaves(base) if isinstance(x, jax.Array)]
        if there and there[0].devices() == {host()}:
            return jax.device_put(tree, host())
    return jax.device_put(tree)
