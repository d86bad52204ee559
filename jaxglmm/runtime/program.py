"""An executable and the structure of its result, in memory and as a file.

A file is a digest, a line of JSON (what the leaves of the result belong to, what the
code calls outside itself) and the executable as XLA serialises it. Nothing is
unpickled; it is native code all the same, which is read only if the user owns it and
nobody else may write it, if it is whole and was written under this name, and if
everything that it calls is there to be called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import re
import tempfile
import zlib
from pathlib import Path
from typing import Any

import jax

from jaxglmm.runtime import cache as _cache
from jaxglmm.runtime import jax_internals, placement, store

PACKAGE = __name__.split(".")[0]
TARGET = re.compile(r'custom_call_target\s*=\s*"([^"]*)"')


class Unsuitable(Exception):
    """A call that has no place on disk."""


class Program:
    """An executable for leaves of arguments, and the structure of its result."""

    def __init__(self, executable: Any, tree: Any, compiled: Any = None):
        self.executable, self.tree, self.compiled = executable, tree, compiled

    def __call__(self, *leaves: Any) -> Any:
        if self.compiled is not None:  # made here, and called without a detour
            return self.compiled(*leaves)
        found = jax_internals.execute(self.executable, leaves)
        return jax.tree.unflatten(self.tree, found)

    @staticmethod
    def make(jitted: Any, leaves: list[Any], path: Path) -> Program:
        """Compiled by JAX, and written to ``path`` where that can be read again.

        Anew: an executable that JAX took from its own cache loses functions when it is
        serialised once more (jaxlib 0.10).
        """
        lowered = jitted.lower(*leaves)
        with _cache.set_aside():
            compiled = lowered.compile()
        count = iter(range(10**9))
        numbered = jax.tree.map(lambda _: next(count), lowered.out_info)
        tree = jax.tree.structure(numbered)
        program = Program(compiled.runtime_executable(), tree, compiled)
        with contextlib.suppress(Exception):  # what was compiled is good all the same
            program._write(path, numbered)
        return program

    def _write(self, path: Path, numbered: Any) -> None:
        """To a file that ``read`` accepts, unless there is something it would not."""
        if not _cache.keeps():
            return
        called = self._calls()
        if not jax_internals.lapack_ready(called):
            return
        head = json.dumps({"result": encode(numbered), "calls": called}).encode()
        code = zlib.compress(self.executable.serialize(), 1)
        content = b"\n".join([_digest(path, head, code), head, code])
        try:
            _write_whole(path, content)
            store.tidy(path.parent)
        except OSError as error:
            _cache.keep_no_more(error)

    def _calls(self) -> list[str]:
        """What the machine code calls outside itself."""
        modules = self.executable.hlo_modules()
        return sorted({t for m in modules for t in targets(m.to_string())})

    @staticmethod
    def read(path: Path) -> Program:
        """From a file; raises where there is none, or none to be trusted."""
        if os.name == "posix":
            facts = path.stat()
            if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
                raise PermissionError(path)
        digest, head, code = path.read_bytes().split(b"\n", 2)
        if _digest(path, head, code) != digest:
            raise ValueError(f"{path} is damaged, or was written for something else")
        facts = json.loads(head)
        if not jax_internals.lapack_ready(facts["calls"]):
            raise Unsuitable(f"{facts['calls']} cannot be called")
        executable = jax_internals.load(zlib.decompress(code), placement.host())
        store.used(path)
        return Program(executable, jax.tree.structure(decode(facts["result"])))


def targets(text: str) -> list[str]:
    """What a program calls outside itself, by its text in XLA's language.

    >>> targets('x = f64[2,2] custom-call(a), custom_call_target="lapack_dpotrf_ffi"')
    ['lapack_dpotrf_ffi']
    """
    return sorted(set(TARGET.findall(text)))


def _digest(path: Path, head: bytes, code: bytes) -> bytes:
    """Of a file's content and name: another program's file is no good here."""
    parts = (path.name.encode(), head, code)
    return hashlib.sha256(b"\n".join(parts)).hexdigest().encode()


def _write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all, also where two processes write."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


# Results as JSON ----------------------------------------------------------------------


def is_static(field: Any) -> bool:
    """Whether a field of a class belongs to the structure, not to the arrays."""
    return bool(field.metadata.get("static", False))


def name_of(kind: type) -> str:
    """Where a class of the package is found."""
    if kind.__module__.split(".")[0] != PACKAGE or "<" in kind.__qualname__:
        raise Unsuitable(f"{kind} is not of this package")
    return f"{kind.__module__}:{kind.__qualname__}"


def encode(x: Any) -> Any:
    """A result as JSON, its leaves numbers."""
    if isinstance(x, int):
        return x
    if x is None:
        return None
    if type(x) in (list, tuple):
        return {"kind": type(x).__name__, "items": [encode(value) for value in x]}
    if dataclasses.is_dataclass(x):
        fields = dataclasses.fields(x)
        if any(is_static(f) for f in fields):
            raise Unsuitable(f"{type(x)} has parts that are no arrays")
        parts = {f.name: encode(getattr(x, f.name)) for f in fields}
        return {"kind": name_of(type(x)), "fields": parts}
    raise Unsuitable(f"{type(x)} is not known")


def decode(text: Any) -> Any:
    """The inverse of ``encode``."""
    if text is None or isinstance(text, int):
        return text
    kind = text["kind"]
    if "items" in text:
        return {"list": list, "tuple": tuple}[kind](map(decode, text["items"]))
    module, _, name = kind.partition(":")
    if module.split(".")[0] != PACKAGE:
        raise Unsuitable(f"{kind} is not of this package")
    found = getattr(importlib.import_module(module), name)
    out = object.__new__(found)
    for field, value in text["fields"].items():
        object.__setattr__(out, field, decode(value))
    return out
