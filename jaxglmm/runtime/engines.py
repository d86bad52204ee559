"""Executors of cluster engines: their own way to run a function, and no more.

Each hands a function and its arguments to the engine, which schedules it, sends it to a
worker, and runs it again where a worker dies. ``share`` puts bytes where all workers
find them (Dask's workers, Ray's object store, a broadcast of Spark's), once: what it
gives is an argument that arrives as these bytes.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from jaxglmm._errors import ArgumentError

SMALL = 100_000  # bytes that go with every piece: quicker than to all workers first
TRIES = 3  # of a piece, where the engine counts them


def needed(module: str, extra: str) -> Any:
    """A module of an extra.

    Raises:
        ArgumentError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArgumentError(
            f"jg.executors.{extra} needs {module.partition('.')[0]}, which cannot be "
            f"imported ({error}): pip install 'jaxglmm[{extra}]'"
        ) from error


class DaskExecutor(Executor):
    """Tasks of a ``distributed.Client``."""

    def __init__(self, client: Any, options: dict[str, Any]):
        self.client = client
        self._own = client.get_executor(**{"pure": False, "retries": TRIES, **options})

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        return self._own.submit(fn, *args, **kwargs)

    def share(self, content: Any) -> Any:
        """On every worker that there is; a piece whose worker dies finds another."""
        if len(pickle.dumps(content)) < SMALL:
            return content
        return self.client.scatter(content, broadcast=True, hash=False)


class RayExecutor(Executor):
    """Tasks of Ray, with what is shared in its object store."""

    def __init__(self, ray: Any, options: dict[str, Any]):
        self.ray = ray
        options = {"max_retries": TRIES, **options}
        self._call = ray.remote(_call).options(**options)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        return self._call.remote(fn, *args, **kwargs).future()

    def share(self, content: Any) -> Any:
        """A reference into the object store."""
        return self.ray.put(content)


def _call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


class SparkExecutor(Executor):
    """Jobs of one task each, ``width`` of them under way at a time."""

    def __init__(self, session: Any, width: int | None):
        self.session = session
        context = _context(session)
        if width is None:
            # as many again wait in Spark, so that no core waits for a job to be made
            width = 16 if context is None else 2 * int(context.defaultParallelism)
        self._pool = ThreadPoolExecutor(width, "jaxglmm-spark")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        return self._pool.submit(self._job, fn, args, kwargs)

    def share(self, content: Any) -> Any:
        """A broadcast; over Spark Connect, which has none, the bytes themselves."""
        context = _context(self.session)
        return content if context is None else context.broadcast(content)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """The threads that wait for jobs end; the session stays."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _job(self, fn: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        def run() -> bytes:
            given = [a.value if type(a).__name__ == "Broadcast" else a for a in args]
            return pickle.dumps(fn(*given, **kwargs))

        context = _context(self.session)
        if context is not None:  # no query to plan
            found = context.parallelize([0], 1).map(lambda _: run()).collect()
            return pickle.loads(found[0])

        def task(batches: Iterator[Any]) -> Iterator[Any]:
            import pyarrow as pa

            for _ in batches:
                found = pa.array([run()], pa.binary())
                yield pa.RecordBatch.from_arrays([found], ["content"])

        one = self.session.range(0, 1, 1, 1).mapInArrow(task, "content binary")
        return pickle.loads(bytes(one.collect()[0]["content"]))


def _context(session: Any) -> Any:
    """The session's ``SparkContext``; None of Spark Connect."""
    try:
        return session.sparkContext
    except Exception:  # a class of its own in each version
        return None
