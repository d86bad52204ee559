"""The left side of a formula: one column of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.compat.statsmodels.patsy import levels
from jaxglmm.compat.statsmodels.patsy.functions import evaluate
from jaxglmm.compat.statsmodels.patsy.text import Sides


def response(sides: Sides, data: pd.DataFrame, context: Mapping[str, Any]) -> pd.Series:
    """The response (n,), with its name; booleans are 0 and 1.

    Raises:
        FormulaError: no response.
        DataError: several columns, or text.
    """
    if not sides.left:
        raise FormulaError(f"{sides.text!r} has no response: write 'y ~ x'")
    if len(sides.left) != 1 or len(sides.left[0]) != 1:
        raise DataError(
            f"the response of {sides.text!r} has {len(sides.left)} terms; it must be "
            "one column of numbers"
        )
    name = sides.left[0][0]
    found = evaluate(name, data, context, {})
    if levels.is_factor(found):
        found = _numbers(name, found)
    array = np.asarray(found)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"the response {name!r} has {array.shape[-1]} columns; it must be one "
            "column of numbers"
        )
    if len(array) != len(data):
        raise DataError(f"{name!r} gives {len(array)} values for {len(data)} rows")
    if isinstance(found, pd.Series):
        array = found.to_numpy(float, na_value=np.nan)
    return pd.Series(array.astype(float), index=data.index, name=name)


def _numbers(name: str, found: Any) -> np.ndarray:
    values = found.values if isinstance(found, levels.PatsyCall) else found
    try:
        return pd.Series(np.asarray(values, object)).astype(float).to_numpy()
    except (TypeError, ValueError):
        _, known = levels.read_levels(name, found)
        shown = ", ".join(levels.shown(v) for v in known[:4])
        raise DataError(
            f"the response {name!r} is text or categories ({shown}), so that it has "
            f"{len(known)} columns; it must be one column of numbers"
        ) from None
