"""What spreadsheets distort, repaired: the way from a cell's formula to a function.

Ranges arrive with empty rows below the data, an inline column as a row, a single cell
as a matrix, TRUE as 1.0, an empty argument as a blank. Arguments of a formula go by
position, in this order: y, x, groups, x_random, fit_intercept, alpha, method, extended,
names; three functions take one more, and MMRM has visits in the place of x_random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxglmm.spreadsheet import checks, functions

ARGUMENTS = (
    "y",
    "x",
    "groups",
    "x_random",
    "fit_intercept",
    "alpha",
    "method",
    "extended",
    "names",
)
RANGES = (*ARGUMENTS[:4], "visits", "x_zero")

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "GLMM_POISSON": functions.glmm_poisson,
    "GLMM_BINOMIAL": functions.glmm_binomial,
    "GLMM_NEGBIN": functions.glmm_negbin,
    "GLMM_GAUSSIAN": functions.glmm_gaussian,
    "LMM": functions.lmm,
    "GLMM_ZINB": functions.glmm_zinb,
    "CLMM": functions.clmm,
    "MMRM": functions.mmrm,
}
OWN = {  # what takes others than these, by position
    "GLMM_ZINB": (*ARGUMENTS, "x_zero"),
    "CLMM": (*ARGUMENTS, "levels"),
    "MMRM": (*ARGUMENTS[:3], "visits", *ARGUMENTS[4:], "covariance"),
}


def arguments_of(name: str) -> tuple[str, ...]:
    """Names of a function's arguments by position; the function's in upper case."""
    return OWN.get(name, ARGUMENTS)


def call(name: str, arguments: Sequence[Any] | Mapping[str, Any]) -> Any:
    """Evaluate a worksheet function as a spreadsheet calls it.

    Args:
        name: as in the formula, in any case.
        arguments: by position, or by name.

    Returns:
        A list of rows, or a text.

    >>> call("glmm_poisson", [[[2], [3]], [[1], [2]]])
    'Invalid input: groups is missing.'
    """
    function, known = FUNCTIONS.get(name.upper()), arguments_of(name.upper())
    if function is None:
        return f"Invalid input: there is no function {name}."
    if isinstance(arguments, Mapping):
        unknown = [str(k) for k in arguments if k not in known]
        if unknown:
            return f"Invalid input: there is no argument {unknown[0]}."
        given = dict(arguments)
    else:
        if len(arguments) > len(known):
            return f"Invalid input: at most {len(known)} arguments."
        given = dict(zip(known, arguments, strict=False))
    missing = [n for n in known[:3] if n not in given]
    if missing:
        return f"Invalid input: {missing[0]} is missing."
    return function(**repaired(given))


def repaired(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as the functions want them."""
    out = {k: v for k, v in given.items() if not blank(v)}
    for name in ("y", "x", "groups"):
        out.setdefault(name, given.get(name))
    for name in ("fit_intercept", "alpha", "method", "extended", "covariance"):
        if name in out:
            out[name] = single(out[name])
    for name in ("x_random", "visits"):
        if name in out:
            out[name] = single(out[name])
    for name in ("names", "levels"):
        if isinstance(out.get(name), list):
            out[name] = [c for row in out[name] for c in _cells(row) if not blank(c)]
    return upright(without_empty_rows(out))


def blank(value: Any) -> bool:
    """Whether a cell, or an argument, is empty."""
    return value is None or (isinstance(value, str) and not value.strip())


def single(value: Any) -> Any:
    """A matrix of one cell as the cell."""
    if isinstance(value, list) and len(value) == 1:
        cells = _cells(value[0])
        return cells[0] if len(cells) == 1 else value
    return value


def _cells(row: Any) -> list[Any]:
    return list(row) if isinstance(row, list | tuple) else [row]


def upright(given: dict[str, Any]) -> dict[str, Any]:
    """Rows that were meant as columns: one row where others have several cells."""
    out = dict(given)
    for name in ("y", "groups", "visits"):
        if _is_row(out.get(name)):
            out[name] = [[cell] for cell in out[name][0]]
    n = len(out["y"]) if isinstance(out.get("y"), list) else 0
    for name in ("x", "x_random", "x_zero"):
        value = out.get(name)
        if _is_row(value) and n > 1 and len(value[0]) == n:  # type: ignore[index]
            out[name] = [[cell] for cell in value[0]]  # type: ignore[index]
    return out


def _is_row(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 1
        and isinstance(value[0], list | tuple)
        and len(value[0]) > 1
    )


def without_empty_rows(given: dict[str, Any]) -> dict[str, Any]:
    """Ranges without the rows that are empty in all of them.

    A column may be selected whole: ``A:A`` beside data of ten rows.
    """
    ranges = {
        k: v
        for k, v in given.items()
        if k in RANGES and isinstance(v, list) and not _is_row(v)
    }
    if not ranges:
        return given
    if (
        all(map(checks.all_numbers, ranges.values()))
        and len({len(v) for v in ranges.values()}) == 1
    ):
        return given
    longest = max(len(v) for v in ranges.values())
    keep = [
        any(
            i < len(rows) and not all(blank(c) for c in _cells(rows[i]))
            for rows in ranges.values()
        )
        for i in range(longest)
    ]
    if all(keep):
        return given
    out = dict(given)
    for name, rows in ranges.items():
        out[name] = [row for row, kept in zip(rows, keep, strict=False) if kept]
    return out
