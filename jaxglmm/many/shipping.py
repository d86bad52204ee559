"""Pieces of work that go elsewhere: an engine once a worker, then numbers of data sets.

An engine holds the data, a piece says which of them: to send the one with every other
would be to send the data again and again. So the engine is written to a file once, a
ticket names it, and a worker keeps those it has read. Where workers do not see the file
(another machine without a shared disk) tickets carry the engine themselves; threads of
this process find it in memory.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tempfile
from collections import OrderedDict
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm.many.pieces import LanesEngine, Piece, rows
from jaxglmm.runtime.precision import double_precision

KEPT = 8  # engines in a worker

_kept: OrderedDict[str, LanesEngine] = OrderedDict()


class EngineNotHereError(Exception):
    """A worker does not see the file of an engine."""


@dataclass(frozen=True)
class Ticket:
    """A piece without its engine.

    key: of the engine, by its content; path: where it lies; content: itself, where
    files are not shared.
    """

    key: str
    path: str
    content: bytes | None
    which: np.ndarray
    size: int
    steps: int
    last: bool


@double_precision
def rows_of(ticket: Ticket, content: bytes | None = None) -> np.ndarray:
    """Rows of the table for a ticket, wherever this is.

    content: the engine, where the executor has a way of its own to share it.
    """
    if content is not None and ticket.key not in _kept:
        _keep(ticket.key, pickle.loads(content))
    engine = _engine(ticket)
    return rows(Piece(engine, ticket.which, ticket.size, ticket.steps, ticket.last))


def _engine(ticket: Ticket) -> LanesEngine:
    if ticket.key in _kept:
        return _kept[ticket.key]
    content = ticket.content
    if content is None:
        try:
            content = Path(ticket.path).read_bytes()
        except OSError as error:
            raise EngineNotHereError(ticket.path) from error
    _keep(ticket.key, pickle.loads(content))  # what this process's own parent wrote
    return _kept[ticket.key]


def _keep(key: str, engine: LanesEngine) -> None:
    _kept[key] = engine
    while len(_kept) > KEPT:
        _kept.popitem(last=False)


class Shipping:
    """Pieces handed to somebody's executor, for ``with``.

    What fails there is done once more here: a worker that died takes nothing with it,
    and what fails here too is an error of the piece itself.
    """

    ahead = 1_000_000  # pieces that may wait: the pool has a queue of its own

    def __init__(self, pool: Executor):
        self.pool = pool
        self._folder = Path(tempfile.mkdtemp(prefix="jaxglmm-"))
        self._known: dict[int, tuple[LanesEngine, str, Path]] = {}
        self._handles: dict[str, Any] = {}
        self._carries = False
        self._futures: list[Future[np.ndarray]] = []

    def __enter__(self) -> Shipping:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:  # interrupted: what has not begun never does
            for future in self._futures:
                future.cancel()
        for _, key, _ in self._known.values():
            _kept.pop(key, None)
        shutil.rmtree(self._folder, ignore_errors=True)

    def submit(self, piece: Piece) -> Future[np.ndarray]:
        """A future of its rows."""
        try:
            ticket = self._ticket(piece)
            future = self.pool.submit(rows_of, ticket, *self._shared(ticket))
        except RuntimeError as error:  # broken, or shut down
            future = Future()
            future.set_exception(error)
        self._futures.append(future)
        return future

    def result(self, future: Future[np.ndarray], piece: Piece) -> np.ndarray:
        """Its rows; found here where they were lost there."""
        try:
            return future.result()
        except EngineNotHereError:
            self._carries = True
        except Exception:  # whatever becomes of a worker has a name of its engine's own
            pass
        return double_precision(rows)(piece)

    def _shared(self, ticket: Ticket) -> tuple[Any, ...]:
        """The engine by the executor's own way, where it has one."""
        share = getattr(self.pool, "share", None)
        if share is None:
            return ()
        if ticket.key not in self._handles:
            self._handles[ticket.key] = share(Path(ticket.path).read_bytes())
        return (self._handles[ticket.key],)

    def _ticket(self, piece: Piece) -> Ticket:
        engine = piece.engine
        if id(engine) not in self._known:
            content = pickle.dumps(engine)
            key = hashlib.sha256(content).hexdigest()
            path = self._folder / key
            path.write_bytes(content)
            self._known[id(engine)] = engine, key, path
            _keep(key, engine)
        _, key, path = self._known[id(engine)]
        content = path.read_bytes() if self._carries else None
        whole = piece.which, piece.size, piece.steps, piece.last
        return Ticket(key, str(path), content, *whole)
