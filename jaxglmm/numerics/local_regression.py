"""Robust locally weighted regression in one variable, on the host.

Cleveland (1979), Journal of the American Statistical Association 74, 829: at each x the
line through the nearest share of the points, tricube weights by distance, again with
bisquare weights of the residuals. Where points lie closer than ``delta`` the curve is
interpolated between a few of them. With its defaults it is R's ``lowess``.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Float

SAME = 1e-3  # of the widest distance, within which a weight is one
NEARLY = 0.999  # of it, beyond which a weight is zero
FLAT = 1e-3  # of the range of x, a spread of neighbours that carries no slope


def lowess(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    span: float = 2 / 3,
    rounds: int = 3,
    delta: float | None = None,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """x in order, and the curve there.

    Args:
        x: where.
        y: values.
        span: share of the points that a line is made from.
        rounds: how often points with large residuals lose weight.
        delta: distance below which the curve is interpolated; a hundredth of the range
            where None.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    n = len(x)
    if n < 2:
        return x, y
    width = x[-1] - x[0]
    delta = 0.01 * width if delta is None else delta
    k = int(np.clip(int(span * n + 1e-7), 2, n))
    robust = np.ones(n)
    curve = _curve(x, y, k, robust, delta, width)
    for _ in range(rounds):
        size = np.abs(y - curve)
        middle = np.sort(size)
        cut = 3 * (middle[n // 2] + middle[n - n // 2 - 1])  # six medians
        if cut < 1e-7 * size.mean():
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            inner = (1 - (size / cut) ** 2) ** 2
        robust = np.where(size <= SAME * cut, 1.0, inner)
        robust[size > NEARLY * cut] = 0.0
        curve = _curve(x, y, k, robust, delta, width)
    return x, curve


def _curve(x, y, k: int, robust, delta: float, width: float) -> np.ndarray:
    """The curve at all x, by lines at some and in between by interpolation."""
    n = len(x)
    out = np.empty(n)
    left, last, i = 0, -1, 0
    while True:
        while left + k < n and x[i] - x[left] > x[left + k] - x[i]:
            left += 1
        found = _line(x, y, x[i], left, left + k, robust, width)
        out[i] = y[i] if found is None else found
        if last < i - 1:
            inside = slice(last + 1, i)
            share = (x[inside] - x[last]) / (x[i] - x[last])
            out[inside] = share * out[i] + (1 - share) * out[last]
        last = i
        near = int(np.searchsorted(x, x[last] + delta, side="right"))
        ties = int(np.searchsorted(x, x[last], side="right"))
        out[last:ties] = out[last]
        last = ties - 1
        if last >= n - 1:
            return out
        i = max(last + 1, near - 1)


def _line(x, y, at, first: int, end: int, robust, width: float) -> float | None:
    """The local line's value; None where no point has weight."""
    h = max(at - x[first], x[end - 1] - at)
    end = int(np.searchsorted(x, at + NEARLY * h, side="right"))  # ties beyond k too
    r = np.abs(x[first:end] - at)
    with np.errstate(divide="ignore", invalid="ignore"):
        cube = (1 - (r / h) ** 3) ** 3
    w = np.where(r > SAME * h, cube, 1.0) * robust[first:end]
    w[r > NEARLY * h] = 0.0
    total = w.sum()
    if total <= 0:
        return None
    w = w / total
    if h > 0:
        centre = float(w @ x[first:end])
        spread = float(w @ (x[first:end] - centre) ** 2)
        if np.sqrt(spread) > FLAT * width:
            slope = (at - centre) / spread
            w = w * (1 + slope * (x[first:end] - centre))
    return float(w @ y[first:end])
