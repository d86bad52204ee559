"""Data sets of a table in parts: who fits which, and frames of Dask, Ray and Spark.

These engines have the rows where they work, so they shuffle them, unless no data set is
in two of their partitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm._pandas import pd
from jaxglmm.runtime.engines import DaskExecutor
from jaxglmm.streaming.fleet import (
    Spec,
    bucket,
    by_files,
    fit_alone,
    in_pandas,
    parts_for,
)
from jaxglmm.streaming.sources import BatchSource, engine_of
from jaxglmm.streaming.whole import names_in, together

BUCKET = "jaxglmm_part"


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
    return by_files(spec, source, columns, executor, folder, progress)


def _by_dask(spec, frame, columns, executor, folder) -> list[pd.DataFrame]:
    """A task a partition, where the partition is; before that a shuffle, if need be."""
    import dask  # type: ignore[import-not-found]

    by = list(spec.by)
    client = executor.client if isinstance(executor, DaskExecutor) else _client()
    fit = dask.delayed(fit_joined)

    def fitted(cut: Any, parts: list[list[int]] | None) -> list[pd.DataFrame]:
        pieces = cut.to_delayed()
        parts = [[k] for k in range(len(pieces))] if parts is None else parts
        tasks = [fit(spec, folder, *[pieces[k] for k in own]) for own in parts]
        if client is None:
            return list(dask.compute(*tasks))
        return [f.result() for f in client.compute(tasks, retries=3)]

    cut = frame[columns]
    if cut.npartitions == 1:
        return fitted(cut, None)
    names = frame[by].to_delayed()
    # Dask may put other files together where fewer columns are read
    if len(names) == len(cut.to_delayed()):
        look = dask.delayed(names_in)
        parts = together(dask.compute(*[look(piece, by) for piece in names]))
        found = [] if parts is None else fitted(cut, parts)
        if found and not twice(found, by):
            return found
    return fitted(cut.shuffle(on=by), None)


def twice(answers: list[pd.DataFrame], by: list[str]) -> bool:
    """Whether a data set was in two parts after all: the engine cut anew."""
    return bool(pd.concat([part[by] for part in answers]).duplicated().any())


def _client() -> Any:
    try:
        from distributed import get_client  # type: ignore[import-not-found]

        return get_client()
    except (ImportError, ValueError):
        return None


def _by_ray(spec, data, columns, executor, folder) -> Iterator[pd.DataFrame]:
    """A task a block; where data sets are in two, buckets as Ray's groups."""
    import ray  # type: ignore[import-not-found]

    by = list(spec.by)
    held = data.select_columns(columns).materialize()
    blocks = held.to_arrow_refs()
    options = {"num_cpus": 1, "max_retries": 3}
    look = ray.remote(names_in_block).options(**options)
    pieces = together(ray.get([look.remote(block, by) for block in blocks]))
    if pieces is not None:
        fit, shared = ray.remote(fit_joined).options(**options), ray.put(spec)
        waiting = [
            fit.remote(shared, folder, *[blocks[k] for k in own]) for own in pieces
        ]
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield from ray.get(ready)
        return
    parts = parts_for(held.count())

    def with_bucket(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{BUCKET: bucket(rows, by, parts)})

    def fit_group(rows: pd.DataFrame) -> pd.DataFrame:
        return fit_alone(spec, rows.drop(columns=BUCKET), folder)

    cut = held.map_batches(with_bucket, batch_format="pandas")
    found = cut.groupby(BUCKET, num_partitions=parts).map_groups(
        fit_group, batch_format="pandas"
    )
    yield from found.iter_batches(batch_size=None, batch_format="pandas")


def fit_joined(spec: Spec, folder: str | None, *pieces: Any) -> pd.DataFrame:
    """The answer to a part that has come in pieces."""
    rows = [in_pandas(piece) for piece in pieces]
    whole = rows[0] if len(rows) == 1 else pd.concat(rows, ignore_index=True)
    return fit_alone(spec, whole, folder)


def names_in_block(block: Any, by: list[str]) -> np.ndarray:
    """Hashes of the data sets in an Arrow table."""
    return names_in(in_pandas(block.select(by)), by)


def _by_spark(spec, frame, columns, executor, folder) -> Iterator[pd.DataFrame]:
    """A task a partition; where data sets are in two, buckets as Spark's groups."""
    from pyspark.sql import functions as F  # type: ignore[import-not-found]
    from pyspark.sql.types import DoubleType, StructField, StructType  # type: ignore[import-not-found]

    by = list(spec.by)

    def chosen(names: list[str]) -> Any:
        return frame.select(*["`" + n.replace("`", "``") + "`" for n in names])

    cut = chosen(columns)
    empty = spec(in_pandas(cut.limit(0).toArrow()))
    known = {field.name: field for field in cut.schema.fields}
    fields = [known[n] if n in spec.by else StructField(n, DoubleType()) for n in empty]
    schema = StructType(fields)

    def look(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        found = [names_in(in_pandas(batch), by) for batch in batches]
        own = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))
        content = pa.array([own.tobytes()], pa.binary())
        yield pa.RecordBatch.from_arrays([content], ["names"])

    def fit(table: Any) -> Any:
        import pyarrow as pa

        answer = fit_alone(spec, table, folder)
        own = table.schema
        types = [own.field(n).type if n in own.names else pa.float64() for n in answer]
        schema = pa.schema(list(zip(answer.columns, types, strict=True)))
        return pa.Table.from_pandas(answer, schema, preserve_index=False)

    def fit_all(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        rows = list(batches)
        if rows:
            yield from fit(pa.Table.from_batches(rows)).to_batches()

    looked = chosen(by).mapInArrow(look, "names binary").collect()
    held = together([np.frombuffer(row["names"], np.uint64) for row in looked])
    if held is not None and len(held) == len(looked):
        found = in_pandas(cut.mapInArrow(fit_all, schema).toArrow())
        if not twice([found], by):
            yield found
            return
    parts = parts_for(frame.count())
    keys = F.hash(*[F.col("`" + n.replace("`", "``") + "`") for n in by])
    grouped = cut.groupBy(F.pmod(keys, F.lit(parts)))
    yield in_pandas(grouped.applyInArrow(fit, schema).toArrow())
