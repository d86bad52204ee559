"""Rows of a generalised model by levels, in files that are visited again and again.

Levels of one factor are dealt at random into parts of about equally many rows, so that
any part is a sample of them. A part is an Arrow file at first, to which every batch
adds its rows. When it is first visited its rows are sorted by level, equal ones are
joined (weights multiply log densities, so this is exact for every family), and levels
with about as many rows are put side by side in blocks: ``PaddedRows`` of a few sizes,
small enough for a processor's cache, for which a few programs serve.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.formula.batch_rows import BatchRows
from jaxglmm.integrate.laplace_shared import SharedRows
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.structure.padding import empty
from jaxglmm.structure.rows import PaddedRows

PART_ROWS = 1_000_000  # of a part, about
MOST_PARTS = 128  # files that are open together
BLOCK = 65_536  # places of a block
LEAST = 4  # rows that a level of a block has place for
TRIED, WORTH = 50_000, 0.75  # rows tried, share of different ones that is worth joining
SAME = 1e-13  # of two columns' coefficients, beside the largest


@dataclass(frozen=True)
class ColumnWays:
    """Internal columns of X and Z from those of a batch that are summed.

    W: (r, c) coefficients of the different ones that are not constant; X, Z: for each
    column its position among these, or the constant that it is; others: the same of the
    Z of factors beside the first.
    """

    W: np.ndarray
    X: tuple[int | float, ...]
    Z: tuple[int | float, ...]
    others: tuple[tuple[int | float, ...], ...] = ()

    @classmethod
    def of(
        cls,
        X: np.ndarray,
        Z: np.ndarray,
        constant: Sequence[bool],
        others: Sequence[np.ndarray] = (),
    ) -> ColumnWays:
        """X (r, p), Z, others (r, q): coefficients; constant: (r,) which are ones."""
        ones = np.asarray(constant)
        found: list[np.ndarray] = []

        def place(w: np.ndarray) -> int | float:
            if not w[~ones].any():
                return float(w[ones].sum())
            for k, other in enumerate(found):
                if np.abs(w - other).max() <= SAME * np.abs(other).max():
                    return k
            found.append(w)
            return len(found) - 1

        at = tuple(place(w) for w in X.T), tuple(place(w) for w in Z.T)
        more = tuple(tuple(place(w) for w in own.T) for own in others)
        W = np.stack(found, axis=1) if found else np.zeros((len(ones), 0))
        return cls(W, *at, more)

    def columns(self, made: Sequence[np.ndarray | None], n: int) -> list[np.ndarray]:
        """The different columns (n,), one by one."""
        out = []
        for w in self.W.T:
            total = np.zeros(n)
            for coefficient, column in zip(w, made, strict=True):
                if coefficient:
                    total += coefficient if column is None else coefficient * column
            out.append(total)
        return out


@dataclass(frozen=True)
class PartShape:
    """What the parts are parts of.

    ways: of the columns; own: covariance of the factor; n_levels: of it; with_*: which
    columns there are; beside: levels of other factors, whose effects all parts share.
    """

    family: AbstractFamily
    own: AbstractCovariance
    ways: ColumnWays
    n_levels: int
    with_weights: bool
    with_trials: bool
    with_offset: bool
    beside: tuple[int, ...] = ()

    @property
    def sides(self) -> tuple[tuple[int, int], ...]:
        """Levels and columns of the factors beside the first."""
        columns = map(len, self.ways.others)
        return tuple(zip(self.beside, columns, strict=True))

    @property
    def names(self) -> list[str]:
        """Columns of numbers in the files."""
        given = {
            "weights": self.with_weights,
            "trials": self.with_trials,
            "offset": self.with_offset,
        }
        own = [f"x{k}" for k in range(self.ways.W.shape[1])]
        own += [f"level{k}" for k in range(len(self.beside))]
        return ["y", *(name for name, is_there in given.items() if is_there), *own]


@dataclass(frozen=True)
class LevelBlock:
    """Levels with about as many rows: codes (J,) of the levels, and their problem.

    shared: what the rows have of the factors beside the first, if there are any.
    """

    levels: np.ndarray
    problem: GeneralisedProblem
    rows: int
    shared: SharedRows | None = None


class Parts:
    """The parts of a model, in a folder.

    part_of: (J,) part of each level.
    """

    def __init__(self, folder: Path, shape: PartShape, counts: np.ndarray):
        self.folder, self.shape = folder, shape
        n = int(counts.sum())
        self.count = int(min(MOST_PARTS, max(1, round(n / PART_ROWS))))
        order = np.random.default_rng(0).permutation(len(counts))
        before = np.cumsum(counts[order]) - counts[order]
        self.part_of = np.empty(len(counts), np.int16)
        self.part_of[order] = np.minimum(
            before * self.count // max(n, 1), self.count - 1
        )
        self.rows = np.bincount(self.part_of, counts, self.count).astype(np.int64)

    def _raw(self, k: int) -> Path:
        return self.folder / f"part{k:04d}.arrow"

    def _done(self, k: int) -> Path:
        return self.folder / f"part{k:04d}.npy"

    def writer(self) -> PartWriter:
        """What takes the rows of batches."""
        return PartWriter(self)

    def blocks(self, k: int) -> Iterator[LevelBlock]:
        """The blocks of a part.

        Raises:
            DataError: its file is gone, or is not what was written.
        """
        done = self._done(k)
        if not done.exists():
            self._prepare(k)
        try:
            with done.open("rb") as file:
                count, weighted = np.load(file)
                for _ in range(count):
                    levels, counts = np.load(file)
                    columns = zip(self._names(weighted), np.load(file), strict=True)
                    yield self._block(levels, counts, dict(columns))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{done}, a part of the rows that this fit keeps, cannot be read "
                f"({error}): leave the folder alone while a fit is under way"
            ) from error

    def _names(self, weighted: bool) -> list[str]:
        """Columns of a part in blocks, where joined rows have weights."""
        names = self.shape.names
        return (
            names
            if not weighted or "weights" in names
            else ["y", "weights", *names[1:]]
        )

    def _block(
        self, levels: np.ndarray, counts: np.ndarray, columns: dict[str, np.ndarray]
    ) -> LevelBlock:
        shape = self.shape
        J, height = len(levels), len(columns["y"]) // len(levels)
        used = (np.arange(height)[:, None] < counts).ravel()
        x = [columns[f"x{k}"] for k in range(shape.ways.W.shape[1])]

        def stacked(ways: Sequence[int | float]) -> np.ndarray:
            out = empty((len(ways), len(used)))
            for row, way in zip(out, ways, strict=True):
                row[:] = x[way] if isinstance(way, int) else way * used
            return out

        codes = np.tile(np.arange(J, dtype=np.int32), height)
        rows = PaddedRows((codes,), (stacked(shape.ways.Z),), (J,), height)
        problem = GeneralisedProblem(
            rows,
            stacked(shape.ways.X),
            columns["y"],
            columns.get("trials", np.ones(1)),
            columns.get("weights", used),
            columns.get("offset", np.zeros(1)),
            shape.family,
            (shape.own,),
        )
        own = levels[counts > 0], problem, int(counts.sum())
        if not shape.beside:
            return LevelBlock(*own)
        at, shared, start = [], [], 0
        for k, ways in enumerate(shape.ways.others):
            code = columns[f"level{k}"].astype(np.int64) * len(ways) + start
            at += [code + i for i in range(len(ways))]
            shared.append(stacked(ways))
            start += shape.beside[k] * len(ways)
        size = (height, J)
        rows_of = (problem.X, rows.z[0], np.stack(at), np.concatenate(shared))
        cut = [x.reshape(*x.shape[:1], *size)[..., : len(own[0])] for x in rows_of]
        X, z, at, shared = cut
        return LevelBlock(*own, SharedRows(X, z, at, shared, start))

    def _prepare(self, k: int) -> None:
        """The rows of a part as blocks; its Arrow file goes."""
        codes, values, weighted = self._joined(*self._read(k))
        levels, starts, counts = np.unique(codes, return_index=True, return_counts=True)
        height = np.maximum(LEAST, 2 ** np.ceil(np.log2(counts)).astype(int))
        groups = []
        for h in np.unique(height):
            at = np.flatnonzero(height == h)
            most = max(1, BLOCK // int(h))
            groups += [(int(h), at[a : a + most]) for a in range(0, len(at), most)]
        part = self._done(k).with_suffix(".part")
        with written(self.folder), part.open("wb") as file:
            np.save(file, np.array([len(groups), weighted]))
            for h, at in groups:
                J = 2 ** int(np.ceil(np.log2(len(at))))
                J = max(J, min(8, max(1, BLOCK // h)))
                own, size = np.zeros((2, J), np.int64)
                own[: len(at)], size[: len(at)] = levels[at], counts[at]
                np.save(file, np.stack([own, size]))
                here = starts[at], counts[at], h, J
                np.save(file, self._placed(values, self._names(weighted), *here))
        part.replace(self._done(k))
        self._raw(k).unlink()

    def _placed(
        self,
        values: np.ndarray,
        names: list[str],
        starts: np.ndarray,
        counts: np.ndarray,
        height: int,
        J: int,
    ) -> np.ndarray:
        total = int(counts.sum())
        level = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        out = np.zeros((len(values), height * J))
        fills = {"y": self.shape.family.padding, "trials": 1.0}
        for j, name in enumerate(names):
            out[j] = fills.get(name, 0.0)
            out[j, row * J + level] = values[j, np.repeat(starts, counts) + row]
        return out

    def _read(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        import pyarrow as pa

        path = self._raw(k)
        try:
            with pa.memory_map(str(path)) as file:
                table = pa.ipc.open_stream(file).read_all()
                codes = table.column("code").to_numpy().copy()
                names = self.shape.names
                values = np.stack([table.column(name).to_numpy() for name in names])
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path}, a part of the rows that this fit keeps, cannot be read "
                f"({error}): leave the folder alone while a fit is under way"
            ) from error
        if len(codes) != self.rows[k]:
            raise DataError(
                f"{path} has {len(codes)} rows, and {self.rows[k]} were counted: the "
                "data change while they are read"
            )
        return codes, values

    def _joined(
        self, codes: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Rows by level; equal ones as one with their weights' sum, where it pays."""
        order = np.argsort(codes, kind="stable")
        if not len(order):
            return codes, values, self.shape.with_weights
        some = order[:TRIED]
        _, first = _different(codes[some], values[:, some])
        if first.mean() >= WORTH:
            return codes[order], values[:, order], self.shape.with_weights
        order, first = _different(codes, values)
        names, starts = self.shape.names, np.flatnonzero(first)
        kept = values[:, order[starts]]
        if "weights" in names:
            w = values[names.index("weights")][order]
            kept[names.index("weights")] = np.add.reduceat(w, starts)
        else:
            w = np.diff(np.append(starts, len(first))).astype(float)
            kept = np.insert(kept, 1, w, axis=0)
        return codes[order[starts]], kept, True


def _different(codes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order that has equal rows together, and where each kind begins."""
    order = np.lexsort((*values, codes))
    first = np.ones(len(order), bool)
    first[1:] = np.diff(codes[order]) != 0
    for column in values:
        first[1:] |= np.diff(column[order]) != 0
    return order, first


class PartWriter:
    """Rows of batches to the files of their parts."""

    def __init__(self, parts: Parts):
        import pyarrow as pa

        self.parts = parts
        for left in parts.folder.glob("part*"):
            left.unlink()
        fields = [("code", pa.int32())]
        fields += [(name, pa.float64()) for name in parts.shape.names]
        self._schema = pa.schema(fields)
        self._files = [
            pa.ipc.new_stream(str(parts._raw(k)), self._schema)
            for k in range(parts.count)
        ]

    def add(
        self,
        rows: BatchRows,
        codes: np.ndarray,
        made: Sequence[np.ndarray | None],
        beside: Sequence[np.ndarray] = (),
    ) -> None:
        """The rows of a batch; made: columns that ``ColumnWays`` are of.

        codes, beside: (n,) levels, of the first factor and of the others.
        """
        import pyarrow as pa

        shape, n = self.parts.shape, len(rows.y)
        columns = [rows.y]
        if shape.with_weights:
            columns.append(np.ones(n) if rows.w is None else rows.w)
        if shape.with_trials:
            columns.append(np.ones(n) if rows.trials is None else rows.trials)
        if shape.with_offset:
            columns.append(np.zeros(n) if rows.offset is None else rows.offset)
        columns += shape.ways.columns(made, n)
        columns += [own.astype(float) for own in beside]
        part = self.parts.part_of[codes]
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(self.parts.count + 1))
        sorted_codes = codes.astype(np.int32)[order]
        columns = [column[order] for column in columns]
        for k, (a, b) in enumerate(pairwise(ends)):
            if a == b:
                continue
            own = [sorted_codes[a:b], *(column[a:b] for column in columns)]
            batch = pa.record_batch([pa.array(x) for x in own], schema=self._schema)
            with written(self.parts.folder):
                self._files[k].write_batch(batch)

    def close(self) -> None:
        """Finish the files."""
        with written(self.parts.folder):
            for file in self._files:
                file.close()


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """What the disk says when it is full is told with the folder and the remedy."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the parts of the rows cannot be written to {folder} ({error}). "
            "checkpoint='folder' puts them on another disk, as TMPDIR does"
        ) from error
