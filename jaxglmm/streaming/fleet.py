"""Data sets of a table in parts: one part, and parts of files.

No data set is in two parts. Where row groups of Parquet files hold them whole, a part
is some row groups, which the worker reads that fits it; else rows go here, in one pass,
to a file a part, by a hash of what names the data set. With a folder an answer is a
Parquet file named by what it is of, rows and model, so that another run takes it as it
is, whatever order the rows came in.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.runtime import progress as bars
from jaxglmm.runtime.executors import one_at_a_time, submitted
from jaxglmm.runtime.precision import double_precision
from jaxglmm.streaming.sources import Batch, BatchSource
from jaxglmm.streaming.whole import (
    ArrowBytes,
    ArrowFile,
    RowsNotHereError,
    RowsSomewhere,
    plain,
    row_groups,
)

ROWS = 250_000  # of a part
MOST_PARTS = 512  # files that are open at a time
AHEAD = 1024  # parts that wait in an executor, of which it knows the files alone
CARRIED = 8  # the same of those that go with their rows

Spec = Any  # rows of a part -> one row a data set; its ``facts`` name the model


def in_pandas(batch: Any) -> pd.DataFrame:
    """A batch or an Arrow table as a data frame, or one as it is."""
    table = batch.table if isinstance(batch, Batch) else batch
    return table if isinstance(table, pd.DataFrame) else table.to_pandas()


# A part ------------------------------------------------------------------------------


def fit_part(spec: Spec, rows: Any, folder: str | None = None) -> pd.DataFrame:
    """The answer to a part, or what a run before left of it; where this runs."""
    rows = in_pandas(rows)
    if folder is None:
        return double_precision(spec)(rows)
    path = Path(folder) / f"{content(spec, rows)}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    answer = double_precision(spec)(rows)
    written(answer, path)
    return answer


def fit_alone(spec: Spec, rows: Any, folder: str | None = None) -> pd.DataFrame:
    """The same in one thread, for one of several workers."""
    with one_at_a_time():
        return fit_part(spec, rows, folder)


def content(spec: Spec, rows: pd.DataFrame) -> str:
    """A name by the model and the rows, whatever their order."""
    plain = rows.reset_index(drop=True)
    for name in plain.columns:
        if isinstance(plain[name].dtype, pd.CategoricalDtype):
            plain[name] = plain[name].astype(object)
    found = pd.util.hash_pandas_object(plain, index=False).to_numpy(np.uint64)
    numbers = len(found), int(found.sum()), int(np.bitwise_xor.reduce(found, initial=0))
    text = repr((spec.facts, list(rows.columns), numbers))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def written(answer: pd.DataFrame, path: Path) -> None:
    """Under its name when it is whole.

    Raises:
        DataError: it cannot be written; what was written before stays.
    """
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        answer.to_parquet(part, index=False)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written ({error}); the parts in that folder are whole, "
            "and the same call goes on from them"
        ) from error


# Files -------------------------------------------------------------------------------


def parts_for(rows: int | None) -> int:
    """How many parts: by the data alone, so that a later run has the same."""
    if rows is None:
        return 16
    return int(np.clip(-(-rows // ROWS), 1, MOST_PARTS))


def bucket(rows: pd.DataFrame, by: list[str], parts: int) -> np.ndarray:
    """(n,) the part of each row."""
    keys = pd.util.hash_pandas_object(rows[by], index=False)
    return (keys.to_numpy(np.uint64) % np.uint64(parts)).astype(np.int64)


def by_files(
    spec: Spec,
    source: BatchSource,
    columns: list[str],
    executor: Executor | None,
    folder: str | None,
    progress: bool | None,
) -> list[pd.DataFrame]:
    """Answers to all parts; they are fitted here or in the executor."""
    answers: list[pd.DataFrame] = []
    done = _done(folder)
    by = list(spec.by)
    with tempfile.TemporaryDirectory(prefix="jaxglmm-") as scratch:
        parts: Any = row_groups(source, columns, by, ROWS)
        if parts is None:
            count = parts_for(source.n_rows)
            parts = _cut(source, columns, by, count, Path(scratch))
        with bars.bar(len(parts), progress, " parts") as bar:
            for name, answer in _fitted(spec, parts, executor, done):
                path = None if folder is None else Path(folder) / f"{name}.parquet"
                if answer is None:
                    assert path is not None
                    answer = pd.read_parquet(path)
                elif path is not None:
                    written(answer, path)
                answers.append(answer)
                bar.update(1)
    return answers


def _done(folder: str | None) -> frozenset[str] | None:
    """Names of the answers that are there; None where none are kept."""
    if folder is None:
        return None
    return frozenset(path.stem for path in Path(folder).glob("*.parquet"))


def _cut(
    source: BatchSource, columns: list[str], by: list[str], parts: int, folder: Path
) -> list[ArrowFile]:
    """Arrow files of the rows of each part, in one pass.

    Raises:
        DataError: no room, or a file that changed.
    """
    import pyarrow as pa

    writers: dict[int, Any] = {}
    schema = None
    try:
        for batch in source.tables(columns):
            table = plain(pa, batch.table, columns)
            if schema is None:
                schema = table.schema
            try:
                table = table.cast(schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                raise DataError(
                    f"{batch.where}: columns differ in type from those before: {error}"
                ) from error
            own = bucket(table.select(by).to_pandas(), by, parts)
            order = np.argsort(own, kind="stable")
            edges = np.searchsorted(own[order], np.arange(parts + 1))
            for k in np.flatnonzero(np.diff(edges)):
                if k not in writers:
                    path = folder / f"{k}.arrow"
                    writers[k] = pa.ipc.new_stream(str(path), schema)
                writers[k].write_table(table.take(order[edges[k] : edges[k + 1]]))
        for writer in writers.values():
            writer.close()
    except OSError as error:
        raise DataError(
            f"parts cannot be written to {folder} ({error}): choose a folder with room "
            "by the environment variable TMPDIR"
        ) from error
    return [ArrowFile(str(folder / f"{k}.arrow")) for k in sorted(writers)]


Answer = tuple[str, pd.DataFrame | None]  # its name; None: it was there before


def fit_there(
    spec: Spec, part: RowsSomewhere, done: frozenset[str] | None, alone: bool = True
) -> Answer:
    """The answer to a part, wherever this is.

    done: names of answers that are kept, which are not made again; alone: in one
    thread, since there are others of this kind.
    """
    rows = in_pandas(part.read() if alone else _read_here(part))
    name = "" if done is None else content(spec, rows)
    if done is not None and name in done:
        return name, None
    if not alone:
        return name, fit_part(spec, rows)
    with one_at_a_time():
        return name, fit_part(spec, rows)


def _read_here(part: RowsSomewhere) -> Any:
    """Its rows, on the machine that has them.

    Raises:
        DataError: they are not there any more.
    """
    try:
        return part.read()
    except RowsNotHereError as error:
        raise DataError(
            f"{error} was there when this call began, and is gone; what was finished "
            "is kept where file= names a folder"
        ) from error


def _fitted(
    spec: Spec,
    parts: list[RowsSomewhere],
    executor: Executor | None,
    done: frozenset[str] | None,
) -> Iterator[Answer]:
    """Answers as they come; what an executor loses is fitted here."""
    if executor is None:
        for part in parts:
            yield fit_there(spec, part, done, False)
        return
    waiting: dict[Future, RowsSomewhere] = {}
    left = list(reversed(parts))
    share: Callable[[Any], Any] = getattr(executor, "share", lambda x: x)
    shared, most = share(spec), AHEAD
    try:
        while left or waiting:
            while left and len(waiting) < most:
                part = left.pop()
                if most == CARRIED and not isinstance(part, ArrowBytes):
                    part = ArrowBytes.of(_read_here(part))
                waiting[submitted(executor, fit_there, shared, part, done)] = part
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                part = waiting.pop(future)
                try:
                    answer = future.result()
                except RowsNotHereError:  # no disk is shared
                    most = CARRIED
                    left.append(part)
                    continue
                except DataError:
                    raise
                except Exception:  # a worker's end has a name of its engine's own
                    answer = fit_there(spec, part, done, False)
                yield answer
    finally:
        for future in waiting:
            future.cancel()
