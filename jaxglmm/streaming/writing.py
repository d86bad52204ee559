"""What a streamed fit says of rows and levels, written to files as it is found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.fitting import random_effects as effects
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.runtime import progress
from jaxglmm.runtime.ahead import ahead
from jaxglmm.streaming.passes import told
from jaxglmm.streaming.sources import needs_arrow, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEVELS = 262_144  # of random effects in a piece


def write_predictions(
    fit: FittedModel,
    data: Any,
    to: Any,
    predict: Callable[[Any], Any],
    keep: Sequence[str] | None,
    shown: bool | None = None,
) -> int:
    """Means of the rows of a source to a Parquet file, in the order of the source.

    Args:
        fit: whose formula says which columns are read.
        data: a source.
        to: path of the file, which is replaced once all is written.
        predict: a table -> (n,) means, or a frame of them with errors and limits.
        keep: columns of the source that are written too; None: those of the model.
        shown: whether a bar is.

    Returns:
        How many rows were written.

    Raises:
        DataError: columns that are not there, values that cannot be used.
    """
    source = source_of(data)
    used = _needed(fit, source.names)
    response = fit.design.response
    kept = [n for n in (*used, response) if n in source.names] if keep is None else keep
    absent = [n for n in kept if n not in source.names]
    if absent:
        raise DataError(f"keep={list(kept)}: the source has no column {absent[0]!r}")
    columns = [n for n in source.names if n in {*used, *kept}]

    def tables() -> Iterator[Any]:
        with progress.bar(source.n_rows or 0, shown, "row", "predicting") as bar:
            for batch in ahead(source.tables(columns)):
                with told(batch.where):
                    found = predict(batch.table)
                yield _beside(batch.table.select(list(kept)), found, response)
                bar.update(batch.table.num_rows)

    return write_tables(tables(), to)


def _needed(fit: FittedModel, names: Sequence[str]) -> list[str]:
    recipe: Any = fit.design.recipe
    groups = [part for group in recipe.groups.values() for part in group.parts]
    wanted = {*recipe.columns, *groups, recipe.offset_name}
    return [name for name in names if name in wanted]


def _beside(table: Any, found: Any, response: str) -> Any:
    """The kept columns with the means and, where the response is one, residuals."""
    import pyarrow as pa

    taken = set(table.column_names)
    frame = {"fit": found} if isinstance(found, np.ndarray) else dict(found)
    for name, values in frame.items():
        column = f"{name}_" if name in taken else name
        table = table.append_column(column, pa.array(np.asarray(values, np.float64)))
    if response in taken and "residual" not in taken:
        y = table.column(response).cast(pa.float64(), safe=False)
        y = y.to_numpy(zero_copy_only=False)
        rest = y - np.asarray(frame["fit"], np.float64)
        table = table.append_column("residual", pa.array(rest, from_pandas=True))
    return table


def write_ranef(fit: FittedModel, to: Any, se: bool) -> int:
    """Random effects, a row a level of each factor: factor, level, columns.

    Args:
        fit: the fit.
        to: path of the Parquet file.
        se: also their conditional standard deviations.

    Returns:
        How many levels were written.
    """
    needs_arrow()
    return write_tables(_effects(fit, se), to)


def _effects(fit: FittedModel, se: bool) -> Iterator[Any]:
    import pyarrow as pa

    design, b = fit.design, fit.estimates.b
    found = effects.by_factor(design.terms)
    names = {
        factor: effects.column_names([design.terms[k] for k in positions])
        for factor, positions in found.items()
    }
    every = list(dict.fromkeys(n for own in names.values() for n in own))
    spread = fit.ranef_cov if se else {}
    for factor, positions in found.items():
        levels = design.terms[positions[0]].levels
        values = np.concatenate([b[k] for k in positions], axis=1)
        for start in range(0, len(levels), LEVELS):
            here = slice(start, start + LEVELS)
            n = len(levels[here])
            label = _labels(levels[here], len(found) > 1)
            columns = {"factor": pa.array([factor]).take(pa.array(np.zeros(n, int)))}
            columns["level"] = label
            for name in every:
                at = names[factor].index(name) if name in names[factor] else None
                columns[name] = _of(values[here], at)
                if se:
                    sd = np.sqrt(np.diagonal(spread[factor][here], axis1=1, axis2=2))
                    columns[f"se_{name}"] = _of(sd, at)
            yield pa.table(columns)


def _of(values: np.ndarray, at: int | None) -> Any:
    import pyarrow as pa

    if at is None:
        return pa.nulls(len(values), pa.float64())
    return pa.array(np.ascontiguousarray(values[:, at]))


def _labels(levels: np.ndarray, as_text: bool) -> Any:
    """Levels in their own type; as text beside those of other factors."""
    import pyarrow as pa

    if as_text:
        return pa.array([str(v) for v in levels.tolist()])
    try:
        return pa.array(levels)
    except (pa.ArrowException, TypeError):
        return pa.array([str(v) for v in levels.tolist()])


def write_tables(tables: Iterator[Any], to: Any) -> int:
    """One Parquet file of tables as they come, under its name when it is whole."""
    import pyarrow.parquet as pq

    path = Path(os.fspath(to))
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {str(path.parent)!r} to write {path.name}")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    rows, writer = 0, None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(part, table.schema)
            writer.write_table(table.cast(writer.schema))
            rows += table.num_rows
        if writer is None:
            raise DataError("the source has no rows: nothing is written")
        writer.close()
        writer = None
        os.replace(part, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error}): nothing is left of it; choose a "
            "folder with room"
        ) from error
    finally:
        if writer is not None:
            with suppress(OSError):  # its end, where the disk is full
                writer.close()
        part.unlink(missing_ok=True)
    return rows
