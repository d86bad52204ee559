"""Rows that come beside a table: matched by their labels where both have some.

A pandas Series or frame has a label a row, and a frame may have been sorted, sampled or
filtered since the Series was taken from it. Plain arrays have positions only.
"""

from __future__ import annotations

from typing import Any

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd


def row_labels(values: Any) -> pd.Index | None:
    """The labels of a Series' or a frame's rows; None for what has none."""
    if isinstance(values, pd.Series | pd.DataFrame):
        return values.index
    return None


def by_labels(what: str, values: Any, labels: Any, strict: bool = True) -> Any:
    """The values in the order of ``labels``; unchanged where either has none.

    Args:
        what: names the values in messages.
        values: anything; of another number of rows it is returned as it is.
        labels: of the rows that the model uses, an index or None.
        strict: False takes rows with other labels by position, as statsmodels does.

    Raises:
        DataError: labels that are not the same ones, or not unique.
    """
    theirs = row_labels(values)
    if theirs is None or not isinstance(labels, pd.Index) or theirs is labels:
        return values
    if len(theirs) != len(labels) or theirs.equals(labels):
        return values
    if theirs.is_unique and labels.is_unique:
        at = theirs.get_indexer(labels)
        if (at >= 0).all():
            return values.iloc[at]
        if not strict:
            return values
        first = next(k for k, i in enumerate(at) if i < 0)
        reason = f"it has no row {labels[first]!r}, for example"
    else:
        reason = "some come twice, in another order"
    raise DataError(
        f"{what}: its row labels are not those of the data ({reason}). Pass "
        "to_numpy() of it if its rows are in the same order, or give both the same "
        "index"
    )
