"""Weights, offset and trials: one number a row, given beside the table or in it."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.formula.align import by_labels
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.reading import not_numeric
from jaxglmm.formula.tables import Column, Table, read_column
from jaxglmm.formula.text import find_name

WEIGHTS, OFFSET, TRIALS = "weights", "offset", "trials"


def in_table(label: str, given: Any, table: Table) -> Column | None:
    """Numbers for the rows of a table; ``given`` may be the name of a column.

    Raises:
        DataError: no such column, another number of rows, labels of other rows, or
            values that are no numbers.
    """
    if not isinstance(given, str):
        return beside(label, given, table.n, table.labels)
    name = find_name(given, table.names)
    if name is None:
        raise DataError(
            f"{label}={given!r}: no such column{nearest(given, table.names)}"
        )
    return _numeric(label, table.column(name))


def beside(
    label: str, given: Any, n: int, labels: pd.Index | None = None
) -> Column | None:
    """Numbers (n,) for rows with ``labels``; None where nothing is given."""
    if given is None:
        return None
    if isinstance(given, str):
        raise DataError(
            f"{label}={given!r}: there is no table to look it up in; pass the values"
        )
    if label == TRIALS:
        given = every_row(given, n)
    column = read_column(label, by_labels(label, given, labels))
    if len(column) != n:
        raise DataError(
            f"{label} has {len(column)} values for {n} rows: it must have length {n}"
        )
    return _numeric(label, column)


def every_row(trials: Any, n: int) -> Any:
    """One number of trials as a column; anything else as it is."""
    if isinstance(trials, bool | np.bool_):
        raise DataError(
            f"trials={trials} must be the number of trials: a column name, an array, "
            "or one number for all rows"
        )
    if isinstance(trials, Real) or (isinstance(trials, np.ndarray) and not trials.ndim):
        return np.full(n, float(trials))
    return trials


def _numeric(label: str, column: Column) -> Column:
    if column.kind not in ("number", "truth"):
        raise DataError(f"{label} must be numeric: {not_numeric(column)}")
    return column
