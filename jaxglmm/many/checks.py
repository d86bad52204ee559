"""Rows of a long table that belong to data sets which can be fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, MissingRowsWarning
from jaxglmm.formula.against_table import variables_in
from jaxglmm.formula.notices import warn
from jaxglmm.formula.tables import Column, read_column


def finite(
    formula: str,
    columns: Mapping[str, Any],
    codes: np.ndarray,
    D: int,
    given: tuple[Any, ...],
) -> tuple[Mapping[str, Any], np.ndarray, np.ndarray | None, tuple[Any, ...]]:
    """Leave out rows without a data set, and data sets with infinite values.

    Args:
        formula: names the columns that matter.
        columns: the long table.
        codes: (n,) the data set of each row, -1 where it is missing.
        D: how many data sets.
        given: weights, offset, trials: a name, a column (n,) or None each.

    Returns:
        columns, codes and given without these rows; (D,) which data sets have infinite
        values, None where none has.

    Raises:
        DataError: nothing is left.
    """
    nowhere = codes < 0
    if nowhere.all() and len(codes):
        raise DataError("no row belongs to a data set: by= is missing everywhere")
    if nowhere.any():
        warn(
            f"{nowhere.sum()} of {len(codes)} rows were dropped because it is missing "
            "which data set they belong to",
            MissingRowsWarning,
        )
    infinite = _infinite(formula, columns, len(codes), given)
    out = np.zeros(D, bool)
    if infinite is not None:
        out[codes[infinite & ~nowhere]] = True
    if not (nowhere.any() or out.any()):
        return columns, codes, None, given
    kept = np.flatnonzero(~nowhere & ~out[codes])
    if len(kept) == 0:
        raise DataError("every data set has infinite values; remove or correct them")
    columns = {
        name: read_column(name, raw).as_series().iloc[kept]
        for name, raw in columns.items()
    }
    given = tuple(_rows(x, kept, len(codes)) for x in given)
    return columns, codes[kept], out if out.any() else None, given


def _infinite(
    formula: str, columns: Mapping[str, Any], n: int, given: tuple[Any, ...]
) -> np.ndarray | None:
    """(n,) rows with an infinite value in a column that the model uses; None: none."""
    names = variables_in(formula, columns, given)
    names |= {x for x in given if isinstance(x, str)} & set(columns)
    read = [read_column(name, columns[name]) for name in sorted(names)]
    numbers = [c.values for c in read if c.kind == "number" and len(c) == n]
    out = None
    for values in [*numbers, *(x for x in given if _by_row(x, n))]:
        x = np.asarray(values.values if isinstance(values, Column) else values)
        if x.dtype.kind in "iub" or _finite_sum(x):
            continue
        found = np.isinf(np.asarray(x, float))
        out = found if out is None else out | found
    return out


def _finite_sum(x: np.ndarray) -> bool:
    """Whether one pass shows that no value is infinite (or missing)."""
    with np.errstate(invalid="ignore", over="ignore"):
        return x.dtype.kind == "f" and bool(np.isfinite(x.sum()))


def _by_row(x: Any, n: int) -> bool:
    return isinstance(x, Column) and len(x) == n


def _rows(x: Any, kept: np.ndarray, n: int) -> Any:
    return x.take(kept) if _by_row(x, n) else x
