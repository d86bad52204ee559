"""How much of a disk programs may take: the least recently used go, and old versions.

A program is some 100 kB. A new version of this package or of JAX, or another processor,
makes all programs anew under other names, so what is not used for long is of no use.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

SUFFIX = ".program"
LARGEST = 300_000_000  # bytes of all programs below one folder
LEFT = 0.75  # share of it that is left where there were more
UNUSED = 60 * 86_400.0  # seconds after which a program goes
OFTEN = 25  # programs written between two looks
STALE = 3_600.0  # seconds after which what was half written is nobody's

_written = 0
read = 0  # programs that this process took from disk


def used(path: Path) -> None:
    """The program was read just now; a look at a file does not always say so."""
    global read
    read += 1
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > STALE:
            os.utime(path)


def written() -> int:
    """How many programs this process has put there."""
    return _written


def tidy(folder: Path) -> None:
    """Called after each write into ``folder``; looks at the first and some later."""
    global _written
    _written += 1
    if _written % OFTEN == 1:
        with contextlib.suppress(OSError):
            clean(folder)


def clean(folder: Path) -> int:
    """Remove what is too old or too much, of all versions; the number of files.

    ``folder`` is root/jax-version/processor/jaxglmm, or one by itself; nothing but
    programs and what a killed process left of one is touched.
    """
    version, now = folder.parent.parent, time.time()
    whole = version.name.startswith("jax-")
    files = version.parent.glob("jax-*/*/jaxglmm/*") if whole else folder.glob("*")
    found, gone = [], 0
    for path in files:
        with contextlib.suppress(OSError):
            facts = path.stat()
            age = now - facts.st_mtime
            known = path.suffix == SUFFIX
            if age > UNUSED or (not known and age > STALE):
                gone += _removed(path)
            elif known:
                found.append((facts.st_mtime, facts.st_size, path))
    held = sum(size for _, size, _ in found)
    if held > LARGEST:
        for _, size, path in sorted(found):
            if held <= LEFT * LARGEST:
                break
            gone += _removed(path)
            held -= size
    return gone


def _removed(path: Path) -> int:
    """1 if the file is gone; another process may have been first."""
    try:
        path.unlink()
    except OSError:
        return 0
    return 1
