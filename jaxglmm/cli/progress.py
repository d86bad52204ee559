"""What a command says while it works, on stderr, and the cache it works with."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jaxglmm.runtime.cache import (
    enable_compilation_cache,
    program_folder,
    switched_off,
)

_begun: list[str] = []  # of a step whose line is not ended yet


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, and then how long it took."""
    print(f"{text} ...", end="", file=sys.stderr, flush=True)
    _begun.append(text)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        end_line()
        raise
    seconds = f" {time.perf_counter() - start:.1f} s"
    if not _begun:  # a warning came in between
        seconds = f"{text}:{seconds}"
    _begun.clear()
    print(seconds, file=sys.stderr, flush=True)


def end_line() -> None:
    """End the line of a step, so that a message has a line of its own."""
    if _begun:
        _begun.clear()
        print(file=sys.stderr, flush=True)


def keep_compiled_programs() -> Path | None:
    """The cache folder, or None (and a warning) where none can be used."""
    if switched_off():
        return None
    path = enable_compilation_cache()
    return path if program_folder() is not None else None
