"""Warnings that point at the user's line, and the wording of counts and names."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from jaxglmm.formula.context import is_inside

_silent: ContextVar[bool] = ContextVar("silent", default=False)
_said: ContextVar[Callable[[str], str]] = ContextVar("said", default=str)


@contextmanager
def silent() -> Iterator[None]:
    """Nothing is warned of in here, in this thread: what is done tells it later."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


@contextmanager
def said(wording: Callable[[str], str]) -> Iterator[None]:
    """Warnings in here, in this thread, in other words: a door's for its arguments."""
    token = _said.set(wording)
    try:
        yield
    finally:
        _said.reset(token)


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the first frame outside this package."""
    if _silent.get():
        return
    level = 2
    frame = sys._getframe(1)
    while frame is not None and is_inside(frame):
        frame = frame.f_back
        level += 1
    warnings.warn(_said.get()(message), category, stacklevel=level)


def nearest(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'Days'?`` or the list of what there is."""
    known = [str(n) for n in names]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not close:
        lower = {k.lower(): k for k in known}
        close = [lower[k] for k in difflib.get_close_matches(name.lower(), lower)]
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    return f"; there are {listed(known)}" if known else ""


def listed(items: Sequence, most: int = 8) -> str:
    """``'a', 'b', ... (12 in all)``."""
    shown = ", ".join(repr(plain(i)) for i in items[:most])
    return shown if len(items) <= most else f"{shown}, ... ({len(items)} in all)"


def plain(value):
    """A NumPy scalar as the Python one, so that messages show 3 and not np.int64(3)."""
    return value.item() if hasattr(value, "item") else value
