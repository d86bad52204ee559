"""Average slopes of the means in a numeric variable, over rows or by groups.

Mean and Jacobian are differenced (``steps``): to about ten digits, exact where a linear
model is a polynomial of degree two at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError, NotApplicableError
from jaxglmm.fitting.model_frame import pandas_frame
from jaxglmm.numerics.difference_steps import Stencil, stencil
from jaxglmm.postestimation.prediction import predict
from jaxglmm.postestimation.prediction.marginal_effects import (
    averaged,
    check_known,
    counted_data,
    grouped,
    new_rows,
    own_offset,
    warn_of_inestimable,
)
from jaxglmm.postestimation.prediction.means import MeanRows, Means, difference

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.formula.design import NewRows


def slopes(
    means: Means, variable: str, newdata, by, level: float, offset=None
) -> pd.DataFrame:
    """One row a group: the average slope, its error, test and limits."""
    fit = means.fit
    predict.check_offset(newdata, offset)
    own = counted_data(fit)
    data = own if newdata is None else pandas_frame(newdata)
    data = data.reset_index(drop=True)
    check_known(data, [variable])
    keys, groups = grouped(data, [] if by is None else by)
    x = data[variable]
    if not _is_number(x) or _is_factor(fit, variable):
        raise NotApplicableError(
            f"slopes({variable!r}): the variable is not numeric; "
            f"contrasts({variable!r}) compares its levels"
            if not _is_number(x)
            else _factor_text(variable)
        )
    if newdata is None:
        offset = own_offset(fit, data)
    elif means.is_linear and offset is None:
        offset = np.zeros(len(data))  # it cancels

    def rows(values: np.ndarray) -> NewRows:
        with np.errstate(all="ignore"):
            return new_rows(means, data.assign(**{variable: values}), offset)

    ends = None
    if variable in own and _is_number(own[variable]):
        ends = own[variable].min(), own[variable].max()
    try:
        found = stencil(
            variable,
            x.to_numpy(float),
            lambda v: rows(v).X,
            ends,
            _is_curved(fit, variable),
        )
    except (DataError, FormulaError) as error:
        if variable in _factors(fit):
            raise NotApplicableError(_factor_text(variable)) from error
        raise
    mean = averaged(_rates(means, found, rows), len(data), groups, means)
    table = means.table(mean, level)
    table.insert(0, "variable", variable)
    warn_of_inestimable(means, mean, "slopes")
    return pd.concat([keys, table], axis=1)


def _rates(means: Means, at: Stencil, rows):
    """Rates of change of a run of rows."""
    points = [rows(values) for values in at.points]

    def rate(here: slice) -> MeanRows:
        base, *others = (means.of(new.take(here)) for new in points)
        parts = [
            difference(one, base, means.change(one, base), width[here])
            for one, width in zip(others, at.widths, strict=True)
        ]
        return parts[0] if len(parts) == 1 else parts[0].plus(parts[1])

    return rate


def _is_number(x: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(x) and not pd.api.types.is_bool_dtype(x)


def _factors(fit: FittedModel) -> set[str]:
    """Variables that enter as factors."""
    return set().union(*(term.factors for term in fit.design.fixed_terms))


def _is_factor(fit: FittedModel, variable: str) -> bool:
    """Whether a variable enters as a factor and never as a number."""
    terms = [t for t in fit.design.fixed_terms if variable in t.variables]
    return bool(terms) and all(variable in t.factors for t in terms)


def _factor_text(variable: str) -> str:
    return (
        f"slopes({variable!r}): the variable enters the model as a factor, which has "
        f"levels and no slope; contrasts({variable!r}) compares them"
    )


def _is_curved(fit: FittedModel, variable: str) -> bool:
    """Whether X is more than linear in the variable, as far as its terms tell."""
    recipe = fit.design.recipe
    terms = getattr(recipe, "terms", None)
    if terms is None:
        return False
    bare = {a.expr for t in terms for a in t.atoms if a.bare}
    used = [t for t in fit.design.fixed_terms if variable in t.variables]
    atoms = [a for t in terms for a in t.atoms if not a.bare]
    return bool(used) and (variable not in bare or bool(atoms))
