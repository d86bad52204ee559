"""Tests and limits that hold for several comparisons at once.

The largest of several t statistics that share a standard error has, for all pairs of
means, the studentized range's distribution (Tukey), and in general a multivariate t's
(Hothorn, Bretz and Westfall 2008, Biometrical Journal 50, 346; Dunnett's is one of
them). Scheffe's bound holds for every contrast there is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

STEP = 0.01  # of the table of ranges: cubic pieces are then exact to 3e-11
END = 12.0  # a range of unit normals beyond which less than 1e-14 is left
NODES = 64
SPREAD_NODES, FEW, FEW_NODES = 48, 12.0, 400  # of chi; with fewer than 12 df
LOG_LEFT = 37.0  # what is below exp(-37) of a density's peak is left out
DRAWS = 16_384  # a power of two, of quasi-random points a comparison
COMMON = 1.0  # a sum of probabilities above which their events are not rare


# All pairs ----------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _range_table(k: float) -> tuple[np.ndarray, np.ndarray]:
    """P(range of k unit normals < w) and its slope, at w = 0, STEP, ..., END."""
    from scipy.special import ndtr

    x, weight = np.polynomial.legendre.leggauss(NODES)
    z, weight = 8.5 * x, 8.5 * weight  # the largest of the k
    w = np.arange(0.0, END + STEP / 2, STEP)[:, None]
    density = weight * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    inside = ndtr(z) - ndtr(z - w)
    edge = np.exp(-0.5 * (z - w) ** 2) / np.sqrt(2 * np.pi)
    value = k * (density * inside ** (k - 1)).sum(axis=1)
    slope = k * (k - 1) * (density * inside ** (k - 2) * edge).sum(axis=1)
    return value, slope


def _range_cdf(w: np.ndarray, k: float) -> np.ndarray:
    """P(range of k unit normals < w), elementwise."""
    value, slope = _range_table(k)
    at = np.clip(w / STEP, 0.0, len(value) - 1.000001)
    i = at.astype(int)
    t = at - i
    rise = STEP * slope
    left = (1 + 2 * t) * (1 - t) ** 2 * value[i] + t * (1 - t) ** 2 * rise[i]
    right = t * t * (3 - 2 * t) * value[i + 1] - t * t * (1 - t) * rise[i + 1]
    return np.where(w >= END, 1.0, left + right)


def _spread(df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, s) and weights of chi_df / sqrt(df), for n degrees of freedom.

    The density of its logarithm u is exp(df (u - (exp(2u) - 1) / 2)) times a constant:
    analytic, so that equal steps are enough.
    """

    def edge(sign: float) -> np.ndarray:
        u = sign * np.sqrt(LOG_LEFT / df)
        for _ in range(60):  # Newton from outside, of a concave function
            e = np.expm1(2 * u)
            step = (df * (u - e / 2) + LOG_LEFT) / (df * e)
            u = u + step
            if np.abs(step / u).max() < 1e-9:  # ends of a sum: digits enough
                break
        return u

    low, high = edge(-1.0), edge(1.0)
    nodes = FEW_NODES if df.min() < FEW else SPREAD_NODES
    u = low[:, None] + np.linspace(0, 1, nodes) * (high - low)[:, None]
    f = np.exp(df[:, None] * (u - np.expm1(2 * u) / 2))
    return np.exp(u), f / f.sum(axis=1, keepdims=True)


def tukey(t: np.ndarray, k: float, df: np.ndarray) -> np.ndarray:
    """P(|largest difference of k means| >= |t| standard errors), elementwise.

    Args:
        t: (m,) statistics of pairs.
        k: number of means.
        df: (m,) degrees of freedom of their standard errors; may be infinite.
    """
    w = np.sqrt(2) * np.abs(np.asarray(t, float))
    df = np.broadcast_to(np.asarray(df, float), w.shape)
    out = np.full(w.shape, np.nan)
    known = np.isfinite(w) & ~np.isnan(df)
    exact = known & np.isinf(df)
    out[exact] = 1 - _range_cdf(w[exact], k)
    other = known & ~exact
    if other.any():
        s, weight = _spread(df[other])
        below = (_range_cdf(w[other, None] * s, k) * weight).sum(axis=1)
        out[other] = 1 - below
    out[np.isinf(w) & ~np.isnan(df)] = 0.0
    return np.clip(out, 0.0, 1.0)


def dunnettx(t: np.ndarray, k: int, df: np.ndarray) -> np.ndarray:
    """Comparisons of k treatments with a control, approximately, elementwise.

    R's emmeans makes it of Tukey's for as many means as have k pairs and Sidak's for k
    tests, (k - 1) parts to one: near Dunnett's where groups are of one size.
    """
    single = scheffe(t, 1, df)
    pairs = tukey(t, 0.5 * (1 + np.sqrt(1 + 8 * k)), df)
    return ((k - 1) * pairs + 1 - (1 - single) ** k) / k


# Any comparisons ----------------------------------------------------------------------


def scheffe(t: np.ndarray, rank: int, df: np.ndarray) -> np.ndarray:
    """p-values that hold for all contrasts of a space of this dimension."""
    from scipy.special import chdtrc, fdtrc

    square = np.asarray(t, float) ** 2
    df = np.broadcast_to(np.asarray(df, float), square.shape)
    with np.errstate(invalid="ignore"):
        finite = fdtrc(rank, np.where(np.isinf(df), 1.0, df), square / rank)
        return np.where(np.isinf(df), chdtrc(rank, square), finite)


def multivariate_t(t: np.ndarray, correlation: np.ndarray, df: float) -> np.ndarray:
    """P(max_j |T_j| >= |t_i|) for each i, T a multivariate t of k statistics.

    The union of the rare events |T_j| >= c is sampled from itself: j by its own
    probability, T_j beyond c, the others given it, and the sum of the probabilities is
    multiplied by the mean of 1 / number of events (Owen, Maximov and Chertkov 2019,
    Electronic Journal of Statistics 13, 231). So small probabilities are as precise,
    relatively, as large ones; quasi-random points make three to four digits.

    Args:
        t: (m,) statistics.
        correlation: (k, k) of the statistics; may be singular.
        df: degrees of freedom; may be infinite.
    """
    draw = _events(np.asarray(correlation, float), float(df))
    t = np.abs(np.asarray(t, float))
    known = np.isfinite(t)
    out = np.where(np.isinf(t), 0.0, np.nan)
    at, back = np.unique(np.round(t[known], 12), return_inverse=True)
    out[known] = np.array([draw(c) for c in at])[back]
    return out


def _events(R: np.ndarray, df: float) -> Callable[[float], float]:
    """c -> P(max |T_j| >= c), from the same points at every c."""
    from scipy.special import ndtri, stdtr, stdtrit
    from scipy.stats import chi2, qmc

    k = len(R)
    values, vectors = np.linalg.eigh(R)
    keep = values > 1e-9 * values.max()
    root = vectors[:, keep] * np.sqrt(values[keep])  # R = root root'
    rank = root.shape[1]
    # rng= is SciPy's later name of the argument
    points = qmc.Sobol(rank + 4, seed=0).random(DRAWS)  # pyright: ignore
    u = np.clip(points, 1e-12, 1 - 1e-12)
    z = ndtri(u[:, 4:])
    which = np.minimum((u[:, 0] * k).astype(int), k - 1)
    sign = np.where(u[:, 2] < 0.5, -1.0, 1.0)
    plain = z @ root.T  # (n, k), correlated as R
    # the others given T_which
    rest = plain - plain[np.arange(DRAWS), which, None] * R[which]
    finite = np.isfinite(df)
    if finite:
        plain = plain / np.sqrt(chi2.ppf(u[:, 3], df) / df)[:, None]
        rest = rest * np.sqrt((df + 1) / chi2.ppf(u[:, 3], df + 1))[:, None]
    largest = np.sort(np.abs(plain).max(axis=1))

    def probability(c: float) -> float:
        one = stdtr(df, -c) if finite else _lower(-c)
        if one <= 0:
            return 0.0
        if 2 * one * k > COMMON:  # not rare: counted
            return float(1 - np.searchsorted(largest, c) / DRAWS)
        tail = one * u[:, 1]
        own = -stdtrit(df, tail) if finite else -ndtri(tail)
        own = np.maximum(own, c)
        scale = np.sqrt((df + own**2) / (df + 1)) if finite else 1.0
        T = (sign * own)[:, None] * R[which] + rest * np.reshape(scale, (-1, 1))
        hit = np.abs(T) >= c * (1 - 1e-12)
        hit[np.arange(DRAWS), which] = True
        return float(min(2 * one * k * np.mean(1.0 / hit.sum(axis=1)), 1.0))

    return probability


def _lower(x: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(x))


# Limits -------------------------------------------------------------------------------


def critical(p_of: Callable[[float], float], level: float, start: float) -> float:
    """The |t| whose p-value is 1 - level; start: that of a single test, no larger."""
    from scipy.optimize import brentq

    if not np.isfinite(start):
        return np.nan
    alpha, high = 1 - level, max(start, 0.1)
    while p_of(high) > alpha:
        high *= 2
    low = min(start, high) * (1 - 1e-9)
    if p_of(low) <= alpha:
        return start
    return float(brentq(lambda c: p_of(c) - alpha, low, high, xtol=1e-10))


def critical_each(
    p_of: Callable[[np.ndarray], np.ndarray], level: float, start: np.ndarray
) -> np.ndarray:
    """``critical`` of several independent statistics at once, (m,).

    By regula falsi in log p (Illinois' variant), all of them in step.
    """
    aim = np.log(1 - level)

    def gap(c: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(p_of(c)), -700.0) - aim

    low, high = start * (1 - 1e-9), np.maximum(start, 0.1)
    below, above = gap(low), gap(high)
    while (above > 0).any():
        high = np.where(above > 0, 2 * high, high)
        above = gap(high)
    done = below <= 0
    out = np.where(done, start, high)
    last = np.zeros(len(start), int)
    for _ in range(100):
        with np.errstate(invalid="ignore", divide="ignore"):
            c = np.where(done, out, high - above * (high - low) / (above - below))
        found = gap(c)
        side = np.where(found <= 0, 1, -1)
        again = 0.5 ** (side == last)  # an end that stays twice counts half
        right = side > 0
        below = np.where(right, below * again, found)
        above = np.where(right, found, above * again)
        low, high = np.where(right, low, c), np.where(right, c, high)
        out, last = np.where(done, out, c), side
        done |= (np.abs(found) < 1e-10) | (high - low < 1e-10)
        if done.all():
            break
    return out
