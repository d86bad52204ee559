"""Predictions and contrasts, averaged over rows, by the delta method or from draws.

Each is a function of the means of rows (``means``): averages over groups of rows of the
means themselves, their rates of change (``slopes``), or differences and ratios of such
averages. The rows are made by the recipe of the design, from data in which a variable
has been changed; the Jacobian of an average is the average of the Jacobians. Tests have
the denominator degrees of freedom of the fit. What the data cannot tell is NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, DataError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.fitting.model_frame import frame, pandas_frame
from jaxglmm.formula.design import NewRows
from jaxglmm.numerics import multiplicity
from jaxglmm.postestimation.prediction import grids, predict
from jaxglmm.postestimation.prediction.means import MeanRows, Means, difference
from jaxglmm.postestimation.report.frames import check_ratios

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

ADJUST = ("none", "bonferroni", "holm", "tukey")
MOST_TESTED = 2000  # rows up to which each gets its own degrees of freedom


def data_of(fit: FittedModel) -> pd.DataFrame:
    """The variables of the model, rows that were used."""
    if fit.design.recipe is None:
        raise NotApplicableError(
            "This fit's design has no recipe, so its variables cannot be changed. Fit "
            "with a formula or the arrays of jg.lmm and jg.glmm"
        )
    return frame(fit.design)


def counted_data(fit: FittedModel) -> pd.DataFrame:
    """The variables of the model, rows that count: what averages are taken over."""
    return data_of(fit).iloc[fit.design.counted].reset_index(drop=True)


def new_rows(means: Means, data, offset=None) -> NewRows:
    """The design of new rows; grouping factors need not be among the data."""
    if means.random:
        return predict.rows_at_random(means.fit, data, offset)
    return predict.rows(means.fit, data, offset=offset, random=False)


def own_offset(fit: FittedModel, counted: pd.DataFrame) -> np.ndarray:
    """The offset of the rows that count that is no term of the formula, (n,)."""
    given = np.zeros(len(counted))
    if fit.design.offset is None:
        return given
    of_the_formula = predict.rows(fit, counted, offset=given, random=False).offset
    return fit.design.offset[fit.design.counted] - of_the_formula


def averaged(
    rows: Callable[[slice], MeanRows],
    n: int,
    groups: Sequence[np.ndarray],
    means: Means,
) -> MeanRows:
    """Means of groups of rows, given by their positions.

    Args:
        rows: means of a run of rows.
        n: how many rows there are.
        groups: positions of each group's rows, disjoint.
        means: what holds ``at_once`` rows together.
    """
    if any(len(i) == 0 for i in groups):
        raise DataError("newdata has no rows to average over")
    label = np.full(n, -1)
    for g, positions in enumerate(groups):
        label[positions] = g
    step = max(means.at_once or n, 1)
    parts: list[MeanRows] = []
    for start in range(0, n, step):
        here = slice(start, min(start + step, n))
        parts.append(_group_means(rows(here), label[here], groups))
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total


def _group_means(
    rows: MeanRows, label: np.ndarray, groups: Sequence[np.ndarray]
) -> MeanRows:
    """These rows' share of the means of the groups."""
    size = np.array([len(i) for i in groups], float)
    order = np.argsort(label, kind="stable")
    order = order[label[order] >= 0]
    present, starts = np.unique(label[order], return_index=True)

    def mean(x: np.ndarray) -> np.ndarray:
        out = np.zeros((len(groups), *x.shape[1:]))
        if len(order):
            total = np.add.reduceat(x[order], starts, axis=0)
            out[present] = total / size[present].reshape(-1, *[1] * (x.ndim - 1))
        return out

    def any_of(x: np.ndarray) -> np.ndarray:
        out = np.zeros(len(groups), bool)
        if len(order):
            out[present] = np.logical_or.reduceat(x[order], starts)
        return out

    return rows.map(mean, any_of)


def predictions(
    means: Means, newdata, by, level: float, offset=None, grid: str = "observed"
) -> pd.DataFrame:
    """Predictions a row of the data or of the grid, or their means by groups."""
    fit = means.fit
    grids.check(grid)
    predict.check_offset(newdata, offset)
    if grid == "equal":
        if newdata is not None:
            raise NotApplicableError(
                "predictions(grid='equal') makes its own rows: leave newdata out, or "
                "give the rows to average over as newdata"
            )
        variables = counted_data(fit)
        data = grids.reference_grid(fit, variables)
        mean_offset = np.full(len(data), own_offset(fit, variables).mean())
        new = new_rows(means, data, mean_offset)
    elif newdata is None and by is not None:
        data = counted_data(fit)
        new = predict.rows(fit, None).take(fit.design.counted)
    elif newdata is None:
        data = data_of(fit)
        new = predict.rows(fit, None)
    else:
        data = pandas_frame(newdata)
        new = new_rows(means, data, offset)
    if by is not None:
        keys, groups = grouped(data, by)
        rows = averaged(lambda i: means.of(new.take(i)), len(data), groups, means)
    else:
        check_number(means, len(data))
        keys = data.reset_index(drop=True)
        if grid == "equal":
            used = set().union(*(t.variables for t in fit.design.fixed_terms))
            keys = keys[[c for c in keys.columns if c in used]]
        rows = means.of(new)
    table = means.table(rows, level)
    if "df" in table:
        table["conf_low"], table["conf_high"] = means.limits(
            table["estimate"].to_numpy(),
            table["std_error"].to_numpy(),
            table["df"].to_numpy(),
            level,
        )
        table = table.drop(columns=["statistic", "p_value"])
    warn_of_inestimable(means, rows, "predictions")
    return pd.concat([keys, table], axis=1)


def check_number(means: Means, n: int) -> None:
    """Refuse tables of more rows than can be answered one by one."""
    if means.tests_each and n > MOST_TESTED:
        raise NotApplicableError(
            f"predictions() finds degrees of freedom for each of {n} rows: "
            "give newdata or by=, or use fit.predict(re='population', "
            "interval='confidence')"
        )
    if means.at_once is not None and n > 10 * means.at_once:
        raise NotApplicableError(
            f"predictions() of {n} rows would hold every draw of each: give newdata or "
            "by=, or use fit.predict(re='population', interval='confidence')"
        )


def warn_of_inestimable(means: Means, rows: MeanRows, what: str) -> None:
    """One warning for all rows of a table that the data cannot tell."""
    blind = means.inestimable(rows)
    if blind.any():
        design = means.fit.design
        predict.warn_not_estimable(design, int(blind.sum()), len(blind), what)


def grouped(data: pd.DataFrame, by) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The combinations of the values of ``by`` that occur, and the rows of each."""
    by = _arguments.names("by", by, meaning="a variable's name")
    check_known(data, by)
    if not by:
        return pd.DataFrame(index=range(1)), [np.arange(len(data))]
    one = len(by) == 1  # by name alone, a level that is a tuple is not taken apart
    rows = data.reset_index(drop=True).groupby(by[0] if one else by, observed=True)
    groups = rows.indices
    columns: list[Any] = [[k] for k in groups] if one else list(groups)
    keys = pd.DataFrame(index=range(len(groups)))
    for j, name in enumerate(by):
        keys[name] = pd.Index([k[j] for k in columns], tupleize_cols=False)
    return keys, list(groups.values())


def contrasts(
    means: Means, factor: str, grid: str, adjust: str, level: float, ratio: bool
) -> pd.DataFrame:
    """Differences or ratios of the marginal means of all pairs of a factor's levels.

    Limits are for one contrast each; p-values are adjusted as asked.
    """
    grids.check(grid)
    _arguments.choice("adjust", adjust, ADJUST)
    ratio = _arguments.flag("ratio", ratio)
    if ratio and means.is_link:
        check_ratios(means.fit, "contrasts(type='link', ratio=True)")
    levels, rows = marginal_means(means, factor, grid)
    pairs = list(itertools.combinations(range(len(levels)), 2))
    first, second = (rows.take([pair[k] for pair in pairs]) for k in (0, 1))
    if ratio and not means.is_link:
        first, second = means.logarithm(first), means.logarithm(second)
        change = first.value - second.value
    else:
        change = means.change(first, second)
    compared = difference(first, second, change)
    table = means.table(compared, level, ratio)
    if adjust != "none":
        table["p_value"] = adjusted(table, adjust, len(levels))
    sign = "/" if ratio else "-"
    names = [f"{levels[i]} {sign} {levels[j]}" for i, j in pairs]
    table.insert(0, "contrast", names)
    warn_of_inestimable(means, compared, "contrasts")
    return table


def marginal_means(means: Means, factor: str, grid: str) -> tuple[list, MeanRows]:
    """Levels, and their means averaged over a grid of the rest."""
    fit = means.fit
    data = counted_data(fit)
    check_known(data, [factor])
    levels = grids.levels_of(data[factor])
    if len(levels) < 2 or len(levels) > 200:
        raise NotApplicableError(
            f"contrasts({factor!r}) compares levels, and there are {len(levels)}; for "
            f"a numeric variable use slopes({factor!r})"
        )
    offset = own_offset(fit, data)
    base = data
    if grid == "equal":
        base = grids.reference_grid(fit, data, factor)
        offset = np.full(len(base), offset.mean())
    every = [np.arange(len(base))]
    found = []
    for level in levels:
        column = grids.filled(data, factor, level, base)
        new = new_rows(means, base.assign(**{factor: column}), offset)
        found.append(
            averaged(lambda i, new=new: means.of(new.take(i)), len(base), every, means)
        )
    return levels, MeanRows.joined(found)


def adjusted(table: pd.DataFrame, adjust: str, n_levels: int) -> np.ndarray:
    """p-values of all pairs, adjusted for their number, (k,); NaN stays out."""
    if "p_value" not in table:
        raise NotApplicableError(
            f"adjust={adjust!r} is for p-values, and a posterior has none: its "
            "probabilities hold for all comparisons at once"
        )
    if adjust == "tukey":
        from scipy.stats import studentized_range

        q = np.sqrt(2) * np.abs(table["statistic"].to_numpy())
        return studentized_range.sf(q, n_levels, table["df"].to_numpy())
    return multiplicity.adjusted(table["p_value"].to_numpy(), adjust)


def check_known(data: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse names that are no variables of the model."""
    for name in names:
        if not isinstance(name, str):
            raise ArgumentError(
                f"{_arguments.shown(name)} is no name: slopes() takes one variable, "
                "contrasts() one factor, by= one name or a list of names"
            )
        if name not in data.columns:
            raise DataError(
                f"{name!r} is not a variable of the model; there are "
                f"{', '.join(map(str, data.columns))}"
            )
