"""Factors with many columns, on the host: what a row uses, rows that are alike."""

from __future__ import annotations

import numpy as np

from jaxglmm.structure.factors import Factor
from jaxglmm.structure.padding import bucket

PAIR = 2  # columns of one level up to which it is a factor like others
FEW = 12  # columns up to which sums over pairs of them are written out


def is_of_all_rows(factor: Factor) -> bool:
    """Whether its effects are those of all rows, and several: a smooth, a kinship."""
    return factor.n_levels == 1 and factor.q > PAIR


def padded_levels(factor: Factor) -> int:
    """Levels with padding: of a single one with many columns there is none."""
    return 1 if is_of_all_rows(factor) else bucket(factor.n_levels)


def single(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Column and value of each row where no row has two values, else None."""
    used = values != 0
    if (np.count_nonzero(used, axis=1) > 1).any():
        return None
    column = np.argmax(used, axis=1)
    return column, np.take_along_axis(values, column[:, None], 1)[:, 0]


def is_of_one_level(factor: Factor) -> bool:
    """Whether one level has many effects whose covariance is one number."""
    return factor.n_levels == 1 and factor.q > FEW and factor.covariance.is_multiple


def chain_of(factor: Factor) -> tuple[np.ndarray, np.ndarray] | None:
    """``single`` of a factor of many columns whose effects are a chain."""
    if factor.q <= FEW or factor.values is None or not factor.covariance.is_chain:
        return None
    return single(factor.values)


def distinct(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(r,) a row of each kind and (n,) the kind of each, of columns side by side."""
    rng = np.random.default_rng(1)
    mark = sum(x @ rng.normal(size=x.shape[1]) for x in parts)
    _, first, kind = np.unique(mark, return_index=True, return_inverse=True)
    kind = kind.reshape(-1)
    if all(np.array_equal(x, x[first[kind]]) for x in parts):
        return first, kind
    return np.arange(len(mark)), np.arange(len(mark))
