"""Some rows of a design as a design of their own, coded as the whole is.

What ``fit_many`` fits alone, and what ``fits[i]`` is a fit of: the data set's rows with
the columns, the contrasts and the names that all data sets share. Levels that do not
occur go, and so do columns of X that depend on others in these rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import DataError, ModelError
from jaxglmm.formula.array_recipe import ArrayRecipe
from jaxglmm.formula.components import joined
from jaxglmm.formula.design import Design, RandomTerm, ResidualTerm
from jaxglmm.formula.expand import in_each, is_expanded
from jaxglmm.formula.levels import compress
from jaxglmm.formula.rank import drop_dependent
from jaxglmm.formula.recipe import FormulaRecipe
from jaxglmm.formula.residual_rows import of_rows
from jaxglmm.formula.tables import Columns

ALL = slice(None)


def _residual(design: Design, rows: np.ndarray) -> ResidualTerm | None:
    """The residual term of some rows, a dispersion formula's design with it."""
    term = design.residual
    if term is None:
        return None
    out = of_rows(term, rows)
    return out if term.part is None else replace(out, part=subset(term.part, rows))


def subset(design: Design, rows: np.ndarray, **changes: Any) -> Design:
    """The design of ``rows`` (k,) positions; changes: y, weights, offset, trials (k,).

    Raises:
        DataError, ModelError: nothing is left, or a grouping factor has one level.
    """
    if len(rows) == 0:
        raise DataError(
            "no row is left: every one has a missing value or weight 0",
            status=_status.TOO_FEW,
        )
    if is_expanded(design):
        return in_each(design, lambda one: subset(one, rows, **changes))
    if design.parts:
        return _of_parts(design, rows, changes)
    X, names, kept, dropped, missing = drop_dependent(design.X[rows], design.x_names)
    before = design.null_space
    place = {j: i for i, j in enumerate(kept)}
    fixed = tuple(
        replace(t, columns=tuple(place[j] for j in t.columns if j in place))
        for t in design.fixed_terms
    )
    terms, used = [], {}
    for term in design.terms:
        found, used[term.factor] = _term(term, rows)
        terms.append(found)
    given = {
        name: _take(getattr(design, name), rows)
        for name in ("y", "weights", "offset", "trials", "rows")
    }
    index: Any = design.index
    return replace(
        design,
        X=X,
        x_names=names,
        terms=tuple(terms),
        fixed_terms=fixed,
        dropped_columns=(*design.dropped_columns, *dropped),
        null_space=missing if before is None else before.restricted(kept, missing),
        n_missing=0,
        index=None if index is None else index[rows],
        recipe=_recipe(design.recipe, kept, used, rows),
        variables=_variables(design.variables, rows),
        residual=_residual(design, rows),
        **(given | changes),
    )


def _of_parts(design: Design, rows: np.ndarray, changes: dict[str, Any]) -> Design:
    """The same of several predictors, each with its columns."""
    own = {k: v for k, v in changes.items() if k != "offset"}
    parts = {name: subset(part, rows, **own) for name, part in design.parts.items()}
    out = joined(parts)
    offset = changes.get("offset")
    return out if offset is None else replace(out, offset=offset)


def _take(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[..., rows]


def _term(term: RandomTerm, rows: np.ndarray) -> tuple[RandomTerm, Any]:
    if term.known is not None:  # all of its levels stay, rows or not
        return replace(term, codes=term.codes[rows], values=term.values[rows]), ALL
    codes, used = compress(term.codes[rows], term.n_levels)
    if len(used) == 1:
        raise ModelError(
            f"grouping factor {term.factor!r} has one level only, "
            f"{term.levels[used[0]]!r}: its variance cannot be estimated"
        )
    found = replace(
        term, codes=codes, values=term.values[rows], levels=term.levels[used]
    )
    return found, used


def _recipe(recipe: Any, kept: tuple[int, ...], used: dict, rows: np.ndarray) -> Any:
    """The recipe that makes the same columns from new data."""
    # one of smooths has columns beside those of its formula's recipe
    if not isinstance(recipe, FormulaRecipe | ArrayRecipe):
        return None
    groups = {}
    for name, coding in recipe.groups.items():
        levels = used.get(name, ALL)
        parts = coding.part_levels
        combinations = coding.combinations
        if combinations is None:
            parts = (parts[0][levels],)
        else:
            combinations = combinations[levels]
        groups[name] = replace(
            coding,
            levels=coding.levels[levels],
            part_levels=parts,
            combinations=combinations,
        )
    return replace(
        recipe,
        kept=tuple(recipe.kept[j] for j in kept),
        groups=groups,
        training=None if recipe.training is None else _variables(recipe.training, rows),
    )


def _variables(variables: Any, rows: np.ndarray) -> Any:
    if isinstance(variables, Columns):
        columns = variables.columns.items()
        return Columns({name: column.take(rows) for name, column in columns})
    return {name: np.asarray(values)[rows] for name, values in variables.items()}
