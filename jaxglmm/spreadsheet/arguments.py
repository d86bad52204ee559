"""What spreadsheets send, as what the functions mean.

A scalar is a matrix of one cell. With two or more rows a scalar can never be a design
of random effects, so that ``alpha`` or ``fit_intercept`` in its place are understood. A
first row of text above numbers names the columns. (What one spreadsheet distorts is
repaired where it is called from: see ``sheets``.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxglmm.spreadsheet.checks import Arguments, is_number


def understood(
    y: Any,
    x: Any,
    groups: Any,
    x_random: Any,
    fit_intercept: Any,
    alpha: Any,
    names: Any = None,
    fourth: str = "x_random",
    more: Mapping[str, Any] | None = None,
) -> Arguments:
    """Scalars to matrices, shifted arguments to their places, headers to names.

    fourth: what the function calls ``x_random``; more: what it alone takes.
    """
    y, x, groups = matrix(y), matrix(x), matrix(groups)
    fit_intercept = True if fit_intercept is None else fit_intercept
    alpha = 0.05 if alpha is None else alpha
    rows = len(y) if isinstance(y, list) else 0
    if rows >= 2 and x_random is not None and not isinstance(x_random, list):
        x_random, fit_intercept, alpha = shifted(x_random, fit_intercept, alpha)
    x_random = None if x_random is None else matrix(x_random)
    x, header = headed(x, rows)
    x_random, random_header = headed(x_random, rows)
    if names is not None:
        header = [str(n) for n in flat(names)]
    return Arguments(
        y,
        x,
        groups,
        x_random,
        fit_intercept,
        alpha,
        header,
        random_header,
        fourth,
        own(dict(more or {}), rows),
    )


def own(more: dict[str, Any], rows: int) -> dict[str, Any]:
    """What a function alone takes: a matrix with its names, categories in order."""
    if more.get("x_zero") is not None:
        more["x_zero"], more["zero_names"] = headed(matrix(more["x_zero"]), rows)
    if more.get("levels") is not None:
        more["levels"] = flat(more["levels"])
    return more


def matrix(value: Any) -> Any:
    """A scalar as one row of one cell; tuples as lists."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list):
        return [list(row) if isinstance(row, tuple) else row for row in value]
    if value is None or isinstance(value, dict):
        return value
    return [[value]]


def shifted(given: Any, fit_intercept: Any, alpha: Any) -> tuple[Any, Any, Any]:
    """x_random, fit_intercept, alpha for a scalar in the place of x_random."""
    if isinstance(given, bool) or (is_number(given) and given in (0, 1)):
        if _inside(fit_intercept):
            alpha = fit_intercept
        return None, bool(given), alpha
    if _inside(given):
        return None, fit_intercept, given
    if isinstance(given, str) and not given.strip():
        return None, fit_intercept, alpha
    return given, fit_intercept, alpha


def _inside(value: Any) -> bool:
    return is_number(value) and not isinstance(value, bool) and 0 < value < 1


def headed(value: Any, rows: int) -> tuple[Any, list[str] | None]:
    """A matrix without its header row, and the header, where it has one.

    A header is a first row of text above a matrix with as many rows as y.
    """
    if not (isinstance(value, list) and len(value) == rows + 1 and rows):
        return value, None
    top = value[0]
    if not (isinstance(top, list) and top and all(isinstance(c, str) for c in top)):
        return value, None
    return value[1:], [c.strip() or f"x{j + 1}" for j, c in enumerate(top)]


def flat(names: Any) -> list[Any]:
    """Names from a list, or from a range of cells."""
    if isinstance(names, str):
        return [names]
    out = []
    for name in names:
        out += list(name) if isinstance(name, list | tuple) else [name]
    return out
