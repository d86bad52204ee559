"""A Gaussian around a mode, corrected for skewness along its axes.

Posteriors of logarithms of standard deviations have long left tails where a variance
may be zero, and those of correlations lean: intervals of the Gaussian at the mode hold
too little. With y = (log sds, correlations, log dispersion) of covariance S at the mode
y0, and S = A A' by its eigenvectors, y = y0 + A t. Along each column of A the log
density is evaluated at a few points, interpolated, and made a distribution of its own:
t is a product of r such distributions. That is how INLA places its integration points,
with a whole curve in the place of two scales (Rue, Martino and Chopin 2009, section
6.5; Martins, Simpson, Lindgren and Rue 2013, section 3.2).

Given t, coefficients are normal; along each axis their mean and variances follow, from
values at one standard deviation to both sides of where the Gaussian has their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm.numerics.special import LOG_2PI

NODES = np.array([-8, -6, -4.5, -3, -2, -1, 0, 1, 2, 3, 4.5])  # sds of an axis
FEW = np.array([-2.8, -1.3, 0.0, 1.2, 2.4])  # the same, where a value is dear
REACH = (-9.0, 6.0)  # ends of the distribution of an axis
POINTS = 1201  # of its table
DEEP = 120.0  # log density below the mode at which an axis ends
ABOVE = 3.0  # the same above it: more is no density around this mode
FLAT, SHARP = 0.05, 20.0  # bounds of a coefficient's curvature, 1 at the mode
MOST = 6000  # values at once; above, coefficients are as at the mode


@dataclass(frozen=True)
class Axes:
    """Distributions of r axes on one table.

    t: (G,); log_density, cdf: (r, G); log_volume: (r,) log of the integral of the
    density over its value at t = 0.
    """

    t: np.ndarray
    log_density: np.ndarray
    cdf: np.ndarray
    log_volume: np.ndarray

    @classmethod
    def through(cls, nodes: np.ndarray, values: np.ndarray) -> Axes:
        """Through log densities ``values`` (r, m) at ``nodes`` (m,), one of them 0."""
        t = np.linspace(*REACH, POINTS)
        step = t[1] - t[0]
        centre = int(np.flatnonzero(nodes == 0)[0])
        with np.errstate(invalid="ignore"):
            below = values - values[:, [centre]]
        below = np.clip(np.where(np.isfinite(below), below, -DEEP), -DEEP, ABOVE)
        # what is left of a standard normal is smooth, and its line goes on outside
        rest = interpolated(t, nodes, below + nodes**2 / 2)
        log_density = rest - t**2 / 2
        top = log_density.max(axis=1, keepdims=True)
        density = np.exp(log_density - top)
        cdf = np.cumsum((density[:, 1:] + density[:, :-1]) / 2, axis=1) * step
        cdf = np.pad(cdf, ((0, 0), (1, 0)))
        volume = np.log(cdf[:, -1]) + top[:, 0]
        return cls(t, log_density - volume[:, None], cdf / cdf[:, -1:], volume)

    def quantiles(self, u: np.ndarray) -> np.ndarray:
        """(S, r) values of t at probabilities u (S, r)."""
        columns = [np.interp(u[:, j], c, self.t) for j, c in enumerate(self.cdf)]
        return np.stack(columns, axis=1) if columns else np.zeros_like(u)

    def log_density_at(self, t: np.ndarray) -> np.ndarray:
        """(S,) joint log density at t (S, r)."""
        logs = [np.interp(t[:, j], self.t, d) for j, d in enumerate(self.log_density)]
        return np.sum(logs, axis=0) if logs else np.zeros(len(t))


def interpolated(t: np.ndarray, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(..., G) from values (..., m): smooth between nodes, straight lines outside.

    A cubic spline, which overshoots where values were cut off: monotone pieces there.
    """
    from scipy.interpolate import CubicSpline, PchipInterpolator

    cut = (values <= -DEEP + nodes**2 / 2).any()
    curve = (PchipInterpolator if cut else CubicSpline)(nodes, values, axis=-1)
    inside = np.clip(t, nodes[0], nodes[-1])
    low, high = (curve(end, 1)[..., None] for end in (nodes[0], nodes[-1]))
    return curve(inside) + np.where(t < nodes[0], low, high) * (t - inside)


def oriented(vectors: np.ndarray) -> np.ndarray:
    """Columns with their largest component positive: long left tails lie left."""
    if not len(vectors):  # coefficients alone
        return vectors
    largest = np.argmax(np.abs(vectors), axis=0)
    return vectors * np.where(vectors[largest, np.arange(len(largest))] < 0, -1.0, 1.0)


@dataclass(frozen=True)
class Frame:
    """Where a mode's axes lie. mode: (k,), p of them coefficients.

    A: (r, r) axes of y; B: (p, r) what coefficients move by with y; C: (p, p) lower,
    Cholesky factor of their covariance given y.
    """

    mode: np.ndarray
    p: int
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray

    @classmethod
    def at(cls, mode: np.ndarray, H: np.ndarray, p: int) -> Frame:
        """From the Hessian H (k, k) of the negative log density."""
        S = np.linalg.inv(H)
        S = (S + S.T) / 2
        values, vectors = np.linalg.eigh(S[p:, p:])
        A = oriented(vectors) * np.sqrt(values)
        B = np.linalg.solve(S[p:, p:], S[p:, :p]).T
        C = np.linalg.cholesky(np.linalg.inv(H[:p, :p]))
        return cls(np.asarray(mode), p, A, B, C)

    @property
    def r(self) -> int:
        """Number of axes."""
        return len(self.A)

    def place(self, t: np.ndarray, e: np.ndarray) -> np.ndarray:
        """(..., k) at t (..., r), e (..., p) standard deviations off the mean."""
        y = t @ self.A.T
        beta = y @ self.B.T + e @ self.C.T
        return self.mode + np.concatenate([beta, y], axis=-1)

    def log_det(self) -> float:
        """Log of the volume of a unit of (t, e)."""
        _, one = np.linalg.slogdet(self.A)
        return float(one + np.sum(np.log(np.diagonal(self.C))))


@dataclass(frozen=True)
class SkewGaussian:
    """The law: axes, and coefficients given them.

    shift, log_var: (r, p, G) mean, in standard deviations, and log variance of each
    coefficient's own direction along each axis.
    """

    frame: Frame
    axes: Axes
    shift: np.ndarray
    log_var: np.ndarray

    @classmethod
    def fitted(cls, frame: Frame, values: np.ndarray) -> SkewGaussian:
        """From log densities at ``points(frame)``."""
        p, r, m = frame.p, frame.r, len(NODES)
        with_beta = len(values) > r * m
        f = np.asarray(values, float).reshape(r, m, -1 if r else 1)
        if not with_beta:
            none = np.zeros((r, p, POINTS))
            return cls(frame, Axes.through(NODES, f[:, :, 0]), none, none)
        here, right, left = f[:, :, :1], f[:, :, 1::2], f[:, :, 2::2]
        with np.errstate(invalid="ignore"):
            curve, slope = 2 * here - right - left, (right - left) / 2
        known = np.isfinite(curve) & np.isfinite(slope)
        curve = np.clip(np.where(known, curve, 1.0), FLAT, SHARP)
        slope = np.where(known, slope, 0.0)
        shift = np.clip(slope / curve, -3.0, 3.0)
        # the coefficients are integrated out by Laplace's method at every node
        gain = np.sum(shift * slope - shift**2 * curve / 2 - np.log(curve) / 2, axis=2)
        axes = Axes.through(NODES, f[:, :, 0] + gain)
        inside = np.clip(axes.t, NODES[0], NODES[-1])
        tables = (
            interpolated(inside, NODES, np.moveaxis(x, 1, 2))
            for x in (shift, -np.log(curve))
        )
        # the Gaussian has none at its mode; what is left there is rounding
        centre = np.searchsorted(axes.t, 0.0)
        return cls(frame, axes, *(x - x[..., [centre]] for x in tables))

    def symmetric(self) -> SkewGaussian:
        """The Gaussian of the same mode and curvature."""
        normal = np.broadcast_to(-(NODES**2) / 2, (self.frame.r, len(NODES)))
        return SkewGaussian.fitted(self.frame, normal.ravel())

    def draws(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x (S, k) and log densities (S,) from points u (S, k) of the unit cube."""
        from scipy.special import ndtri

        p, axes = self.frame.p, self.axes
        t, z = axes.quantiles(u[:, p:]), ndtri(u[:, :p])
        mean, log_var = self._given(t)
        x = self.frame.place(t, mean + np.exp(log_var / 2) * z)
        own = -0.5 * np.sum(z**2 + log_var + LOG_2PI, axis=1)
        return x, axes.log_density_at(t) + own - self.frame.log_det()

    def _given(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and log variances (S, p) of coefficients: sums over the axes."""
        step = self.axes.t[1] - self.axes.t[0]
        at = np.rint((t - self.axes.t[0]) / step).astype(int)
        at = np.clip(at, 0, POINTS - 1)
        out = []
        for table in (self.shift, self.log_var):
            total = np.zeros((len(t), self.frame.p))
            for j in range(self.frame.r):
                total += table[j][:, at[:, j]].T
            out.append(total)
        return out[0], out[1]


def points(frame: Frame) -> np.ndarray:
    """(N, k) where a log density tells the law of ``SkewGaussian.fitted``."""
    p, r, m = frame.p, frame.r, len(NODES)
    t = np.zeros((r, m, r))
    t[np.arange(r), :, np.arange(r)] = NODES
    sides = np.zeros((1 + 2 * p, p))
    sides[1::2], sides[2::2] = np.eye(p), -np.eye(p)
    if r * m * (1 + 2 * p) > MOST:
        sides = sides[:1]
    shape = (r, m, len(sides))
    x = frame.place(
        np.broadcast_to(t[:, :, None], (*shape, r)), np.broadcast_to(sides, (*shape, p))
    )
    return x.reshape(-1, len(frame.mode))


def star(r: int, nodes: np.ndarray = FEW) -> np.ndarray:
    """(1 + r (m - 1), r) points on r axes: the origin first, then axis by axis."""
    own = nodes[nodes != 0]
    out = np.zeros((1 + r * len(own), r))
    for j in range(r):
        out[1 + j * len(own) : 1 + (j + 1) * len(own), j] = own
    return out


def of_star(values: np.ndarray, r: int, nodes: np.ndarray = FEW) -> Axes:
    """Axes through log densities at ``star(r, nodes)``."""
    apart = np.asarray(values[1:], float).reshape(r, -1)
    centre = int(np.flatnonzero(nodes == 0)[0])
    return Axes.through(nodes, np.insert(apart, centre, values[0], axis=1))
