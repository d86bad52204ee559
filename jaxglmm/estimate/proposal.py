"""Where importance sampling draws from: a multivariate t with two scales an axis.

With L L' = H the precision of a Gaussian around a centre c, a draw is

    x = c + L'^-1 z / sqrt(chi / df),      chi ~ chi-squared with df = 7,

where z_j is normal with one scale to the left and another to the right of zero, joined
without a jump (the two-piece normal of Fechner, 1897; INLA's integration points are
scaled alike, Martins, Simpson, Lindgren and Rue 2013, section 3.2). The last axis is
that of the last parameter by itself, the one before it of what is left of its own
given the last, and so on: parameters come with logarithms of standard deviations last,
whose posteriors have long left tails where a variance may be zero.

``fitted`` takes centre, precision and scales from weighted draws, as adaptive multiple
importance sampling needs them (Cornuet, Marin, Mira and Robert 2012).

The numbers behind the draws are a scrambled Sobol sequence: the means of 4,000 draws
are then several times as exact as those of independent ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import lgamma, log, pi

import numpy as np

DF, SCALE = 7.0, 1.1
WIDER = 1.5  # scale of proposals from draws, whose tails are not all seen
LEAST, MOST = 0.4, 4.0  # scale of one side, in standard deviations
ENOUGH = 20  # effective draws a parameter that moments are taken from


@dataclass(frozen=True)
class SplitT:
    """centre: (k,); L: (k, k) lower, L L' the precision; left, right: (k,) scales."""

    centre: np.ndarray
    L: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def around(cls, centre: np.ndarray, H: np.ndarray, scale: float = SCALE) -> SplitT:
        """The symmetric one of precision H."""
        sides = np.full(len(centre), scale)
        return cls(np.asarray(centre), np.linalg.cholesky(H), sides, sides)

    @classmethod
    def fitted(cls, x: np.ndarray, weights: np.ndarray) -> SplitT:
        """With the moments of weighted draws x (S, k), each side's its own."""
        w = tempered(weights, ENOUGH * x.shape[1])
        mean = w @ x
        rest = x - mean
        V = (w[:, None] * rest).T @ rest
        # few draws, or draws that agree, have a singular covariance
        V += 1e-6 * np.diag(np.diagonal(V)) + 1e-12 * np.eye(len(V))
        L = np.linalg.cholesky(np.linalg.inv(V))
        return cls(mean, L, *(WIDER * s for s in side_scales(rest @ L, w)))

    def draws(self, S: int, seed: int) -> np.ndarray:
        """(S, k) draws; equal seeds give equal ones."""
        symmetric = np.array_equal(self.left, self.right)
        if symmetric:
            z = standard_t(len(self.L), S, seed) * self.left
        else:
            z = self._two_sided(uniform(len(self.L) + 1, S, seed))
        return self.centre + unwhitened(self.L, z)

    def _two_sided(self, points: np.ndarray) -> np.ndarray:
        from scipy.special import ndtri

        k = len(self.L)
        u, p = points[:, :k], self.left / (self.left + self.right)
        with np.errstate(invalid="ignore"):  # of the side that is not taken
            below = self.left * ndtri(u / (2 * p))
            above = self.right * ndtri(0.5 + (u - p) / (2 * (1 - p)))
        return np.where(u < p, below, above) / _t_scale(points[:, k])[:, None]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """(S,) log density at x (S, k)."""
        k = len(self.L)
        z = (x - self.centre) @ self.L
        z = z / np.where(z < 0, self.left, self.right)
        constant = lgamma((DF + k) / 2) - lgamma(DF / 2) - k / 2 * log(DF * pi)
        volume = np.log(np.diagonal(self.L)).sum()
        volume -= np.log((self.left + self.right) / 2).sum()
        return constant + volume - (DF + k) / 2 * np.log1p(np.sum(z**2, axis=1) / DF)


def unwhitened(L: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(S, k) L'^-1 z of every row.

    Without BLAS, whose threads go on spinning beside what is computed next.
    """
    return np.einsum("sj,ij->si", z, np.linalg.inv(L).T)


def log_mixture(proposals: list[SplitT], x: np.ndarray) -> np.ndarray:
    """(S,) log density of the equal mixture."""
    logs = np.stack([one.log_density(x) for one in proposals])
    if len(logs) == 1:
        return logs[0]
    return np.logaddexp.reduce(logs, axis=0) - np.log(len(proposals))


def side_scales(z: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares left and right of zero of weighted draws z (S, k)."""
    out = []
    for side in (z < 0, z >= 0):
        mass = np.maximum(w @ side, 1e-300)
        out.append(np.clip(np.sqrt(w @ (side * z**2) / mass), LEAST, MOST))
    return out[0], out[1]


def tempered(weights: np.ndarray, least: float) -> np.ndarray:
    """Weights to the power, at most one, with which ``least`` draws count."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    logs = logs - logs.max()
    least = min(least, 0.5 * np.isfinite(logs).sum())

    def powered(a: float) -> np.ndarray:
        w = np.exp(a * logs)
        return w / w.sum()

    low, high = 0.0, 1.0
    if 1 / np.sum(powered(1.0) ** 2) >= least:
        return powered(1.0)
    for _ in range(40):
        middle = (low + high) / 2
        enough = 1 / np.sum(powered(middle) ** 2) >= least
        low, high = (middle, high) if enough else (low, middle)
    return powered(low)


@lru_cache(maxsize=8)
def standard_t(k: int, S: int, seed: int) -> np.ndarray:
    """(S, k) draws of the multivariate t, by a scrambled Sobol sequence."""
    from scipy.special import ndtri

    points = uniform(k + 1, S, seed)
    return ndtri(points[:, :k]) / _t_scale(points[:, k])[:, None]


def _t_scale(u: np.ndarray) -> np.ndarray:
    from scipy.special import gammaincinv

    return np.sqrt(2 * gammaincinv(DF / 2, u) / DF)  # chi-squared


@lru_cache(maxsize=8)
def standard_normal(k: int, S: int, seed: int) -> np.ndarray:
    """(S, k) draws of the standard normal, by a scrambled Sobol sequence."""
    from scipy.special import ndtri

    return ndtri(uniform(k, S, seed))


def uniform(k: int, S: int, seed: int) -> np.ndarray:
    """(S, k) points in the open unit cube."""
    from scipy.stats.qmc import Sobol

    power = int(np.ceil(np.log2(max(S, 2))))
    points = Sobol(k, rng=np.random.default_rng(seed)).random_base2(power)[:S]
    return np.clip(points, 1e-12, 1 - 1e-12)
