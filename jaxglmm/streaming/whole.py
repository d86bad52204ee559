"""Where the data sets of a table lie, so that rows need not move.

Row groups of Parquet files say the least and the greatest value of their columns: where
those of two do not meet, no data set is in both, and a worker can read its own. Of what
says nothing the names themselves are compared, as hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from jaxglmm._pandas import pd
from jaxglmm.streaming.sources import BatchSource, FileSource, read_fragment

MOST_NAMES = 20_000_000  # hashes of names that are compared


class RowsNotHereError(Exception):
    """A worker does not see the files of a part."""


@dataclass(frozen=True)
class RowGroups:
    """Rows that any process can read which sees the files; pickled.

    fragments: of a ``pyarrow.dataset``; schema: of it; rows: how many.
    """

    fragments: tuple[Any, ...]
    schema: Any
    columns: tuple[str, ...]
    rows: int

    def read(self) -> Any:
        """An Arrow table, with dictionaries as their values.

        Raises:
            RowsNotHereError: a file is not on this machine.
            DataError: a file cannot be read.
        """
        import pyarrow as pa

        for fragment in self.fragments:
            if not Path(fragment.path).exists():
                raise RowsNotHereError(fragment.path)
        wanted = list(self.columns)
        tables = [
            batch.table
            for fragment in self.fragments
            for batch in read_fragment(fragment, self.schema, wanted, fragment.path)
        ]
        if not tables:
            tables = [pa.schema([self.schema.field(n) for n in wanted]).empty_table()]
        return plain(pa, pa.concat_tables(tables), wanted)


@dataclass(frozen=True)
class ArrowFile:
    """Rows in a file of Arrow's stream; pickled."""

    path: str

    def read(self) -> Any:
        """An Arrow table.

        Raises:
            RowsNotHereError: the file is not on this machine.
        """
        import pyarrow as pa

        try:
            with pa.OSFile(self.path) as file:
                return pa.ipc.open_stream(file).read_all()
        except FileNotFoundError as error:
            raise RowsNotHereError(self.path) from error


@dataclass(frozen=True)
class ArrowBytes:
    """The rows themselves, for workers that do not see this machine's files."""

    content: bytes

    @classmethod
    def of(cls, table: Any) -> ArrowBytes:
        """An Arrow table, written."""
        import pyarrow as pa

        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        return cls(out.getvalue().to_pybytes())

    def read(self) -> Any:
        """An Arrow table."""
        import pyarrow as pa

        with pa.ipc.open_stream(self.content) as reader:
            return reader.read_all()


RowsSomewhere = RowGroups | ArrowFile | ArrowBytes


def plain(pa: Any, table: Any, columns: Sequence[str]) -> Any:
    """Dictionaries as their values: each batch would have its own."""

    def one(column: Any) -> Any:
        if pa.types.is_dictionary(column.type):
            return column.cast(column.type.value_type)
        return column

    return pa.table({n: one(table.column(n)) for n in columns})


def row_groups(
    source: BatchSource, columns: Sequence[str], by: Sequence[str], rows: int
) -> list[RowGroups] | None:
    """Parts of about ``rows`` rows with data sets that are in no other.

    None where the files do not say, or where data sets are in several: a part would be
    more than eight times as large, or hold more than a quarter of a large table.
    """
    import pyarrow.dataset as ds

    if not isinstance(source, FileSource):
        return None
    found = []
    try:
        for fragment in source.dataset.get_fragments():
            if not isinstance(fragment, ds.ParquetFileFragment):
                return None
            for k, group in enumerate(fragment.row_groups):
                if group.num_rows:
                    ends = _ends(ds, fragment, group, by[0])
                    if ends is None:
                        return None
                    found.append((*ends, group.num_rows, fragment, k))
        found.sort(key=lambda one: one[:2])
        apart = _apart(found)
    except (OSError, TypeError, ValueError, AttributeError):  # told when they are read
        return None
    total = sum(one[2] for one in found)
    largest = max((sum(one[2] for one in part) for part in apart), default=0)
    if not found or largest > max(8 * rows, 1) or (largest > total / 4 > rows):
        return None
    parts = _gathered(apart, rows)
    schema, wanted = source.schema, tuple(columns)
    return [
        RowGroups(_cut(part), schema, wanted, sum(one[2] for one in part))
        for part in parts
    ]


def _ends(ds: Any, fragment: Any, group: Any, name: str) -> tuple[Any, Any] | None:
    """The least and the greatest value of a column; None where that is not said."""
    own = ds.get_partition_keys(fragment.partition_expression)
    if name in own:
        value = own[name]
        return None if value is None else (value, value)
    said = (group.statistics or {}).get(name)
    if not said or said.get("min") is None or said.get("max") is None:
        return None
    least, most = said["min"], said["max"]
    return (least, most) if least <= most else None  # not a number


def _apart(found: list[tuple]) -> list[list[tuple]]:
    """Those that meet, together; ``found`` is in order."""
    out: list[list[tuple]] = []
    most: Any = None
    for one in found:
        if out and one[0] <= most:
            out[-1].append(one)
            most = max(most, one[1])
        else:
            out.append([one])
            most = one[1]
    return out


def _gathered(apart: list[list[tuple]], rows: int) -> list[list[tuple]]:
    """Neighbours put together, to about ``rows`` rows."""
    out: list[list[tuple]] = []
    held = rows
    for part in apart:
        own = sum(one[2] for one in part)
        if held + own > rows:
            out.append([])
            held = 0
        out[-1] += part
        held += own
    return out


def _cut(part: list[tuple]) -> tuple[Any, ...]:
    """One fragment a file, of the row groups that are meant."""
    own: dict[int, tuple[Any, list[int]]] = {}
    for *_, fragment, k in part:
        own.setdefault(id(fragment), (fragment, []))[1].append(k)
    return tuple(
        fragment.subset(row_group_ids=sorted(groups))
        for fragment, groups in own.values()
    )


def names_in(rows: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """(k,) uint64 hashes of the data sets in some rows, once each."""
    names = rows[list(by)].drop_duplicates().dropna()
    for name in by:
        if isinstance(names[name].dtype, pd.CategoricalDtype):
            names[name] = names[name].astype(object)
    return pd.util.hash_pandas_object(names, index=False).to_numpy(np.uint64)


def together(found: Sequence[np.ndarray]) -> list[list[int]] | None:
    """Pieces (their numbers) that have a data set in common, by hashes of their names.

    None where that is more than a quarter of many pieces, or there are too many names.
    """
    if sum(map(len, found)) > MOST_NAMES:
        return None
    names = np.concatenate([np.zeros(0, np.uint64), *found])
    piece = np.repeat(np.arange(len(found)), [len(own) for own in found])
    order = np.argsort(names, kind="stable")
    same = np.flatnonzero(np.diff(names[order]) == 0)
    pairs = piece[order[same]], piece[order[same + 1]]
    links = sp.coo_array((np.ones(len(same)), pairs), (len(found), len(found)))
    count, label = connected_components(links, directed=False)
    out = [np.flatnonzero(label == k).tolist() for k in range(count)]
    most = max(map(len, out), default=0)
    return None if most > max(1, len(found) / 4) and count > 0 else out
