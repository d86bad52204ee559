"""The variables of a fit as a frame: the rows it used, factors with their levels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxglmm.formula.design import Design
from jaxglmm.formula.tables import Columns


def frame(design: Design) -> pd.DataFrame:
    """One column a variable, in the order of the formula; text is categorical."""
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
