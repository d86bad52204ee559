"""The variables of a fit as a frame: the rows it used, factors with their levels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm._pandas import pd
from jaxglmm.formula.align import by_labels, row_labels
from jaxglmm.formula.design import Design
from jaxglmm.formula.tables import Columns, as_table, read_column


def frame(design: Design) -> pd.DataFrame:
    """One column a variable, in the order of the formula; text is categorical."""
    if not design.has_rows:
        np.asarray(design.y)  # says where they are
    variables = design.variables
    columns = (
        {name: column.as_series() for name, column in variables.columns.items()}
        if isinstance(variables, Columns)
        else {name: pd.Series(np.asarray(v)) for name, v in variables.items()}
    )
    return pd.DataFrame(columns, index=pd.RangeIndex(design.n))


def labels(design: Design) -> pd.Index:
    """Labels of the rows in the frame that the design came from."""
    if design.index is not None:
        return pd.Index(design.index)
    return pd.RangeIndex(design.n) if design.rows is None else pd.Index(design.rows)


def readable(newdata):
    """New data as given; a list of dicts, one a row, as a frame."""
    rows = isinstance(newdata, list | tuple) and len(newdata) > 0
    if rows and all(isinstance(row, Mapping) for row in newdata):
        return pd.DataFrame(list(newdata))
    return newdata


def pandas_frame(newdata) -> pd.DataFrame:
    """New data of any make as a pandas frame."""
    newdata = readable(newdata)
    if isinstance(newdata, pd.DataFrame):
        return newdata
    if isinstance(newdata, Mapping):
        found = (row_labels(column) for column in newdata.values())
        labels = next((each for each in found if each is not None), None)
        columns = {}
        for name, column in newdata.items():
            columns[name] = by_labels(f"new data: column {name!r}", column, labels)
            theirs = row_labels(column)
            if labels is not None and theirs is not None and len(theirs) != len(labels):
                raise DataError(
                    f"new data: column {name!r} has {len(theirs)} rows, others "
                    f"{len(labels)}"
                )
            if isinstance(column, np.ma.MaskedArray):
                columns[name] = read_column(str(name), column).as_series().array
        try:
            return pd.DataFrame(columns)
        except ValueError as error:
            raise DataError(
                "new data: a dict of columns needs lists or arrays of one length, such "
                f"as {{'x': [1.0, 2.0]}} ({error})"
            ) from error
    table = as_table(newdata)
    columns = {name: table.column(name).as_series() for name in table.names}
    out = pd.DataFrame(columns, index=pd.RangeIndex(table.n))
    return out if table.index is None else out.set_axis(pd.Index(table.index))
