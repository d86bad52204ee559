"""What a worksheet function says about its arguments, in which order.

The texts and their order are a contract: sheets test for them. There are two of them,
one a family of functions; each check returns a text, or None where there is nothing to
say. Cells are counted from zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

Matrix = list[list[Any]]
Check = Callable[[], "str | None"]
PLAIN = {int, float, bool}
LABELS = ("groups", "visits")  # columns of numbers or of text


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call as they are meant.

    names, random_names: of the columns of x and x_random, None without a header;
    fourth: what the function calls ``x_random``; more: the arguments that this function
    alone takes, ranges as matrices.
    """

    y: Any
    x: Any
    groups: Any
    x_random: Any
    fit_intercept: Any
    alpha: Any
    names: list[str] | None
    random_names: list[str] | None
    fourth: str = "x_random"
    more: dict[str, Any] = field(default_factory=dict)


def invalid(text: str) -> str:
    """The text of a bad argument."""
    return f"Invalid input: {text}"


def is_number(value: Any) -> bool:
    """Whether a cell holds a number; TRUE and FALSE are numbers."""
    return isinstance(value, bool | int | float)


def is_finite(value: Any) -> bool:
    """Whether a number is finite; JSON has whole numbers that no float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def all_numbers(rows: Any) -> bool:
    """Whether rows are lists of finite numbers alone; quick, where nothing is wrong."""
    if not all(type(row) is list and row for row in rows):
        return False
    cells = list(chain.from_iterable(rows))
    return {*map(type, cells)} <= PLAIN and all(map(is_finite, cells))


def first(checks: Iterator[str | None]) -> str | None:
    """The first text of several checks."""
    return next((text for text in checks if text is not None), None)


# The contract of GLMM_POISSON ---------------------------------------------------------


def count_matrix(name: str, value: Any, labels: bool = False) -> str | None:
    """Whether a value is a matrix of finite numbers (or, for labels, all of text)."""
    if not isinstance(value, list):
        return invalid(f"{name} must be a 2D list.")
    if not value:
        return invalid(f"{name} cannot be empty.")
    if all_numbers(value):
        return None
    text_allowed = labels and all_text(value)
    for i, row in enumerate(value):
        if not isinstance(row, list):
            return invalid(f"{name} row {i} must be a list.")
        if not row:
            return invalid(f"{name} row {i} cannot be empty.")
        for j, cell in enumerate(row):
            if text_allowed:
                continue
            if not is_number(cell):
                return invalid(f"{name}[{i}][{j}] must be numeric.")
            if not is_finite(cell):
                return invalid(f"{name}[{i}][{j}] must be finite.")
    return None


def count_width(name: str, value: Matrix) -> str | None:
    """Whether all rows are as wide as the first."""
    width = len(value[0])
    for i, row in enumerate(value):
        if len(row) != width:
            return invalid(f"{name} row {i} has {len(row)} columns, expected {width}.")
    return None


def one_column(name: str, value: Matrix) -> str | None:
    """Whether a matrix is one column."""
    if len(value[0]) != 1:
        return invalid(f"{name} must be a column vector (single column).")
    return None


def counts(y: Matrix) -> Iterator[str | None]:
    """Non-negative whole numbers."""
    for i, (value,) in enumerate(y):
        if value < 0:
            yield invalid(f"y[{i}] must be non-negative (count data).")
    for i, (value,) in enumerate(y):
        if value != math.floor(value):
            yield invalid(f"y[{i}] must be an integer (count data).")


def level(alpha: Any) -> Iterator[str | None]:
    """A number strictly between 0 and 1."""
    if isinstance(alpha, bool) or not is_number(alpha):
        yield invalid("alpha must be numeric.")
    elif not is_finite(alpha):
        yield invalid("alpha must be finite.")
    elif not 0 < alpha < 1:
        yield invalid("alpha must be between 0 and 1.")


def truth(fit_intercept: Any) -> str | None:
    """TRUE or FALSE; 1 and 0, which is how some spreadsheets send them."""
    if isinstance(fit_intercept, bool) or (
        is_number(fit_intercept) and fit_intercept in (0, 1)
    ):
        return None
    return invalid("fit_intercept must be a boolean.")


def of_counts(call: Arguments, extended: bool) -> Iterator[str | None]:
    """Every check of GLMM_POISSON and GLMM_NEGBIN, in order."""
    yield from _of_matrices(call)
    yield from counts(call.y)
    yield from _of_options(call)


def of_numbers(call: Arguments, extended: bool) -> Iterator[str | None]:
    """Every check of LMM, in order."""
    yield from _of_matrices(call)
    yield from _of_options(call)


def _of_matrices(call: Arguments, labels: bool = False) -> Iterator[str | None]:
    """Ranges; labels: whether y may be text, too."""
    y = call.y
    matrices = [("y", y), ("x", call.x), ("groups", call.groups)]
    if call.x_random is not None:
        matrices.append((call.fourth, call.x_random))
    if call.more.get("x_zero") is not None:
        matrices.append(("x_zero", call.more["x_zero"]))
    for name, value in matrices:
        text = name in LABELS or (labels and name == "y")
        yield count_matrix(name, value, labels=text)
    for name, value in matrices[1:]:
        if len(value) != len(y):
            yield invalid(f"y and {name} must have the same number of rows.")
    for name, value in matrices:
        yield count_width(name, value)
        if name in ("y", *LABELS):
            yield one_column(name, value)


def _of_options(call: Arguments) -> Iterator[str | None]:
    yield truth(call.fit_intercept)
    yield from level(call.alpha)


def of_categories(call: Arguments, extended: bool) -> Iterator[str | None]:
    """Every check of CLMM, in order."""
    yield from _of_matrices(call, labels=True)
    levels = call.more.get("levels")
    if levels is None and all_text(call.y):
        yield invalid("y is text; give levels, the categories in their order.")
    if levels is not None:
        known = {*map(plain, levels)}
        for i, (value,) in enumerate(call.y):
            if plain(value) not in known:
                yield invalid(f"y[{i}] is {value!r}, which is not among levels.")
    yield from _of_options(call)
    if not call.fit_intercept:
        yield invalid("fit_intercept must be TRUE: thresholds are the intercept.")


def plain(value: Any) -> Any:
    """A category as it is compared and shown: text, or a number without its point."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


def of_visits(call: Arguments, extended: bool) -> Iterator[str | None]:
    """Every check of MMRM, in order."""
    if call.x_random is None:
        yield invalid("visits is missing.")
    yield from _of_matrices(call)
    yield from _of_options(call)


# The contract of GLMM_BINOMIAL --------------------------------------------------------


def shape(
    name: str, value: Any, rows: int = 2, columns: int = 1, labels: bool = False
) -> str | None:
    """Whether a value is a large enough matrix of finite numbers."""
    if not isinstance(value, list):
        return invalid(f"{name} must be a 2D list.")
    if len(value) < rows:
        return invalid(f"{name} must have at least {rows} row(s).")
    for i, row in enumerate(value):
        if not isinstance(row, list):
            return invalid(f"{name} row {i} must be a list.")
    if len(value[0]) < columns:
        return invalid(f"{name} must have at least {columns} column(s).")
    if any(len(row) != len(value[0]) for row in value):
        return invalid(f"{name} must have consistent column count.")
    if (labels and all_text(value)) or all_numbers(value):
        return None
    for i, row in enumerate(value):
        for j, cell in enumerate(row):
            if not is_number(cell):
                return invalid(f"{name}[{i}][{j}] must be numeric.")
            if not is_finite(cell):
                return invalid(f"{name}[{i}][{j}] must be finite.")
    return None


def of_zeros_and_ones(call: Arguments, extended: bool) -> Iterator[str | None]:
    """Every check of GLMM_BINOMIAL in order; extended: y may have two columns."""
    y, x, groups, x_random = call.y, call.x, call.groups, call.x_random
    yield shape("y", y)
    if not (extended and len(y[0]) == 2):
        yield one_column("y", y)
    yield shape("x", x)
    yield shape("groups", groups, labels=True)
    yield one_column("groups", groups)
    if not len(y) == len(x) == len(groups):
        yield invalid("y, x, and groups must have the same number of rows.")
    if len(y[0]) == 2:
        if any(v < 0 or v != math.floor(v) for row in y for v in row):
            yield invalid("y must contain non-negative whole numbers.")
    elif any(value not in (0, 1) for (value,) in y):
        yield invalid("y must contain only 0 or 1 values.")
    yield from level(call.alpha)
    yield truth(call.fit_intercept)
    if x_random is not None:
        yield shape("x_random", x_random)
        if len(x_random) != len(y):
            yield invalid("x_random must have the same number of rows as y.")


def all_text(value: Any) -> bool:
    """Whether every cell is text that is not empty."""
    cells = [c for row in value if isinstance(row, list) for c in row]
    return bool(cells) and all(isinstance(c, str) and c.strip() for c in cells)
