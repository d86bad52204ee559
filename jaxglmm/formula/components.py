"""Several formulas of one model: the mean, and what else has a linear predictor.

The mean's formula has the response; the others are right sides, ``"~ x + (1 | g)"``, in
the same language. A row is used where nothing is missing in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula.against_table import variables_in
from jaxglmm.formula.design import (
    MARK,
    Design,
    FixedTerm,
    NewRows,
    RandomTerm,
    joined_rows,
)
from jaxglmm.formula.given import OFFSET, in_table
from jaxglmm.formula.residual_rows import of_dispersion
from jaxglmm.formula.smooth_terms import SmoothCurve
from jaxglmm.formula.smooths import (
    SmoothRecipe,
    design_from_formula,
    resolved,
    taken_apart,
)
from jaxglmm.formula.tables import Columns, as_table
from jaxglmm.formula.text import call, shown, split, translate


@dataclass(frozen=True)
class ComponentsRecipe:
    """How the designs of several predictors were made, by the name of each."""

    parts: Mapping[str, Any]

    @property
    def groups(self) -> dict[str, Any]:
        """Grouping factors of all of them by name."""
        found = [getattr(part, "groups", {}) for part in self.parts.values()]
        return {name: group for groups in found for name, group in groups.items()}

    @property
    def smooths(self) -> tuple[SmoothCurve, ...]:
        """Smooths of all of them, labelled as their terms are."""
        first = next(iter(self.parts))
        return tuple(
            replace(s, label=s.label if name == first else name + MARK + s.label)
            for name, part in self.parts.items()
            if isinstance(part, SmoothRecipe)
            for s in part.smooths
        )

    @property
    def kept(self) -> tuple[tuple[int, ...], ...]:
        """Of each smooth the fixed columns that are in X."""
        found = [p.kept for p in self.parts.values() if isinstance(p, SmoothRecipe)]
        return tuple(k for own in found for k in own)

    def new_rows(
        self,
        data,
        *,
        new_levels: str = "zero",
        random: bool = True,
        offset=None,
    ) -> NewRows:
        """The design of new rows; offset: of the mean."""
        table = as_table(data)
        options = {"new_levels": new_levels, "random": random}
        given = [offset, *[None] * (len(self.parts) - 1)]
        made = zip(self.parts.values(), given, strict=True)
        return joined_rows(
            tuple(part.new_rows(table, offset=own, **options) for part, own in made)
        )

    def sum_coded(self) -> np.ndarray:
        """X of all predictors with sum-to-zero contrasts."""
        found = [part.sum_coded() for part in self.parts.values()]
        return np.concatenate(found, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; see ``FormulaRecipe.to_dict``."""
        parts = {name: part.to_dict() for name, part in self.parts.items()}
        return {"kind": "components", "version": 1, "parts": parts}

    def using(self, functions: Mapping[str, Any], trusted: bool) -> ComponentsRecipe:
        """The same recipes, whose formulas may call these functions."""
        pairs = self.parts.items()
        return ComponentsRecipe(
            {name: part.using(functions, trusted) for name, part in pairs}
        )


def right_side(given: Any, what: str, formula: str) -> str | None:
    """The right side that an argument states; None where it states no model.

    Args:
        given: ``"~ x + (1 | g)"``; ``"~ ."`` the mean's right side without its offset;
            None, False or ``"~ 0"`` nothing; True is ``"~ 1"``.
        what: name of the argument.
        formula: of the mean.

    Raises:
        FormulaError: for anything else.
    """
    if given is None or given is False:
        return None
    if given is True:
        return "1"
    if not isinstance(given, str) or not given.strip():
        raise FormulaError(
            f"{what}= takes the right side of a formula, as in {what}='~ x', or '~ 1', "
            f"not {_arguments.shown(given)}"
        )
    sides = [side.strip() for _, side in split(translate(given), "~")]
    if len(sides) > 2 or (len(sides) == 2 and sides[0]):
        raise FormulaError(
            f"{what}={given!r}: it has no response of its own; write the right side "
            f"alone, {what}='~ {sides[-1]}'"
        )
    right = sides[-1]
    if right in ("0", "-1", "- 1"):
        return None
    return without_offset(formula) if right == "." else right


def without_offset(formula: str) -> str:
    """The right side of a formula without its offsets."""
    right = [side for _, side in split(translate(formula), "~")][-1]
    kept = []
    for sign, raw in split(right, "+-"):
        if call(raw.strip())[0] != "offset" and raw.strip():
            kept.append(f"{sign} {raw.strip()}")
    return " ".join(kept).strip().removeprefix("+").strip() or "1"


def design_of_components(
    formula: str,
    data: Any,
    others: Mapping[str, str],
    *,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    weights: Any = None,
    trials: Any = None,
    **options: Any,
) -> Design:
    """The design of a model of several predictors.

    Args:
        formula: of the response and its mean.
        data: the table.
        others: name of a predictor -> right side of its formula.
        offset: of the mean.
        contrasts: codings of factors that any of the formulas names.
        weights: as for ``design_from_formula``, as are
        trials: and
        options: such as ``missing`` and ``context``.
    """
    table = as_table(data)
    response = next(side for _, side in split(translate(formula), "~")).strip()
    texts = {name: f"{response} ~ {right}" for name, right in others.items()}
    names = (weights, offset, trials)
    used = {
        name: _variables(text, table.names, names, options.get("context"))
        for name, text in {"": formula, **texts}.items()
    }
    every = sorted(set().union(*used.values()))
    given = dict(contrasts or {})

    def coded(name: str) -> dict[str, Any]:
        """Codings of its own; those of no formula go where they are refused."""
        strange = [c for c in given if c not in every]
        return {c: v for c, v in given.items() if c in used[name] or c in strange}

    also = {name: table.column(name) for name in every}
    known = in_table(OFFSET, offset, table)
    if known is not None:
        also[OFFSET] = known
    shared = {"weights": weights, "trials": trials, "also": also, **options}
    parts = {
        "cond": design_from_formula(
            formula, table, offset=offset, contrasts=coded(""), **shared
        )
    }
    for name, text in texts.items():
        try:
            parts[name] = design_from_formula(
                text, table, contrasts=coded(name), quiet=True, **shared
            )
        except FormulaError as error:
            text = f"{name} formula {shown('~ ' + others[name])}: {error}"
            raise FormulaError(text) from error
    return joined(parts)


def _variables(text: str, known: Any, names: Any, context: Any) -> set[str]:
    """Columns that a formula needs, those of its smooths among them."""
    plain, smooths = taken_apart(text, context)
    own = [name for term in smooths for name in resolved(term, known).names]
    return {*variables_in(plain, known, names), *own}


def joined(parts: Mapping[str, Design]) -> Design:
    """One design of the designs of several predictors of the same rows."""
    first, *rest = parts.values()
    if any(not np.array_equal(part.y, first.y) for part in rest):
        raise DataError("the predictors of a model are of the same rows")
    X = np.concatenate([part.X for part in parts.values()], axis=1)
    names: list[str] = []
    terms, fixed, dropped, own = [], [], [], {}
    for k, (name, part) in enumerate(parts.items()):
        mark = f"{name}{MARK}" if k else ""
        start = len(names)
        own[name] = replace(part, X=X[:, start : start + part.p])
        names += [mark + column for column in part.x_names]
        terms += [_of_predictor(term, mark, k) for term in part.terms]
        fixed += [_moved(term, mark, start) for term in part.fixed_terms]
        dropped += [mark + column for column in part.dropped_columns]
    n = first.n
    offset = None
    if any(part.offset is not None for part in parts.values()):
        offset = np.stack(
            [np.zeros(n) if p.offset is None else p.offset for p in parts.values()]
        )
    kept = first.variables
    if isinstance(kept, Columns):
        columns = [part.variables.columns for part in parts.values()]  # type: ignore
        kept = Columns({name: c for own_ in columns for name, c in own_.items()})
    recipes = {name: part.recipe for name, part in parts.items()}
    known = all(recipe is not None for recipe in recipes.values())
    return replace(
        first,
        X=X,
        x_names=tuple(names),
        terms=tuple(terms),
        offset=offset,
        fixed_terms=tuple(fixed),
        dropped_columns=tuple(dropped),
        null_space=None,
        recipe=ComponentsRecipe(recipes) if known else None,
        variables=kept,
        parts=own,
    )


def with_dispersion(design: Design) -> Design:
    """The mean's design, the dispersion's as what residuals are; of both parts."""
    first, part = design.parts.values()
    first = replace(first, variables=design.variables)
    return replace(first, residual=of_dispersion(part))


def without_residual(design: Design) -> Design:
    """The same design of a model whose random effects say all of the covariance."""
    part = replace(
        design,
        X=design.X[:, :0],
        x_names=(),
        terms=(),
        offset=None,
        formula=f"{design.response} ~ 0",
        fixed_terms=(),
        dropped_columns=(),
        null_space=None,
        recipe=None,
        variables={},
    )
    return replace(design, residual=of_dispersion(part))


def _of_predictor(term: RandomTerm, mark: str, k: int) -> RandomTerm:
    """A term of a predictor; a smooth is a factor of its own."""
    factor = term.factor if term.known is None else mark + term.factor
    return replace(term, label=mark + term.label, factor=factor, predictor=k)


def _moved(term: FixedTerm, mark: str, start: int) -> FixedTerm:
    """A term of a predictor among the columns of all."""
    columns = tuple(start + j for j in term.columns)
    return replace(term, name=mark + term.name, columns=columns, full=columns)
