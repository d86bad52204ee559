"""The rows of some levels of a generalised model with very many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime import placement
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.padding import bucket
from jaxglmm.structure.rows import LARGE_ROWS, OneFactorRows, PaddedRows

LEVELS = 2_048  # of a sample: none of them is padding
SHARE = 4  # times as many levels there must be


def sampled(
    problem: GeneralisedProblem, eta: Array
) -> tuple[GeneralisedProblem, Array] | None:
    """A problem of levels drawn at random, and guesses of its rows' predictors.

    Args:
        problem: with one grouping factor, rows sorted by it.
        eta: guesses of the predictors of all rows.

    Returns:
        None where there are too few levels or rows for it to pay.
    """
    rows, n = problem.rows, problem.y.shape[-1]
    if not isinstance(rows, OneFactorRows) or n <= LARGE_ROWS:
        return None
    codes, weights = np.asarray(rows.codes[0]), np.asarray(problem.weights)
    levels = np.unique(codes[weights > 0])
    if len(levels) < SHARE * LEVELS:
        return None
    some = np.sort(np.random.default_rng(0).choice(levels, LEVELS, replace=False))
    if isinstance(rows, PaddedRows):
        height, J = rows.height, rows.sizes[0]
        places = (np.arange(height)[:, None] * J + some).ravel()
        new = np.tile(np.arange(LEVELS, dtype=codes.dtype), height)
        size = len(places)
    else:
        places = np.flatnonzero(np.isin(codes, some) & (weights > 0))
        size = bucket(len(places))
        new = np.full(size, LEVELS - 1, codes.dtype)
        new[: len(places)] = np.searchsorted(some, codes[places])

    def cut(x: Array, fill: float = 0.0) -> np.ndarray:
        own = np.asarray(x)
        if own.shape[-1] == 1:  # one number for all rows
            return own
        out = np.full((*own.shape[:-1], size), fill, own.dtype)
        out[..., : len(places)] = own[..., places]
        return out

    index = tree_at(lambda r: (r.codes, r.z), rows, ((new,), (cut(rows.z[0]),)))
    index = replace(index, sizes=(LEVELS,))
    y = cut(problem.y, problem.family.padding)
    names = ("X", "trials", "weights", "offset")
    columns = {name: cut(getattr(problem, name)) for name in names}
    small = replace(problem, rows=index, y=y, **columns)
    return placement.beside((small, cut(eta)), problem)
