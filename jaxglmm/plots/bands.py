"""Simultaneous bands for normal quantile plots.

The i-th of n ordered uniforms is Beta(i, n - i + 1), so each order statistic has an
exact interval; one local level is chosen for all of them such that the whole path stays
inside with the probability asked for. The band is as sensitive in the tails as in the
middle (Aldor-Noiman et al. 2013, Am. Stat. 67, 249). A sample that is centred and
scaled by its own mean and standard deviation lies closer to the line than one from a
known distribution, so the level is found with the same done to simulated samples:
a fixed seed, and at most 200 order statistics, so that the cost does not grow with n.
"""

from __future__ import annotations

import numpy as np
from scipy import special

MOST_KNOTS, DRAWS, SEED = 200, 2000, 1


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
    z = special.ndtri(sums[:, :-1] / sums[:, -1:])
    if n > 2:  # of two values either lies one sd from the mean, always
        z = _standardised(z, gaps[1:-1], n)
    below = special.betainc(ranks, n - ranks + 1, special.ndtr(z))
    worst = 2 * np.minimum(below, 1 - below).min(axis=1)
    return float(np.quantile(worst, 1 - level))


def _standardised(z: np.ndarray, gaps: np.ndarray, n: int) -> np.ndarray:
    """Order statistics (d, k) of normal samples by each sample's mean and sd.

    gaps: (k - 1,) ranks from one order statistic to the next. The gaps - 1 values
    between two that are known are normal, truncated to what lies between these:
    their first two moments stand for them.
    """
    between = gaps - 1
    first, second = z.sum(axis=1), (z**2).sum(axis=1)
    if between.any():
        u, density = special.ndtr(z), np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        width = np.maximum(np.diff(u, axis=1), 1e-300)
        first += (-np.diff(density, axis=1) / width) @ between
        second += (1 - np.diff(z * density, axis=1) / width) @ between
    mean = first / n
    return (z - mean[:, None]) / np.sqrt(second / n - mean**2)[:, None]


def normal_band(n: int, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Theoretical quantiles and the band's limits, (k,) each.

    Both are in standard deviations (divisor n) from the mean, of the sample itself: a
    normal sample stays inside with probability ``level``.
    """
    ranks = knots(n)
    tail = local_level(ranks, n, level) / 2
    lower = special.betaincinv(ranks, n - ranks + 1, tail)
    upper = special.betaincinv(ranks, n - ranks + 1, 1 - tail)
    at = special.ndtri(positions(ranks, n))
    return at, special.ndtri(lower), special.ndtri(upper)


def positions(ranks: np.ndarray, n: int) -> np.ndarray:
    """Plotting positions (i - 3/8) / (n + 1/4) (Blom 1958)."""
    return (ranks - 0.375) / (n + 0.25)
