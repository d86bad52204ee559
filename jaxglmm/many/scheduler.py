"""Data sets through engines, chunk by chunk, into one table.

First a few steps for all; then whoever waits for something gets it: more steps, an
engine that takes missing values, a fit of its own, which starts anew where lanes ran
out of steps. What a data set waits for is its status in the table, a negative number,
so that a table in a file can be taken up again at any time. No data set depends on
which others share its chunk. Where several processes work together each fits its share,
and all have the whole table at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from jaxglmm.many.columns import AGAIN, ALONE, MISSING, PENDING
from jaxglmm.many.pieces import LanesEngine, Piece, rows
from jaxglmm.many.shipping import Shipping
from jaxglmm.many.stages import Plan, Stage
from jaxglmm.runtime import hosts
from jaxglmm.runtime.executors import executor

FIRST, MORE, MOST = 10, 30, 200  # steps for all, and for those that need more
FEW = 64  # data sets that make a small chunk


class Bar(Protocol):
    """Progress."""

    def update(self, n: int) -> Any:
        """n more are done."""
        ...


def run(
    table: np.ndarray,
    plan: Plan,
    bar: Bar,
    saved: Callable[[], None] = lambda: None,
    pool: Executor | None = None,
) -> None:
    """Fill the rows of ``table`` (D, columns) that are not done.

    saved: called now and then when rows were written, and at the end; pool: somebody's
    executor, in place of threads here.
    """
    status = table[:, -1]
    bar.update(int(np.sum(status != PENDING)))
    keeper = _Keeper(saved)
    rounds = [_rounds(stage, plan, status) for stage in plan.stages]
    threads = max((stage.threads for stage in plan.stages), default=1)
    for piece in _together(table, rounds, _pool(pool, threads)):
        keeper()
        if piece.steps == _steps(piece.engine)[0]:
            bar.update(len(piece.which))
    waiting = np.flatnonzero(np.isin(status, (ALONE, MISSING)))
    last = iter([_Round(plan.alone, waiting, MOST)])
    # here one at a time: each has all processors
    for _ in _together(table, [last], _pool(pool, 1)):
        keeper()
    saved()
    hosts.gather(table, status != PENDING)


@dataclass(frozen=True)
class _Round:
    """Data sets ``which`` by an engine, at most ``steps`` steps."""

    engine: LanesEngine
    which: np.ndarray
    steps: int


def _rounds(stage: Stage, plan: Plan, status: np.ndarray) -> Iterator[_Round]:
    """What a stage asks for, each round when the one before is done."""
    mine = hosts.share(stage.which)
    first, *later = _steps(stage.engine)
    yield _Round(stage.engine, mine[status[mine] == PENDING], first)
    if plan.missing is not None:
        waiting = stage.which[status[stage.which] == MISSING]
        yield _Round(plan.missing, waiting, _last(plan.missing))
    for steps in later:  # so that few wait for the slowest of all
        waiting = stage.which[status[stage.which] == AGAIN]
        yield _Round(stage.engine, waiting, steps)


def _steps(engine: LanesEngine) -> tuple[int, ...]:
    """The most steps of each round."""
    return getattr(engine, "steps", (FIRST, MORE, MOST))


def _last(engine: LanesEngine) -> int:
    """The most steps of an engine's lanes: no more than a fit of its own would take."""
    return MORE if engine.surer_alone else MOST


class _Threads:
    """Pieces done in this process, ``threads`` at a time."""

    def __init__(self, threads: int):
        self.ahead = threads if threads > 1 else 0  # what waits, that no thread does
        self._pool = executor(threads)

    def __enter__(self) -> _Threads:
        self._pool.__enter__()
        return self

    def __exit__(self, *rest: Any) -> None:
        self._pool.__exit__(*rest)

    def submit(self, piece: Piece) -> Future[np.ndarray]:
        """A future of its rows."""
        return self._pool.submit(rows, piece)

    def result(self, future: Future[np.ndarray], piece: Piece) -> np.ndarray:
        """Its rows."""
        return future.result()


def _pool(pool: Executor | None, threads: int) -> _Threads | Shipping:
    return _Threads(threads) if pool is None else Shipping(pool)


def _together(
    table: np.ndarray, rounds: list[Iterator[_Round]], where: _Threads | Shipping
) -> Iterator[Piece]:
    """All stages at once: one's stragglers beside the other's first steps."""
    queue: list[tuple[int, int, int, Piece]] = []  # a heap: stragglers go first
    counter = count()
    left = [0] * len(rounds)

    def add(stage: int, found: list[Piece]) -> None:
        left[stage] += len(found)
        for piece in found:
            heappush(queue, (-piece.steps, next(counter), stage, piece))

    first = [_next_pieces(table, stage) for stage in rounds]
    for some in (slice(1), slice(1, None)):  # each compiles with its first
        for k, found in enumerate(first):
            add(k, found[some])
    waiting: dict[Future[np.ndarray], tuple[int, Piece]] = {}
    done: SimpleQueue[Future[np.ndarray]] = SimpleQueue()
    try:
        with where as pool:
            while queue or waiting:
                while queue and len(waiting) <= pool.ahead:
                    _, _, stage, piece = heappop(queue)
                    future = pool.submit(piece)
                    waiting[future] = stage, piece
                    future.add_done_callback(done.put)
                future = done.get()
                stage, piece = waiting.pop(future)
                _write(table, piece.which, pool.result(future, piece))
                left[stage] -= 1
                if not left[stage]:
                    add(stage, _next_pieces(table, rounds[stage]))
                yield piece
    finally:  # what was under way when it was interrupted counts as well
        for future, (_, piece) in waiting.items():
            if not future.cancelled() and future.exception() is None:
                _write(table, piece.which, future.result())


class _Keeper:
    """Calls ``saved`` at most once a second."""

    def __init__(self, saved: Callable[[], None]):
        self.saved, self.last = saved, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.last > 1.0:
            self.saved()
            self.last = time.monotonic()


def _write(table: np.ndarray, which: np.ndarray, rows: np.ndarray) -> None:
    """The status last: a row that says it is done is done."""
    table[which, :-1] = rows[:, :-1]
    table[which, -1] = rows[:, -1]


def _next_pieces(table: np.ndarray, rounds: Iterator[_Round]) -> list[Piece]:
    """The calls of the next round that has something to do."""
    D = len(table)
    return next((found for one in rounds if (found := list(_pieces(D, one)))), [])


def _pieces(D: int, one: _Round) -> Iterator[Piece]:
    """Lanes are padded to a multiple of the engine's unit, else to one of two sizes.

    So few programs are compiled. Stragglers come in units, that threads share them.
    """
    engine = one.engine
    size = engine.lanes
    if D <= FEW and size > 1:
        size = min(FEW, size)
    unit = getattr(engine, "unit", None)
    unit = size if unit is None else min(unit, size)
    size = size if one.steps == _steps(engine)[0] else unit
    last = one.steps == _last(engine)  # no more steps here
    for k in range(0, len(one.which), size):
        which = one.which[k : k + size]
        padded = -(-len(which) // unit) * unit
        yield Piece(engine, which, padded, one.steps, last)
