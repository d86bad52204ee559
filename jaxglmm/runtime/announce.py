"""A word where a first call takes seconds, for people who wait at a screen.

Compiling is silent and may take some seconds. Once a process, where it takes more than
one and somebody looks on (a terminal or a notebook, the main thread, so no batch), a
line on standard error says what is going on. ``JAXGLMM_QUIET=1`` leaves it out.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

AFTER = 1.0  # seconds
ENVIRONMENT = "JAXGLMM_QUIET"
TEXT = (
    "jaxglmm: compiling for data of this size, some seconds once; the next fit like it "
    "takes a fraction of one"
)

_said = False


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Say that something is being compiled, should it take long in here."""
    if _said or not _watched():
        yield
        return
    timer = threading.Timer(AFTER, _say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _watched() -> bool:
    """Whether somebody waits for this very call."""
    if os.environ.get(ENVIRONMENT) or sys.stderr is None:
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    return "ipykernel" in sys.modules or bool(getattr(sys.stderr, "isatty", bool)())


def _say() -> None:
    global _said
    if not _said:
        _said = True
        print(TEXT, file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """A text on standard error, where somebody looks on."""
    if _watched():
        print(text, file=sys.stderr, flush=True)
