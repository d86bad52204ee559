"""Average slopes of the means in a numeric variable, over rows or by groups.

Mean and Jacobian are differenced centrally: to about ten digits, exact where a linear
model is a polynomial of degree two at most.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxglmm._errors import NotApplicableError
from jaxglmm.results import predict
from jaxglmm.results.data import pandas_frame
from jaxglmm.results.marginal import (
    averaged,
    check_known,
    data_of,
    grouped,
    new_rows,
    own_offset,
    warn_of_inestimable,
)
from jaxglmm.results.means import Means, Rows, difference

STEP = 6e-6  # of a variable's spread: about the cube root of the rounding error


def slopes(
    means: Means, variable: str, newdata, by, level: float, offset=None
) -> pd.DataFrame:
    """One row a group: the average slope, its error, test and limits."""
    fit = means.fit
    predict.check_offset(newdata, offset)
    data = data_of(fit) if newdata is None else pandas_frame(newdata)
    data = data.reset_index(drop=True)
    check_known(data, [variable])
    keys, groups = grouped(data, by or [])
    x = data[variable]
    if not pd.api.types.is_numeric_dtype(x) or pd.api.types.is_bool_dtype(x):
        raise NotApplicableError(
            f"slopes({variable!r}): the variable is not numeric; "
            f"contrasts({variable!r}) compares its levels"
        )
    if newdata is None:
        offset = own_offset(fit, data)
    elif means.is_linear and offset is None:
        offset = np.zeros(len(data))  # it cancels
    x = x.to_numpy(float)
    known = x[np.isfinite(x)]
    spread = (np.std(known) or max(np.abs(known).max(), 1.0)) if len(known) else 1.0
    step = STEP * spread
    # of the numbers that the machine really added and subtracted
    above, below = x + step, x - step
    high, low = (
        new_rows(means, data.assign(**{variable: values}), offset)
        for values in (above, below)
    )
    width = above - below

    def rate(here: slice) -> Rows:
        one, two = means.of(high.take(here)), means.of(low.take(here))
        return difference(one, two, means.change(one, two), width[here])

    mean = averaged(rate, len(data), groups, means)
    table = means.table(mean, level)
    table.insert(0, "variable", variable)
    warn_of_inestimable(means, mean, "slopes")
    return pd.concat([keys, table], axis=1)
