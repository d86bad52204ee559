"""Atoms to numbers, and products of atoms to columns.

``Encoder`` remembers per atom what training taught: the names of its columns if it is
numeric, its ``Coding`` (levels and contrasts) if it is a factor, and the state of
stateful transforms. With that it makes the same columns from new data.

Plain columns never pass through formulaic: a numeric column is used as it lies, a
factor is its codes. Equality with formulaic's matrices is tested.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError, JaxGLMMWarning, ModelError
from jaxglmm.formula.coding import Product
from jaxglmm.formula.contrasts import Coding, Marked, make_coding
from jaxglmm.formula.evaluate import evaluate
from jaxglmm.formula.expressions import spread
from jaxglmm.formula.levels import compress, match
from jaxglmm.formula.notices import listed, warn
from jaxglmm.formula.reading import almost_numbers, not_numeric
from jaxglmm.formula.tables import Column, read_column
from jaxglmm.formula.terms import Atom

_BLOCK = 4096
ALWAYS_FEWER = 1000  # levels from which on there must be more rows than levels
MOST_LEVELS = 10_000  # and from which on three times as many

# Values of an atom: its numeric columns, or the codes of a factor.
Values = tuple[np.ndarray, ...] | np.ndarray
# One column of a matrix: its name, and parts (expr, table of a factor or None, index).
Recipe = tuple[str, list[tuple[str, np.ndarray | None, int]]]


@dataclass
class Encoder:
    """What is remembered of every atom.

    codings: expr -> ``Coding`` of a factor, or the suffixes of its numeric columns.
    state: of stateful transforms. context: the caller's names that are used. trusted:
    whether expressions may use more than the known functions and ``context``. wishes:
    contrasts of columns that are not the default.
    """

    codings: dict[str, Coding | tuple[str, ...]] = field(default_factory=dict)
    state: dict = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    trusted: bool = True
    wishes: dict[str, Any] = field(default_factory=dict)

    def is_factor(self, expr: str) -> bool:
        return isinstance(self.codings[expr], Coding)

    def learn(
        self,
        atoms: Iterable[Atom],
        columns: Mapping[str, Column],
        n: int,
        rows: np.ndarray | None = None,
    ) -> dict[str, Values]:
        """Evaluate atoms on the data of the fit; ``rows``: original positions."""
        values: dict[str, Values] = {}
        for atom in atoms:
            if atom.expr in values:
                continue
            found = self._evaluate(atom, columns, n, learning=True)
            if isinstance(found, Marked):
                coding, codes = _learn_marked(atom.expr, found, n)
                self.codings[atom.expr], values[atom.expr] = coding, codes
            elif isinstance(found, dict):
                self.codings[atom.expr] = tuple(f"[{name}]" for name in found)
                values[atom.expr] = tuple(found.values())
            elif found.kind == "number":
                if atom.expr in self.wishes:
                    raise FormulaError(
                        f"contrasts={{{atom.expr!r}: ...}}: the column holds numbers; "
                        f"write C({atom.expr}, Sum) in the formula to make it a factor"
                    )
                self.codings[atom.expr] = ("",)
                values[atom.expr] = (np.asarray(found.values, np.float64),)
            else:
                _refuse_time(atom.expr, found)
                codes, levels = found.as_factor()
                refuse_too_many(atom.expr, found, len(levels), n)
                if almost_numbers(found):
                    warn(
                        f"{not_numeric(found)}, so it is a factor with a coefficient "
                        "for each. If it was meant as a number, make it one and the "
                        "others missing, as pandas.to_numeric(x, errors='coerce') does",
                        JaxGLMMWarning,
                    )
                wish = self.wishes.get(atom.expr) if atom.bare else None
                self.codings[atom.expr] = make_coding(atom.expr, levels, wish)
                values[atom.expr] = codes
            check_finite(atom.expr, values[atom.expr], rows)
        return values

    def apply(
        self, atoms: Iterable[Atom], columns: Mapping[str, Column], n: int
    ) -> dict[str, Values]:
        """Evaluate atoms on new data as at training; missing values give NaN."""
        values: dict[str, Values] = {}
        for atom in atoms:
            if atom.expr in values:
                continue
            found = self._evaluate(atom, columns, n)
            coding = self.codings[atom.expr]
            if isinstance(coding, Coding):
                if isinstance(found, Marked):
                    found = read_column(atom.expr, found.values)
                if isinstance(found, dict):
                    raise DataError(f"{atom.expr!r} was a factor, now several columns")
                values[atom.expr] = known_codes(atom.expr, found, coding.levels)
            elif isinstance(found, dict):
                values[atom.expr] = tuple(found.values())
            elif isinstance(found, Marked) or found.values is None:
                values[atom.expr] = (_as_numbers(atom.expr, found, n),)
            else:
                values[atom.expr] = (np.asarray(found.values, np.float64),)
        return values

    def _evaluate(
        self, atom: Atom, columns: Mapping[str, Column], n: int, learning: bool = False
    ):
        if atom.bare:
            return columns[atom.expr]
        raw = evaluate(
            atom.expr,
            columns,
            self.state,
            self.context,
            tuple(columns),
            self.trusted,
            learning,
        )
        return spread(atom.expr, raw, n)


def build(
    plans: Sequence[Sequence[Product]],
    codings: Mapping[str, Coding | tuple[str, ...]],
    values: Mapping[str, Values],
    n: int,
) -> tuple[tuple[str, ...], np.ndarray, list[tuple[int, ...]]]:
    """Names (p,), matrix (n, p), and the positions of each term's columns.

    In a product the first factor's columns run fastest, as in R.
    """
    recipes, spans = recipes_of(plans, codings)
    return tuple(name for name, _ in recipes), fill(recipes, values, n), spans


def recipes_of(
    plans: Sequence[Sequence[Product]],
    codings: Mapping[str, Coding | tuple[str, ...]],
) -> tuple[list[Recipe], list[tuple[int, ...]]]:
    """The columns of a matrix, and the positions of each term's columns."""
    recipes: list[Recipe] = []
    spans = []
    for products in plans:
        start = len(recipes)
        for product in products:
            recipes.extend(_columns(product, codings))
        spans.append(tuple(range(start, len(recipes))))
    return recipes, spans


def view(
    recipes: Sequence[Recipe], made: Sequence[Recipe], X: np.ndarray
) -> np.ndarray | None:
    """The columns as a view of X, made by other recipes, where they stand in it."""
    place = {name: j for j, (name, _) in enumerate(made)}
    at = [place.get(name, -1) for name, _ in recipes]
    if not at or min(at) < 0:
        return None
    same = all(alike(r, made[j]) for r, j in zip(recipes, at, strict=True))
    step = at[1] - at[0] if len(at) > 1 else 1
    if not same or step < 1 or at != list(range(at[0], at[-1] + 1, step)):
        return None
    found = X[:, at[0] : at[-1] + 1 : step]
    found.flags.writeable = False
    return found


def alike(one: Recipe, two: Recipe) -> bool:
    """Whether two columns are the same, factors' contrasts included."""
    if len(one[1]) != len(two[1]):
        return False
    for (a, table, i), (b, other, j) in zip(one[1], two[1], strict=True):
        if a != b or i != j or (table is None) != (other is None):
            return False
        if table is not None and not np.array_equal(table, other, equal_nan=True):
            return False
    return True


def fill(recipes: Sequence[Recipe], values: Mapping[str, Values], n: int) -> np.ndarray:
    """The matrix, by blocks of rows, since whole columns would miss the cache."""
    p = len(recipes)
    X = np.empty((n, p))
    if n <= _BLOCK:
        for j, (_, parts) in enumerate(recipes):
            _product(parts, values, slice(0, n), X[:, j])
        return X
    buffer = np.empty((p, _BLOCK))
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        block = buffer[:, : rows.stop - start]
        for j, (_, parts) in enumerate(recipes):
            _product(parts, values, rows, block[j])
        X[rows] = block.T
    return X


def _product(parts, values: Mapping[str, Values], rows: slice, out: np.ndarray) -> None:
    """One column at some rows: the product of its parts."""
    if not parts:
        out[:] = 1.0
    for i, (expr, table, k) in enumerate(parts):
        found = values[expr]
        # code -1, a missing value, picks the NaN at the end of the table
        column = found[k][rows] if table is None else table.take(found[rows])
        if i == 0:
            out[:] = column
        else:
            out *= column


def check_finite(expr: str, values: Values, rows: np.ndarray | None) -> None:
    """Refuse NaN and infinite numbers, saying where they are."""
    if not isinstance(values, tuple):
        return
    for column in values:
        with np.errstate(invalid="ignore", over="ignore"):
            if np.isfinite(column.sum()):
                continue
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad) == 0:
            continue
        shown = bad[:5] if rows is None else rows[bad[:5]]
        infinite = int(np.isinf(column).sum())
        what = "infinite" if infinite == len(bad) else "infinite or undefined (NaN)"
        where = ", ".join(str(i) for i in shown) + (", ..." if len(bad) > 5 else "")
        raise DataError(
            f"{expr!r} is {what} in {len(bad)} row{'s' * (len(bad) > 1)} "
            f"(position {where}); remove or correct them"
        )


def _columns(product: Product, codings) -> list[tuple[str, list]]:
    """Name of each column of a product, and parts (expr, table or None, index)."""
    choices = []
    for expr, reduced in product:
        coding = codings[expr]
        if isinstance(coding, Coding):
            matrix = coding.matrix(reduced)
            table = np.vstack([matrix, np.full((1, matrix.shape[1]), np.nan)])
            names = coding.names(reduced)
            if reduced and matrix.shape[1] == 0:
                raise ModelError(
                    f"factor {expr!r} has only one level "
                    f"({listed(list(coding.levels))}), so it has no effect to "
                    "estimate; take it out of the formula"
                )
            choices.append(
                [(expr + s, (expr, table[:, k], k)) for k, s in enumerate(names)]
            )
        else:
            choices.append([(expr + s, (expr, None, k)) for k, s in enumerate(coding)])
    found = []
    for combination in itertools.product(*reversed(choices)):
        ordered = combination[::-1]
        name = ":".join(part[0] for part in ordered) or "(Intercept)"
        found.append((name, [part[1] for part in ordered]))
    return found


def _learn_marked(expr: str, found: Marked, n: int) -> tuple[Coding, np.ndarray]:
    """Levels and contrasts of ``C(...)``."""
    column = read_column(expr, found.values)
    if len(column) != n:
        raise DataError(f"{expr!r} gives {len(column)} values for {n} rows")
    codes, levels = column.as_factor()
    refuse_too_many(expr, column, len(levels), n)
    if found.levels is not None:
        wanted = read_column(expr, list(found.levels)).labels()
        place = match(wanted, levels)
        if (place < 0).any():
            raise DataError(
                f"{expr!r}: the data have levels {listed(list(levels[place < 0]))} "
                "that levels= does not name"
            )
        codes, used = compress(place.take(codes), len(wanted))
        levels = wanted[used]
    return make_coding(expr, levels, found.contrasts), codes


def refuse_too_many(expr: str, column: Column, count: int, n: int) -> None:
    """Refuse factors with so many levels for their rows that no model has use for them.

    Raises:
        ModelError: before the matrix takes all memory.
    """
    always = count >= n and count > ALWAYS_FEWER
    if always or (count > n / 3 and count > MOST_LEVELS):
        raise ModelError(
            f"{expr!r} is a factor with {count} levels for {n} rows, a coefficient for "
            f"each: {not_numeric(column)}. Make it a number, or a grouping factor"
        )


def known_codes(expr: str, column: Column, levels: np.ndarray) -> np.ndarray:
    """Codes of a factor in new data; levels that the fit did not see are an error."""
    codes, labels = column.as_factor()
    place = match(levels, labels)
    if (place < 0).any():
        raise DataError(
            f"new data: {expr!r} has levels {listed(list(labels[place < 0]))} that "
            f"were not in the data of the fit; known are {listed(list(levels))}"
        )
    return np.append(place, np.int32(-1)).take(codes)


def _as_numbers(expr: str, found, n: int) -> np.ndarray:
    """A numeric variable that new data hold as text: accepted where all is missing."""
    if isinstance(found, Column) and (found.codes < 0).all():  # type: ignore[operator]
        return np.full(n, np.nan)
    if not isinstance(found, Column):
        raise DataError(
            f"new data: {expr!r} was numeric in the fit, now it is a factor"
        )
    raise DataError(
        f"new data: {expr!r} was numeric in the fit, but is text now: "
        f"{not_numeric(found)}"
    )


def _refuse_time(expr: str, column: Column) -> None:
    if column.kind == "time":
        raise FormulaError(
            f"{expr!r} holds dates or durations; make a number of it first, e.g. a "
            "column (t - t.min()).dt.days, or a factor with C()"
        )
