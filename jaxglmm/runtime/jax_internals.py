"""All that reaches behind JAX's public interface, each with what is done without it.

Programs on disk (``runtime.stored``) need four things that JAX has and does not offer.
Where a version of JAX lacks one, or has it under another name, the answer is None,
"not ready" or ``Missing``, and calls go through ``jax.jit`` as if nothing were kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from jaxglmm.runtime import placement


class Missing(Exception):
    """This JAX does not have what is asked for."""


@functools.cache
def _trace_context() -> Callable[[], tuple[Any, ...]] | None:
    try:
        from jax._src.config import trace_context

        trace_context()
    except Exception:
        return None
    return trace_context


def trace_settings() -> tuple[Any, ...] | None:
    """JAX's settings that a trace depends on; None where they cannot be known."""
    found = _trace_context()
    return None if found is None else found()


def load(code: bytes, device: Any) -> Any:
    """An executable that ``executable.serialize()`` wrote, for one device.

    Raises:
        Missing: this JAX reads none.
    """
    try:
        from jaxlib.xla_client import DeviceList

        read = device.client.deserialize_executable
    except (ImportError, AttributeError) as error:
        raise Missing("executables cannot be read") from error
    return read(code, executable_devices=DeviceList((device,)))


def execute(executable: Any, leaves: Iterable[Any]) -> list[Any]:
    """What an executable of one device gives, array by array."""
    there = [x if isinstance(x, jax.Array) else placed(x) for x in leaves]
    found = executable.execute_sharded(there)
    return [x[0] for x in found.disassemble_into_single_device_arrays()]


def placed(x: Any) -> jax.Array:
    """``jax.device_put`` of numbers to the CPU, which takes forty us."""
    put = _batched_device_put()
    kind = getattr(x, "dtype", None)
    if put is None or kind is None or kind != jax.dtypes.canonicalize_dtype(kind):
        return jax.device_put(x)
    sharding, device = _host()
    return put(_shaped(x.shape, kind), sharding, [x], [device])


@functools.lru_cache(256)
def _shaped(shape: tuple[int, ...], kind: np.dtype) -> Any:
    return jax.core.ShapedArray(shape, kind)


@functools.cache
def _host() -> tuple[Any, Any]:
    device = placement.host()
    return jax.sharding.SingleDeviceSharding(device), device


@functools.cache
def _batched_device_put() -> Any:
    """What ``jax.device_put`` comes to in the end; None where it is not found."""
    try:
        from jaxlib._jax import batched_device_put

        one = np.zeros(1, "float32")
        sharding, device = _host()
        batched_device_put(
            jax.core.ShapedArray((1,), one.dtype), sharding, [one], [device]
        )
    except Exception:
        return None
    return batched_device_put


def lapack_ready(called: Iterable[str]) -> bool:
    """Whether everything in ``called`` can be called now; LAPACK is made so.

    An executable calls LAPACK by pointers that jaxlib fills when it lowers a first such
    call (jax issues 28908 and 29610). Code that was read from disk was lowered
    elsewhere: here the pointers are null, and following one ends the process. No public
    function fills them.

    >>> lapack_ready([]), lapack_ready(["something_else"])
    (True, False)
    """
    names = set(called)
    return not names or names <= _lapack()


@functools.cache
def _lapack() -> frozenset[str]:
    """The functions of jaxlib's LAPACK, ready; none with a jaxlib of another make."""
    try:
        from jaxlib import lapack

        names = [name for name, *_ in lapack.registrations()["cpu"]]
        lapack._lapack.initialize()  # pyright: ignore
    except Exception:
        return frozenset()
    return frozenset(names)
