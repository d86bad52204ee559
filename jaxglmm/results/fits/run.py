"""Data sets through engines, chunk by chunk, into one table.

First a few steps for all; then whoever waits for something gets it: more steps, an
engine that takes missing values, a fit of its own. What a data set waits for is its
status in the table, a negative number, so that a table in a file can be taken up again
at any time. No data set depends on which others share its chunk. Where several
processes work together each fits its share, and all have the whole table at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxglmm import _status
from jaxglmm.batch import hosts
from jaxglmm.results.fits.columns import AGAIN, ALONE, MISSING, PENDING, Columns

if TYPE_CHECKING:
    from jaxglmm.results.fits.engines import Plan

FIRST, MORE, MOST = 10, 30, 200  # steps for all, and for those that need more
FEW = 64  # data sets that make a small chunk


class Engine(Protocol):
    """Fits data sets by number.

    columns: of the table; lanes: data sets in a chunk.
    """

    columns: Columns
    lanes: int

    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for the data sets ``which``."""
        ...


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
) -> None:
    """Fill the rows of ``table`` (D, columns) that are not done.

    saved: called now and then when rows were written, and at the end.
    """
    status = table[:, -1]
    bar.update(int(np.sum(status != PENDING)))
    keeper = _Keeper(saved)
    for stage in plan.stages:
        mine = hosts.share(stage.which)
        first = mine[status[mine] == PENDING]
        _pass(table, stage.engine, first, FIRST, bar, stage.threads, keeper)
    if plan.missing is not None:
        threads = plan.stages[0].threads
        waiting = np.flatnonzero(status == MISSING)
        _pass(table, plan.missing, waiting, MOST, None, threads, keeper)
    for steps in (MORE, MOST):  # so that few wait for the slowest of all
        for stage in plan.stages:
            waiting = stage.which[status[stage.which] == AGAIN]
            _pass(table, stage.engine, waiting, steps, None, stage.threads, keeper)
    for i in np.flatnonzero(status == ALONE):
        _write(table, np.array([i]), plan.alone(int(i))[None])
        keeper()
    saved()
    hosts.gather(table, status != PENDING)


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


def _pass(
    table: np.ndarray,
    engine: Engine,
    which: np.ndarray,
    steps: int,
    bar: Bar | None,
    threads: int,
    keeper: _Keeper,
) -> None:
    if not len(which):
        return
    # two sizes, so that few programs are compiled
    size = engine.lanes
    if len(table) <= FEW and size > 1:
        size = min(FEW, size)
    unit = getattr(engine, "unit", None)
    unit = unit if unit is None else min(unit, size)

    def work(part: np.ndarray) -> int:
        wanted = size if unit is None else -(-len(part) // unit) * unit
        padded = np.resize(part, wanted) if len(part) < wanted else part
        with np.errstate(all="ignore"):  # bad data sets say so by their status
            rows = engine.fit(padded, steps)[: len(part)]
        if steps == MOST:  # nothing more to wait for
            rows[:, -1] = np.where(rows[:, -1] == AGAIN, _status.MAX_STEPS, rows[:, -1])
        _write(table, part, rows)
        return len(part)

    parts = [which[k : k + size] for k in range(0, len(which), size)]
    _follow([work(parts[0])], bar, keeper)  # compiles, alone
    if threads == 1 or len(parts) <= 2:
        _follow(map(work, parts[1:]), bar, keeper)
        return
    with ThreadPoolExecutor(threads) as pool:
        _follow(pool.map(work, parts[1:]), bar, keeper)


def _follow(done: Iterable[int], bar: Bar | None, keeper: _Keeper) -> None:
    for n in done:
        keeper()
        if bar is not None:
            bar.update(n)
