"""Pareto-smoothed importance sampling, on the host.

Vehtari, Simpson, Gelman, Yao and Gabry (2024), with the estimate of the generalised
Pareto distribution of Zhang and Stephens (2009). k-hat below 0.7 means that means with
these weights can be relied on; above, that a few draws carry everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Smoothed:
    """weights: (S,) summing to one; khat; ess: effective sample size of the weights.

    log_mean: log of the mean of the unsmoothed ratios; error: its standard error.
    """

    weights: np.ndarray
    khat: float
    ess: float
    log_mean: float
    error: float


def smooth(log_ratios: np.ndarray) -> Smoothed:
    """Smooth the largest ratios; those that are not finite count as zero.

    Args:
        log_ratios: (S,) log importance ratios, up to a constant or not.
    """
    raw = np.where(np.isfinite(log_ratios), log_ratios, -np.inf)
    top = raw.max()
    if not np.isfinite(top):
        n = len(raw)
        return Smoothed(np.full(n, np.nan), np.inf, 0.0, -np.inf, np.inf)
    ratios = raw - top
    plain = np.exp(ratios)
    mean = plain.mean()
    error = plain.std() / (mean * np.sqrt(len(raw)))
    logs, khat = _smoothed_tail(ratios)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    ess = 1 / np.sum(weights**2)
    return Smoothed(weights, khat, float(ess), float(top + np.log(mean)), float(error))


def _smoothed_tail(ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Log ratios (largest 0), their tail replaced by Pareto quantiles; k-hat."""
    S = len(ratios)
    size = int(np.ceil(min(0.2 * S, 3 * np.sqrt(S))))
    order = np.argsort(ratios, kind="stable")
    tail = order[S - size :]
    cut = np.exp(max(ratios[order[S - size - 1]], np.log(np.finfo(float).tiny)))
    excess = np.exp(ratios[tail]) - cut
    if size < 5 or not excess[-1] > 0 or excess[0] == excess[-1]:
        return ratios, np.inf if size < 5 else -np.inf
    if not excess[int(size / 4 + 0.5) - 1] > 0:  # all but a few vanish beside them
        return ratios, np.inf
    khat, sigma = fit_pareto(excess)
    out = ratios.copy()
    if np.isfinite(khat):
        at = (np.arange(size) + 0.5) / size
        out[tail] = np.minimum(np.log(quantiles(at, khat, sigma) + cut), 0.0)
    return out, khat


def fit_pareto(x: np.ndarray) -> tuple[float, float]:
    """Shape (with a weak prior towards 1/2) and scale of sorted positive x."""
    n = len(x)
    m = 30 + int(np.sqrt(n))
    b = 1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))
    b = b / (3 * x[int(n / 4 + 0.5) - 1]) + 1 / x[-1]
    k = np.log1p(-b[:, None] * x).mean(axis=1)
    L = n * (np.log(-(b / k)) - k - 1)
    w = np.exp(L - L.max())
    w /= w.sum()
    keep = w >= 10 * np.finfo(float).eps
    w, b = w[keep] / w[keep].sum(), b[keep]
    middle = np.sum(b * w)
    shape = np.log1p(-middle * x).mean()
    sigma = -shape / middle
    return float((n * shape + 5) / (n + 10)), float(sigma)


def quantiles(p: np.ndarray, k: float, sigma: float) -> np.ndarray:
    """Of the generalised Pareto distribution."""
    if abs(k) < 1e-12:
        return -sigma * np.log1p(-p)
    return sigma * np.expm1(-k * np.log1p(-p)) / k


def resample(weights: np.ndarray, offset: float, size: int | None = None) -> np.ndarray:
    """Indices by systematic resampling, as many as weights; offset: in [0, 1)."""
    S = len(weights) if size is None else size
    edges = np.cumsum(weights)
    places = (np.arange(S) + offset) / S * edges[-1]
    return np.minimum(np.searchsorted(edges, places), len(weights) - 1)
