"""Cross-products by SQL: a DuckDB relation adds up, and rows never leave it.

A column of X or Z is a number that factors' contrasts multiply. The relation is grouped
by grouping factors and by the factors among the predictors; a group gives the sums of
products of numbers, moved to about zero, and contrasts multiply these here. What comes
out is as long as there are groups, whatever the number of rows (Wong, Lewis and Wardrop
2019 do so for regressions).

Formulas of columns as they are are pushed down, others (``log(x)``) are read in
batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._errors import DataError
from jaxglmm.formula.batch_rows import RowMaker
from jaxglmm.formula.survey import NumberFacts, Survey
from jaxglmm.formula.tables import Column, as_table
from jaxglmm.streaming.sources import TABLE, BatchSource, DuckSource, quoted
from jaxglmm.structure.row_sums import RowSums


def doubles(name: str) -> str:
    """A column's values as doubles."""
    return f"CAST({quoted(name)} AS DOUBLE)"


@dataclass(frozen=True)
class Roles:
    """What the columns of a formula are: numbers, or labels to group by.

    weights, offsets: numbers with these parts.
    """

    numbers: tuple[str, ...]
    factors: tuple[str, ...]
    parts: tuple[str, ...]
    response: str
    weights: str | None
    offsets: tuple[str, ...]

    @property
    def complete(self) -> str:
        """SQL of: nothing is missing in this row."""
        numbers = {*self.numbers, self.response, *self.offsets}
        numbers |= {self.weights} if self.weights else set()
        tests = [f"NOT isnan({doubles(c)})" for c in sorted(numbers)]
        labels = {*self.factors, *self.parts} - numbers
        known = [f"{quoted(c)} IS NOT NULL" for c in sorted(numbers | labels)]
        return " AND ".join(known + tests)

    @property
    def y(self) -> str:
        """SQL of the response less what is known of the predictor."""
        return " - ".join([doubles(self.response), *map(doubles, self.offsets)])


def roles(survey: Survey, source: BatchSource) -> Roles | None:
    """What SQL needs of a formula; None where it has more than columns."""
    if not isinstance(source, DuckSource):
        return None
    read = survey.read
    if not all(atom.bare for atom in read.every) or survey.contrasts:
        return None
    schema = source.reader(f"SELECT * FROM {TABLE} LIMIT 0").schema
    kinds = {name: _is_number(schema.field(name).type) for name in survey.columns}
    atoms = list(dict.fromkeys(a.expr for a in read.atoms))
    parts = [p for g in survey.groupings.values() for p in g.parts]
    (left,) = read.left.atoms
    offsets = [a.expr for a in read.offsets]
    offsets += [survey.offset] if survey.offset else []
    others = [left.expr, *offsets, *([survey.weights] if survey.weights else [])]
    labels = [name for name in {*atoms, *parts} if not kinds[name]]
    plain = all(_is_label(schema.field(name).type) for name in labels)
    if not plain or not all(kinds[name] for name in others):
        return None
    return Roles(
        tuple(name for name in atoms if kinds[name]),
        tuple(name for name in atoms if not kinds[name]),
        tuple(dict.fromkeys(parts)),
        left.expr,
        survey.weights,
        tuple(offsets),
    )


def _is_number(dtype: Any) -> bool:
    import pyarrow.types as types

    return types.is_integer(dtype) or types.is_floating(dtype)


def _is_label(dtype: Any) -> bool:
    import pyarrow.types as types

    text = types.is_string(dtype) or types.is_large_string(dtype)
    return text or types.is_boolean(dtype)


# The survey --------------------------------------------------------------------------


def survey_by_sql(survey: Survey, source: DuckSource, own: Roles) -> None:
    """What ``Survey.see`` learns of all batches, by queries."""
    w = own.weights
    counts = ", ".join(
        f"count(*) FILTER ({quoted(c)} IS NULL{_or_nan(c, own)})"
        for c in survey.columns
    )
    total = source.table(f"SELECT count(*), {counts} FROM {TABLE}")
    survey.n, *lost = (int(column[0].as_py()) for column in total.columns)
    pairs = zip(survey.columns, lost, strict=True)
    survey.lost = {name: count for name, count in pairs if count}
    weighted = "" if w is None else f" AND {doubles(w)} > 0"
    asked = [f"count(*) FILTER (true{weighted})", "count(*)"]
    # by CASE: DuckDB may compute what a FILTER leaves out, and stop there
    asked.append("0e0" if w is None else f"sum(ln({_where(doubles(w), '> 0')}))")
    numbers = [own.y, *map(doubles, own.numbers)]
    numbers += [] if w is None else [doubles(w)]
    for x in numbers:
        finite = f"CASE WHEN isfinite({x}) THEN {x} END"
        asked += [f"avg({x})", f"var_pop({finite})", f"min({x})", f"max({x})"]
    found = source.table(f"SELECT {', '.join(asked)} FROM {TABLE} WHERE {own.complete}")
    counted, complete, logs, *rest = (c[0].as_py() for c in found.columns)
    survey.counted, survey.complete = int(counted), int(complete)
    survey.log_weights = float(logs or 0.0)
    survey.has_offset = bool(own.offsets)
    if not survey.complete:
        return
    names = [own.response, *own.numbers, *([] if w is None else [w])]
    facts = {
        (k, name): _facts(name, survey.complete, *rest[4 * k : 4 * k + 4])
        for k, name in enumerate(names)
    }
    survey.response = facts[0, own.response]
    for k, name in enumerate(own.numbers, 1):
        survey.suffixes[name] = ("",)
        survey.numbers[name, 0] = facts[k, name]
    if w is not None and rest[-2] < 0:
        raise DataError(f"weights must not be negative; the least is {rest[-2]:g}")
    for name in own.factors:
        survey.see_factor(name, _distinct(source, own, [name])[name])
    for name, grouping in survey.groupings.items():
        survey.see_group(name, _distinct(source, own, list(grouping.parts)))


def _where(x: str, condition: str) -> str:
    """The value where it meets a condition, else nothing."""
    return f"CASE WHEN {x} {condition} THEN {x} END"


def _or_nan(name: str, own: Roles) -> str:
    numbers = {*own.numbers, own.response, own.weights, *own.offsets}
    return f" OR isnan({doubles(name)})" if name in numbers else ""


def _facts(
    name: str, n: int, mean: float, variance: float, low: float, high: float
) -> NumberFacts:
    if not np.isfinite([low, high]).all():
        raise DataError(f"{name!r} is infinite in some rows; remove or correct them")
    return NumberFacts(n, mean, variance * n, low if low == high else None)


def _distinct(source: DuckSource, own: Roles, names: list[str]) -> dict[str, Column]:
    chosen = ", ".join(map(quoted, names))
    sql = f"SELECT DISTINCT {chosen} FROM {TABLE} WHERE {own.complete}"
    table = as_table(source.table(sql))
    return {name: table.column(name) for name in names}


# The sums ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Monomial:
    """A column that is summed: SQL of its number, and parts that are contrasts.

    sql: "" for one; parts: (factor, (J + 1,) values of its levels).
    """

    sql: str
    parts: tuple[tuple[str, np.ndarray], ...] = ()


def monomials(
    maker: RowMaker, own: Roles, moves: Sequence[tuple[int, float, float]], b: Any
) -> list[Monomial]:
    """The columns of a first pass: distinct ones moved, then the response.

    moves: (distinct column, shift, scale); b: (mean, sd) of the response.
    """
    out = []
    for at, shift, scale in moves:
        _, parts = maker.distinct[at]
        numbers = [doubles(expr) for expr, table, _ in parts if table is None]
        sql = " * ".join(numbers)
        if sql and (shift, scale) != (0.0, 1.0):
            sql = f"(({sql}) - {_double(shift)}) / {_double(scale)}"
        labels = tuple((e, table) for e, table, _ in parts if table is not None)
        out.append(Monomial(sql, labels))
    mean, sd = b
    return [*out, Monomial(f"(({own.y}) - {_double(mean)}) / {_double(sd)}")]


def _double(value: float) -> str:
    """A literal of a double, not of a decimal."""
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"


def sum_by_sql(
    sums: RowSums, maker: RowMaker, source: DuckSource, own: Roles, made: list[Monomial]
) -> Iterator[int]:
    """Add the sums of all rows; gives the number of rows summed, batch by batch."""
    w = own.weights
    keys = list(dict.fromkeys([*own.parts, *own.factors]))
    wanted = _products(sums, made)
    texts = {pair: f"s{k}" for k, pair in enumerate(wanted)}
    chosen = [f"{quoted(key)} AS k{k}" for k, key in enumerate(keys)]
    chosen.append("count(*) AS n")
    weight = "" if w is None else f"{doubles(w)} * "
    for (one, two), name in texts.items():
        product = " * ".join(f"({x})" for x in (one, two) if x) or "1e0"
        chosen.append(f"sum({weight}{product}) AS {name}")
    plain = _plain(made, sums) if w is not None else {}
    for k, (one, two) in enumerate(plain):
        product = " * ".join(f"({x})" for x in (one, two) if x) or "1e0"
        plain[one, two] = f"p{k}"
        chosen.append(f"sum({product}) AS p{k}")
    positive = "" if w is None else f" AND {doubles(w)} > 0"
    sql = (
        f"SELECT {', '.join(chosen)} FROM {TABLE} WHERE {own.complete}{positive} "
        f"GROUP BY {', '.join(map(quoted, keys))}"
    )
    for batch in source.reader(sql):
        n = batch.column("n").to_numpy(zero_copy_only=False)
        table = as_table(batch)
        columns = {key: table.column(f"k{k}") for k, key in enumerate(keys)}
        factors = {e: maker.factor_codes(e, columns[e]) for e in own.factors}
        scales = [_contrasts(m, factors) for m in made]
        codes = [maker.codes(f.name, columns) for f in sums.factors]

        def weighted(i: int, j: int, batch=batch, scales=scales, names=texts):
            own_sum = batch.column(names[_key(made, i, j)])
            found = own_sum.to_numpy(zero_copy_only=False)
            for scale in (scales[i], scales[j]):
                found = found if scale is None else found * scale
            return found

        def unweighted(i: int, j: int, batch=batch, scales=scales, names=plain):
            return weighted(i, j, batch, scales, names)

        sums.add_sums(weighted, unweighted if plain else None, codes, n)
        yield int(n.sum())


def _key(made: Sequence[Monomial], i: int, j: int) -> tuple[str, str]:
    one, two = sorted((made[i].sql, made[j].sql))
    return one, two


def _products(sums: RowSums, made: Sequence[Monomial]) -> dict[tuple[str, str], str]:
    """Pairs of numbers whose products some block needs."""
    at = (*sums.x_at, sums.y_at)
    pairs = list(itertools.combinations_with_replacement(at, 2))
    pairs += [pair for own in sums.pairs for pair in own]
    for a, b in sums.cells:
        pairs += itertools.product(sums.factors[a].at, sums.factors[b].at)
    return dict.fromkeys((_key(made, i, j) for i, j in pairs), "")


def _plain(made: Sequence[Monomial], sums: RowSums) -> dict[tuple[str, str], str]:
    at = (*sums.x_at, sums.y_at)
    pairs = itertools.combinations_with_replacement(at, 2)
    return dict.fromkeys((_key(made, i, j) for i, j in pairs), "")


def _contrasts(m: Monomial, factors: dict[str, np.ndarray]) -> np.ndarray | None:
    out = None
    for expr, table in m.parts:
        column = table.take(factors[expr])
        out = column if out is None else out * column
    return out
