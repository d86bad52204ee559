"""Draws of responses on the host, where NumPy's own have an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

LARGE = 1e15  # a mean from which Poisson counts are normal ones


def poisson(rng: np.random.Generator, mean: Any) -> np.ndarray:
    """Poisson counts as floats, also where a draw of a posterior has a huge mean.

    NumPy's end at 2^63. From 1e15 on counts and rounded normal numbers differ by less
    than their rounding; a mean of infinity stays one.
    """
    mean = np.asarray(mean, float)
    large = mean > LARGE
    out = rng.poisson(np.where(large, 0.0, mean)).astype(np.float64)
    if large.any():
        top = mean[large]
        spread = np.where(np.isfinite(top), np.sqrt(top), 0.0)
        out[large] = np.rint(top + spread * rng.standard_normal(len(top)))
    return out


CELLS = 2**21  # of a table of terms, rows by whole numbers
DEVIATIONS = 40.0  # how far from the centre terms may count


def _tables(centre: Any, sd: Any, top: Any, args: tuple[Any, ...]) -> Iterator[Any]:
    """Rows by blocks: their places, whole numbers (rows, k), and their arguments."""
    centre, sd, top, *rest = np.broadcast_arrays(
        np.asarray(centre, float), sd, top, *args
    )
    flat = [np.ravel(x) for x in (centre, sd, top, *rest)]
    centre, sd, top = flat[:3]
    with np.errstate(invalid="ignore"):
        first = np.maximum(np.floor(centre - DEVIATIONS * sd - 30), 0.0)
        last = np.minimum(np.ceil(centre + DEVIATIONS * sd + 60), np.floor(top))
    known = np.isfinite(first) & np.isfinite(last)
    count = np.where(known, np.maximum(last - first + 1, 1), 1)
    order = np.argsort(count, kind="stable")
    start = 0
    while start < len(order):
        # the longest of a block is its last row
        sizes = count[order[start:]] * np.arange(1, len(order) - start + 1)
        stop = start + max(1, int(np.searchsorted(sizes, CELLS, side="right")))
        where = order[start:stop]
        j = first[where, None] + np.arange(float(count[where[-1]]))
        yield where, j, last[where, None], [x[where, None] for x in flat[3:]]
        start = stop


def summed(terms: Any, centre: Any, sd: Any, top: Any, *args: Any) -> np.ndarray:
    """Sum of terms(j, *args) over whole numbers j >= 0 up to ``top``, by rows.

    centre, sd: about where the terms count.
    """
    shape = np.broadcast_shapes(*map(np.shape, (centre, sd, top, *args)))
    out = np.zeros(int(np.prod(shape)))
    with np.errstate(all="ignore"):
        for where, j, last, own in _tables(centre, sd, top, args):
            out[where] = np.sum(np.where(j <= last, terms(j, *own), 0.0), axis=1)
    return np.clip(out, 0.0, 1.0).reshape(shape)


def by_inversion(
    rng: np.random.Generator, mass: Any, centre: Any, sd: Any, *args: Any
) -> np.ndarray:
    """One whole number a row from its probabilities mass(j, *args)."""
    shape = np.broadcast_shapes(*map(np.shape, (centre, sd, *args)))
    out, u = np.zeros(int(np.prod(shape))), rng.random(int(np.prod(shape)))
    with np.errstate(all="ignore"):
        for where, j, _, own in _tables(centre, sd, np.inf, args):
            total = np.cumsum(np.nan_to_num(mass(j, *own)), axis=1)
            reached = total < u[where, None] * total[:, -1:]
            out[where] = j[:, 0] + np.sum(reached, axis=1)
    return out.reshape(shape)
