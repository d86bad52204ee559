"""R-hat and effective sample size of chains, rank-normalised, on the host.

Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021); autocovariances by FFT and
Geyer's initial monotone sequence. One parameter is an array (chains, draws).

ArviZ has the same numbers (tests compare them), but importing it takes longer than most
fits, and every fit by NUTS is judged by these.
"""

from __future__ import annotations

import numpy as np


def split_chains(x: np.ndarray) -> np.ndarray:
    """Each chain as its two halves."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def rank_normal(x: np.ndarray) -> np.ndarray:
    """Normal scores of the pooled ranks."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(x, method="average").reshape(x.shape)
    return ndtri((ranks - 0.375) / (x.size + 0.25))


def rhat(x: np.ndarray) -> float:
    """The larger of the bulk and the tail R-hat."""
    halves = split_chains(x)
    folded = np.abs(halves - np.median(halves))
    return max(_rhat(rank_normal(halves)), _rhat(rank_normal(folded)))


def _rhat(x: np.ndarray) -> float:
    n = x.shape[1]
    within = x.var(axis=1, ddof=1).mean()
    between = n * x.mean(axis=1).var(ddof=1)
    if within == 0:
        return np.nan
    return float(np.sqrt((between / within + n - 1) / n))


def bulk_ess(x: np.ndarray) -> float:
    """Effective sample size for the centre of the distribution."""
    return ess(rank_normal(split_chains(x)))


def tail_ess(x: np.ndarray) -> float:
    """The smaller effective sample size of the 5 and 95 per cent quantiles."""
    low, high = np.quantile(x, [0.05, 0.95])
    return min(ess(split_chains((x <= q).astype(float))) for q in (low, high))


def ess(x: np.ndarray) -> float:
    """Of the mean, from chains as they are."""
    m, n = x.shape
    if n < 4 or np.ptp(x) == 0:
        return np.nan
    covariance = autocovariance(x)
    mean_var = covariance[:, 0].mean() * n / (n - 1)
    var_plus = mean_var * (n - 1) / n
    if m > 1:
        var_plus += x.mean(axis=1).var(ddof=1)
    rho = 1 - (mean_var - covariance.mean(axis=0)) / var_plus
    rho[0] = 1.0
    pairs = rho[: (n - 1) // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    end = negative[0] if len(negative) else len(pairs) - 1
    kept = np.minimum.accumulate(pairs[:end])
    tau = -1 + 2 * kept.sum() + max(rho[2 * end], 0)
    tau = max(tau, 1 / np.log10(m * n))
    return float(m * n / tau)


def autocovariance(x: np.ndarray) -> np.ndarray:
    """(chains, lags), with divisor n."""
    n = x.shape[1]
    size = 2 ** int(np.ceil(np.log2(2 * n)))
    f = np.fft.rfft(x - x.mean(axis=1, keepdims=True), size, axis=1)
    return np.fft.irfft(f * f.conj(), size, axis=1)[:, :n] / n


def bfmi(energy: np.ndarray) -> np.ndarray:
    """Energy Bayesian fraction of missing information of each chain (Betancourt)."""
    return np.square(np.diff(energy, axis=1)).mean(axis=1) / energy.var(axis=1, ddof=1)
