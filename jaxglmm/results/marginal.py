"""Predictions, slopes and contrasts, averaged over rows, by the delta method.

Each is a function of the means of rows (``means``): averages over groups of rows of the
means themselves, of their rates of change, or differences and ratios of such averages.
The rows are made by the recipe of the design, from data in which a variable has been
changed; the Jacobian of an average is the average of the Jacobians. Tests have the
denominator degrees of freedom of the fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.results import predict
from jaxglmm.results.coefficients import t_p_values, t_quantile
from jaxglmm.results.data import frame, pandas_frame
from jaxglmm.results.frames import check_ratios, exponentiated
from jaxglmm.results.means import Means, Rows

if TYPE_CHECKING:
    from jaxglmm.results.fit import Fit

ADJUST = ("none", "bonferroni", "holm", "tukey")
GRIDS = ("equal", "observed")
STEP = 6e-6  # of a variable's spread: about the cube root of the rounding error
MOST_TESTED = 2000  # rows up to which each gets its own degrees of freedom


def data_of(fit: Fit) -> pd.DataFrame:
    """The variables of the model, rows that were used."""
    if fit.design.recipe is None:
        raise NotApplicableError(
            "This fit's design has no recipe, so its variables cannot be changed. Fit "
            "with a formula or the arrays of jg.lmm and jg.glmm"
        )
    return frame(fit.design)


def rows_of(means: Means, data, offset=None) -> Rows:
    """Means of new rows; grouping factors need not be among the data."""
    if means.random:
        return means.at(predict.rows_at_random(means.fit, data, offset))
    return means.at(predict.rows(means.fit, data, offset=offset, random=False))


def own_offset(fit: Fit, data: pd.DataFrame) -> np.ndarray:
    """The offset of the fit that is no term of its formula, (n,)."""
    given = np.zeros(len(data))
    if fit.design.offset is None:
        return given
    of_the_formula = predict.rows(fit, data, offset=given, random=False).offset
    return fit.design.offset - of_the_formula


def table_of(
    means: Means, estimate: np.ndarray, jacobian: np.ndarray, level: float
) -> pd.DataFrame:
    """estimate, std_error, df, statistic, p_value and symmetric limits.

    Args:
        means: what the estimates are functions of.
        estimate: (k,).
        jacobian: (k, number of parameters).
        level: coverage of conf_low, conf_high.
    """
    predict.check_level(level)
    error = np.sqrt(np.maximum(predict.fixed_variance(jacobian, means.covariance), 0.0))
    df = means.df(jacobian)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = estimate / error
    half = t_quantile(level, df) * error
    return pd.DataFrame(
        {
            "estimate": estimate,
            "std_error": error,
            "df": df,
            "statistic": t,
            "p_value": t_p_values(t, df),
            "conf_low": estimate - half,
            "conf_high": estimate + half,
        }
    )


def averaged(rows: Rows, groups: Iterable[np.ndarray]) -> Rows:
    """Means of groups of rows, given by their positions."""
    taken = list(groups)
    if any(len(i) == 0 for i in taken):
        raise DataError("newdata has no rows to average over")
    k = rows.jacobian.shape[1]
    return Rows(
        np.array([rows.value[i].mean() for i in taken]),
        np.array([rows.jacobian[i].mean(axis=0) for i in taken]).reshape(-1, k),
        np.array([rows.offset[i].mean() for i in taken]),
    )


def predictions(means: Means, newdata, by, level: float, offset=None) -> pd.DataFrame:
    """Predictions a row of the data, or their means by groups of rows."""
    fit = means.fit
    predict.check_offset(newdata, offset)
    if newdata is None:
        data = data_of(fit)
        rows = means.at(predict.rows(fit, None))
    else:
        data = pandas_frame(newdata)
        rows = rows_of(means, data, offset)
    if by is not None:
        keys, groups = grouped(data, by)
        rows = averaged(rows, groups)
    else:
        if means.tests_each and len(data) > MOST_TESTED:
            raise NotApplicableError(
                f"predictions() finds degrees of freedom for each of {len(data)} rows: "
                "give newdata or by=, or use fit.predict(re='population', "
                "interval='confidence')"
            )
        keys = data.reset_index(drop=True)
    table = table_of(means, rows.value, rows.jacobian, level)
    table["conf_low"], table["conf_high"] = means.limits(
        rows.value, table["std_error"].to_numpy(), table["df"].to_numpy(), level
    )
    return pd.concat([keys, table.drop(columns=["statistic", "p_value"])], axis=1)


def grouped(data: pd.DataFrame, by) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The combinations of the values of ``by`` that occur, and the rows of each."""
    by = [by] if isinstance(by, str) else list(by)
    _known(data, by)
    if not by:
        return pd.DataFrame(index=range(1)), [np.arange(len(data))]
    groups = data.reset_index(drop=True).groupby(by, observed=True).indices
    keys = [k if isinstance(k, tuple) else (k,) for k in groups]
    return pd.DataFrame(keys, columns=by), list(groups.values())


def slopes(
    means: Means, variable: str, newdata, by, level: float, offset=None
) -> pd.DataFrame:
    """Average slope of the means in a numeric variable, over rows or by groups.

    Mean and Jacobian are differenced centrally: to about ten digits, exact where a
    linear model is a polynomial of degree two at most.
    """
    fit = means.fit
    predict.check_offset(newdata, offset)
    data = data_of(fit) if newdata is None else pandas_frame(newdata)
    data = data.reset_index(drop=True)
    _known(data, [variable])
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
        rows_of(means, data.assign(**{variable: values}), offset)
        for values in (above, below)
    )
    width = above - below
    rate = Rows(
        means.change(high, low) / width,
        (high.jacobian - low.jacobian) / width[:, None],
        high.offset,
    )
    mean = averaged(rate, groups)
    table = table_of(means, mean.value, mean.jacobian, level)
    table.insert(0, "variable", variable)
    return pd.concat([keys, table], axis=1)


def contrasts(
    means: Means, factor: str, grid: str, adjust: str, level: float, ratio: bool
) -> pd.DataFrame:
    """Differences or ratios of the marginal means of all pairs of a factor's levels.

    Limits are for one contrast each; p-values are adjusted as asked.
    """
    for name, value, allowed in (("grid", grid, GRIDS), ("adjust", adjust, ADJUST)):
        if value not in allowed:
            raise NotApplicableError(f"{name}={value!r} is not one of {allowed}")
    if ratio and means.is_link:
        check_ratios(means.fit, "contrasts(type='link', ratio=True)")
    levels, rows = marginal_means(means, factor, grid)
    pairs = list(itertools.combinations(range(len(levels)), 2))
    first, second = (rows.take([pair[k] for pair in pairs]) for k in (0, 1))
    if ratio and not means.is_link:
        first, second = logarithm(first), logarithm(second)
        change = first.value - second.value
    else:
        change = means.change(first, second)
    table = table_of(means, change, first.jacobian - second.jacobian, level)
    table["p_value"] = adjusted(table, adjust, len(levels))
    if ratio:
        table = exponentiated(table)
    sign = "/" if ratio else "-"
    names = [f"{levels[i]} {sign} {levels[j]}" for i, j in pairs]
    table.insert(0, "contrast", names)
    return table


def logarithm(rows: Rows) -> Rows:
    """Logarithms of means, which must be positive."""
    if not (rows.value > 0).all():
        raise NotApplicableError(
            f"ratio=True: a mean is {np.min(rows.value):.3g}, and ratios need positive "
            "means. Use differences (ratio=False)"
        )
    return Rows(np.log(rows.value), rows.jacobian / rows.value[:, None], rows.offset)


def marginal_means(means: Means, factor: str, grid: str) -> tuple[list, Rows]:
    """Levels, and their means averaged over a grid of the rest."""
    fit = means.fit
    data = data_of(fit)
    _known(data, [factor])
    levels = levels_of(data[factor])
    if len(levels) < 2 or len(levels) > 200:
        raise NotApplicableError(
            f"contrasts({factor!r}) compares levels, and there are {len(levels)}; for "
            f"a numeric variable use slopes({factor!r})"
        )
    offset = own_offset(fit, data)
    base = data
    if grid == "equal":
        base = reference_grid(fit, data, factor)
        offset = np.full(len(base), offset.mean())
    found = [
        rows_of(means, base.assign(**{factor: _filled(data, factor, v, base)}), offset)
        for v in levels
    ]
    every = [np.arange(len(base))]
    return levels, Rows.joined([averaged(rows, every) for rows in found])


def levels_of(values: pd.Series) -> list:
    """Levels in the order of the categories, or sorted."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        present = set(values.unique())
        return [v for v in values.cat.categories if v in present]
    return sorted(values.unique())


def _filled(data: pd.DataFrame, name: str, value, base: pd.DataFrame) -> pd.Series:
    """A column of one value with the type that the variable has."""
    return pd.Series([value] * len(base), index=base.index).astype(data[name].dtype)


def reference_grid(fit: Fit, data: pd.DataFrame, factor: str) -> pd.DataFrame:
    """All combinations of the other factors in X, numeric variables at their means."""
    used = set().union(*(term.variables for term in fit.design.fixed_terms)) - {factor}
    axes, rest = {}, {}
    for name in data.columns.drop(factor):
        numeric = pd.api.types.is_numeric_dtype(data[name])
        if numeric and not pd.api.types.is_bool_dtype(data[name]):
            rest[name] = data[name].mean()
        elif name in used:
            axes[name] = levels_of(data[name])
        else:
            rest[name] = data[name].iloc[0]
    cells = list(itertools.product(*axes.values())) or [()]
    base = pd.DataFrame(cells, columns=list(axes), index=range(len(cells)))
    for name in axes:
        base[name] = base[name].astype(data[name].dtype)
    for name, value in rest.items():
        numeric = pd.api.types.is_numeric_dtype(data[name])
        base[name] = value if numeric else _filled(data, name, value, base)
    return base


def adjusted(table: pd.DataFrame, adjust: str, n_levels: int) -> np.ndarray:
    """p-values of all pairs, adjusted for their number, (k,)."""
    p = table["p_value"].to_numpy()
    k = len(p)
    if adjust == "bonferroni":
        return np.minimum(p * k, 1.0)
    if adjust == "holm":
        order = np.argsort(p)
        steps = np.maximum.accumulate(p[order] * (k - np.arange(k)))
        out = np.empty(k)
        out[order] = np.minimum(steps, 1.0)
        return out
    if adjust == "tukey":
        from scipy.stats import studentized_range

        q = np.sqrt(2) * np.abs(table["statistic"].to_numpy())
        return studentized_range.sf(q, n_levels, table["df"].to_numpy())
    return p


def _known(data: pd.DataFrame, names: list[str]) -> None:
    for name in names:
        if name not in data.columns:
            raise DataError(
                f"{name!r} is not a variable of the model; there are "
                f"{', '.join(map(str, data.columns))}"
            )
