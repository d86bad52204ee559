"""Where to evaluate a function of one variable, so that differences are its slope.

Central differences with a step of the cube root of the rounding error, relative to the
variable's spread, serve almost everywhere. Three places need something else. Where the
columns of X bend within the step (log(x) at an x far below the spread) the step is made
smaller until halving it changes nothing. At the ends of the data a transform may not go
on (splines within their boundary knots), and beyond the end of a domain it cannot
(sqrt(x) below 0): there differences are one-sided, of second order,

    f'(x) = (4 (f(x + h) - f(x)) - (f(x + 2 h) - f(x))) / (2 h) + O(h^2).

And where they grow without bound as the step shrinks the slope is infinite (sqrt(x) at
0), which is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import DataError, FormulaError, NotApplicableError

STEP = 6e-6  # of a variable's spread: about the cube root of the rounding error
SMALLER = 16.0  # each time that a step is too long
TIMES = 16
SAME = 1e-8  # slopes that agree to this, relatively, have converged
FINEST = 1e-7  # of x itself: shorter steps are lost in rounding
SHOWN = 5  # values that a message lists


@dataclass(frozen=True)
class Stencil:
    """Slopes as sums of (f(point) - f(points[0])) / width over the other points.

    points: (n,) arrays of values; widths: one array less, inf where not needed.
    """

    points: tuple[np.ndarray, ...]
    widths: tuple[np.ndarray, ...]


def stencil(
    name: str,
    x: np.ndarray,
    columns: Callable[[np.ndarray], np.ndarray],
    ends: tuple[float, float] | None,
    curved: bool,
) -> Stencil:
    """The stencil of every row.

    Args:
        name: of the variable, for messages.
        x: (n,) where slopes are wanted.
        columns: the rows of X (n, p) for values of the variable.
        ends: of the variable in the data of the fit.
        curved: whether X may be more than linear in it; otherwise one step serves all.

    Raises:
        NotApplicableError: the slope of a row is infinite, or not defined.
    """
    known = x[np.isfinite(x)]
    spread = (np.std(known) or max(np.abs(known).max(), 1.0)) if len(known) else 1.0
    h, side = np.full(len(x), STEP * spread), np.zeros(len(x), int)
    try:
        found = _rate(x, h, side, columns)
    except (DataError, FormulaError):
        if ends is None:
            raise
        side = np.where(x + h > ends[1], -1, np.where(x - h < ends[0], 1, 0))
        if not side.any():
            raise
        found = _rate(x, h, side, columns)
    if curved:
        h, side = _settled(name, x, h, side, columns, found)
    return _stencil(x, h, side)


def _stencil(x: np.ndarray, h: np.ndarray, side: np.ndarray) -> Stencil:
    # widths of the numbers that the machine really added and subtracted
    base = np.where(side == 0, x - h, x)
    one = np.where(side == 0, x + h, x + side * h)
    if not side.any():
        return Stencil((base, one), (one - base,))
    two = np.where(side == 0, one, x + 2 * side * h)
    first = np.where(side == 0, one - base, (one - base) / 2)
    second = np.where(side == 0, np.inf, base - two)
    return Stencil((base, one, two), (first, second))


def _rate(x, h, side, columns) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the columns (n, p), and how far rounding may move them."""
    at = _stencil(x, h, side)
    base, *others = (np.asarray(columns(v), float) for v in at.points)
    with np.errstate(all="ignore"):
        rate = sum(
            (one - base) / width[:, None]
            for one, width in zip(others, at.widths, strict=True)
        )
        noise = 64 * np.finfo(float).eps * np.abs(base) / h[:, None]
    return np.asarray(rate), noise


def _agree(one, two, noise) -> np.ndarray:
    """Whether two slopes of each row are the same number, (n,)."""
    with np.errstate(invalid="ignore"):
        near = np.abs(one - two) <= SAME * np.abs(two) + noise
    return near.all(axis=1)


def _settled(name, x, h, side, columns, found) -> tuple[np.ndarray, np.ndarray]:
    """Steps at which halving changes nothing; one-sided where one side is missing."""
    rate, noise = found
    missing = ~np.isfinite(x)
    wrong = ~missing
    for _ in range(TIMES):
        finer, more = _rate(x, h / 2, side, columns)
        wrong &= ~_agree(rate, finer, noise + more)
        wrong &= h > FINEST * np.abs(x)
        wrong &= (x != 0) | np.isfinite(finer).all(axis=1)  # there no step will do
        if not wrong.any():
            break
        h = np.where(wrong, h / SMALLER, h)
        rate, noise = _rate(x, h, side, columns)
    lost = ~np.isfinite(rate).all(axis=1) & ~missing
    if lost.any():
        side, h = _one_sided(name, x, h, side, lost, columns)
    return h, side


def _one_sided(name, x, h, side, lost, columns) -> tuple[np.ndarray, np.ndarray]:
    """Sides and steps of rows that have no slope from both sides."""
    scale = np.std(x[np.isfinite(x)]) or 1.0
    h = np.where(lost, STEP * scale, h)
    for direction in (1, -1):
        trial = np.where(lost, direction, side)
        rate, noise = _rate(x, h, trial, columns)
        finer, more = _rate(x, h / SMALLER, trial, columns)
        real = np.isfinite(rate).all(axis=1) & np.isfinite(finer).all(axis=1)
        side = np.where(lost & real, direction, side)
        with np.errstate(invalid="ignore"):
            grows = np.abs(finer) > 1.01 * np.abs(rate) + 100 * (noise + more)
        infinite = lost & real & grows.any(axis=1)
        if infinite.any():
            raise NotApplicableError(_text(name, x, infinite, "infinite"))
        lost = lost & ~real
    if lost.any():
        raise NotApplicableError(_text(name, x, lost, "not defined"))
    return side, h


def _text(name: str, x: np.ndarray, rows: np.ndarray, what: str) -> str:
    count = int(rows.sum())
    where = ", ".join(map(str, np.flatnonzero(rows)[:SHOWN]))
    values = ", ".join(f"{v:g}" for v in dict.fromkeys(x[rows][:SHOWN].tolist()))
    more = ", ..." if count > SHOWN else ""
    return (
        f"slopes({name!r}): the slope is {what} in {count} of {len(x)} rows (position "
        f"{where}{more}; {name} = {values}{more}), as that of a column of the model. "
        f"Give newdata without such rows, or compare predictions at values of {name}"
    )
