"""Passes over a source: what is learned of it, and its cross-products.

Reading runs ahead in Arrow's threads while this one adds up. Whatever goes wrong in a
batch is told with the file it came from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, JaxGLMMError
from jaxglmm.formula.absent import AbsentRows
from jaxglmm.formula.batch_rows import BatchRows, RowMaker
from jaxglmm.formula.survey import Survey
from jaxglmm.formula.tables import as_table
from jaxglmm.model import covariances
from jaxglmm.runtime import progress
from jaxglmm.runtime.ahead import ahead
from jaxglmm.runtime.executors import in_order
from jaxglmm.streaming.checkpoint import Checkpoint, keep_sums, resume_sums
from jaxglmm.streaming.pushed import Roles, monomials, sum_by_sql
from jaxglmm.streaming.sources import ROWS, Batch, BatchSource, DuckSource
from jaxglmm.structure.factors import ColumnMaps
from jaxglmm.structure.moments_of_sums import (
    LOSSY,
    SumFrame,
    TermFrame,
    apart,
    reduced,
    settled,
    squares,
    sure_columns,
    turned,
)
from jaxglmm.structure.row_sums import FactorShape, RowSums

MOST_ROWS = 4_194_304  # of a batch
PER_LEVEL = 2  # rows of a batch for each level, so that tables of levels pay
MOST_PASSES = 4  # over the cross-products


@contextmanager
def told(where: str) -> Iterator[None]:
    """Errors in here name the place."""
    try:
        yield
    except JaxGLMMError as error:
        text = str(error)
        if where in text:
            raise
        raise type(error)(f"{where}: {text}", status=error.status) from error


Report = Callable[[Batch, float], None]


def survey_source(
    survey: Survey, source: BatchSource, shown: bool | None, first: Report
) -> None:
    """The first pass; first: told of the first batch and the seconds it took."""
    with progress.bar(_total(source), shown, "row", "reading levels") as bar:
        batches = ahead(source.tables(survey.columns))
        started = time.perf_counter()
        for batch in batches:
            with told(batch.where):
                survey.see(as_table(batch.table))
            if survey.n == batch.table.num_rows:
                first(batch, time.perf_counter() - started)
            bar.update(batch.table.num_rows)


def _total(source: BatchSource) -> int:
    return source.n_rows or 0


@dataclass(frozen=True)
class SumCoordinates:
    """How distinct columns of X and Z become those that are summed.

    x_moves, z_moves: (shift, scale) of each column of X, and of Z by term; X_turn: (p,
    p) and z_turns: (q, q), what these are divided by after that; y: (b, s), with b (p,)
    of the columns of X that are summed.
    """

    kept: tuple[int, ...]
    x_moves: tuple[tuple[float, float], ...]
    z_moves: tuple[tuple[tuple[float, float], ...], ...]
    X_turn: np.ndarray | None
    z_turns: tuple[np.ndarray | None, ...]
    b: np.ndarray
    s: float


class Summing:
    """The cross-products of a source: one pass, more where coordinates were poor."""

    def __init__(
        self,
        maker: RowMaker,
        source: BatchSource,
        shown: bool | None,
        pushed: Roles | None = None,
        left: Checkpoint | None = None,
        weighted: bool = True,
        executor: Executor | None = None,
    ):
        self.weighted, self.executor = weighted, executor
        self.maker, self.source, self.shown = maker, source, shown
        self.pushed, self.left = pushed, left
        self.survey = maker.survey
        self.passes = 0
        self.coordinates: SumCoordinates | None = None  # those of the sums
        self.kinds = [
            covariances.named(t.covariance, len(t.names)) for t in maker.terms
        ]
        self.factors = list(dict.fromkeys(t.factor for t in maker.terms))

    @property
    def n(self) -> int:
        """Rows that count."""
        return self.survey.counted

    def run(self) -> tuple[RowSums, SumFrame, tuple[int, ...], np.ndarray]:
        """Sums of columns of X that do not depend on each other, and their frame.

        The last is X'WX of all columns, moved.
        """
        every = self._first(tuple(range(len(self.maker.x_at))))
        self.first_moves = every.x_moves
        sums, frame = self._pass(every)
        whole = sums.gram
        kept = sure = sure_columns(whole[:-1, :-1])
        if len(sure) < len(every.kept):
            X = whole[:-1, :-1]
            C = apart(X, sure)
            square = squares(X, self.constant)
            every = self._moved(every, C, C @ every.b, every.s, every.z_turns)
            sums, frame = self._pass(every)
            kept = settled(sums.gram[:-1, :-1], sure, C, square)
            sums, frame, every = _without(sums, frame, every, kept)
        while self.passes < MOST_PASSES and reduced(sums, self.n).loss > LOSSY:
            every = self._better(sums, frame, every)
            sums, frame = self._pass(every)
        self.coordinates = every
        return sums, frame, kept, whole

    @property
    def constant(self) -> bool:
        """Whether the first column of X is the constant."""
        return self.maker.x_names[:1] == ("(Intercept)",)

    def _first(self, kept: tuple[int, ...]) -> SumCoordinates:
        """Numbers moved to their means where the model has the constant."""
        maker, constant = self.maker, self.constant
        moves = tuple(self._move(maker.x_at[j], constant) for j in kept)
        by_term = []
        for term, kind in zip(maker.terms, self.kinds, strict=True):
            own = term.names[:1] == ("(Intercept)",) and kind.maps is ColumnMaps.ANY
            by_term.append(tuple(self._move(at, own) for at in term.at))
        b = np.zeros(len(kept))
        if constant:
            b[0] = self.survey.response.mean
        nothing = (None,) * len(maker.terms)
        s = self.survey.response.sd
        return SumCoordinates(kept, moves, tuple(by_term), None, nothing, b, s)

    def _move(self, at: int, constant: bool) -> tuple[float, float]:
        facts = self.maker.facts[at]
        if constant:
            return facts.mean, facts.sd
        return 0.0, float(np.hypot(facts.mean, facts.sd)) or 1.0

    def frame(self, c: SumCoordinates) -> SumFrame:
        """The coordinates as maps back to the columns of X and Z as given."""
        R = _upper(c.x_moves)
        if c.X_turn is not None:
            R = c.X_turn @ R
        terms, places = [], dict.fromkeys(self.factors, 0)
        for k, (term, kind) in enumerate(
            zip(self.maker.terms, self.kinds, strict=True)
        ):
            start = places[term.factor]
            stop = places[term.factor] = start + len(term.names)
            T, turn = _upper(c.z_moves[k]), c.z_turns[k]
            T = T if turn is None else turn @ T
            terms.append(TermFrame(term.factor, start, stop, T, kind))
        return SumFrame(R, c.b, c.s, tuple(terms))

    def _pass(self, c: SumCoordinates) -> tuple[RowSums, SumFrame]:
        """Read all rows once."""
        columns = SummedColumns(self.maker, c, self.factors)
        levels = [len(self.maker.groups[name].levels) for name in self.factors]
        shapes = [
            FactorShape(name, J, at)
            for name, J, at in zip(self.factors, levels, columns.z_at, strict=True)
        ]
        sums = RowSums(columns.x_at, columns.y_at, shapes, coupled=self.weighted)
        if self.pushed is not None and c.X_turn is None:
            self._by_sql(sums, list(columns.raw), self.pushed)
        else:
            self._by_batches(sums, columns)
        self.passes += 1
        return sums, self.frame(c)

    def _by_sql(
        self, sums: RowSums, moves: list[tuple[int, float, float]], own: Roles
    ) -> None:
        response = self.survey.response
        centre = response.mean if self.constant else 0.0
        assert isinstance(self.source, DuckSource)
        made = monomials(self.maker, own, moves, (centre, response.sd))
        with progress.bar(self.n, self.shown, "row", "cross-products") as bar:
            for rows in sum_by_sql(sums, self.maker, self.source, own, made):
                bar.update(rows)

    def _by_batches(self, sums: RowSums, columns: SummedColumns) -> None:
        levels = [f.n_levels for f in sums.factors]
        rows = min(max(ROWS, PER_LEVEL * max(levels)), MOST_ROWS)
        lost, done, k = self.survey.lost.copy(), 0, self.passes + 1
        more = {"columns": repr(columns.c), "levels": levels}
        left = self.left
        if left is not None:
            done = resume_sums(left, k, sums, more)
        with progress.bar(self.survey.n, self.shown, "row", "cross-products") as bar:
            bar.update(done)
            tables = self.source.tables(self.survey.columns, rows, done)
            batches = ahead(tables) if done < self.survey.n else iter(())
            for n in self._added(sums, columns, batches):
                done += n
                if left is not None and (left.is_due or done == self.survey.n):
                    keep_sums(left, k, sums, done, more)
                bar.update(n)
        self.survey.lost = lost
        if done != self.survey.n:
            raise DataError(
                f"{self.source.description} had {self.survey.n} rows when its levels "
                f"were read, and {done} now: the data change while they are read"
            )

    def _added(
        self, sums: RowSums, columns: SummedColumns, batches: Iterator[Batch]
    ) -> Iterator[int]:
        """Adds up the batches, in their order; the rows of each as it is done."""
        work = BatchSums(columns, sums.factors, self.weighted)
        if self.executor is None:
            for batch in batches:
                work.add(sums, batch)
                yield batch.table.num_rows
            return
        for n, found in in_order(work.packed, batches, pool=self.executor):
            sums.add_packed(found)
            yield n

    def _better(
        self, sums: RowSums, frame: SumFrame, c: SumCoordinates
    ) -> SumCoordinates:
        """The coordinates that the sums would be taken to."""
        found = reduced(sums, self.n)
        turns = tuple(
            T if old is None else T @ old
            for T, old in zip(turned(sums, frame, self.n), c.z_turns, strict=True)
        )
        b = c.s * found.c + found.C @ c.b
        return self._moved(c, found.C, b, c.s * found.s, turns)

    @staticmethod
    def _moved(
        c: SumCoordinates, C: np.ndarray, b: np.ndarray, s: float, turns: Any
    ) -> SumCoordinates:
        X_turn = C if c.X_turn is None else C @ c.X_turn
        return SumCoordinates(c.kept, c.x_moves, c.z_moves, X_turn, turns, b, s)


def _upper(moves: Sequence[tuple[float, float]]) -> np.ndarray:
    """(q, q) M, columns = moved columns times M; the first is the constant."""
    M = np.diag([scale for _, scale in moves])
    for j, (shift, _) in enumerate(moves):
        if j:
            M[0, j] = shift
    return M


def _without(
    sums: RowSums, frame: SumFrame, c: SumCoordinates, kept: tuple[int, ...]
) -> tuple[RowSums, SumFrame, SumCoordinates]:
    """The same sums with some of the columns of X only."""
    sums.drop(kept)
    index = np.array(kept, int)
    moves = tuple(c.x_moves[j] for j in kept)
    here = np.ix_(index, index)
    turn = None if c.X_turn is None else c.X_turn[here]
    fewer = SumCoordinates(kept, moves, c.z_moves, turn, c.z_turns, c.b[index], c.s)
    R = frame.R[here]
    return sums, SumFrame(R, c.b[index], c.s, frame.terms), fewer


class SummedColumns:
    """The columns that are summed, made from the distinct ones of a batch.

    x_at, y_at, z_at: positions among them of X's, of y, and of Z's by factor.
    """

    def __init__(self, maker: RowMaker, c: SumCoordinates, factors: Sequence[str]):
        self.c = c
        self.raw: dict[tuple[int, float, float], int] = {}
        self.x_raw = [
            self._raw(maker.x_at[j], move)
            for j, move in zip(c.kept, c.x_moves, strict=True)
        ]
        self.z_raw = [
            [self._raw(at, move) for at, move in zip(term.at, moves, strict=True)]
            for term, moves in zip(maker.terms, c.z_moves, strict=True)
        ]
        self.maker = maker
        count = len(self.raw)
        self.x_at = tuple(self.x_raw)
        if c.X_turn is not None:
            self.x_at = tuple(range(count, count + len(self.x_raw)))
            count += len(self.x_raw)
        self.y_at = count
        count += 1
        by_term: list[tuple[int, ...]] = []
        for raw, turn in zip(self.z_raw, c.z_turns, strict=True):
            if turn is None:
                by_term.append(tuple(raw))
            else:
                by_term.append(tuple(range(count, count + len(raw))))
                count += len(raw)
        self.size = count
        self.z_at = [
            sum(
                (
                    at
                    for at, term in zip(by_term, maker.terms, strict=True)
                    if term.factor == name
                ),
                (),
            )
            for name in factors
        ]

    @property
    def constant(self) -> tuple[bool, ...]:
        """(size,) which columns are ones as they are."""
        ones = [
            not self.maker.distinct[at][1] and (shift, scale) == (0.0, 1.0)
            for at, shift, scale in self.raw
        ]
        return (*ones, *[False] * (self.size - len(ones)))

    def _raw(self, at: int, move: tuple[float, float]) -> int:
        return self.raw.setdefault((at, *move), len(self.raw))

    def of(self, rows: BatchRows) -> list[np.ndarray | None]:
        """The columns (n,), None for ones."""
        n = len(rows.y)
        out: list[np.ndarray | None] = []
        for at, shift, scale in self.raw:
            column = rows.columns[at]
            if column is not None and (shift, scale) != (0.0, 1.0):
                column = (column - shift) / scale
            out.append(column)
        X = [out[j] for j in self.x_raw]
        if self.c.X_turn is not None:
            X = _divided(X, self.c.X_turn, n)
            out += X
        y = rows.y if rows.offset is None else rows.y - rows.offset
        for column, b in zip(X, self.c.b, strict=True):
            if b:
                y = y - (b if column is None else b * column)
        out.append(y / self.c.s)
        for raw, turn in zip(self.z_raw, self.c.z_turns, strict=True):
            if turn is not None:
                out += _divided([out[j] for j in raw], turn, n)
        return out


@dataclass(frozen=True)
class BatchSums:
    """How the sums of a batch are made, here or in a worker."""

    columns: SummedColumns
    factors: tuple[FactorShape, ...]
    weighted: bool

    def add(self, sums: RowSums, batch: Batch) -> None:
        """Add the rows of a batch."""
        with told(batch.where):
            found = self.columns.maker.rows(as_table(batch.table))
            codes = [found.codes[factor.name] for factor in self.factors]
            w = found.w if self.weighted else None
            sums.add(self.columns.of(found), w, codes)

    def packed(self, batch: Batch) -> tuple[int, dict[str, np.ndarray]]:
        """Its rows, and the sums of it alone."""
        own = self.columns
        sums = RowSums(own.x_at, own.y_at, self.factors, self.weighted)
        self.add(sums, batch)
        return batch.table.num_rows, sums.packed()


def _divided(
    columns: Sequence[np.ndarray | None], T: np.ndarray, n: int
) -> list[np.ndarray | None]:
    """The columns times T^-1, T upper triangular; column by column, means first."""
    out: list[np.ndarray | None] = []
    for j, column in enumerate(columns):
        new = np.ones(n) if column is None else column
        for i in range(j):
            if T[i, j]:
                before = out[i]
                assert before is not None
                new = new - T[i, j] * before
        out.append(new / T[j, j])
    return out


def mean_products(sums: RowSums, frame: SumFrame, n: int) -> list[np.ndarray]:
    """(q, q) mean products of the columns of each term, as given."""
    out: list[np.ndarray] = []
    names = [f.name for f in sums.factors]
    for term in frame.terms:
        k = names.index(term.factor)
        at = sums.factors[k].at[term.start : term.stop]
        G = sums.between(k, at, at).sum(axis=-1) / n
        out.append(term.T.T @ G @ term.T)
    return out


def absent(n: int) -> Any:
    """What stands for arrays by rows."""
    return AbsentRows(n, 1)
