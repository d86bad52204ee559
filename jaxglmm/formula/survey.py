"""What a formula has to know of a table before any row of its design can be made.

Of a table in memory all is there at once. Here it comes in batches, and one pass
gathers what rows depend on beyond themselves: the levels of factors and groups, which
rows are complete, means and sums of squares of numbers (for ``scale``, and to move
columns before they are squared). What else depends on other rows (``x - x.mean()``,
``rank``, ``bs``) is found by evaluating a part of a batch again, and refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm._errors import DataError, FormulaError, MissingRowsWarning, ModelError
from jaxglmm.formula.against_table import ReadFormula, columns_used, read_formula
from jaxglmm.formula.column import Column
from jaxglmm.formula.contrasts import Marked, make_coding
from jaxglmm.formula.encode import Encoder, check_finite, refuse_too_many
from jaxglmm.formula.evaluate import TRUST, evaluate
from jaxglmm.formula.expressions import context_used, spread
from jaxglmm.formula.given import OFFSET, TRIALS, WEIGHTS, in_table
from jaxglmm.formula.groups import GroupCoding
from jaxglmm.formula.labels import Growing
from jaxglmm.formula.notices import warn
from jaxglmm.formula.parse import Grouping
from jaxglmm.formula.reading import not_numeric
from jaxglmm.formula.response import NUMERIC
from jaxglmm.formula.structures import KERNELS, STEPS
from jaxglmm.formula.tables import Table, read_column
from jaxglmm.formula.terms import Atom

CACHED = 32_768  # values that stay in the cache
PROBE = 64  # rows of a batch on which expressions are evaluated again
MOVED = re.compile(r"(scale|center|standardize)\(([^,]*)\)")  # what moments give
SAME = 1e-9  # relative difference that is rounding
SMOOTH = re.compile(r"(?<![\w.])(s|te|t2|ti)\s*\(")


@dataclass
class NumberFacts:
    """n, mean and sum of squares about it of a number, batch by batch."""

    n: int = 0
    mean: float = 0.0
    square: float = 0.0
    only: float | None = None  # the value of all, while there is one

    def add(self, values: np.ndarray) -> None:
        """More values, (n,), a cache at a time."""
        for start in range(0, len(values), CACHED):
            self._add(np.asarray(values[start : start + CACHED], np.float64))

    def _add(self, x: np.ndarray) -> None:
        """By the update of Chan, Golub and LeVeque (1983)."""
        n = len(x)
        if self.n == 0:
            self.only = float(x[0])
        if self.only is not None and not (x == self.only).all():
            self.only = None
        about = self.mean if self.n else float(x.mean())
        rest = x - about
        shift = float(rest.sum()) / n
        square = max(float(np.square(rest).sum()) - n * shift**2, 0.0)
        delta, total = about + shift - self.mean, self.n + n
        self.square += square + delta**2 * self.n * n / total
        self.mean += delta * n / total
        self.n = total

    @property
    def sd(self) -> float:
        """Root mean square about the mean; 1 where all values are the same."""
        if self.only is not None:
            return 1.0
        return float(np.sqrt(self.square / self.n)) or 1.0


@dataclass
class Survey:
    """What the batches of a table taught of a formula.

    n: rows seen; complete: rows with no missing value; counted: those of positive
    weight; lost: column -> missing values; support: refuses responses, with their
    trials, that a family does not have.
    """

    formula: str
    names: tuple[str, ...]
    weights: str | None = None
    offset: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    contrasts: Mapping[str, Any] | None = None
    n: int = 0
    complete: int = 0
    counted: int = 0
    log_weights: float = 0.0
    lost: dict[str, int] = field(default_factory=dict)
    numbers: dict[tuple[str, int], NumberFacts] = field(default_factory=dict)
    factors: dict[str, Growing] = field(default_factory=dict)
    parts: dict[str, Growing] = field(default_factory=dict)
    cells: dict[str, Growing] = field(default_factory=dict)
    suffixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    response: NumberFacts = field(default_factory=NumberFacts)  # less the offset
    has_offset: bool = False
    family_kind: str = NUMERIC
    trials: str | None = None
    support: Callable[[np.ndarray, Any], None] | None = None
    _probed: bool = False

    def __post_init__(self) -> None:
        found = SMOOTH.search(self.formula)
        if found:
            raise FormulaError(
                f"the smooth {found[1]}() learns from all rows at once, and the table "
                "is read in batches: fit it to some of the groups, from a table in "
                "memory"
            )
        trusted = TRUST.get()
        self.context = (self.context or {}) if trusted else {}
        table = Table(self.names, 0, frozenset(self.names).__contains__)
        given = (self.weights, self.offset, self.trials)
        self.read: ReadFormula = read_formula(
            self.formula, table, self.family_kind, given, self.trials
        )
        self.used = columns_used(self.read, self.context)
        texts = [a.expr for a in self.read.every if not a.bare]
        kept = context_used(texts, self.read.known, self.context)
        self.encoder = Encoder(context=kept, trusted=trusted)
        for part in self.read.parts:
            if part.covariance.partition("(")[0] in (*KERNELS, *STEPS, "rr"):
                raise ModelError(
                    f"{part.covariance}() is for a table in memory; a table in "
                    "batches takes (x | g), (x || g), diag() and cs()"
                )

    @property
    def columns(self) -> list[str]:
        """Columns to be read, in the order of the table."""
        more = [n for n in (self.weights, self.offset, self.trials) if n is not None]
        wanted = {*self.used, *more}
        return [name for name in self.names if name in wanted]

    @property
    def groupings(self) -> dict[str, Grouping]:
        """The grouping factors by name."""
        return {part.grouping.name: part.grouping for part in self.read.parts}

    @property
    def facts(self) -> tuple[Any, ...]:
        """By which the response less offset and the weights are known again."""
        y = self.response
        return self.counted, y.n, y.mean, y.square, self.weights, self.log_weights

    def complete_rows(self, table: Table) -> tuple[dict[str, Column], int]:
        """The columns of a batch at the rows without a missing value, and how many."""
        columns = {name: table.column(name) for name in self.used}
        given = (WEIGHTS, self.weights), (OFFSET, self.offset), (TRIALS, self.trials)
        for label, name in given:
            column = in_table(label, name, table)
            if column is not None:
                columns[label] = column
        lost = None
        for name, column in columns.items():
            mask = column.missing
            if mask is not None:
                self.lost[name] = self.lost.get(name, 0) + int(mask.sum())
                lost = mask if lost is None else lost | mask
        if lost is None:
            return columns, table.n
        rows = np.flatnonzero(~lost)
        return {name: column.take(rows) for name, column in columns.items()}, len(rows)

    def see(self, table: Table) -> None:
        """Take note of a batch.

        Raises:
            DataError, FormulaError: values that cannot be used.
        """
        self.n += table.n
        columns, n = self.complete_rows(table)
        self.complete += n
        if n == 0:
            return
        if not self._probed:
            self._probe(columns, n)
        w = checked_weights(columns.get(WEIGHTS))
        if w is not None:
            w = w[w > 0]
            self.log_weights += float(np.log(w).sum())
        self.counted += n if w is None else len(w)
        y, offset = self.y(columns, n), self.offsets(columns, n)
        self.has_offset = offset is not None
        if self.support is not None:
            self.support(y, self.trials_of(columns, n))
        self.response.add(y if offset is None else y - offset)
        for atom in dict.fromkeys(self.read.atoms):
            self._see_atom(atom, columns, n)
        for name in self.groupings:
            self.see_group(name, columns)

    def see_group(self, name: str, columns: Mapping[str, Column]) -> None:
        """Take note of levels of a grouping factor, by the columns of its parts."""
        parts = self.groupings[name].parts
        seen = [self.parts.setdefault(part, Growing()) for part in parts]
        if len(seen) == 1:
            seen[0].note(columns[parts[0]])
            return
        pairs = zip(seen, parts, strict=True)
        self._see_cells(name, [own.add(columns[part]) for own, part in pairs])

    def see_factor(self, expr: str, column: Column) -> None:
        """Take note of levels of a factor among the predictors."""
        self.factors.setdefault(expr, Growing()).add(column)

    def _see_cells(self, name: str, codes: list[np.ndarray]) -> None:
        """Combinations of parts, by codes that stay."""
        total = codes[0].astype(np.int64)
        for k, more in enumerate(codes[1:]):
            if k:  # pairs before triples, so that a number holds them
                total = self.cells.setdefault(f"{name}/{k}", Growing()).add(
                    Column(name, "number", total)
                )
            total = (total << 32) + more
        self.cells.setdefault(name, Growing()).add(Column(name, "number", total))

    def _see_atom(self, atom: Atom, columns: Mapping[str, Column], n: int) -> None:
        expr = atom.expr
        moved = MOVED.fullmatch(expr)
        if moved and not atom.bare:
            inner = self._value(moved[2], columns, n)
            self._see_numbers(expr, ("",), (_doubles(expr, inner),))
            return
        found = columns[expr] if atom.bare else self._value(expr, columns, n)
        if isinstance(found, Marked):
            self.marks[expr] = found
            found = read_column(expr, found.values)
            self.see_factor(expr, found)
        elif isinstance(found, dict):
            suffixes = tuple(f"[{name}]" for name in found)
            self._see_numbers(expr, suffixes, tuple(found.values()))
        elif found.kind == "number":
            assert found.values is not None
            self._see_numbers(expr, ("",), (found.values,))
        elif found.kind == "time":
            raise FormulaError(
                f"{expr!r} holds dates or durations; make a number of it first"
            )
        else:
            self.see_factor(expr, found)

    def _value(self, expr: str, columns: Mapping[str, Column], n: int) -> Any:
        scope = (self.encoder.context, tuple(columns), self.encoder.trusted)
        return spread(expr, evaluate(expr, columns, {}, *scope), n)

    def _see_numbers(
        self, expr: str, suffixes: tuple[str, ...], values: tuple[np.ndarray, ...]
    ) -> None:
        if expr in self.factors:
            raise DataError(f"{expr!r} held labels before, and holds numbers here")
        check_finite(expr, values, None)
        self.suffixes[expr] = suffixes
        for k, x in enumerate(values):
            facts = self.numbers.setdefault((expr, k), NumberFacts())
            facts.add(x)

    def y(self, columns: Mapping[str, Column], n: int) -> np.ndarray:
        """(n,) the response of a batch.

        Raises:
            DataError: it is not numeric, or not finite.
        """
        return self._left(self.read.left.atoms[0], columns, n)

    def _left(self, atom: Atom, columns: Mapping[str, Column], n: int) -> np.ndarray:
        bare = atom.bare
        column = columns[atom.expr] if bare else self._value(atom.expr, columns, n)
        if not isinstance(column, Column) or column.kind not in ("number", "truth"):
            what = not_numeric(column) if isinstance(column, Column) else "a table"
            raise DataError(f"response {atom.expr!r} is not numeric: {what}")
        y = np.asarray(column.values, np.float64)
        check_finite(atom.expr, (y,), None)
        return y

    def trials_of(self, columns: Mapping[str, Column], n: int) -> np.ndarray | None:
        """(n,) trials of a batch; None where a row is one.

        Raises:
            DataError: they are given twice, or are no numbers.
        """
        given = _given_trials(columns.get(TRIALS))
        if len(self.read.left.atoms) == 1:
            return given
        one, two = (self._left(atom, columns, n) for atom in self.read.left.atoms)
        return _trials(self.read.left, one, two, given)

    def offsets(self, columns: Mapping[str, Column], n: int) -> np.ndarray | None:
        """(n,) the known part of the predictor in a batch."""
        total = None
        if OFFSET in columns:
            total = np.asarray(columns[OFFSET].values, np.float64)
        for atom in self.read.offsets:
            bare = atom.bare
            found = columns[atom.expr] if bare else self._value(atom.expr, columns, n)
            more = _doubles(f"offset({atom.expr})", found)
            total = more if total is None else total + more
        if total is not None:
            check_finite(OFFSET, (total,), None)
        return total

    def _probe(self, columns: Mapping[str, Column], n: int) -> None:
        """Refuse expressions whose value in a row depends on other rows."""
        self._probed = True
        if n < 2:
            return
        rows = np.arange(0, n, max(2, n // PROBE))
        some = {name: column.take(rows) for name, column in columns.items()}
        for atom in self.read.every:
            if atom.bare:
                continue
            moved = MOVED.fullmatch(atom.expr)
            expr = moved[2] if moved else atom.expr
            try:
                one = _plain(self._value(expr, columns, n))
                two = _plain(self._value(expr, some, len(rows)))
                same = all(
                    _alike(a[rows], b) for a, b in zip(one, two, strict=True)
                ) and len(one) == len(two)
            except (DataError, FormulaError, ValueError):
                same = False
            if not same:
                raise FormulaError(
                    f"{atom.expr!r} depends on other rows than its own, and the table "
                    "is read in batches. Make it a column of the data; scale(x) and "
                    "center(x) of a column are known, and I(x**2) in place of poly()"
                )

    # When all have been seen -------------------------------------------------------

    def finish(self, missing: str) -> None:
        """Say what was lost, and learn the codings of the factors.

        Raises:
            DataError, ModelError: no rows, missing values where none may be, factors
                with too many levels.
        """
        if not _arguments.is_among(missing, ("drop", "raise")):
            what = _arguments.shown(missing)
            raise DataError(f"missing must be 'drop' or 'raise', not {what}")
        if self.n == 0:
            raise DataError("the data have no rows", status=_status.TOO_FEW)
        gone = self.n - self.complete
        where = ", ".join(f"{name} ({count})" for name, count in self.lost.items())
        if gone and missing == "raise":
            raise DataError(
                f"{gone} of {self.n} rows have missing values: {where}. Fill them, or "
                "use missing='drop'"
            )
        if not self.complete:
            raise DataError(
                f"no row is complete; missing values: {where}", status=_status.TOO_FEW
            )
        if gone:
            warn(
                f"{gone} of {self.n} rows were dropped because of missing values: "
                f"{where}",
                MissingRowsWarning,
            )
        if not self.counted:
            raise DataError("all weights are zero: there is nothing to fit")
        if self.response.only is not None and not self.has_offset:
            raise ModelError(
                f"the response is constant ({self.response.only:g} in every row): "
                "there is no variation to explain. Check that the right column was "
                "taken",
                status=_status.CONSTANT,
            )
        self._code()

    def _code(self) -> None:
        wishes = dict(self.contrasts or {})
        for expr, suffixes in self.suffixes.items():
            self.encoder.codings[expr] = suffixes
            moved = MOVED.fullmatch(expr)
            if moved:
                self.encoder.state[expr] = _scaling(moved[1], self.numbers[expr, 0])
        for expr, seen in self.factors.items():
            levels, _ = seen.sorted()
            column = Column(expr, "label", levels=levels, codes=np.zeros(0, np.int32))
            refuse_too_many(expr, column, len(levels), self.complete)
            mark = self.marks.get(expr)
            wish = wishes.pop(expr, None) if mark is None else mark.contrasts
            if mark is not None and mark.levels is not None:
                raise FormulaError(
                    f"{expr!r}: levels= is for a table in memory; make the column a "
                    "categorical, whose levels have an order"
                )
            self.encoder.codings[expr] = make_coding(expr, levels, wish)
        if wishes:
            name = next(iter(wishes))
            raise FormulaError(
                f"contrasts={{{name!r}: ...}}: the formula has no factor of that name"
            )

    def group(self, name: str) -> GroupCoding:
        """A grouping factor with the levels that were seen."""
        parts = self.groupings[name].parts
        found = [self.parts[part].sorted() for part in parts]
        levels = tuple(own for own, _ in found)
        if len(parts) == 1:
            return GroupCoding(name, parts, levels, None, levels[0])
        cells = self.cells[name].labels
        assert cells is not None
        ranks = [rank for _, rank in found]
        columns: list[np.ndarray] = []
        for k in reversed(range(1, len(parts))):
            columns.insert(0, ranks[k].take(cells & 0xFFFFFFFF))
            cells = cells >> 32
            if k > 1:
                before = self.cells[f"{name}/{k - 1}"].labels
                assert before is not None
                cells = before[cells]
        columns.insert(0, ranks[0].take(cells))
        table = np.stack(columns, axis=1).astype(np.int32)
        table = table[np.lexsort(table.T[::-1])]
        return GroupCoding.of_cells(name, parts, levels, table)


def checked_weights(column: Column | None) -> np.ndarray | None:
    """Prior weights of a batch: finite and not negative."""
    if column is None:
        return None
    w = np.asarray(column.values, np.float64)
    check_finite(WEIGHTS, (w,), None)
    if (w < 0).any():
        raise DataError(
            f"weights must not be negative; {int((w < 0).sum())} are, such as "
            f"{w.min():g}"
        )
    return w


def _given_trials(column: Column | None) -> np.ndarray | None:
    if column is None:
        return None
    values = np.asarray(column.values, np.float64)
    check_finite(TRIALS, (values,), None)
    return values


def _trials(
    left: Any, one: np.ndarray, two: np.ndarray, given: np.ndarray | None
) -> np.ndarray:
    """Trials of a left side in two parts."""
    if given is not None:
        raise DataError(f"the trials are given twice: in {left.text} and as trials=")
    if left.form == "trials":
        return two
    if (two < 0).any():
        raise DataError(
            f"{left.text}: negative failures, such as {two.min():g}; the second column "
            "counts failures, n - k, not trials"
        )
    return one + two


def _scaling(word: str, facts: NumberFacts) -> dict[str, Any]:
    """The state of formulaic's ``scale``, ``center`` or ``standardize``."""
    ddof = 0 if word == "standardize" else 1
    sd = np.sqrt(facts.square / max(facts.n - ddof, 1))
    scale = None if word == "center" else np.float64(sd)
    return {"ddof": ddof, "center": np.float64(facts.mean), "scale": scale}


def _doubles(what: str, found: Any) -> np.ndarray:
    if not isinstance(found, Column) or found.kind not in ("number", "truth"):
        raise FormulaError(f"{what} must be one numeric column")
    return np.asarray(found.values, np.float64)


def _plain(found: Any) -> list[np.ndarray]:
    """The columns of what an expression gave, as arrays."""
    if isinstance(found, Marked):
        found = read_column("", found.values)
    if isinstance(found, dict):
        return [np.asarray(x) for x in found.values()]
    return [found.labels()]


def _alike(one: np.ndarray, two: np.ndarray) -> bool:
    if one.dtype.kind in "fiu" and two.dtype.kind in "fiu":
        return bool(np.allclose(one, two, rtol=SAME, atol=0.0, equal_nan=True))
    return bool(np.array_equal(one, two))
