"""A design for every category but the first: the same columns, coefficients of its own.

Random terms become one term over all categories, so that their effects are correlated
across these (as in the R package mclogit, function mblogit).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.formula.components import joined
from jaxglmm.formula.design import MARK, Design, NewRows, RandomTerm


@dataclass(frozen=True)
class CategoriesRecipe:
    """How the design of one category was made, for all by their names."""

    part: Any
    names: tuple[str, ...]

    @property
    def groups(self) -> dict[str, Any]:
        """Grouping factors by name."""
        return getattr(self.part, "groups", {})

    def new_rows(
        self, data, *, new_levels: str = "zero", random: bool = True, offset=None
    ) -> NewRows:
        """The design of new rows; offset: of all categories but the first."""
        one = self.part.new_rows(
            data, new_levels=new_levels, random=random, offset=offset
        )
        K = len(self.names)
        X = np.concatenate([one.X] * K, axis=1)
        offset = np.broadcast_to(one.offset, (len(one.X),))
        terms = tuple(wide(term, self.names) for term in one.terms)
        own = (replace(one, terms=()),) * K
        return NewRows(X, np.stack([offset] * K), terms, one.index, None, own)

    def sum_coded(self) -> np.ndarray:
        """X of all categories with sum-to-zero contrasts."""
        return np.concatenate([self.part.sum_coded()] * len(self.names), axis=1)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; see ``FormulaRecipe.to_dict``."""
        part = self.part.to_dict()
        return {"kind": "categories", "part": part, "names": list(self.names)}

    def using(self, functions: Mapping[str, Any], trusted: bool) -> CategoriesRecipe:
        """The same recipe, whose formula may call these functions."""
        return CategoriesRecipe(self.part.using(functions, trusted), self.names)


def wide(term: RandomTerm, names: Sequence[str]) -> RandomTerm:
    """A random term with the columns of every category, by their names."""
    if term.covariance not in ("us", "diag"):
        raise ModelError(
            f"random effects of a multinomial model are correlated across categories, "
            f"or independent by (x || {term.factor}); {term.covariance!r} is a "
            "structure for one response"
        )
    q = len(term.names)
    return replace(
        term,
        names=tuple(f"{name}{MARK}{column}" for name in names for column in term.names),
        values=np.concatenate([term.values] * len(names), axis=1),
        predictor=tuple(k for k in range(len(names)) for _ in range(q)),
    )


def expanded(design: Design, names: Sequence[str]) -> Design:
    """The design of all categories but the first, whose names these are."""
    names = tuple(names)
    bare = replace(design, terms=())
    out = joined({f"{name}": bare for name in names})
    marked = [f"{name}{MARK}{x}" for name in names for x in design.x_names]
    first = len(design.fixed_terms)
    fixed = tuple(
        replace(term, name=f"{names[0]}{MARK}{term.name}") if k < first else term
        for k, term in enumerate(out.fixed_terms)
    )
    offset = out.offset
    if offset is not None and len(names) == 1:
        offset = offset[0]
    recipe = None
    if design.recipe is not None:
        recipe = CategoriesRecipe(design.recipe, names)
    return replace(
        out,
        x_names=tuple(marked),
        terms=tuple(wide(term, names) for term in design.terms),
        fixed_terms=fixed,
        offset=offset,
        recipe=recipe,
    )


def is_expanded(design: Design) -> bool:
    """Whether this is the design of several categories, the same columns for each."""
    if not design.parts:
        return False
    first = f"{next(iter(design.parts))}{MARK}"
    return design.p > 0 and design.x_names[0].startswith(first)


def contracted(design: Design) -> Design:
    """The design of one category, from which that of all was made."""
    names = tuple(design.parts)
    first, offset = design.parts[names[0]], design.offset
    return replace(
        first,
        y=design.y,
        weights=design.weights,
        offset=None if offset is None else offset.reshape(-1, design.n)[0],
        trials=design.trials,
        terms=tuple(_narrow(term, names) for term in design.terms),
        formula=design.formula,
        rows=design.rows,
        index=design.index,
        recipe=getattr(design.recipe, "part", None),
        variables=design.variables,
    )


def _narrow(term: RandomTerm, names: Sequence[str]) -> RandomTerm:
    """The inverse of ``wide``."""
    q = len(term.names) // len(names)
    columns = tuple(x.removeprefix(f"{names[0]}{MARK}") for x in term.names[:q])
    return replace(term, names=columns, values=term.values[:, :q], predictor=0)


def in_each(design: Design, change: Callable[[Design], Design]) -> Design:
    """The design of all categories after the same change of that of each."""
    return expanded(change(contracted(design)), tuple(design.parts))
