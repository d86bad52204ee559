"""Data sets through engines, chunk by chunk, into one table.

First a few steps for all; then whoever waits for something gets it: more steps, an
engine that takes missing values, a fit of its own. What a data set waits for is its
status in the table, a negative number, so that a table in a file can be taken up again
at any time. No data set depends on which others share its chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from jaxglmm import _status
from jaxglmm.results.fits_columns import AGAIN, ALONE, MISSING, PENDING, Columns

FIRST, MOST = 10, 200  # steps for all, and for those that need more
THREADS = 2
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
    engine: Engine,
    missing: Engine | None,
    alone: Callable[[int], np.ndarray],
    bar: Bar,
    threads: int = THREADS,
    saved: Callable[[], None] = lambda: None,
) -> None:
    """Fill the rows of ``table`` (D, columns) whose status is ``PENDING``.

    engine: for all; missing: for those that it finds to have missing values; alone:
    fits one data set in the ordinary way; saved: called when rows were written.
    """
    status = table[:, -1]
    _pass(table, engine, np.flatnonzero(status == PENDING), FIRST, bar, threads, saved)
    if missing is not None:
        waiting = np.flatnonzero(status == MISSING)
        _pass(table, missing, waiting, MOST, None, threads, saved)
    waiting = np.flatnonzero(status == AGAIN)
    _pass(table, engine, waiting, MOST, None, threads, saved)
    for i in np.flatnonzero(status == ALONE):
        table[i] = alone(int(i))
    saved()


def _pass(
    table: np.ndarray,
    engine: Engine,
    which: np.ndarray,
    steps: int,
    bar: Bar | None,
    threads: int,
    saved: Callable[[], None],
) -> None:
    if not len(which):
        return
    # two sizes, so that few programs are compiled
    size = FEW if len(table) <= FEW else engine.lanes

    def work(part: np.ndarray) -> int:
        padded = np.resize(part, size) if len(part) < size else part
        rows = engine.fit(padded, steps)[: len(part)]
        if steps == MOST:  # nothing more to wait for
            rows[:, -1] = np.where(rows[:, -1] == AGAIN, _status.MAX_STEPS, rows[:, -1])
        table[part] = rows
        return len(part)

    parts = list(_cut(which, size))
    if threads == 1 or len(parts) == 1:
        done: Iterator[int] = map(work, parts)
        _follow(done, bar, saved)
        return
    with ThreadPoolExecutor(threads) as pool:
        _follow(pool.map(work, parts), bar, saved)


def _follow(done: Iterator[int], bar: Bar | None, saved: Callable[[], None]) -> None:
    for n in done:
        saved()
        if bar is not None:
            bar.update(n)


def _cut(which: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(which), size):
        yield which[start : start + size]
