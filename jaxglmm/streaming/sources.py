"""Where batches come from: files, and tables of other engines, read again and again.

A source has names and gives Arrow tables of some of its columns, as often as there are
passes, each with a word of where it came from. What engines do well is left to them:
files are read by pyarrow's dataset (its threads, its row groups, its projection), a
DuckDB relation, a Polars lazy frame or an Ibis table is asked for the columns that the
model uses, and streams the result.
"""

from __future__ import annotations

import abc
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxglmm._errors import DataError
from jaxglmm.streaming.schemas import common, differing, kind_of

ROWS = 262_144  # a batch at least, where there are as many
FORMATS = {
    **dict.fromkeys((".parquet", ".pq", ".parq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "ipc"),
    ".csv": "csv",
}
TABLE = "rows_"  # name of a relation in its queries
READ_AHEAD = 4  # batches that are read before they are needed


@dataclass(frozen=True)
class Batch:
    """An Arrow table and where it came from; bytes: of its columns."""

    table: Any
    where: str

    @property
    def bytes(self) -> int:
        """Of its columns in memory."""
        return int(self.table.nbytes)


class BatchSource(abc.ABC):
    """Data that can be read batch by batch, more than once."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""

    @property
    @abc.abstractmethod
    def n_rows(self) -> int | None:
        """Number of rows where it is known without reading them."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """What it is, for the plan."""

    @abc.abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows of some columns, as they are stored."""

    @property
    def mark(self) -> Any:
        """What changes when the data do; None where their order may change unseen."""
        return None

    def later(self, columns: Sequence[str], skip: int) -> Iterator[Batch]:
        """All batches after the first ``skip`` rows."""
        for batch in self.batches(columns):
            n = batch.table.num_rows
            if n > skip:
                yield Batch(batch.table.slice(skip), batch.where)
            skip = max(skip - n, 0)

    def tables(
        self, columns: Sequence[str], rows: int = ROWS, skip: int = 0
    ) -> Iterator[Batch]:
        """Batches of about ``rows`` rows: small ones put together, large ones cut."""
        import pyarrow as pa

        waiting: list[Batch] = []
        held = 0
        batches = self.later(columns, skip) if skip else self.batches(columns)
        for batch in batches:
            if not batch.table.num_rows:
                continue
            if waiting and held + batch.table.num_rows > rows:
                yield _joined(pa, waiting)
                waiting, held = [], 0
            if batch.table.num_rows > rows:
                for start in range(0, batch.table.num_rows, rows):
                    yield Batch(batch.table.slice(start, rows), batch.where)
                continue
            waiting.append(batch)
            held += batch.table.num_rows
        if waiting:
            yield _joined(pa, waiting)


def _joined(pa: Any, batches: list[Batch]) -> Batch:
    first, last = batches[0].where, batches[-1].where
    where = first if first == last else f"{first} to {last}"
    if len(batches) == 1:
        return batches[0]
    tables = [b.table for b in batches]
    try:
        return Batch(pa.concat_tables(tables), where)
    except pa.ArrowInvalid:
        tables = _told_apart(batches)
        return Batch(pa.concat_tables(tables, promote_options="permissive"), where)


def _told_apart(batches: list[Batch]) -> list[Any]:
    """Tables whose columns differ in type within numbers or within texts only."""
    first = batches[0]
    for batch in batches[1:]:
        for name in first.table.column_names:
            one = first.table.schema.field(name).type
            two = batch.table.schema.field(name).type
            if kind_of(one) != kind_of(two):
                raise DataError(
                    f"column {name!r} is {one} in {first.where} and {two} in "
                    f"{batch.where}"
                )
    return [b.table for b in batches]


class FileSource(BatchSource):
    """Files of one format, or a ``pyarrow.dataset``."""

    def __init__(self, dataset: Any, shown: str, schema: Any = None):
        self.dataset, self.shown = dataset, shown
        self.schema = dataset.schema if schema is None else schema

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    @property
    def n_rows(self) -> int | None:
        try:
            return int(self.dataset.count_rows())
        except Exception:  # counted when they are read
            return None

    @property
    def description(self) -> str:
        files = getattr(self.dataset, "files", None)
        many = f", {len(files)} files" if files and len(files) > 1 else ""
        return f"{self.shown}{many}"

    @property
    def mark(self) -> Any:
        files = getattr(self.dataset, "files", None)
        if not files or not all(Path(f).exists() for f in files):
            return None
        stats = ((f, Path(f).stat()) for f in files)
        return [[f, s.st_size, s.st_mtime_ns] for f, s in stats]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        wanted = list(columns)
        for fragment in self.dataset.get_fragments():
            yield from self._of(fragment, wanted)

    def _of(self, fragment: Any, wanted: list[str]) -> Iterator[Batch]:
        where = getattr(fragment, "path", "") or self.shown
        return read_fragment(fragment, self.schema, wanted, where)

    def later(self, columns: Sequence[str], skip: int) -> Iterator[Batch]:
        for fragment in self.dataset.get_fragments():
            n = fragment.count_rows() if skip else 0
            if skip and n <= skip:  # not read
                skip -= n
                continue
            for batch in self._of(fragment, list(columns)):
                rows = batch.table.num_rows
                if rows > skip:
                    yield Batch(batch.table.slice(skip), batch.where)
                skip = max(skip - rows, 0)


def read_fragment(
    fragment: Any, schema: Any, wanted: list[str], where: str
) -> Iterator[Batch]:
    """Batches of a piece of a ``pyarrow.dataset``; schema: of the whole.

    Raises:
        DataError: a column is not there, or the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    differ = ""
    try:
        physical = fragment.physical_schema
        differ = differing(physical, schema, wanted)
        part = ds.get_partition_keys(fragment.partition_expression)  # of its path
        absent = [n for n in wanted if n not in physical.names and n not in part]
        if absent:
            raise DataError(
                f"{where}: no column {absent[0]!r}, which other files have; it has "
                f"{', '.join(physical.names)}"
            )
        scanner = fragment.scanner(
            schema=schema,
            columns=wanted,
            batch_size=ROWS,
            batch_readahead=READ_AHEAD,
            use_threads=True,
        )
        for batch in scanner.to_batches():
            yield Batch(pa.Table.from_batches([batch]), where)
    except (pa.ArrowException, OSError) as error:
        why = f"{differ} ({error})" if differ else str(error)
        raise DataError(f"{where} cannot be read: {why}") from error


class StreamSource(BatchSource):
    """Another engine's table, as record batches of some columns.

    read: columns -> an iterable of record batches or tables.
    """

    def __init__(
        self,
        names: Sequence[str],
        read: Callable[[list[str]], Any],
        shown: str,
        n_rows: int | None = None,
    ):
        self._names, self._read, self.shown = tuple(names), read, shown
        self._n_rows = n_rows

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    @property
    def n_rows(self) -> int | None:
        return self._n_rows

    @property
    def description(self) -> str:
        return self.shown

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        import pyarrow as pa

        for k, batch in enumerate(self._read(list(columns))):
            single = isinstance(batch, pa.RecordBatch)
            table = pa.Table.from_batches([batch]) if single else batch
            yield Batch(table, f"batch {k} of {self.shown}")


class DuckSource(StreamSource):
    """A DuckDB relation."""

    def __init__(self, relation: Any, shown: str = "a DuckDB relation"):
        super().__init__(relation.columns, self._project, shown)
        self.relation = relation

    def _project(self, columns: list[str]) -> Any:
        return self.reader(f"SELECT {', '.join(map(quoted, columns))} FROM {TABLE}")

    def reader(self, sql: str) -> Any:
        """Record batches of a query of the relation."""
        found = self.relation.query(TABLE, sql)
        arrow = getattr(found, "to_arrow_reader", None) or found.fetch_arrow_reader
        return arrow(ROWS)

    def table(self, sql: str) -> Any:
        """The whole answer, an Arrow table."""
        return self.reader(sql).read_all()


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def is_source(data: Any) -> bool:
    """Whether data are of a kind that is read in batches."""
    if isinstance(data, BatchSource | os.PathLike | str):
        return True
    if isinstance(data, list | tuple):
        return bool(data) and all(isinstance(x, str | os.PathLike) for x in data)
    return engine_of(data) in READERS


def source_of(data: Any) -> BatchSource:
    """The source that data are.

    Raises:
        DataError: no such file, a format that is not known, or an engine's table that
            can be read once only.
    """
    if isinstance(data, BatchSource):
        return data
    needs_arrow()
    if isinstance(data, str | os.PathLike | list | tuple):
        return _of_paths(data)
    return READERS[engine_of(data)](data)


def needs_arrow() -> None:
    """Raise ``DataError`` where pyarrow is not installed."""
    try:
        import pyarrow.dataset  # noqa: F401
    except ImportError:
        raise DataError(
            "data in batches are read by pyarrow, which is not installed: pip install "
            "'jaxglmm[stream]'"
        ) from None


def engine_of(data: Any) -> str:
    """``duckdb.DuckDBPyRelation``: package and class of a table, whatever its module.

    A class of the user's that stems from one of these is one as well.
    """
    for cls in type(data).__mro__:
        found = f"{cls.__module__.partition('.')[0].lstrip('_')}.{cls.__name__}"
        if found in READERS:
            return found
    return ""


def _of_paths(data: Any) -> BatchSource:
    import pyarrow as pa
    import pyarrow.dataset as ds

    given = [data] if isinstance(data, str | os.PathLike) else list(data)
    paths: list[str] = []
    for one in map(os.fspath, given):
        if any(c in one for c in "*?["):
            found = sorted(glob.glob(one, recursive=True))
            if not found:
                raise DataError(f"no file matches {one!r}")
            paths += found
        else:
            paths.append(one)
    shown = os.fspath(given[0]) if len(given) == 1 else f"{len(given)} paths"
    local = [p for p in paths if "://" not in p]
    for path in local:
        if not Path(path).exists():
            raise DataError(f"there is no file or folder {path!r}")
    kinds = {_format(path) for path in paths}
    if len(kinds) > 1:
        raise DataError(
            f"{shown}: files of several formats, {', '.join(sorted(kinds))}"
        )
    (kind,) = kinds
    one = paths[0] if len(paths) == 1 else paths
    options = {"partitioning": "hive"} if len(paths) == 1 else {}
    try:
        found = ds.dataset(one, format=kind, **options)
        return FileSource(found, shown, common(found))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shown} cannot be read as {kind}: {error}") from error


def _format(path: str) -> str:
    """The format by the end of the name; of a folder by the files in it."""
    folder = Path(path)
    if folder.is_dir():
        inside = {p.suffix.lower() for p in folder.rglob("*") if p.suffix}
        found = sorted({FORMATS[s] for s in inside if s in FORMATS})
        if len(found) == 1:
            return found[0]
        raise DataError(
            f"the folder {path!r} holds "
            + (
                f"files of {' and '.join(found)}"
                if found
                else "no Parquet or Arrow file"
            )
        )
    found = FORMATS.get(folder.suffix.lower())
    if found is None:
        raise DataError(
            f"{path!r}: by its name no file of a format that is read in batches "
            f"({', '.join(FORMATS)}); pass a pyarrow.dataset"
        )
    return found


def _of_dataset(data: Any) -> BatchSource:
    return FileSource(data, "a pyarrow dataset")


def _of_polars(frame: Any) -> BatchSource:
    names = frame.collect_schema().names()

    def read(columns: list[str]) -> Iterator[Any]:
        chosen = frame.select(columns)
        if hasattr(chosen, "collect_batches"):
            for part in chosen.collect_batches(chunk_size=ROWS, maintain_order=False):
                yield part.to_arrow()
            return
        raise DataError(
            "this version of polars has no LazyFrame.collect_batches: pass the files "
            "themselves, or write them by frame.sink_parquet(path)"
        )

    return StreamSource(names, read, "a polars lazy frame")


def _of_ibis(table: Any) -> BatchSource:
    backend = table._find_backend(use_default=True)
    if backend.name == "duckdb":  # its own SQL, so that sums are pushed down as well
        backend._run_pre_execute_hooks(table)  # tables in memory that it names
        return DuckSource(backend.con.sql(backend.compile(table)), "an Ibis table")

    def read(columns: list[str]) -> Any:
        return table.select(*columns).to_pyarrow_batches(chunk_size=ROWS)

    return StreamSource(table.columns, read, "an Ibis table")


def _of_dask(frame: Any) -> BatchSource:
    def read(columns: list[str]) -> Iterator[Any]:
        import pyarrow as pa

        chosen = frame[columns]
        for k in range(chosen.npartitions):
            part = chosen.get_partition(k).compute()
            yield pa.Table.from_pandas(part, preserve_index=False)

    return StreamSource(list(frame.columns), read, "a Dask data frame")


def _of_ray(data: Any) -> BatchSource:
    def read(columns: list[str]) -> Any:
        chosen = data.select_columns(columns)
        return chosen.iter_batches(batch_size=ROWS, batch_format="pyarrow")

    return StreamSource(data.columns(), read, "a Ray dataset")


def _of_spark(frame: Any) -> BatchSource:
    def packed(batches: Iterator[Any]) -> Iterator[Any]:
        """Record batches as bytes, on a worker: the rows never become Python's."""
        import pyarrow as pa

        for batch in batches:
            out = pa.BufferOutputStream()
            with pa.ipc.new_stream(out, batch.schema) as writer:
                writer.write_batch(batch)
            content = pa.array([out.getvalue().to_pybytes()], pa.binary())
            yield pa.RecordBatch.from_arrays([content], ["content"])

    def read(columns: list[str]) -> Iterator[Any]:
        import pyarrow as pa

        quoted = ["`" + name.replace("`", "``") + "`" for name in columns]
        sent = frame.select(*quoted).mapInArrow(packed, "content binary")
        for row in sent.toLocalIterator(prefetchPartitions=True):
            with pa.ipc.open_stream(bytes(row["content"])) as reader:
                yield from reader

    return StreamSource(frame.columns, read, "a Spark data frame")


def _read_once(data: Any) -> BatchSource:
    raise DataError(
        f"{type(data).__name__} can be read once only, and a fit reads its data twice: "
        "pass the files, or a pyarrow.dataset"
    )


# Package and class of a table -> its source.
READERS: dict[str, Callable[[Any], BatchSource]] = {
    **dict.fromkeys(
        (
            *("pyarrow.Dataset", "pyarrow.FileSystemDataset"),
            *("pyarrow.UnionDataset", "pyarrow.InMemoryDataset"),
        ),
        _of_dataset,
    ),
    "pyarrow.RecordBatchReader": _read_once,
    "pyarrow.Scanner": _read_once,
    "duckdb.DuckDBPyRelation": DuckSource,
    "polars.LazyFrame": _of_polars,
    "ibis.Table": _of_ibis,
    "dask.DataFrame": _of_dask,
    "ray.Dataset": _of_ray,
    "pyspark.DataFrame": _of_spark,
}
