"""Coordinates in which some parameters of a model are held at given values.

theta = theta(f): f are what is left to move. Parts of theta that a parameter is a
coordinate of lose that coordinate; an unstructured covariance of which a standard
deviation or a correlation is held is written in these, correlations by Fisher's z.
Derivatives of the map are central differences: it is a few numbers long, and only its
first derivative has a say in where the search ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

STEP, BEND = 6e-6, 1e-4  # of first and of second differences
SHRUNK = 0.1  # of where it began: a standard deviation next to zero


@dataclass(frozen=True)
class Chart:
    """theta(f); scales: (k,) which of f are standard deviations of random effects."""

    to_theta: Callable[[np.ndarray], np.ndarray]
    scales: np.ndarray

    @property
    def k(self) -> int:
        """How many coordinates are free."""
        return len(self.scales)

    def theta(self, f: np.ndarray) -> np.ndarray:
        """(m,)."""
        return self.to_theta(np.asarray(f, float))

    def slopes(self, f: np.ndarray) -> np.ndarray:
        """(m, k) d theta / d f."""
        f = np.asarray(f, float)
        columns = []
        for a in range(self.k):
            h = STEP * max(1.0, abs(f[a]))
            up, down = f.copy(), f.copy()
            up[a], down[a] = f[a] + h, f[a] - h
            columns.append((self.theta(up) - self.theta(down)) / (up[a] - down[a]))
        m = len(self.theta(f))
        return np.stack(columns, axis=1) if columns else np.zeros((m, 0))

    def bend(self, f: np.ndarray, score: np.ndarray) -> np.ndarray:
        """(k, k) sum_a score_a d2 theta_a / df df'."""
        f = np.asarray(f, float)
        out = np.zeros((self.k, self.k))
        for a in range(self.k):
            h = BEND * max(1.0, abs(f[a]))
            up, down = f.copy(), f.copy()
            up[a], down[a] = f[a] + h, f[a] - h
            change = self.slopes(up) - self.slopes(down)
            out[a] = score @ change / (up[a] - down[a])
        return (out + out.T) / 2


@dataclass(frozen=True)
class HeldPart:
    """A few thetas and the coordinates that stand for them.

    values: (c,) coordinates, those held at their values; held: (c,); scales: (c,)
    to: coordinates (c,) to thetas, the identity where None
    """

    values: np.ndarray
    held: np.ndarray
    scales: np.ndarray
    to: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class HeldCoordinates:
    """All pieces side by side; ``finish`` takes their thetas to those of the model."""

    pieces: tuple[HeldPart, ...]
    finish: Callable[[list[np.ndarray]], np.ndarray] = np.concatenate

    @cached_property
    def held(self) -> np.ndarray:
        """Of all coordinates, which stay."""
        return np.concatenate([p.held for p in self.pieces] or [np.zeros(0, bool)])

    @cached_property
    def values(self) -> np.ndarray:
        """All coordinates where the search begins."""
        return np.concatenate([p.values for p in self.pieces] or [np.zeros(0)])

    @property
    def start(self) -> np.ndarray:
        """(k,) of those that move."""
        return self.values[~self.held]

    @property
    def chart(self) -> Chart:
        """The map from those that move."""
        scales = np.concatenate([p.scales for p in self.pieces] or [np.zeros(0, bool)])
        return Chart(self._theta, scales[~self.held])

    def _theta(self, f: np.ndarray) -> np.ndarray:
        every = self.values.copy()
        every[~self.held] = f
        out, at = [], 0
        for piece in self.pieces:
            own = every[at : at + len(piece.values)]
            out.append(own if piece.to is None else piece.to(own))
            at += len(piece.values)
        return self.finish(out)


def of_unstructured(q: int) -> Callable[[np.ndarray], np.ndarray]:
    """From standard deviations and Fisher's z to the triangle of Lambda = D L.

    Of standard deviations the sign is left out, as that of a correlation would turn
    with it. z column by column of the lower triangle; NaN where there is no such
    correlation matrix, so that a search turns back.
    """

    def to(x: np.ndarray) -> np.ndarray:
        R = np.eye(q)
        row, column = lower(q)
        R[row, column] = R[column, row] = np.tanh(x[q:])
        try:
            L = np.linalg.cholesky(R)
        except np.linalg.LinAlgError:
            return np.full((q, q), np.nan)
        return np.abs(x[:q, None]) * L

    return to


def lower(q: int) -> tuple[np.ndarray, np.ndarray]:
    """Places below the diagonal, column by column."""
    pairs = [(i, j) for j in range(q) for i in range(j + 1, q)]
    row, column = np.array(pairs, int).reshape(-1, 2).T
    return row, column


def least(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]],
    start: np.ndarray,
    tol: float,
    max_steps: int,
) -> tuple[np.ndarray, float, int, bool]:
    """Where ``evaluate`` (value, score, Hessian) is least: x, decrement, steps, done.

    Newton's method in the eigenvectors of the Hessian at unit diagonal, signs left out
    (Greenstadt 1967), halved until the value falls.
    """
    x = np.asarray(start, float)
    value, g, H = evaluate(x)
    decrement = 0.0 if not len(x) else np.inf
    for step in range(1, max_steps + 1):
        if not len(x):
            return x, 0.0, step, bool(np.isfinite(value))
        if not (np.isfinite(value) and np.isfinite(H).all()):
            return x, np.inf, step, False
        move, decrement = _newton(g, H)
        if decrement < tol:
            return x, decrement, step, True
        size, found = 1.0, None
        while size > 1e-10:
            trial: Any = evaluate(x - size * move)
            if np.isfinite(trial[0]) and trial[0] <= value + 1e-12 * abs(value):
                found = trial
                break
            size /= 4
        if found is None:
            return x, decrement, step, decrement < 1e3 * tol
        x = x - size * move
        value, g, H = found
    return x, float(decrement), max_steps, False


def least_or_zero(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]],
    start: np.ndarray,
    scales: np.ndarray,
    tol: float,
    max_steps: int,
) -> tuple[np.ndarray, float, int, bool]:
    """``least``, or the same at zero of a standard deviation that went next to it.

    With a held correlation the criterion may rise on both sides of zero, where it has
    no derivative, and Newton's method goes to and fro.
    """
    found = least(evaluate, start, tol, max_steps)
    x = found[0]
    small = scales & (np.abs(x) < SHRUNK * np.abs(start))
    if found[3] or not small.any():
        return found

    def rest(y: np.ndarray) -> np.ndarray:
        full = np.where(small, 0.0, x)
        full[~small] = y
        return full

    def reduced(y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, g, H = evaluate(rest(y))
        return value, g[~small], H[np.ix_(~small, ~small)]

    y, left, steps, done = least(reduced, x[~small], tol, max_steps)
    if evaluate(rest(y))[0] > evaluate(x)[0]:
        return found
    return rest(y), left, steps + found[2], done


def _newton(g: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, float]:
    unit = np.sqrt(np.maximum(np.abs(np.diagonal(H)), 1e-12))
    values, vectors = np.linalg.eigh(H / np.outer(unit, unit))
    slope = vectors.T @ (g / unit)
    size = np.maximum(np.abs(values), 1e-8)
    step = vectors @ (slope / size) / unit
    return step * min(1.0, 4.0 / max(float(np.max(np.abs(step))), 1e-300)), float(
        np.sum(slope**2 / size)
    )


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Side by side; nothing of nothing."""
    return np.concatenate(list(parts)) if parts else np.zeros(0)
