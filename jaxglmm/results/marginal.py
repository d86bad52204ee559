"""Predictions, slopes and contrasts of the fixed effects, by the delta method.

Each is a linear function L beta of the coefficients, so its Jacobian is L itself and
its variance L V L'. L comes from the recipe of the design: the same columns made from
data in which a variable has been changed. Tests have the denominator degrees of freedom
of the fit. Random effects are at zero, the population's mean.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.formula.design import NewRows
from jaxglmm.results import predict
from jaxglmm.results.coefficients import t_p_values, t_quantile
from jaxglmm.results.data import frame

if TYPE_CHECKING:
    from jaxglmm.results.fit import Fit

ADJUST = ("none", "bonferroni", "holm", "tukey")
GRIDS = ("equal", "observed")
STEP = 6e-6  # of a variable's spread: about the cube root of the rounding error


def data_of(fit: Fit) -> pd.DataFrame:
    """The variables of the model, rows that were used."""
    if fit.design.recipe is None:
        raise NotApplicableError(
            "This fit's design has no recipe, so its variables cannot be changed. Fit "
            "with jg.lmm"
        )
    return frame(fit.design)


def fixed_rows(fit: Fit, data) -> NewRows:
    """The fixed part of new rows; grouping factors need not be among the data."""
    return predict.rows(fit, data, random=False)


def columns(fit: Fit, data: pd.DataFrame) -> np.ndarray:
    """X of new rows; differences need no offset, so none is asked for."""
    return predict.rows(fit, data, offset=np.zeros(len(data)), random=False).X


def linear(fit: Fit, L: np.ndarray, shift, level: float) -> pd.DataFrame:
    """estimate, std_error, df, statistic, p_value and limits of L beta + shift.

    Args:
        fit: the fit.
        L: (k, p).
        shift: (k,) offsets or 0.
        level: coverage of conf_low, conf_high.
    """
    predict.check_level(level)
    estimate = L @ fit.coefficients + shift
    cov = fit.coefficient_covariance()
    error = np.sqrt(np.maximum(predict.fixed_variance(L, cov), 0.0))
    df = np.array([_df(fit, row) for row in L])
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


def _df(fit: Fit, row: np.ndarray) -> float:
    """Denominator degrees of freedom of one row of L."""
    if not row.any():
        return np.nan
    if fit.ddf == "residual":
        return float(fit.nobs - fit.design.p)
    from jaxglmm.results import inference

    return float(inference.contrast_test(fit, row[None], fit.ddf)["den_df"])


def predictions(fit: Fit, newdata, by, level: float) -> pd.DataFrame:
    """Population predictions a row of the data, or their means by groups of rows."""
    data = data_of(fit) if newdata is None else pd.DataFrame(newdata)
    new = predict.rows(fit, None) if newdata is None else fixed_rows(fit, data)
    if by is None:
        if len(data) > MOST_TESTED:
            raise NotApplicableError(
                f"predictions() finds degrees of freedom for each of {len(data)} rows: "
                "give newdata or by=, or use fit.predict(re='population', "
                "interval='confidence')"
            )
        table = linear(fit, new.X, new.offset, level).drop(
            columns=["statistic", "p_value"]
        )
        return pd.concat([data.reset_index(drop=True), table], axis=1)
    by = [by] if isinstance(by, str) else list(by)
    _known(data, by)
    groups = data.reset_index(drop=True).groupby(by, observed=True).indices
    L = np.array([new.X[rows].mean(axis=0) for rows in groups.values()])
    shift = np.array(
        [np.mean(np.asarray(new.offset)[rows]) for rows in groups.values()]
    )
    keys = pd.DataFrame(
        [k if isinstance(k, tuple) else (k,) for k in groups], columns=by
    )
    table = linear(fit, L, shift, level).drop(columns=["statistic", "p_value"])
    return pd.concat([keys, table], axis=1)


MOST_TESTED = 2000  # rows up to which each gets its own degrees of freedom


def slopes(fit: Fit, variable: str, newdata, by, level: float) -> pd.DataFrame:
    """Average slope of the predictions in a numeric variable, over rows or by groups.

    The Jacobian is a central difference of the columns of X: exact where they are
    polynomials of degree two at most, to about ten digits elsewhere.
    """
    data = data_of(fit) if newdata is None else pd.DataFrame(newdata)
    data = data.reset_index(drop=True)
    by = [by] if isinstance(by, str) else list(by or [])
    _known(data, [variable, *by])
    x = data[variable]
    if not pd.api.types.is_numeric_dtype(x) or pd.api.types.is_bool_dtype(x):
        raise NotApplicableError(
            f"slopes({variable!r}): the variable is not numeric; "
            f"contrasts({variable!r}) compares its levels"
        )
    x = x.to_numpy(float)
    spread = np.std(x) or max(np.abs(x).max(), 1.0)
    step = STEP * spread
    # of the numbers that the machine really added and subtracted
    above, below = x + step, x - step
    rise = columns(fit, data.assign(**{variable: above})) - columns(
        fit, data.assign(**{variable: below})
    )
    jacobian = rise / (above - below)[:, None]
    groups = data.groupby(by, observed=True).indices if by else {(): np.arange(len(x))}
    L = np.array([jacobian[rows].mean(axis=0) for rows in groups.values()])
    table = linear(fit, L, 0.0, level)
    table.insert(0, "variable", variable)
    if not by:
        return table
    keys = pd.DataFrame(
        [k if isinstance(k, tuple) else (k,) for k in groups], columns=by
    )
    return pd.concat([keys, table], axis=1)


def contrasts(
    fit: Fit, factor: str, grid: str, adjust: str, level: float
) -> pd.DataFrame:
    """Differences of the marginal means of all pairs of a factor's levels.

    Limits are for one difference each; p-values are adjusted as asked.
    """
    for name, value, allowed in (("grid", grid, GRIDS), ("adjust", adjust, ADJUST)):
        if value not in allowed:
            raise NotApplicableError(f"{name}={value!r} is not one of {allowed}")
    levels, L = marginal_rows(fit, factor, grid)
    pairs = list(itertools.combinations(range(len(levels)), 2))
    table = linear(fit, np.array([L[i] - L[j] for i, j in pairs]), 0.0, level)
    table["p_value"] = adjusted(table, adjust, len(levels))
    table.insert(0, "contrast", [f"{levels[i]} - {levels[j]}" for i, j in pairs])
    return table


def marginal_rows(fit: Fit, factor: str, grid: str):
    """Levels, and (k, p) rows of X averaged over a grid of the rest."""
    data = data_of(fit)
    _known(data, [factor])
    levels = levels_of(data[factor])
    if len(levels) < 2 or len(levels) > 200:
        raise NotApplicableError(
            f"contrasts({factor!r}) compares levels, and there are {len(levels)}; for "
            f"a numeric variable use slopes({factor!r})"
        )
    base = reference_grid(fit, data, factor) if grid == "equal" else data
    rows = [
        columns(fit, base.assign(**{factor: _filled(data, factor, v, base)}))
        for v in levels
    ]
    return levels, np.array([X.mean(axis=0) for X in rows])


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
