"""R's natural cubic splines, ``splines::ns``, to the same basis.

Cubic B-splines whose second derivative is zero at the boundary knots, and which go on
as straight lines beyond them. The two conditions are taken out by the QR decomposition
of the second derivatives there, so that the columns, and with them coefficients and the
REML criterion, are R's. Source: Hastie (1992), Generalized additive models, in
Statistical Models in S, chapter 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm._errors import FormulaError

DEGREE = 3


def natural_spline(
    x: Any,
    df: int | None = None,
    knots: Any = None,
    intercept: bool = False,
    boundary_knots: Any = None,
    _state: dict[str, Any] = {},  # noqa: B006 - always given
) -> dict[str, np.ndarray]:
    """The columns of ``ns(x, df)``, named 1 to df.

    Args:
        x: (n,) numbers; rows that are not numbers give NaN.
        df: number of columns; the inner knots lie at quantiles of x.
        knots: inner knots instead.
        intercept: True keeps the column that the model's intercept usually has.
        boundary_knots: two numbers; the range of x if left out.

    Raises:
        FormulaError: for too few columns, or knots that are no knots.
    """
    values = np.asarray(x, np.float64)
    if "knots" not in _state:
        _state.update(_learned(values, df, knots, intercept, boundary_knots))
    basis = natural_basis(values, _state["knots"], _state["boundary"])
    if not _state["intercept"]:
        basis = basis[:, 1:]
    basis = basis @ _state["rotation"]
    return {str(j + 1): column for j, column in enumerate(basis.T)}


def _learned(x, df, knots, intercept, boundary) -> dict[str, Any]:
    known = x[np.isfinite(x)]
    if len(known) == 0:
        raise FormulaError("ns(): there are no numbers to place knots by")
    ends = np.array(
        [known.min(), known.max()] if boundary is None else boundary, np.float64
    )
    if ends.shape != (2,) or not ends[0] < ends[1]:
        raise FormulaError(
            "ns(): the boundary knots must be two different numbers, the smaller first"
            f"; they are {ends.tolist()}"
        )
    if knots is None:
        least = 1 + bool(intercept)
        count = least if df is None else df
        if count != int(count) or count < least:
            raise FormulaError(
                f"ns(df={df}): df must be a whole number from {least} on"
            )
        inside = known[(known >= ends[0]) & (known <= ends[1])]
        if len(inside) == 0:
            raise FormulaError(
                f"ns(): no number lies between the boundary knots {ends.tolist()}"
            )
        places = np.linspace(0, 1, int(count) - bool(intercept) + 1)[1:-1]
        inner = np.quantile(inside, places)
    else:
        inner = np.sort(np.atleast_1d(np.asarray(knots, np.float64)))
    if not ((inner > ends[0]) & (inner < ends[1])).all() or (np.diff(inner) <= 0).any():
        raise FormulaError(
            f"ns(): the inner knots {inner.tolist()} must be different and lie between "
            f"the boundary knots {ends.tolist()}. Use fewer columns (df=)"
        )
    bent = _splines(inner, ends)(ends, nu=2)
    if not intercept:
        bent = bent[:, 1:]
    Q = np.linalg.qr(bent.T, mode="complete")[0]
    return {
        "knots": inner,
        "boundary": ends,
        "intercept": bool(intercept),
        "rotation": Q[:, 2:],
    }


def natural_basis(x: np.ndarray, inner: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All B-splines at x (n, K), straight lines beyond the ends."""
    splines = _splines(inner, ends)
    basis = splines(np.clip(x, *ends))
    for end, outside in ((ends[0], x < ends[0]), (ends[1], x > ends[1])):
        if outside.any():
            basis[outside] += (x[outside] - end)[:, None] * splines(end, nu=1)
    return basis


def _splines(inner: np.ndarray, ends: np.ndarray) -> Any:
    from scipy.interpolate import BSpline

    edge = DEGREE + 1
    t = np.r_[[ends[0]] * edge, inner, [ends[1]] * edge]
    return BSpline(t, np.eye(len(t) - edge), DEGREE)
