"""The reference grid of marginal means: its cells, their weights, and what is nested.

All combinations of the factors' levels, numbers at their means; numbers of two values
are both kept, as R's emmeans keeps them. ``at`` says otherwise. Where a factor never
stands in a term without another (``class / variety``), it is nested in that, and only
the combinations that are in the data are cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, DataError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.formula.matrix import as_numbers
from jaxglmm.formula.recipe import FormulaRecipe
from jaxglmm.postestimation.prediction import grids

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

WEIGHTS = ("equal", "proportional", "outer", "cells", "flat")


@dataclass(frozen=True)
class Grid:
    """Cells of a reference grid.

    data: a row a cell, all variables of the model; axes: variable -> its values, in
    order; parents: factor -> those that it is nested in; rows: the data; categories:
    the axes that are factors.
    """

    data: pd.DataFrame
    axes: dict[str, list]
    parents: dict[str, tuple[str, ...]]
    rows: pd.DataFrame
    categories: tuple[str, ...]

    @cached_property
    def counts(self) -> np.ndarray:
        """(cells,) rows of the data in each cell."""
        return counted(self.rows, self.data, self.categories)

    def with_parents(self, names: Sequence[str]) -> list[str]:
        """The names, each nested factor followed by what it is nested in."""
        out = list(names)
        for name in names:
            out += [p for p in self.parents.get(name, ()) if p not in out]
        return out

    def weights(self, by: Sequence[str], how: Any) -> tuple[np.ndarray, list[str]]:
        """Weights of the cells (cells,), and the factors averaged over.

        by: the variables whose combinations have a mean each.
        """
        over = [n for n in self.axes if n not in by]
        if not isinstance(how, str):
            return self._given(how, by, over), over
        _arguments.choice("weights", how, WEIGHTS)
        cells = self.data
        if how == "equal" or not over:
            return np.ones(len(cells)), over
        if how in ("cells", "flat"):
            found = self.counts if how == "cells" else (self.counts > 0) * 1.0
            return found, over
        sets = [over] if how == "proportional" else [[n] for n in over]
        weight = np.ones(len(cells))
        for names in sets:
            weight = weight * counted(self.rows, cells, names)
        return weight, over

    def _given(self, how: Any, by: Sequence[str], over: list[str]) -> np.ndarray:
        values = as_numbers("weights", how, "give a word or numbers")
        sizes = [len(self.axes[n]) for n in over]
        if not over:
            raise ArgumentError("weights= has numbers, and nothing is averaged over")
        if values.shape != (int(np.prod(sizes)),) or not (values >= 0).all():
            raise ArgumentError(
                f"weights={_arguments.shown(how)}: give one of "
                f"{', '.join(map(repr, WEIGHTS))}, or {int(np.prod(sizes))} numbers, "
                f"none negative, one for each combination of {', '.join(over)}"
            )
        place = {
            c: k for k, c in enumerate(itertools.product(*(self.axes[n] for n in over)))
        }
        return np.array([values[place[c]] for c in keys_of(self.data, over)])


def reference_grid(
    fit: FittedModel,
    rows: pd.DataFrame,
    at: Mapping | None,
    without: Sequence[str] = (),
) -> Grid:
    """The cells of a model.

    Args:
        fit: whose.
        rows: the variables of the model, rows that count.
        at: variable -> its values in the grid; default all levels, or the mean.
        without: numbers that are one value whatever their number of values.

    Raises:
        DataError: for a variable or level that is not there.
        NotApplicableError: for a grid of more than a million cells.
    """
    terms = fit.design.fixed_terms
    used = set().union(*(t.variables for t in terms))
    coded = set().union(*(t.factors for t in terms))
    at = _checked(at, rows, used, _of_offsets(fit))
    axes, rest = {}, {}
    for name in rows.columns:
        number = grids.is_number(rows[name])
        if name in at:
            axes[name] = at[name]
        elif name in coded and number:
            axes[name] = grids.representatives(fit, rows, name)
        elif number and name in used and name not in without and _two(rows[name]):
            axes[name] = grids.levels_of(rows[name])
        elif number:
            rest[name] = rows[name].mean()
        elif name in used:
            axes[name] = grids.levels_of(rows[name])
        else:
            rest[name] = rows[name].iloc[0]
    size = float(np.prod([len(v) for v in axes.values()], dtype=float))
    if size > grids.MOST_CELLS:
        raise NotApplicableError(
            f"the reference grid would have {size:.3g} cells, of "
            f"{', '.join(axes)}: give some of their levels by at="
        )
    cells = list(itertools.product(*axes.values())) or [()]
    data = pd.DataFrame(cells, columns=list(axes), index=range(len(cells)))
    categories = [n for n in axes if n in coded or not grids.is_number(rows[n])]
    parents = nesting(fit, categories)
    for name, above in parents.items():
        known = set(keys_of(rows, [name, *above]))
        data = data[[key in known for key in keys_of(data, [name, *above])]]
    data = data.reset_index(drop=True)
    for name in axes:
        whole = grids.is_number(rows[name]) and name not in coded
        kind: Any = float if whole else rows[name].dtype
        data[name] = data[name].astype(kind)
    for name, value in rest.items():
        number = grids.is_number(rows[name])
        data[name] = value if number else grids.filled(rows, name, value, data)
    return Grid(data, axes, parents, rows, tuple(categories))


def _two(values: pd.Series) -> bool:
    return values.nunique() == 2


def keys_of(table: pd.DataFrame, names: Sequence[str]) -> list[tuple]:
    """The values of some columns, a tuple a row."""
    return list(table[list(names)].itertuples(index=False, name=None))


def counted(
    rows: pd.DataFrame, cells: pd.DataFrame, names: Sequence[str]
) -> np.ndarray:
    """How many rows have the values of each cell in these variables, (cells,)."""
    if not names:
        return np.full(len(cells), float(len(rows)))
    known: dict[tuple, float] = {}
    for key in keys_of(rows, names):
        known[key] = known.get(key, 0.0) + 1.0
    return np.array([known.get(key, 0.0) for key in keys_of(cells, names)])


def nesting(fit: FittedModel, factors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Factor -> those without which it stands in no term, where not so in return."""
    above = {}
    for name in factors:
        sets = [t.variables for t in fit.design.fixed_terms if name in t.variables]
        common = frozenset.intersection(*map(frozenset, sets)) if sets else frozenset()
        above[name] = tuple(f for f in factors if f in common and f != name)
    return {
        name: found
        for name, those in above.items()
        if (found := tuple(f for f in those if name not in above[f]))
    }


def mapping(at: Any) -> Mapping:
    """What ``at`` must be."""
    if at is None:
        return {}
    if not isinstance(at, Mapping):
        raise ArgumentError(
            f"at={_arguments.shown(at)} must be a dict variable -> value or values"
        )
    return at


def _finite(value: Any) -> bool:
    return _arguments.is_finite(value) and bool(np.isfinite(float(value)))


def _of_offsets(fit: FittedModel) -> frozenset[str]:
    """Variables of ``offset(...)`` terms, which ``at`` may hold as well."""
    recipe = fit.design.recipe
    known = isinstance(recipe, FormulaRecipe)
    return recipe.offset_variables if known else frozenset()


def _checked(
    at: Mapping | None, rows: pd.DataFrame, used: set[str], offsets: frozenset[str]
) -> dict[str, list]:
    """Values by variable, those of factors as the data spell them."""
    at = mapping(at)
    out = {}
    for name, given in at.items():
        if name not in used and name not in offsets:
            raise DataError(
                f"at={{{name!r}: ...}}: the fixed effects have no such variable; they "
                f"have {', '.join(sorted(used)) or 'none'}"
            )
        several = isinstance(given, list | tuple | np.ndarray | pd.Series | pd.Index)
        some = np.ravel(np.asarray(given, object)).tolist() if several else [given]
        if not some:
            raise ArgumentError(f"at={{{name!r}: []}}: give at least one value")
        if grids.is_number(rows[name]):
            if not all(map(_finite, some)):
                raise ArgumentError(f"at={{{name!r}: ...}}: give finite numbers")
            out[name] = [float(v) for v in some]
            continue
        levels = grids.levels_of(rows[name])
        text = {str(level): level for level in levels}
        unknown = [v for v in some if str(v) not in text]
        if unknown:
            raise DataError(
                f"at={{{name!r}: ...}}: there is no level {unknown[0]!r}; there are "
                f"{', '.join(map(str, levels[:20]))}"
            )
        out[name] = [text[str(v)] for v in some]
    return out
