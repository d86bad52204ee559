"""What the responses of many generalised models say without their predictors.

Counts take few values, so what depends on a count alone is looked up, and what depends
on it and on a dispersion parameter is summed over the distinct ones of a data set
(``AbstractFamily.log_base``, ``log_separable``) instead of over all rows.
"""

from __future__ import annotations

import functools

import numpy as np

from jaxglmm.model.families import AbstractFamily
from jaxglmm.runtime.compile import jit

LEAST_VALUES = 16  # distinct values for which there is room; fourfold as needed
MOST_TABULATED = 2**16  # entries of a table of ``log_base``


def tabulated(
    family: AbstractFamily, y: np.ndarray, trials: np.ndarray, weights: np.ndarray
) -> np.ndarray | None:
    """Sums of ``log_base`` (L,) from a table of it; None where a table would not do.

    y: (h, J, L); trials, weights: (h, J, l).
    """
    if type(family).log_base is AbstractFamily.log_base:
        return None  # there is none
    pairs = family.family_kind == "binomial"
    top = max(y.max(), trials.max()) if pairs else y.max()
    side = 2 ** int(top + 1).bit_length()
    if side ** (1 + pairs) > MOST_TABULATED or (y % 1).any() or (trials % 1).any():
        return None
    at = y * side + trials if pairs else y
    found = _table(family, side, pairs)[at.astype(np.intp)]
    return np.sum(np.where(weights > 0, weights * found, 0.0), axis=(0, 1))


@functools.cache
def _table(family: AbstractFamily, side: int, pairs: bool) -> np.ndarray:
    """``log_base`` of y, or of y and trials, up to ``side``; zero where it is none."""
    y = np.arange(float(side))
    m = y[None] if pairs else np.ones(1)
    y, m = np.broadcast_arrays(y[:, None] if pairs else y, m)
    found = jit(family.log_base)(y, m)
    return np.where(y <= m, found, 0.0).ravel() if pairs else np.asarray(found)


MOST_STEPS = 4096  # largest count that is reached step by step


def apart(y: np.ndarray, weights: np.ndarray, room: int) -> dict[str, np.ndarray]:
    """What ``LaneRows.apart`` needs of y (h, J, L): tails, or distinct values.

    room: steps or values for which there is room, fourfold as needed.
    """
    if y.max() > MOST_STEPS or y.min() < 0 or (y % 1).any():
        return distinct(y, weights, room)
    L, top = y.shape[-1], int(y.max()) + 1
    while room < top:
        room *= 4
    at = y.astype(np.intp) * L + np.arange(L)
    weights = np.broadcast_to(weights, y.shape)
    many = np.bincount(at.ravel(), weights.ravel(), (room + 1) * L)
    beyond = np.cumsum(many.reshape(room + 1, L)[::-1], axis=0)[::-1]
    return {"tails": np.ascontiguousarray(beyond[1:])}


def distinct(
    y: np.ndarray, weights: np.ndarray, room: int = LEAST_VALUES
) -> dict[str, np.ndarray]:
    """The distinct values of y (h, J, L) in each lane, and the weight of their rows.

    Both (v, L), v the first of ``room``, 4 ``room``, ... that is enough, or as many as
    there are rows, so that few programs are compiled.
    """
    h, J, L = y.shape
    y, weights = y.reshape(h * J, L), weights.reshape(h * J, -1)
    order = np.argsort(y, axis=0)
    y = np.take_along_axis(y, order, axis=0)
    place = np.zeros(y.shape, np.int64)
    np.cumsum(y[1:] != y[:-1], axis=0, out=place[1:])
    weights = np.broadcast_to(weights, y.shape)
    weights = np.take_along_axis(weights, order, axis=0)
    while room <= place[-1].max():
        room *= 4
    room = min(room, h * J)
    at = place * L + np.arange(L)
    many = np.bincount(at.ravel(), weights.ravel(), room * L).reshape(room, L)
    values = np.zeros((room, L))
    values[place, np.arange(L)] = y
    return {"values": values, "many": many}
