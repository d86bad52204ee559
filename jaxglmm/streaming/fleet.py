"""Data sets of a table in parts: what all parts share, and who fits which.

A part has the data sets whose names have one hash, so that none is in two. Frames of
Dask, Ray and Spark are cut by these engines (a shuffle), others into files here. With a
folder an answer is a Parquet file named by what it is of, rows and model, so that
another run takes it as it is, whatever order the rows came in.
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
from jaxglmm.runtime.engines import DaskExecutor
from jaxglmm.runtime.precision import double_precision
from jaxglmm.streaming.sources import Batch, BatchSource, engine_of

ROWS = 250_000  # of a part
MOST_PARTS = 512  # files that are open at a time
CELL = 3  # rows of the anchor for each combination of categories
SPREAD = 64  # other rows of it, evenly from the first batch
MOST_CELLS = 20_000
AHEAD = 8  # parts that wait in an executor
BUCKET = "jaxglmm_part"

Spec = Any  # rows of a part -> one row a data set; its ``facts`` name the model


# What all parts share ----------------------------------------------------------------


def survey(
    source: BatchSource, wanted: list[str], by: list[str], formula: str
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list]]:
    """The anchor, first rows, and categories of columns that have an order.

    Rows for each combination of categories, and some of the first batch: enough for a
    design that has all columns of the whole. Grouping factors need none.
    """
    first = next((b for b in source.tables([*by, *wanted], 20_000)), None)
    if first is None:
        raise DataError(f"{source.description} has no rows")
    rows = _pandas(first)
    sparse = np.unique(np.linspace(0, len(rows) - 1, SPREAD).astype(int))
    anchor = [_usable(rows[wanted]).iloc[:0], _usable(rows[wanted].iloc[sparse])]
    named = _categorical(rows[wanted], formula)
    categories: dict[str, list] = {}
    if named:
        found, categories = _cells(source, wanted, named)
        anchor.append(found)
    whole = pd.concat(anchor, ignore_index=True)
    if not len(whole):
        raise DataError("every row that was looked at has a missing value")
    return whole, rows[wanted], categories


def _categorical(rows: pd.DataFrame, formula: str) -> list[str]:
    """Columns of text, categories and truths that are no bare grouping factor alone."""
    fixed = _without_groups(formula)
    out = []
    for name in rows.columns:
        inside = name in fixed
        number = pd.api.types.is_numeric_dtype(rows[name].dtype)
        number = number and not pd.api.types.is_bool_dtype(rows[name].dtype)
        coded = f"C({name}" in fixed.replace(" ", "")
        if inside and (coded or not number):
            out.append(name)
    return out


def _without_groups(formula: str) -> str:
    """The formula less what stands right of a bar."""
    import re

    return re.sub(r"\|[^)]*\)", ")", formula)


def _cells(
    source: BatchSource, wanted: list[str], named: list[str]
) -> tuple[pd.DataFrame, dict[str, list]]:
    """A few rows for each combination of categories, in one pass."""
    seen: dict[tuple, int] = {}
    kept, categories = [], {}
    for batch in source.tables(wanted):
        rows = _pandas(batch)
        for name in named:
            if isinstance(rows[name].dtype, pd.CategoricalDtype):
                own = categories.setdefault(name, [])
                known = set(own)
                own += [c for c in rows[name].cat.categories if c not in known]
        rows = _usable(rows)
        place = rows.groupby(named, observed=True, sort=False).cumcount()
        for _, row in rows[place < CELL].iterrows():
            key = tuple(row[name] for name in named)
            if seen.get(key, 0) < CELL:
                seen[key] = seen.get(key, 0) + 1
                kept.append(row)
        if len(seen) > MOST_CELLS:
            raise DataError(
                f"the columns {', '.join(named)} have more than {MOST_CELLS:,} "
                "combinations: a factor of so many levels belongs right of the bar, "
                "(1 | factor)"
            )
    frame = pd.DataFrame(kept, columns=wanted)
    like = _pandas(batch)[wanted]
    return frame.astype({n: t for n, t in like.dtypes.items() if n not in named}), (
        categories
    )


def _usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without missing or infinite values."""
    good = rows.notna().all(axis=1).to_numpy()
    for name in rows.columns:
        if pd.api.types.is_float_dtype(rows[name].dtype):
            good = good & np.isfinite(rows[name].to_numpy(float, na_value=np.nan))
    return rows[good]


def _pandas(batch: Any) -> pd.DataFrame:
    table = batch.table if isinstance(batch, Batch) else batch
    return table if isinstance(table, pd.DataFrame) else table.to_pandas()


# A part ------------------------------------------------------------------------------


def fit_part(spec: Spec, rows: Any, folder: str | None = None) -> pd.DataFrame:
    """The answer to a part, or what a run before left of it; where this runs."""
    rows = _pandas(rows)
    if folder is None:
        return double_precision(spec)(rows)
    path = Path(folder) / f"{content(spec, rows)}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    answer = double_precision(spec)(rows)
    written(answer, path)
    return answer


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


# Who fits which ----------------------------------------------------------------------


def run(
    spec: Spec,
    data: Any,
    source: BatchSource,
    columns: list[str],
    executor: Executor | None,
    file: Any,
    progress: bool | None,
) -> list[pd.DataFrame]:
    """Answers to all parts, in no order."""
    folder = None
    if file is not None:
        folder = str(Path(file).absolute())
        Path(folder).mkdir(parents=True, exist_ok=True)
    own = {"dask": _by_dask, "ray": _by_ray, "pyspark": _by_spark}
    engine = own.get(engine_of(data).partition(".")[0])
    if engine is not None:
        return list(engine(spec, data, columns, executor, folder))
    return _by_files(spec, source, columns, executor, folder, progress)


def parts_for(rows: int | None) -> int:
    """How many parts: by the data alone, so that a later run has the same."""
    if rows is None:
        return 16
    return int(np.clip(-(-rows // ROWS), 1, MOST_PARTS))


def bucket(rows: pd.DataFrame, by: list[str], parts: int) -> np.ndarray:
    """(n,) the part of each row."""
    keys = pd.util.hash_pandas_object(rows[by], index=False)
    return (keys.to_numpy(np.uint64) % np.uint64(parts)).astype(np.int64)


def _by_dask(spec, frame, columns, executor, folder) -> Iterator[pd.DataFrame]:
    """A shuffle, then a task a partition, where the partition is."""
    import dask  # type: ignore[import-not-found]

    by = list(spec.by)
    cut = frame[columns]
    if cut.npartitions > 1:
        cut = cut.shuffle(on=by)
    tasks = [dask.delayed(fit_part)(spec, p, folder) for p in cut.to_delayed()]
    client = executor.client if isinstance(executor, DaskExecutor) else _client()
    if client is None:
        yield from dask.compute(*tasks)
        return
    for future in client.compute(tasks, retries=3):
        yield future.result()


def _client() -> Any:
    try:
        from distributed import get_client  # type: ignore[import-not-found]

        return get_client()
    except (ImportError, ValueError):
        return None


def _by_ray(spec, data, columns, executor, folder) -> Iterator[pd.DataFrame]:
    """Buckets of data sets as Ray's groups."""
    by, parts = list(spec.by), parts_for(data.count())

    def with_bucket(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{BUCKET: bucket(rows, by, parts)})

    def fit(rows: pd.DataFrame) -> pd.DataFrame:
        return fit_part(spec, rows.drop(columns=BUCKET), folder)

    cut = data.select_columns(columns).map_batches(with_bucket, batch_format="pandas")
    found = cut.groupby(BUCKET, num_partitions=parts).map_groups(
        fit, batch_format="pandas"
    )
    yield from found.iter_batches(batch_size=None, batch_format="pandas")


def _by_spark(spec, frame, columns, executor, folder) -> Iterator[pd.DataFrame]:
    """Buckets of data sets as Spark's groups, by applyInArrow."""
    from pyspark.sql import functions as F  # type: ignore[import-not-found]
    from pyspark.sql.types import DoubleType, StructField, StructType  # type: ignore[import-not-found]

    parts = parts_for(frame.count())
    chosen = frame.select(*["`" + n.replace("`", "``") + "`" for n in columns])
    empty = spec(_pandas(chosen.limit(0).toArrow()))
    known = {field.name: field for field in chosen.schema.fields}
    fields = [known[n] if n in spec.by else StructField(n, DoubleType()) for n in empty]

    def fit(table: Any) -> Any:
        import pyarrow as pa

        answer = fit_part(spec, table, folder)
        own = table.schema
        types = [own.field(n).type if n in own.names else pa.float64() for n in answer]
        schema = pa.schema(list(zip(answer.columns, types, strict=True)))
        return pa.Table.from_pandas(answer, schema, preserve_index=False)

    keys = F.hash(*[F.col(f"`{n}`") for n in spec.by])
    grouped = chosen.groupBy(F.pmod(keys, F.lit(parts)))
    yield _pandas(grouped.applyInArrow(fit, StructType(fields)).toArrow())


def _by_files(spec, source, columns, executor, folder, progress) -> list[pd.DataFrame]:
    """Rows go to a file a part, then parts to the executor, or are fitted here."""
    import pyarrow as pa

    parts = parts_for(source.n_rows)
    answers: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory(prefix="jaxglmm-") as scratch:
        paths = _cut(source, columns, list(spec.by), parts, Path(scratch))
        with bars.bar(len(paths), progress, " parts") as bar:
            todo: list[tuple[Path, Path | None]] = []
            for path in paths:
                done = None
                if folder is not None:
                    rows = _read(pa, path).to_pandas()
                    done = Path(folder) / f"{content(spec, rows)}.parquet"
                    if done.exists():
                        answers.append(pd.read_parquet(done))
                        bar.update(1)
                        continue
                todo.append((path, done))
            for answer, done in _fitted(spec, todo, executor):
                if done is not None:
                    written(answer, done)
                answers.append(answer)
                bar.update(1)
    return answers


def _read(pa: Any, path: Path) -> Any:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


def _cut(
    source: BatchSource, columns: list[str], by: list[str], parts: int, folder: Path
) -> list[Path]:
    """Arrow files of the rows of each part, in one pass.

    Raises:
        DataError: no room, or a file that changed.
    """
    import pyarrow as pa

    writers: dict[int, Any] = {}
    schema = None
    try:
        for batch in source.tables(columns):
            table = pa.table({n: _plain(pa, batch.table.column(n)) for n in columns})
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
    return [folder / f"{k}.arrow" for k in sorted(writers)]


def _plain(pa: Any, column: Any) -> Any:
    """Dictionaries as their values: each batch would have its own."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _fitted(
    spec: Spec, todo: list[tuple[Path, Path | None]], executor: Executor | None
) -> Iterator[tuple[pd.DataFrame, Path | None]]:
    """Answers as they come; what an executor loses is fitted here."""
    import pyarrow as pa

    if executor is None:
        for path, done in todo:
            yield fit_part(spec, _read(pa, path)), done
        return
    waiting: dict[Future, tuple[Path, Path | None]] = {}
    left = list(reversed(todo))
    share: Callable[[Any], Any] = getattr(executor, "share", lambda x: x)
    shared = share(spec)
    try:
        while left or waiting:
            while left and len(waiting) < AHEAD:
                path, done = left.pop()
                waiting[_submitted(executor, shared, path)] = path, done
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                path, done = waiting.pop(future)
                try:
                    answer = future.result()
                except DataError:
                    raise
                except Exception:  # a worker's end has a name of its engine's own
                    answer = fit_part(spec, _read(pa, path))
                yield answer, done
    finally:
        for future in waiting:
            future.cancel()


def _submitted(executor: Executor, shared: Any, path: Path) -> Future:
    try:
        return executor.submit(fit_sent, shared, path.read_bytes())
    except RuntimeError as error:  # broken, or shut down
        out: Future = Future()
        out.set_exception(error)
        return out


def fit_sent(spec: Spec, rows: bytes) -> pd.DataFrame:
    """The answer to a part that came as Arrow's bytes."""
    import pyarrow as pa

    with pa.ipc.open_stream(rows) as reader:
        return fit_part(spec, reader.read_all())
