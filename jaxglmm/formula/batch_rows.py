"""Rows of a design from a batch of its table, after a survey of the whole.

A column of X or Z is made once: those of random slopes are mostly columns of X too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, ModelError
from jaxglmm.formula.absent import AbsentRows, StreamedDesign, StreamedTerm
from jaxglmm.formula.against_table import of_atoms
from jaxglmm.formula.build import column_names, fixed_terms_of
from jaxglmm.formula.coding import plan
from jaxglmm.formula.column import Column
from jaxglmm.formula.encode import Recipe, Values, alike, known_codes, recipes_of
from jaxglmm.formula.estimable import NullSpace
from jaxglmm.formula.given import WEIGHTS
from jaxglmm.formula.groups import GroupCoding, find, refuse_one_level
from jaxglmm.formula.labels import Coder
from jaxglmm.formula.notices import listed
from jaxglmm.formula.recipe import FormulaRecipe
from jaxglmm.formula.survey import Survey, checked_weights
from jaxglmm.formula.tables import Table


@dataclass(frozen=True)
class ColumnFacts:
    """Mean and sd of a column that is a number by itself; 0 and 1 of others."""

    mean: float = 0.0
    sd: float = 1.0


@dataclass(frozen=True)
class TermShape:
    """A random term before its rows.

    at: positions of its columns among the distinct ones.
    """

    label: str
    factor: str
    names: tuple[str, ...]
    at: tuple[int, ...]
    covariance: str


@dataclass(frozen=True)
class BatchRows:
    """The rows of a batch that count.

    y: (n,); columns: distinct ones of X and Z, (n,) each, None for ones; w: (n,)
    weights or None, as offset and trials; codes: factor -> (n,) intp.
    """

    y: np.ndarray
    columns: list[np.ndarray | None]
    w: np.ndarray | None
    codes: dict[str, np.ndarray]
    offset: np.ndarray | None = None
    trials: np.ndarray | None = None


class RowMaker:
    """How rows of the table become rows of the design; see ``rows``."""

    def __init__(self, survey: Survey):
        self.survey = survey
        self.read, self.encoder = survey.read, survey.encoder
        plans = plan(self.read.terms, self.encoder.is_factor)
        self.plans = plans
        self.recipes, self.spans = recipes_of(plans, self.encoder.codings)
        self.x_names = column_names(self.recipes, self.read.known)
        self.distinct: list[Recipe] = []
        self.x_at = tuple(self._place(r) for r in self.recipes)
        self.terms = [self._term(part) for part in self.read.parts]
        self.groups = {name: survey.group(name) for name in survey.groupings}
        for coding in self.groups.values():
            refuse_one_level(coding)

    def __getstate__(self) -> dict[str, Any]:
        """Without the caller's names: the encoder has those that it needs."""
        survey = copy.copy(self.survey)
        survey.context = {}
        return vars(self) | {"survey": survey}

    def _term(self, part) -> TermShape:
        plans = plan(part.terms, self.encoder.is_factor)
        recipes, _ = recipes_of(plans, self.encoder.codings)
        names = column_names(recipes, self.read.known)
        at = tuple(self._place(r) for r in recipes)
        kind = part.covariance
        return TermShape(part.label, part.grouping.name, names, at, kind)

    def _place(self, recipe: Recipe) -> int:
        for k, other in enumerate(self.distinct):
            if alike(recipe, other):
                return k
        self.distinct.append(recipe)
        return len(self.distinct) - 1

    @cached_property
    def facts(self) -> list[ColumnFacts]:
        """Of the distinct columns."""
        return [self._facts(parts) for _, parts in self.distinct]

    def _facts(self, parts: Sequence) -> ColumnFacts:
        if len(parts) != 1 or parts[0][1] is not None:
            return ColumnFacts()
        found = self.survey.numbers[parts[0][0], parts[0][2]]
        return ColumnFacts(found.mean, found.sd)

    @cached_property
    def _coders(self) -> dict[str, list[Coder]]:
        return {
            name: [Coder(levels) for levels in group.part_levels]
            for name, group in self.groups.items()
        }

    def codes(
        self, name: str, columns: Mapping[str, Column], unseen: bool = False
    ) -> np.ndarray:
        """(n,) intp levels of a grouping factor; -1 for others where ``unseen``."""
        group = self.groups[name]
        coders = zip(self._coders[name], group.parts, strict=True)
        places = [coder.codes(columns[part]) for coder, part in coders]
        found = places[0]
        if group.combinations is not None:
            sizes = [len(levels) for levels in group.part_levels]
            found = find(group.combinations, places, sizes)
        if not unseen and len(found) and found.min() < 0:
            first = int(np.argmin(found))
            labels = [columns[part].labels()[first] for part in group.parts]
            raise DataError(
                f"{name!r} has the level {listed(labels)}, which was not there when "
                "the levels were read: the data change while they are read"
            )
        return found

    def factor_codes(self, expr: str, column: Column) -> np.ndarray:
        """(n,) levels of a factor among the predictors."""
        return known_codes(expr, column, self.encoder.codings[expr].levels)

    def rows(self, table: Table) -> BatchRows:
        """The rows of a batch without missing values and with a weight above zero."""
        columns, n = self.survey.complete_rows(table)
        w = checked_weights(columns.get(WEIGHTS))
        if w is not None and not (w > 0).all():
            keep = np.flatnonzero(w > 0)
            columns = {name: column.take(keep) for name, column in columns.items()}
            w, n = w[keep], len(keep)
        y = self.survey.y(columns, n)
        offset = self.survey.offsets(columns, n)
        values = self.encoder.apply(self.read.atoms, columns, n)
        made = [_column(parts, values) for _, parts in self.distinct]
        codes = {name: self.codes(name, columns) for name in self.groups}
        trials = self.survey.trials_of(columns, n)
        return BatchRows(y, made, w, codes, offset, trials)

    # The design -------------------------------------------------------------------

    def design(
        self,
        kept: tuple[int, ...],
        null_space: NullSpace | None,
        grams: Sequence[np.ndarray],
        counted: Mapping[str, int],
        root: np.ndarray,
    ) -> StreamedDesign:
        """The design without its rows.

        Args:
            kept: positions of the columns of X that others do not determine.
            null_space: what cannot be told without the others.
            grams: (q, q) mean products of the columns of each term.
            counted: factor -> levels with rows that count.
            root: (p, p) with the inner products of X.
        """
        survey, n = self.survey, self.survey.counted
        terms = tuple(
            StreamedTerm(
                t.label,
                t.factor,
                t.names,
                AbsentRows(n),  # type: ignore[arg-type]
                AbsentRows(n, len(t.names)),  # type: ignore[arg-type]
                self.groups[t.factor].levels,
                t.covariance,
                square=np.diagonal(gram).copy(),
                gram=gram if survey.weights is None else None,
                counted=counted[t.factor],
            )
            for t, gram in zip(self.terms, grams, strict=True)
        )
        lost = tuple(n for j, n in enumerate(self.x_names) if j not in set(kept))
        return StreamedDesign(
            y=AbsentRows(n),  # type: ignore[arg-type]
            X=AbsentRows(n, len(kept)),  # type: ignore[arg-type]
            x_names=tuple(self.x_names[j] for j in kept),
            terms=terms,
            response=self.read.parsed.response,
            formula=survey.formula,
            fixed_terms=fixed_terms_of(self.read, self.spans, kept, self.encoder),
            dropped_columns=lost,
            null_space=null_space,
            n_missing=survey.n - survey.complete,
            recipe=self._recipe(kept, self.groups),
            root=root,
            facts=survey.facts,
        )

    def _recipe(
        self, kept: tuple[int, ...], groups: dict[str, GroupCoding]
    ) -> FormulaRecipe:
        used = of_atoms([*self.read.atoms, *self.read.offsets], self.read.known)
        return FormulaRecipe(
            formula=self.survey.formula,
            fixed=self.read.fixed,
            columns=tuple(used),
            encoder=self.encoder,
            groups=groups,
            kept=kept,
            offsets=self.read.parsed.offsets,
            offset_name=self.survey.offset,
        )


def _column(parts: Sequence, values: Mapping[str, Values]) -> np.ndarray | None:
    """(n,) the product of a column's parts; None for ones."""
    out = None
    for expr, table, k in parts:
        found = values[expr]
        column = found[k] if table is None else table.take(found)
        out = column if out is None else out * column
    if out is not None and not np.isfinite(out.sum()) and not np.isfinite(out).all():
        raise ModelError(
            f"{' x '.join(str(part[0]) for part in parts)} is not finite in some rows"
        )
    return out
