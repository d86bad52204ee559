"""The reference grid: the rows over which marginal means are averaged.

All combinations of the levels of the factors, each with the same weight, and numeric
variables at their means (Searle, Speed and Milliken 1980, The American Statistician 34,
216; R's emmeans). What is a factor is decided by how a variable enters the design, not
by its type: text, categories, logical values, numbers within ``C()`` or ``factor()``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.formula.recipe import FormulaRecipe

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

GRIDS = ("equal", "observed")
MOST_CELLS = 1_000_000


def check(grid: str) -> None:
    """Refuse a word that is not among the choices."""
    _arguments.choice("grid", grid, GRIDS)


def levels_of(values: pd.Series) -> list:
    """Levels in the order of the categories, or sorted."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        present = set(values.unique())
        return [v for v in values.cat.categories if v in present]
    return sorted(values.unique())


def filled(data: pd.DataFrame, name: str, value, base: pd.DataFrame) -> pd.Series:
    """A column of one value with the type that the variable has."""
    return pd.Series([value] * len(base), index=base.index).astype(data[name].dtype)


def reference_grid(
    fit: FittedModel, data: pd.DataFrame, without: str | None = None
) -> pd.DataFrame:
    """All combinations of the factors in X, numeric variables at their means.

    Args:
        fit: whose.
        data: the variables of the model, rows that count.
        without: a factor whose levels are filled in by the caller.
    """
    used = set().union(*(term.variables for term in fit.design.fixed_terms))
    coded = set().union(*(term.factors for term in fit.design.fixed_terms))
    axes, rest = {}, {}
    for name in data.columns.drop(without or []):
        if name in coded and is_number(data[name]):
            axes[name] = representatives(fit, data, name)
        elif is_number(data[name]):
            rest[name] = data[name].mean()
        elif name in used:
            axes[name] = levels_of(data[name])
        else:
            rest[name] = data[name].iloc[0]
    size = int(np.prod([len(levels) for levels in axes.values()], dtype=float))
    if size > MOST_CELLS:
        raise NotApplicableError(
            f"grid='equal': the factors {', '.join(axes)} have {size:.3g} combinations "
            "of levels. Use grid='observed', which averages over the rows of the data"
        )
    cells = list(itertools.product(*axes.values())) or [()]
    base = pd.DataFrame(cells, columns=list(axes), index=range(len(cells)))
    for name in axes:
        base[name] = base[name].astype(data[name].dtype)
    for name, value in rest.items():
        constant = is_number(data[name])
        base[name] = value if constant else filled(data, name, value, base)
    return base


def is_number(values: pd.Series) -> bool:
    """Whether a variable is a number, and not yes or no."""
    numeric = pd.api.types.is_numeric_dtype(values)
    return numeric and not pd.api.types.is_bool_dtype(values)


def representatives(fit: FittedModel, data: pd.DataFrame, name: str) -> list:
    """A value for every level that a number is made into.

    For ``C(x)`` these are its values. Where an expression such as ``I(x > 0)`` makes
    few levels of many values, one stands for each: the nearest to their mean.
    """
    x = data[name]
    values = np.array(levels_of(x))
    codes = _levels_made(fit, data, name)
    if codes is None:
        return values.tolist()
    known = x.to_numpy(float)
    found = []
    for level in np.unique(codes, axis=0):
        of_level = known[(codes == level).all(axis=1)]
        nearest = np.abs(of_level - of_level.mean()).argmin()
        found.append(of_level[nearest])
    return sorted(values[np.searchsorted(values, found)].tolist())


def _levels_made(fit: FittedModel, data: pd.DataFrame, name: str) -> np.ndarray | None:
    """Codes (n, k) of the factors made of this variable alone; None for its values."""
    recipe = fit.design.recipe
    if not isinstance(recipe, FormulaRecipe):
        return None
    codes = recipe.codes_made_of(name)
    if not codes:
        return None
    made = np.column_stack(codes)[fit.design.counted]
    return made if len(made) == len(data) else None
