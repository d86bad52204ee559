"""Contrasts of contrasts: products of the contrasts of each factor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.postestimation.comparisons.contrast_matrices import METHODS, contrasts
from jaxglmm.postestimation.comparisons.grid import keys_of


def interactions(
    table: pd.DataFrame,
    factors: Sequence[str],
    by: Sequence[str],
    groups: Sequence[np.ndarray],
    asked: Any,
) -> tuple[pd.DataFrame, np.ndarray, tuple[str, ...]]:
    """Keys, weights (k, means) and names of the columns that say which contrasts.

    Args:
        table: keys of the means.
        factors: columns of it that are compared.
        by: columns that keep groups apart.
        groups: positions of each group's means.
        asked: True, a method, or one a factor.
    """
    methods = ["pairwise"]
    if asked is not True:
        methods = _arguments.names("interaction", asked, meaning="a method")
    if len(methods) == 1:
        methods = methods * len(factors)
    if len(methods) != len(factors):
        raise ArgumentError(
            f"interaction= has {len(methods)} methods for {len(factors)} factors, "
            f"{', '.join(factors)}: give one, or one for each"
        )
    for each in methods:
        _arguments.choice("interaction", each, tuple(METHODS))
    labels = tuple(f"{n}_{m}" for n, m in zip(factors, methods, strict=True))
    keys, weights = [], []
    for i in groups:
        cells = table.iloc[i]
        levels = [list(dict.fromkeys(cells[n])) for n in factors]
        place = dict(zip(keys_of(cells, factors), i, strict=True))
        every = list(itertools.product(*levels))
        if len(place) != len(every):
            raise NotApplicableError(
                f"interaction= needs a mean for each combination of "
                f"{', '.join(factors)}; there are {len(place)} of {len(every)}"
            )
        found = [
            contrasts(m, [short(v) for v in some])
            for m, some in zip(methods, levels, strict=True)
        ]
        for combo in _first_fastest([range(len(names)) for names, _ in found]):
            row = np.zeros(len(table))
            some = [W[c] for c, (_, W) in zip(combo, found, strict=True)]
            products = np.prod(list(itertools.product(*some)), axis=1)
            row[[place[cell] for cell in every]] = products
            names = [n[c] for c, (n, _) in zip(combo, found, strict=True)]
            key = dict(zip(labels, names, strict=True))
            keys.append(key | {n: cells[n].iloc[0] for n in by})
            weights.append(row)
    return pd.DataFrame(keys), np.array(weights), labels


def short(value: Any) -> str:
    """A level in the name of a mean."""
    return f"{value:g}" if isinstance(value, float | np.floating) else f"{value}"


def _first_fastest(ranges: Sequence) -> list[tuple]:
    """All combinations, the first changing fastest, as emmeans orders them."""
    return [combo[::-1] for combo in itertools.product(*ranges[::-1])]
