"""When a function runs in NumPy, and when a program is compiled for it.

As in any good compiler of this kind: what is small runs at once, operation by
operation, and is compiled when it has been run for as long as compiling takes. A fit of
a small data set is over in some milliseconds then, where its program would take
seconds; the hundredth refit of the same shape runs as fast as ever.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

from jaxglmm.runtime import host

P = ParamSpec("P")
R = TypeVar("R")

ENVIRONMENT = "JAXGLMM_COMPILE"  # "always": no run in NumPy
MOST = 800_000  # numbers in the arguments up to which NumPy is quick
PAYS = 0.3  # seconds in NumPy after which a program is compiled
READS = 0.05  # seconds after which one that is on disk is read
LONGEST = 2.0  # seconds after which a run in NumPy gives way to a program
LAST = 4.0  # seconds in NumPy from which the rest of a fit is a program's too
KEPT = 4_096  # shapes of which the seconds are known

_seconds: OrderedDict[Hashable, float] = OrderedDict()
_absent: OrderedDict[Hashable, None] = OrderedDict()  # shapes without a program on disk


def suits(
    key: Hashable, leaves: Sequence[Any], kept: Callable[[], bool] = lambda: False
) -> bool:
    """Whether the next call of this shape is better made in NumPy.

    kept: asked, where it may matter, whether the program is on disk.
    """
    if _always or os.environ.get(ENVIRONMENT) == "always":
        return False
    spent = _seconds.get(key, 0.0)
    if _this.fit is not None:  # what began in NumPy ends there
        spent = spent if spent > LAST else _this.fit.setdefault(key, spent)
    if spent >= PAYS or (spent >= READS and kept()):
        return False
    return sum(getattr(x, "size", 1) for x in leaves) <= MOST


def few(leaves: Sequence[Any]) -> bool:
    """Whether the arguments are so small that NumPy stays quick."""
    return sum(getattr(x, "size", 1) for x in leaves) <= MOST // 8


@contextlib.contextmanager
def always_compiled() -> Iterator[None]:
    """In here nothing runs in NumPy: the programs of what is called are made."""
    global _always
    before, _always = _always, True
    try:
        yield
    finally:
        _always = before


_always = False


class _This(threading.local):
    """Seconds of shapes when the fit that is under way in this thread met them."""

    fit: dict[Hashable, float] | None = None


_this = _This()


def one_fit(function: Callable[P, R]) -> Callable[P, R]:
    """Searches of one fit, from several starts, stay in NumPy once they began there."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        before, _this.fit = _this.fit, {}
        try:
            return function(*args, **kwargs)
        finally:
            _this.fit = before

    return wrapped


@contextlib.contextmanager
def timed(key: Hashable) -> Iterator[None]:
    """Count the seconds of a run in NumPy, of this thread: others may be at work."""
    start = time.thread_time()
    try:
        yield
    finally:
        spent = time.thread_time() - start
        _seconds[key] = _seconds.pop(key, 0.0) + spent
        if len(_seconds) > KEPT:
            _seconds.popitem(last=False)


def attempt(
    key: Hashable,
    leaves: Sequence[Any],
    run: Callable[[], Any],
    otherwise: Callable[[], Any],
    kept: Callable[[], bool] = lambda: False,
) -> Any:
    """What ``run`` gives in NumPy where that suits, else what ``otherwise`` gives.

    Whatever goes wrong in NumPy, which may lack something, the program says again.
    """

    def known() -> bool:
        """Asked once: what is not there now will be made by this process."""
        if key not in _absent and not kept():
            _absent[key] = None
            if len(_absent) > KEPT:
                _absent.popitem(last=False)
        return key not in _absent

    if suits(key, leaves, known):
        try:
            with timed(key), host.on_host(LONGEST, READS, known):
                return run()
        except Exception:
            failed(key)
    return otherwise()


def failed(key: Hashable) -> None:
    """NumPy lacks something that the function needs: never try again."""
    _seconds[key] = float("inf")
