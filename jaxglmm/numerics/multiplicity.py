"""p-values of several tests, adjusted for how many there are.

The stepwise methods go through the ordered p-values: Holm (1979) and its form by Sidak
keep the probability of any false rejection, Benjamini and Hochberg (1995) the share of
false ones among the rejected.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def adjusted(p: np.ndarray, method: str) -> np.ndarray:
    """(k,) p-values adjusted by one of ``METHODS``; those that are NaN do not count."""
    p = np.asarray(p, float)
    out, known = np.full(p.shape, np.nan), ~np.isnan(p)
    if known.any():
        out[known] = np.minimum(METHODS[method](p[known]), 1.0)
    return out


def _stepwise(single: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """Holm's way down: the smallest of m as one of m, the next as one of m - 1, ..."""

    def way(p: np.ndarray) -> np.ndarray:
        order = np.argsort(p, kind="stable")
        out = np.empty(len(p))
        # a larger p-value may not end below a smaller one
        steps = single(p[order], np.arange(len(p), 0, -1))
        out[order] = np.maximum.accumulate(steps)
        return out

    return way


def _bonferroni(p: np.ndarray, m: np.ndarray | int) -> np.ndarray:
    return p * m


def _sidak(p: np.ndarray, m: np.ndarray | int) -> np.ndarray:
    return 1 - (1 - p) ** m


def _false_discovery(p: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control  # takes long to import

    return false_discovery_control(p)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "holm": _stepwise(_bonferroni),
    "holm-sidak": _stepwise(_sidak),
    "bonferroni": lambda p: _bonferroni(p, len(p)),
    "sidak": lambda p: _sidak(p, len(p)),
    "fdr_bh": _false_discovery,
    "none": np.copy,
}
