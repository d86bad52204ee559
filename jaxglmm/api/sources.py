"""The data sets of ``fit_many``: responses of one design, or tables of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, FormulaError, ModelError
from jaxglmm.api.given import reading
from jaxglmm.fitting.residual_checks import check as check_residuals
from jaxglmm.formula import (
    check_generalised,
    check_linear,
    design_from_formula,
    design_of_components,
)
from jaxglmm.formula.design import Design
from jaxglmm.formula.given import in_table
from jaxglmm.formula.known import with_known
from jaxglmm.formula.parse import parse
from jaxglmm.formula.residual import read_residual
from jaxglmm.formula.tables import Table, as_table
from jaxglmm.formula.terms import read_atom
from jaxglmm.many import plan as fits_engines
from jaxglmm.many.categories import category_responses, of_levels
from jaxglmm.many.checks import finite
from jaxglmm.many.collection import ModelSource, PerResponse
from jaxglmm.many.responses import Responses, check_order

NOISE = 0x6A61786C  # seed of a response that is never fitted


def source_of(
    formula: Any, data: Any, responses: Any, by: Any, given: tuple
) -> tuple[ModelSource, np.ndarray | None]:
    """The data sets and their labels, in whichever form they come."""
    if not isinstance(formula, str):
        raise FormulaError(
            "fit_many takes a formula as a text, such as 'y ~ x + (x | g)', not "
            f"{_arguments.shown(formula)}"
        )
    if responses is None:
        return _of_tables(formula, data, by, *given)
    if by is not None:
        raise DataError(
            "responses= and by= are two ways to say what the data sets are: one "
            "design with many responses, or many data sets in one table"
        )
    return _of_responses(formula, data, responses, *given)


# Many responses ----------------------------------------------------------------------


def _of_responses(
    formula: str, data: Any, responses: Any, family, weights, offset, trials, context
) -> tuple[ModelSource, np.ndarray | None]:
    table = as_table(data)
    left = parse(formula).response
    name = read_atom(left).expr
    if not read_atom(left).bare:
        raise FormulaError(
            f"the left side of the formula stands for the responses, so it is a name "
            f"such as y, not {left!r}. Transform the responses before"
            + (", and pass trials=" if "(" in left and family is not None else "")
        )
    columns = {c: table.fetch(c) for c in table.names if c != name}
    # never fitted: something that varies, so that the design can be built
    columns[name] = np.random.default_rng(NOISE).normal(size=table.n)
    shared, own = {}, {}
    for label, given in (("weights", weights), ("offset", offset)):
        if given is not None and not isinstance(given, str) and _dimensions(given) == 2:
            own[label] = given
        else:
            shared[label] = given
    context, residual, others, known = context
    shared["context"] = context
    if others:
        design = design_of_components(formula, columns, others, **shared)
    else:
        design = design_from_formula(formula, columns, residual=residual, **shared)
    design = design if known is None else with_known(design, known)
    _check(design, family)
    rows = design.rows
    for label, given in (("responses", responses), *own.items()):
        check_order(given, table.labels, label)
    if family is not None and family.family_kind in ("ordinal", "nominal"):
        Y = category_responses(responses, table.n, rows, family)
        design, family = of_levels(design, family, Y.levels)
    else:
        Y = Responses(responses, table.n, rows)
    per = {label: Responses(values, table.n, rows) for label, values in own.items()}
    for label, values in per.items():
        if len(values) != len(Y):
            raise DataError(
                f"{label} has {len(values)} columns for {len(Y)} responses: one each"
            )
    return ModelSource(
        design,
        Y,
        None,
        per.get("weights", design.weights),
        per.get("offset", design.offset),
        _trials(trials, table, rows, len(Y), family),
        None,
        family,
    ), Y.labels


def _dimensions(given: Any) -> int:
    """Of an array or nested lists; 1 where the lists differ in length."""
    try:
        return np.ndim(given)
    except ValueError:
        return 1


def _check(design: Design, family: Any) -> None:
    if design.residual is not None:
        return check_residuals(design)
    _has_random_effects(design)
    if family is None:
        check_linear(design)
    else:
        check_generalised(design)
    return None


def _has_random_effects(design: Design) -> None:
    if not design.terms:
        raise ModelError(
            "the model has no random effects. Add a term such as (1 | group)"
        )


def _trials(trials: Any, table: Table, rows, D: int, family) -> PerResponse:
    """Trials of the rows that are used: (n,) or one column a response."""
    if trials is None:
        return None
    if family is None or family.family_kind != "binomial":
        raise DataError(
            "trials= is for family='binomial' and 'betabinomial': other families have "
            "no number of trials"
        )
    if _dimensions(trials) == 2:
        check_order(trials, table.labels, "trials")
        found = Responses(trials, table.n, rows)
        if len(found) != D:
            raise DataError(
                f"trials has {len(found)} columns for {D} responses: one for each"
            )
        return found
    named = isinstance(trials, str)
    column = table.column(trials) if named else trials
    column = in_table("trials", column, table)
    assert column is not None
    values = np.asarray(column.values, np.float64)
    if not np.isfinite(values).all():
        i = int(np.argmin(np.isfinite(values)))
        raise DataError(f"trials must be finite numbers; row {i} has {values[i]}")
    return values if rows is None else values[rows]


# Many data sets ----------------------------------------------------------------------


def _of_tables(
    formula: str, data: Any, by, family, weights, offset, trials, context
) -> tuple[ModelSource, np.ndarray | None]:
    if isinstance(data, list | tuple):
        if by is not None:
            raise DataError("by= cuts one table; data is a list of tables already")
        for label, given in (("weights", weights), ("offset", offset)):
            if given is not None and not isinstance(given, str):
                raise DataError(
                    f"{label} must be the name of a column where data is a list of "
                    "tables"
                )
        columns, codes, D = _stacked(data)
        labels = None
    elif by is not None:
        table = as_table(data)
        columns = {c: table.fetch(c) for c in table.names}
        codes, labels = _datasets(table, by)
        D = len(labels)
        weights, offset, trials = (
            given if isinstance(given, str) else in_table(label, given, table)
            for label, given in (
                *(("weights", weights), ("offset", offset)),
                ("trials", trials),
            )
        )
    else:
        raise DataError(
            "fit_many needs to know what the data sets are: responses=Y (n, D), "
            "by='column', or data as a list of tables"
        )
    options = {} if family is None else reading(family)
    columns, codes, infinite, (weights, offset, trials) = finite(
        formula, columns, codes, D, (weights, offset, trials)
    )
    if trials is not None:
        options["trials"] = trials
    context, residual, others, _ = context
    if residual is not None:
        options["residual"] = replace(read_residual(residual), parted=True)
    options |= {"weights": weights, "offset": offset, "context": context}
    if others:
        design = design_of_components(formula, columns, others, **options)
    else:
        design = design_from_formula(formula, columns, **options)
    if design.response_levels is not None and family is not None:
        design, family = of_levels(design, family, design.response_levels)
    if design.residual is None:
        _has_random_effects(design)
    if design.rows is not None:
        codes = codes[design.rows]
    split = fits_engines.split(design, codes, D)
    return ModelSource(
        design,
        None,
        split,
        design.weights,
        design.offset,
        design.trials,
        None,
        family,
        infinite=infinite,
    ), labels


def _datasets(table: Table, by: str | list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the data set of each row, -1 where it is missing; (D,) labels."""
    names = _arguments.names("by", by, meaning="a column's name")
    if not names:
        raise DataError("by= is empty: name the column that says whose row it is")
    codes, levels = table.column(names[0]).as_factor()
    labels = levels
    for name in names[1:]:
        more, others = table.column(name).as_factor()
        wide = codes.astype(np.int64)  # the number of pairs may be beyond 32 bits
        joint = np.where((codes < 0) | (more < 0), -1, wide * len(others) + more)
        used, codes = np.unique(joint, return_inverse=True)
        if len(used) and used[0] < 0:
            used, codes = used[1:], codes - 1
        pairs = [(labels[k // len(others)], others[k % len(others)]) for k in used]
        labels = np.empty(len(pairs), object)
        labels[:] = [(*a, b) if isinstance(a, tuple) else (a, b) for a, b in pairs]
    return codes, labels


def _stacked(tables: list | tuple) -> tuple[dict, np.ndarray, int]:
    """Columns of all tables, one below the other, and whose row each is."""
    if not tables:
        raise DataError("data is an empty list: there is nothing to fit")
    import pandas as pd

    read = [as_table(t) for t in tables]
    names = [c for c in read[0].names if all(c in t.names for t in read)]
    if not names:
        raise DataError("the tables have no column in common")
    columns = {}
    for name in names:
        parts = [pd.Series(t.column(name).as_series()) for t in read]
        if any(isinstance(p.dtype, pd.CategoricalDtype) for p in parts):
            parts = [pd.Series(np.asarray(p, object)) for p in parts]
        columns[name] = pd.concat(parts, ignore_index=True)
    sizes = [t.n for t in read]
    return columns, np.repeat(np.arange(len(read)), sizes), len(read)
