"""Where pieces of work run: here, one after the other, or in threads.

Work is handed to a ``concurrent.futures.Executor`` as plain functions and what they are
to work on, so that another kind (processes, a cluster's) is one more class here and one
more line in ``executor``. What all kinds owe is done here, once: work runs in double
precision, which is a setting of each thread in JAX; the first exception is that of the
whole, and what has not begun by then never does.

XLA and NumPy let the interpreter go while they compute, so threads are enough. There
are two, whatever the machine has: XLA has threads of its own.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from typing import Any, TypeVar

from jaxglmm._errors import ArgumentError, JaxGLMMError
from jaxglmm.runtime.engines import DaskExecutor
from jaxglmm.runtime.precision import double_precision

THREADS = 2
WORKERS = 4  # of an executor that does not say how many it has
_own = threading.local()
T = TypeVar("T")
R = TypeVar("R")


def threads() -> int:
    """How many pieces run at a time on this machine."""
    return min(getattr(_own, "threads", THREADS), os.cpu_count() or 1)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """In here this thread starts no others: it is one of several workers itself."""
    before = getattr(_own, "threads", THREADS)
    _own.threads = 1
    try:
        yield
    finally:
        _own.threads = before


def executor(width: int | None = None) -> Executor:
    """For ``with``: ``width`` pieces at a time (``threads()``), no more than CPUs."""
    width = threads() if width is None else min(width, os.cpu_count() or 1)
    return Serial() if width == 1 else Threads(width)


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    width: int | None = None,
    pool: Executor | None = None,
) -> Iterator[R]:
    """What ``work`` makes of the items, in their order; few are taken ahead of it.

    width: as of ``executor``. pool: somebody's executor instead; what it loses is done
    here.
    """
    if pool is not None:
        yield from _in_order_there(work, items, pool)
        return
    waiting: deque[Future[R]] = deque()
    with executor(width) as own:
        for item in items:
            waiting.append(own.submit(work, item))
            if len(waiting) > (width or threads()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _in_order_there(
    work: Callable[[T], R], items: Iterable[T], pool: Executor
) -> Iterator[R]:
    if isinstance(pool, ProcessPoolExecutor):
        _travels(work)
    waiting: deque[tuple[T, Future[R]]] = deque()
    share: Callable[[Any], Any] = getattr(pool, "share", lambda x: x)
    shared = share(work)
    most = 2 * int(getattr(pool, "_max_workers", None) or WORKERS)

    def oldest() -> R:
        item, future = waiting.popleft()
        try:
            return future.result()
        except JaxGLMMError:
            raise
        except Exception:  # a worker's end has a name of its engine's own
            return work(item)

    try:
        for item in items:
            waiting.append((item, submitted(pool, _done, shared, item)))
            if len(waiting) > most:
                yield oldest()
        while waiting:
            yield oldest()
    finally:
        for _, future in waiting:
            future.cancel()


def _travels(work: Any) -> None:
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"executor=: other processes cannot take this work ({error}). A function "
            "that the formula calls must be one of a module; threads take any"
        ) from error


def _done(work: Callable[[T], R], item: T) -> R:
    """In a worker, which is one of several."""
    with one_at_a_time():
        return work(item)


def submitted(pool: Executor, work: Callable[..., R], *args: Any) -> Future[R]:
    """The future of a call; where the executor is broken or shut down it has failed."""
    try:
        return pool.submit(work, *args)
    except RuntimeError as error:
        out: Future[R] = Future()
        out.set_exception(error)
        return out


def given(pool: Any) -> Executor | None:
    """Somebody's executor; of a Dask client its own.

    Raises:
        ArgumentError: it is none.
    """
    if pool is None or isinstance(pool, Executor):
        return pool
    own = getattr(pool, "get_executor", None)
    if callable(own):
        return DaskExecutor(pool, {}) if hasattr(pool, "scatter") else own()
    raise ArgumentError(
        f"executor={_shown(pool)}: a concurrent.futures.Executor is needed, such as "
        "ProcessPoolExecutor(4), jg.executors.ray(), or a Dask client"
    )


def _shown(pool: Any) -> str:
    return f"{type(pool).__module__}.{type(pool).__name__}"


class Serial(Executor):
    """In this thread: ``submit`` at once, ``map`` as its results are asked for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        out: Future = Future()
        try:
            out.set_result(double_precision(fn)(*args, **kwargs))
        except Exception as error:  # an interruption is not the piece's and goes on
            out.set_exception(error)
        return out

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        return map(double_precision(fn), *iterables)


class Threads(ThreadPoolExecutor):
    """In threads; ``map`` takes all that there is to do at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        return super().submit(double_precision(fn), *args, **kwargs)

    def __exit__(self, kind: Any, *rest: Any) -> bool:
        self.shutdown(wait=True, cancel_futures=kind is not None)
        return False
