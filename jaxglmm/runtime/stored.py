"""Compiled programs found on disk without being traced again.

JAX's cache on disk is asked with a program's text, so that a fresh process traces and
lowers first: half of a small first fit. Here a program is named by what it is made
from, which is known beforehand: the function, the source of this package, the structure
of its arguments with their shapes and types, JAX's version and settings, the processor.

Only on one CPU, beside an accelerator or not, and for functions and classes of this
package: a user's own family may change between two processes and keep its name.
Whatever goes wrong on the way, a file that cannot be read or an unknown version of JAX,
leads back to ``jax.jit``.

What is in a file, and when it is read, is told in ``runtime.program``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Hashable
from enum import Enum
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxlib.version import __version__ as JAXLIB

from jaxglmm.runtime import announce, hosted, hosts, jax_internals, placement, store
from jaxglmm.runtime import cache as _cache
from jaxglmm.runtime.memory import give_back, programs
from jaxglmm.runtime.program import PACKAGE, Program, Unsuitable, is_static, name_of

LARGE = 1_000_000  # bytes of an argument
PLAIN = (str, int, float, bool, type(None))


class Flat(tuple):
    """Leaves, structures (values of static arguments), and kinds of leaves."""

    __slots__ = ()

    def __add__(self, other: Flat) -> Flat:
        return Flat(a + b for a, b in zip(self, other, strict=True))


class Stored:
    """A jitted function whose programs outlive the process, where that is asked for.

    Each program is a jitted function of its own or an executable, so that it can be
    dropped alone (``memory``). Everything else, attributes and calls inside other
    jitted functions, is the jitted function's own.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        static: set[str],
        hostable: bool = False,
        **settings: Any,
    ):
        self._function, self._static, self._hostable = function, static, hostable
        self._settings = settings
        self._over: dict[Any, Any] = {}  # meshes of several processes
        self._jitted = jax.jit(function, static_argnames=tuple(static), **settings)
        self._names = tuple(inspect.signature(function).parameters)
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            return self._jitted(*args, **kwargs)
        return self._call(args, self._flat(args))

    def patient(self, *args: Any) -> Any:
        """As called, but small problems stay in NumPy however often that is.

        For loops of a single fit, which are over before a program would be compiled.
        """
        leaves = self._flat(args)[0]
        if not self._hostable or not hosted.few(leaves):
            return self(*args)
        return hosted.attempt(
            object(), leaves, lambda: self._on_host(args), lambda: self(*args)
        )

    def bound(self, *first: Any) -> Callable[..., Any]:
        """The function of the arguments that follow, these looked at once.

        For what is called again and again with the same large structure.
        """
        known = self._flat(first)

        def call(*rest: Any) -> Any:
            return self._call((*first, *rest), known + self._flat(rest, len(first)))

        return call

    def _flat(self, args: tuple[Any, ...], skip: int = 0) -> Flat:
        """Arguments taken apart, the first being number ``skip``."""
        leaves, trees, kinds = [], [], []
        for name, value in zip(self._names[skip:], args, strict=False):
            if name in self._static:
                trees.append(value)
                continue
            found, tree = jax.tree.flatten(value)
            leaves += found
            trees.append(tree)
            kinds += map(_kind, found)
        return Flat((leaves, tuple(trees), tuple(kinds)))

    def _call(self, args: tuple[Any, ...], flat: Flat) -> Any:
        leaves, _, kinds = flat
        if None in kinds and (mesh := hosts.mesh_of(leaves)) is not None:
            return self._everywhere(args, mesh)
        if None in kinds or not placement.on_host(leaves):
            return self._jitted(*args)
        with placement.defaulting_to_host():
            return self._on_cpu(args, flat)

    def _on_cpu(self, args: tuple[Any, ...], flat: Flat) -> Any:
        """In NumPy, or by a program that is kept."""
        leaves, trees, kinds = flat
        try:
            key = (self, trees, kinds, *_all_settings())
            program = programs.get(key)
        except Exception:  # not hashable, or a JAX that does not tell its settings
            return self._jitted(*args)
        if program is not None:
            return program(*leaves)

        def compiled() -> Any:
            with announce.compiling():
                return self._first_call(key, args, leaves)

        if not self._hostable:
            return compiled()
        return hosted.attempt(
            key,
            leaves,
            lambda: self._on_host(args),
            compiled,
            lambda: self._is_on_disk(args),
        )

    def _everywhere(self, args: tuple[Any, ...], mesh: Any) -> Any:
        """On devices of several processes, all of which call; each has the result."""
        if mesh not in self._over:
            whole = jax.NamedSharding(mesh, jax.P())
            self._over[mesh] = jax.jit(
                self._function,
                static_argnames=tuple(self._static),
                out_shardings=whole,
                **self._settings,
            )
        return self._over[mesh](*map(hosts.to_share, args))

    def __getattr__(self, name: str) -> Any:
        if name == "_jitted":  # while an object is made
            raise AttributeError(name)
        return getattr(self._jitted, name)

    def _on_host(self, args: tuple[Any, ...]) -> Any:
        """The function itself, operation by operation in NumPy."""
        given = [
            value if name in self._static else jax.tree.map(np.asarray, value)
            for name, value in zip(self._names, args, strict=False)
        ]
        return self._function(*given)

    def _is_on_disk(self, args: tuple[Any, ...]) -> bool:
        """Whether an earlier process kept the program of these arguments."""
        folder = _cache.program_folder()
        with contextlib.suppress(Exception):
            return folder is not None and self._path(folder, args).exists()
        return False

    def _first_call(
        self, key: Hashable, args: tuple[Any, ...], leaves: list[Any]
    ) -> Any:
        """The program is read or made; what goes wrong, an ordinary call says."""
        jitted = self._apart(args)
        folder = _cache.program_folder()
        if folder is not None:
            with contextlib.suppress(Exception):
                path = self._path(folder, args)
                program, found = _read_or_made(path, jitted, leaves)
                programs.keep(key, program)
                programs.count()
                return found
        if not _large(leaves):
            found = jitted(*leaves)
            programs.keep(key, jitted)
            return found
        program = jitted.lower(*leaves).compile()
        give_back()  # what compiling took, before running takes as much again
        programs.keep(key, program)
        return program(*leaves)

    def _apart(self, args: tuple[Any, ...]) -> Any:
        """A jitted function for these shapes alone, of the leaves of the arguments."""
        function, names, static = self._function, self._names, self._static
        held = [
            value if name in static else None
            for name, value in zip(names, args, strict=False)
        ]
        free = [i for i, name in enumerate(names[: len(args)]) if name not in static]
        tree = jax.tree.structure([args[i] for i in free])

        @functools.wraps(function)
        def of_leaves(*leaves: Any) -> Any:
            whole = list(held)
            for i, value in zip(free, jax.tree.unflatten(tree, leaves), strict=True):
                whole[i] = value
            return function(*whole)

        del of_leaves.__wrapped__  # whose signature is another
        return jax.jit(of_leaves, **self._settings)

    def _path(self, folder: Path, args: tuple[Any, ...]) -> Path:
        """Where the program of these arguments belongs."""
        if self.__module__.split(".")[0] != PACKAGE or "<" in self.__qualname__:
            raise Unsuitable(f"{self.__qualname__} is not of this package")
        facts = [self.__module__, self.__qualname__, *machine(), repr(_settings())]
        facts += [
            describe(value, static=name in self._static)
            for name, value in zip(self._names, args, strict=False)
        ]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return folder / f"{name}{store.SUFFIX}"


def _read_or_made(path: Path, jitted: Any, leaves: list[Any]) -> tuple[Program, Any]:
    """The program, and what it gives.

    A program that was read and does not run is made again; that is known when its
    result is there, so the first call waits for it.
    """
    with contextlib.suppress(Exception):
        program = Program.read(path)
        return program, jax.block_until_ready(program(*leaves))
    if _cache.is_jax_alone():
        raise Unsuitable("JAX's own cache is on, and keeps what is compiled")
    program = Program.make(jitted, leaves, path)
    if _large(leaves):
        give_back()
    return program, program(*leaves)


def _large(leaves: list[Any]) -> bool:
    """Whether arguments, and so what a program holds while it runs, take much place."""
    return any(getattr(x, "nbytes", 0) > LARGE for x in leaves)


# What a program depends on ------------------------------------------------------------


def _kind(x: Any) -> Any:
    """Shape and type of a leaf on the CPU, None for anything else."""
    if isinstance(x, np.ndarray | np.generic):
        return x.shape, x.dtype
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, jax.Array):
        here = x.sharding.device_set == _host()
        return (x.shape, x.dtype, x.weak_type) if here else None
    return type(x) if isinstance(x, bool | int | float) else None


@functools.cache
def _host() -> set[Any]:
    """The set of the programs' device alone, to compare with."""
    return {placement.host()}


def _settings() -> tuple[Any, ...]:
    """JAX's settings that programs depend on, those that can be written down."""
    return tuple(x for x in _all_settings() if isinstance(x, (*PLAIN, Enum)))


def _all_settings() -> tuple[Any, ...]:
    """JAX's settings that programs depend on; looked up at every call, so unsifted."""
    known = jax_internals.trace_settings()
    if known is None:
        raise Unsuitable("what a program depends on is not known")
    return jax.config.jax_debug_nans, jax.config.jax_disable_jit, *known


@functools.cache
def machine() -> tuple[str, ...]:
    """Source of the package, versions, processor, and what the user told XLA."""
    source = hashlib.sha256()
    root = Path(__file__).parent.parent  # the package
    for path in sorted(root.rglob("*.py")):
        source.update(path.relative_to(root).as_posix().encode())
        source.update(path.read_bytes())
    affinity = getattr(os, "sched_getaffinity", None)
    used = len(affinity(0)) if affinity else os.cpu_count()
    flags = os.environ.get("XLA_FLAGS", "")
    processor = _cache.processor_identity()
    return source.hexdigest(), jax.__version__, JAXLIB, processor, str(used), flags


def describe(x: Any, static: bool = False) -> Any:
    """Arguments as JSON: their structure with classes of the package, types, shapes.

    static: values count, not types. Raises ``Unsuitable`` for anything of a user's.
    """
    if x is None or (static and isinstance(x, PLAIN)):
        return [type(x).__name__, repr(x)]
    if isinstance(x, list | tuple) and type(x) in (list, tuple):
        return [type(x).__name__, *(describe(value, static) for value in x)]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        parts = [
            [f.name, describe(getattr(x, f.name), static or is_static(f))]
            for f in dataclasses.fields(x)
        ]
        return [name_of(type(x)), parts]
    kind = None if static else _kind(x)
    if kind is None:
        raise Unsuitable(f"{type(x)} is not known")
    return str(kind)
