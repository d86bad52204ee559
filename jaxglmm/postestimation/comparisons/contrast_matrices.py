"""Contrasts of k means by name: their weights, and what each row is called.

The names, order and signs are those of R's emmeans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import gcd
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, DataError
from jaxglmm.formula.matrix import as_numbers

Named = tuple[list[str], np.ndarray]  # names, (m, k) weights
MOST_DEGREE = 6
DEGREES = ("linear", "quadratic", "cubic", "quartic")


def _pairs(names: Sequence[str], sign: str, back: bool = False) -> Named:
    k = len(names)
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    if back:  # 2 - 1, 3 - 1, 3 - 2, 4 - 1, ...
        pairs = [(j, i) for j in range(k) for i in range(j)]
    found, rows = [], []
    for a, b in pairs:
        row = np.zeros(k)
        row[a], row[b] = 1.0, -1.0
        found.append(f"{names[a]} {sign} {names[b]}")
        rows.append(row)
    return found, np.array(rows).reshape(-1, k)


def _control(names: Sequence[str], sign: str, of: Sequence[int] = (0,)) -> Named:
    """Each of the others and the control, or the average of several controls."""
    k = len(names)
    controls = list(dict.fromkeys(i % k for i in of))
    rows = np.eye(k)
    rows[:, controls] -= 1.0 / len(controls)
    others = [i for i in range(k) if i not in controls]
    if len(controls) == 1:
        name = names[controls[0]]
    else:
        name = f"avg({','.join(names[i] for i in controls)})"
    return [f"{names[i]} {sign} {name}" for i in others], rows[others]


def _consecutive(names: Sequence[str], sign: str) -> Named:
    k = len(names)
    found = [f"{names[i + 1]} {sign} {names[i]}" for i in range(k - 1)]
    return found, np.diff(np.eye(k), axis=0)


def _effects(names: Sequence[str], _: str) -> Named:
    k = len(names)
    return [f"{n} effect" for n in names], np.eye(k) - 1.0 / k


def _from_others(names: Sequence[str], _: str) -> Named:
    k = len(names)
    return [f"{n} effect" for n in names], (k * np.eye(k) - 1.0) / (k - 1)


def _helmert(names: Sequence[str], _: str) -> Named:
    k = len(names)
    rows = np.zeros((k - 1, k))
    for i in range(1, k):
        rows[i - 1, i], rows[i - 1, :i] = 1.0, -1.0 / i
    return [f"{names[i]} vs earlier" for i in range(1, k)], rows


def _mean_change(names: Sequence[str], _: str) -> Named:
    k = len(names)
    rows = np.zeros((k - 1, k))
    for i in range(1, k):
        rows[i - 1, i:], rows[i - 1, :i] = 1.0 / (k - i), -1.0 / i
    return [f"{names[i - 1]}|{names[i]}" for i in range(1, k)], rows


def _polynomials(names: Sequence[str], _: str) -> Named:
    """Orthogonal polynomials of equal steps, in the smallest whole numbers."""
    k = len(names)
    basis: list[list[Fraction]] = [[Fraction(1)] * k]
    for degree in range(1, min(k - 1, MOST_DEGREE) + 1):
        row = [Fraction(i) ** degree for i in range(k)]
        for other in basis:
            share = sum(a * b for a, b in zip(row, other, strict=True))
            share /= sum(b * b for b in other)
            row = [a - share * b for a, b in zip(row, other, strict=True)]
        basis.append(row)
    rows = [_whole(row) for row in basis[1:]]
    found = [
        DEGREES[d - 1] if d <= len(DEGREES) else f"degree {d}"
        for d in range(1, len(rows) + 1)
    ]
    return found, np.array(rows, float).reshape(-1, k)


def _whole(row: Sequence[Fraction]) -> list[int]:
    common = 1
    for x in row:
        common = common * x.denominator // gcd(common, x.denominator)
    numbers = [int(x * common) for x in row]
    size = gcd(*numbers) or 1
    return [x // size for x in numbers]


def _identity(names: Sequence[str], _: str) -> Named:
    return list(names), np.eye(len(names))


METHODS: dict[
    str, tuple[Callable[..., Named], str]
] = {  # and how p-values are adjusted
    "pairwise": (_pairs, "tukey"),
    "revpairwise": (lambda n, s: _pairs(n, s, back=True), "tukey"),
    "trt.vs.ctrl": (_control, "dunnettx"),
    "trt.vs.ctrl1": (_control, "dunnettx"),
    "trt.vs.ctrlk": (lambda n, s: _control(n, s, (-1,)), "dunnettx"),
    "dunnett": (_control, "dunnett"),
    "consec": (_consecutive, "mvt"),
    "mean_chg": (_mean_change, "mvt"),
    "eff": (_effects, "fdr"),
    "del.eff": (_from_others, "fdr"),
    "poly": (_polynomials, "none"),
    "helmert": (_helmert, "none"),
    "identity": (_identity, "none"),
}


def contrasts(
    method: Any, names: Sequence[str], sign: str = "-", ref: Any = None
) -> Named:
    """Names and weights (m, k) of the contrasts of k means.

    Args:
        method: one of ``METHODS``, a dict name -> k weights, or a matrix (m, k).
        names: of the means.
        sign: between two of them, "-" or "/".
        ref: of "trt.vs.ctrl": the control, by its name or its place; of several the
            average.

    Raises:
        ArgumentError: for anything else.
    """
    k = len(names)
    if isinstance(method, str):
        _arguments.choice("method", method, tuple(METHODS))
        if ref is None:
            return METHODS[method][0](names, sign)
        if method not in ("trt.vs.ctrl", "dunnett"):
            raise ArgumentError(
                f"ref= is the control of 'trt.vs.ctrl', not of {method!r}"
            )
        several = isinstance(ref, list | tuple | np.ndarray) and len(ref) > 0
        places = [_place(one, names) for one in (ref if several else [ref])]
        if len(set(places)) == k:
            raise ArgumentError(
                f"ref={_arguments.shown(ref)}: all {k} means are controls, so that "
                "there is nothing to compare"
            )
        return _control(names, sign, places)
    given = method if isinstance(method, Mapping) else None
    rows = list(given.values()) if given is not None else method
    try:
        weights = np.atleast_2d(as_numbers("weights", rows))
    except DataError:
        weights = np.full((1, 0), np.nan)
    if weights.ndim != 2 or weights.shape[1] != k or not np.isfinite(weights).all():
        raise ArgumentError(
            f"contrasts are named ({', '.join(map(repr, METHODS))}), or a dict name -> "
            f"{k} weights, one for each of {', '.join(map(str, names[:12]))}; not "
            f"{_arguments.shown(method)}"
        )
    if given is not None:
        return [str(name) for name in given], weights
    return [f"contrast {i + 1}" for i in range(len(weights))], weights


def _place(ref: Any, names: Sequence[str]) -> int:
    if isinstance(ref, str) and ref in names:
        return list(names).index(ref)
    if (
        isinstance(ref, int | np.integer)
        and not isinstance(ref, bool)
        and -len(names) <= ref < len(names)
    ):
        return int(ref)
    raise ArgumentError(
        f"ref={_arguments.shown(ref)} must be a place, 0 to {len(names) - 1}, or one "
        f"of {', '.join(map(str, names[:12]))}"
    )
