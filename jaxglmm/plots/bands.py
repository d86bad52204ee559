"""Simultaneous bands for normal quantile plots.

The i-th of n ordered uniforms is Beta(i, n - i + 1), so each order statistic has an
exact interval; one local level is chosen for all of them such that the whole path stays
inside with the probability asked for. The band is as sensitive in the tails as in the
middle (Aldor-Noiman et al. 2013, Am. Stat. 67, 249). The local level is found by
simulation with a fixed seed, on at most 200 order statistics, so that the cost does not
grow with n.
"""

from __future__ import annotations

import numpy as np
from scipy import special

MOST_KNOTS, DRAWS, SEED = 200, 1000, 1


def knots(n: int) -> np.ndarray:
    """Ranks 1..n at which the band is computed: all, or dense in both tails."""
    if n <= MOST_KNOTS:
        return np.arange(1, n + 1)
    half = np.unique(np.geomspace(1, n / 2, MOST_KNOTS // 2).round().astype(int))
    return np.unique(np.concatenate([half, n + 1 - half]))


def local_level(ranks: np.ndarray, n: int, level: float) -> float:
    """The pointwise error at which the band holds everywhere with ``level``."""
    rng = np.random.default_rng(SEED)
    gaps = np.diff(np.concatenate([[0], ranks, [n + 1]])).astype(float)
    sums = np.cumsum(rng.standard_gamma(gaps, size=(DRAWS, len(gaps))), axis=1)
    uniforms = sums[:, :-1] / sums[:, -1:]
    below = special.betainc(ranks, n - ranks + 1, uniforms)
    worst = 2 * np.minimum(below, 1 - below).min(axis=1)
    return float(np.quantile(worst, 1 - level))


def normal_band(n: int, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Theoretical quantiles and the band's limits, standard normal, (k,) each."""
    ranks = knots(n)
    tail = local_level(ranks, n, level) / 2
    lower = special.betaincinv(ranks, n - ranks + 1, tail)
    upper = special.betaincinv(ranks, n - ranks + 1, 1 - tail)
    at = special.ndtri(positions(ranks, n))
    return at, special.ndtri(lower), special.ndtri(upper)


def positions(ranks: np.ndarray, n: int) -> np.ndarray:
    """Plotting positions (i - 3/8) / (n + 1/4) (Blom 1958)."""
    return (ranks - 0.375) / (n + 0.25)
