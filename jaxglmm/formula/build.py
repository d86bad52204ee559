"""A formula and a table to a ``Design``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula.against_table import (
    ReadFormula,
    columns_used,
    of_atoms,
    pair,
    read_formula,
)
from jaxglmm.formula.coding import Product, plan
from jaxglmm.formula.design import Design, FixedTerm, RandomTerm
from jaxglmm.formula.encode import (
    Encoder,
    Recipe,
    check_finite,
    fill,
    recipes_of,
    view,
)
from jaxglmm.formula.evaluate import TRUST, evaluate
from jaxglmm.formula.expressions import context_used, spread, variables_of
from jaxglmm.formula.given import OFFSET, TRIALS, WEIGHTS, in_table
from jaxglmm.formula.groups import learn_groups, refuse_one_level
from jaxglmm.formula.missing import complete_rows
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.rank import drop_dependent
from jaxglmm.formula.recipe import FormulaRecipe
from jaxglmm.formula.residual import Residual, given_residual
from jaxglmm.formula.residual_rows import learn as learn_residual
from jaxglmm.formula.response import (
    NUMERIC,
)
from jaxglmm.formula.responses import response_of
from jaxglmm.formula.structures import SHARED, placed, warn_of_order
from jaxglmm.formula.tables import Column, Columns, Table, as_table
from jaxglmm.formula.terms import (
    Atom,
    quoted_again,
)
from jaxglmm.formula.text import find_name


def design_from_formula(
    formula: str,
    data,
    *,
    weights=None,
    offset=None,
    missing: str = "drop",
    context: Mapping[str, Any] | None = None,
    allow_nonnumeric_response: bool = False,
    family_kind: str = NUMERIC,
    trials=None,
    contrasts: Mapping[str, Any] | None = None,
    order: Sequence[Any] | None = None,
    also: Mapping[str, Column] | None = None,
    quiet: bool = False,
    residual: str | Residual | None = None,
) -> Design:
    """Read a formula against a table: X of full rank, rows without missing values.

    Args:
        formula: in lme4's syntax, ``"y ~ x + (1 + x | g)"``. Without a random term the
            design has ``terms=()``.
        data: pandas or polars frame, pyarrow table, record array or dict of columns.
        weights: (n,) prior weights or the name of a column. A row of weight 0 is no
            observation, but is predicted. A pandas Series is matched by its labels.
        offset: (n,) or the name of a column; ``offset()`` in the formula is added.
        missing: ``"drop"`` rows with a missing value in any variable of the model, with
            one warning, or ``"raise"``.
        context: functions and constants that the formula may use.
        allow_nonnumeric_response: give text or a categorical as codes 0, 1, ... of its
            sorted levels (``Design.response_levels``) instead of refusing it.
        family_kind: reads the left side as successes out of trials ("binomial", see
            ``formula.response``), categories in order ("ordinal"), "numeric" values.
        trials: (n,), a number, or the name of a column: trials of a binomial response.
        contrasts: column -> coding of a factor that the formula names, such as "sum".
        order: categories of an ordinal response in their order, where it is stated.
        also: columns of other formulas of the model, whose missing values count too.
        quiet: say nothing of rows that are dropped.
        residual: the residual covariance, ``"ar1(time | g)"``.

    Raises:
        FormulaError: the formula, or a name in it, cannot be read.
        DataError, ModelError: values that cannot be used; a factor with one level.

    Example:
        >>> table = {"y": [1.0, 2, 4, 3], "x": [0, 1, 2, 3], "g": ["a", "a", "b", "b"]}
        >>> design = design_from_formula("y ~ x + (1 | g)", table)
        >>> design.x_names, design.terms[0].levels.tolist()
        (('(Intercept)', 'x'), ['a', 'b'])
    """
    table = as_table(data)
    read = read_formula(formula, table, family_kind, (weights, offset, trials), trials)
    context = (context or {}) if TRUST.get() else {}
    rest = given_residual(residual, table.names)
    used = columns_used(read, context)
    found = {name: table.column(name) for name in (*used, *rest.columns)}
    extras = _extras(table, weights, offset, trials)
    rows = complete_rows({**found, **extras, **(also or {})}, table.n, missing, quiet)
    columns = _taken(found, rows, read.evaluated if rows is None else ())
    extras = _taken(extras, rows, extras)
    n = table.n if rows is None else len(rows)

    encoder = _encoder(read, contrasts, context)
    values = encoder.learn(read.atoms, columns, n, rows)
    w = checked_weights(extras.get(WEIGHTS), rows)
    y = [_left_column(atom, columns, n, context) for atom in read.left.atoms]
    asked = (extras.get(TRIALS), w, rows, allow_nonnumeric_response)
    response = response_of((family_kind, order), y, read.left.form, *asked)
    total = _total_offset(encoder, read.offsets, extras, columns, n, rows)

    plans = plan(read.terms, encoder.is_factor)
    recipes, spans = recipes_of(plans, encoder.codings)
    names, X = column_names(recipes, read.known), fill(recipes, values, n)
    X, names, kept, dropped, null_space = drop_dependent(
        X, names, _anchor(plans, encoder, spans), w
    )
    made = [recipes[j] for j in kept]
    random, groups = _random_terms(read, encoder, values, columns, n, made, X)
    coded = _coded_columns(columns, groups, random)
    training = _training(read, columns, coded, used, made, X, rows is None)
    return Design(
        **response.of_design,
        X=X,
        x_names=names,
        terms=random,
        response=read.parsed.response,
        formula=formula,
        offset=total,
        fixed_terms=fixed_terms_of(read, spans, kept, encoder),
        dropped_columns=dropped,
        null_space=null_space,
        n_missing=table.n - n,
        rows=rows,
        index=table.index if rows is None or table.index is None else table.index[rows],  # type: ignore
        recipe=_recipe(formula, read, encoder, groups, kept, offset, training),
        variables=training,
        residual=learn_residual(rest, columns, n),
    )


def _encoder(
    read: ReadFormula, contrasts: Mapping[str, Any] | None, context: Mapping[str, Any]
) -> Encoder:
    """What will learn the codings; of the context it keeps what expressions use."""
    texts = [a.expr for a in read.every if not a.bare]
    return Encoder(
        context=context_used(texts, read.known, context),
        trusted=TRUST.get(),
        wishes=_wishes(contrasts, read.atoms, read.known),
    )


def _training(
    read: ReadFormula,
    columns: Mapping[str, Column],
    coded: dict[str, Column],
    used: Sequence[str],
    made: list[Recipe],
    X: np.ndarray,
    every: bool,
) -> Columns:
    """The columns used as a design keeps them, none of them the user's own.

    coded: the grouping ones; every: whether every row stays: then those are still
    shared that ``_taken`` left.
    """
    kept = coded | {name: _in_matrix(columns[name], made, X) for name in read.columns}
    for name in {*read.columns}.difference(read.evaluated) if every else ():
        if kept[name] is columns[name]:
            kept[name] = columns[name].owned()
    return Columns({name: kept[name] for name in used})


def _recipe(
    formula: str,
    read: ReadFormula,
    encoder: Encoder,
    groups: Mapping[str, Any],
    kept: Sequence[int],
    offset: Any,
    training: Columns,
) -> FormulaRecipe:
    """How the rows of other data become rows of this design."""
    return FormulaRecipe(
        formula=formula,
        fixed=read.fixed,
        columns=tuple(of_atoms([*read.atoms, *read.offsets], read.known)),
        encoder=encoder,
        groups=groups,
        kept=kept,
        offsets=read.parsed.offsets,
        offset_name=offset if isinstance(offset, str) else None,
        offset_array=offset is not None and not isinstance(offset, str),
        training=training,
    )


def _taken(
    columns: Mapping[str, Column], rows: np.ndarray | None, early: Iterable[str]
) -> dict[str, Column]:
    """Columns at rows; at all of them the ``early`` ones are no longer the user's.

    ``take`` has copied; where every row stays the user's arrays are still shared.
    """
    if rows is not None:
        return {name: column.take(rows) for name, column in columns.items()}
    return {**columns, **{name: columns[name].owned() for name in early}}


def fixed_terms_of(
    read: ReadFormula, spans: Any, kept: Sequence[int], encoder: Encoder
) -> tuple[FixedTerm, ...]:
    """The terms of the fixed part, with the columns of X that are theirs."""
    place = {j: i for i, j in enumerate(kept)}

    def variables(atoms: Iterable[Atom]) -> frozenset[str]:
        pairs = (variables_of(*pair(a), read.known) for a in atoms)
        return frozenset(v for own in pairs for v in own)

    return tuple(
        FixedTerm(
            term.name,
            variables(term.atoms),
            tuple(place[j] for j in span if j in place),
            variables(a for a in term.atoms if encoder.is_factor(a.expr)),
            span,
        )
        for term, span in zip(read.terms, spans, strict=True)
    )


def _wishes(
    contrasts: Mapping[str, Any] | None, atoms: list[Atom], known: frozenset[str]
) -> dict[str, Any]:
    """Codings by the names of the columns they are for."""
    if contrasts is None:
        return {}
    if not isinstance(contrasts, Mapping):
        raise FormulaError(
            "contrasts= gives codings by column, as in {'f': 'sum'}, not "
            f"{type(contrasts).__name__}"
        )
    used = {a.expr for a in atoms if a.bare}
    wishes = {find_name(str(c), known) or str(c): w for c, w in contrasts.items()}
    strange = [name for name in wishes if name not in used]
    if strange:
        raise FormulaError(
            f"contrasts={{{strange[0]!r}: ...}}: the formula has no factor of that "
            f"name{nearest(strange[0], sorted(used))}"
        )
    return wishes


def column_names(recipes: list[Recipe], known: frozenset[str]) -> tuple[str, ...]:
    """Names of columns of a matrix, told apart where two are equal."""
    names = [name for name, _ in recipes]
    if len(set(names)) == len(names):
        return tuple(names)
    literal = [len(p) == 1 and p[0][1] is None and p[0][0] in known for _, p in recipes]
    return quoted_again(names, literal)


def _extras(table: Table, weights, offset, trials) -> dict[str, Column]:
    """Weights, offset and trials as columns, whether given by name or as arrays."""
    given = {WEIGHTS: weights, OFFSET: offset, TRIALS: trials}
    found = {label: in_table(label, values, table) for label, values in given.items()}
    return {label: column for label, column in found.items() if column is not None}


def _left_column(atom: Atom, columns, n: int, context) -> Column:
    """One part of the left side."""
    if atom.bare:
        column = columns[atom.expr]
    else:
        value = evaluate(atom.expr, columns, {}, context, tuple(columns), TRUST.get())
        column = spread(atom.expr, value, n)
    if not isinstance(column, Column):
        raise DataError(f"response {atom.expr!r} must be one numeric column")
    return column


def _total_offset(encoder, atoms, extras, columns, n, rows) -> np.ndarray | None:
    """offset= plus every offset() of the formula."""
    total = checked_offset(extras.get(OFFSET), rows)
    values = encoder.learn(atoms, columns, n, rows)
    for atom in atoms:
        found = values[atom.expr]
        if not isinstance(found, tuple) or len(found) != 1:
            raise FormulaError(f"offset({atom.expr}) must be one numeric column")
        total = found[0] if total is None else total + found[0]
    return total


def checked_offset(column: Column | None, rows) -> np.ndarray | None:
    """The offset beside the data, finite."""
    if column is None:
        return None
    offset = np.asarray(column.values, np.float64)
    check_finite(OFFSET, (offset,), rows)
    return offset


def checked_weights(column: Column | None, rows) -> np.ndarray | None:
    """Prior weights: finite, not negative, not all zero."""
    if column is None:
        return None
    w = np.asarray(column.values, np.float64)
    check_finite(WEIGHTS, (w,), rows)
    negative = np.flatnonzero(w < 0)
    if len(negative):
        raise DataError(
            f"weights must not be negative; {len(negative)} are, the first at position "
            f"{negative[0] if rows is None else rows[negative[0]]}"
        )
    if not w.any():
        raise DataError("all weights are zero: there is nothing to fit")
    return w


def _anchor(plans, encoder: Encoder, spans) -> int:
    """Without an intercept: how many leading columns span the constant.

    These are the indicators of the first factor, if it comes first; what follows can be
    centred before ranks are judged.
    """
    if not plans or not plans[0]:
        return 0
    product: Product = plans[0][0]
    if len(product) == 1 and not product[0][1] and encoder.is_factor(product[0][0]):
        return len(spans[0])
    return 0


def _coded_columns(columns, groups, random) -> dict[str, Column]:
    """Grouping columns as codes and levels, shared with the terms and no one else."""
    coded = {}
    for term in random:
        group = groups[term.factor]
        if len(group.parts) == 1:
            coded[group.name] = Column(
                group.name, "label", codes=term.codes, levels=term.levels
            )
    for group in groups.values():
        for part in group.parts:
            if part not in coded:
                coded[part] = columns[part].owned()
    return coded


def _in_matrix(column: Column, made: list[Recipe], X: np.ndarray) -> Column:
    """A numeric predictor that is a column of X as a view of it: no second copy."""
    part = [(column.name, None, 0)]
    if column.kind != "number" or column.values.dtype != np.float64:  # type: ignore
        return column
    found = view([(column.name, part)], made, X)
    return column if found is None else replace(column, values=found[:, 0])


def _random_terms(read: ReadFormula, encoder, values, columns, n, made, X):
    """Random terms, and the grouping factors by name (each coded once).

    ``made``, X: columns of the fixed effects, which random terms often repeat.
    """
    coded: dict[str, tuple] = {}
    terms = []
    for part in read.parts:
        name = part.grouping.name
        if name not in coded:
            coded[name] = learn_groups(part.grouping, columns)
        coding, codes = coded[name]
        kind, levels = part.covariance, coding.levels
        if kind not in SHARED:
            refuse_one_level(coding)
        found = placed(part, encoder.is_factor, values, encoder.state, learning=True)
        if found is not None:
            names, Z, kind = found.names, found.values, found.covariance
        else:
            plans = plan(part.terms, encoder.is_factor)
            recipes, _ = recipes_of(plans, encoder.codings)
            names = column_names(recipes, read.known)
            Z = view(recipes, made, X)
            if Z is None:
                Z = fill(recipes, values, n)
            warn_of_order(kind, names)
        terms.append(RandomTerm(part.label, name, names, codes, Z, levels, kind))
    return tuple(terms), {name: coding for name, (coding, _) in coded.items()}
