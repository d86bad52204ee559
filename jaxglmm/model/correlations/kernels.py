"""Correlations of positions anywhere, in one dimension or more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm._typing import Float
from jaxglmm.model.correlations.base import FAR, AbstractByDistance, column, lift
from jaxglmm.numerics.array_namespace import functions
from jaxglmm.numerics.matern import matern

SHARES = (0.4, 0.16, 0.06, 0.025)  # of the largest distance, ranges to begin with
BEYOND = 1.5  # times the smallest, which is another
MIDDLE = 0.4  # a correlation that says most of its range


@dataclass(frozen=True)
class AbstractKernel(AbstractByDistance):
    """Positions anywhere, and a range; ``coordinates``: a tuple a position."""

    coordinates: tuple[tuple[float, ...], ...]

    @property
    def q(self) -> int:  # type: ignore[override]
        """Number of positions."""
        return len(self.coordinates)

    @cached_property
    def positions(self) -> np.ndarray:
        """(q, k)."""
        return np.array(self.coordinates, dtype=float).reshape(self.q, -1)

    @property
    def names(self) -> tuple[str, ...]:
        """range."""
        return ("range",)

    def natural(self, z: Sequence[Any]) -> list[Any]:
        """In units of ``unit``, by logarithms."""
        return [functions(z[0]).exp(z[0]) * self.unit, *map(functions(z[0]).exp, z[1:])]

    def free(self, natural: Sequence[Any]) -> list[Any]:
        """Logarithms."""
        scaled = [np.asarray(natural[0]) / self.unit, *map(np.asarray, natural[1:])]
        return [np.log(np.clip(x, np.exp(-FAR), np.exp(FAR))) for x in scaled]

    @cached_property
    def unit(self) -> float:
        """A distance by which z is of order one: the geometric mean of the ends'."""
        apart = self.distances[1:]
        return float(np.sqrt(apart[0] * apart[-1])) if len(apart) else 1.0

    def start(self) -> list[float]:
        """A correlation between neighbours alone."""
        apart = self.distances[1:]
        return [float(apart[0]) if len(apart) else 1.0]

    def other_starts(self) -> list[list[float]]:
        """Parts of the largest distance.

        Where positions are irregular the nearest two are far nearer than most, and at
        their distance nothing is correlated: the criterion is flat there.
        """
        apart = self.distances[1:]
        return [
            [float(apart[-1] * share), *self.start()[1:]]
            for share in SHARES
            if len(apart) and apart[-1] * share > BEYOND * apart[0]
        ]

    def _telling(self, R: Float[np.ndarray, "*D q q"]) -> tuple[np.ndarray, np.ndarray]:
        """Of each R a distance (*D,) at which it is neither 0 nor 1, and R there."""
        row, column = self._pairs
        some, which = self._distances
        first = np.unique(which, return_index=True)[1][1:]
        values = R[..., row[first], column[first]]
        best = np.argmin(np.abs(values - MIDDLE), axis=-1)
        there = np.take_along_axis(values, best[..., None], axis=-1)[..., 0]
        return some[1 + best], np.clip(there, np.finfo(float).tiny, 1.0 - 1e-15)


class ExponentialKernel(AbstractKernel):
    """exp(-d / range): of times an Ornstein-Uhlenbeck process, a continuous AR(1)."""

    @property
    def is_chain(self) -> bool:
        """Of times in their order."""
        at = self.positions
        return at.shape[1] == 1 and bool((np.diff(at[:, 0]) > 0).all())

    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """exp(-d / range)."""
        r = lift(natural[0])
        return functions(r).exp(-column(distance, r) / r)

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """From a pair that tells."""
        apart, r = self._telling(R)
        return [apart / -np.log(r)]


class GaussianKernel(ExponentialKernel):
    """exp(-(d / range)^2)."""

    @property
    def is_chain(self) -> bool:
        """Smooth processes depend on more than their neighbours."""
        return False

    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """exp(-(d / range)^2)."""
        r = lift(natural[0])
        x = column(distance, r) / r
        return functions(r).exp(-x * x)

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """From a pair that tells."""
        apart, r = self._telling(R)
        return [apart / np.sqrt(-np.log(r))]


class MaternKernel(AbstractKernel):
    """(d / range)^nu K_nu(d / range) / (2^(nu - 1) Gamma(nu))."""

    @property
    def names(self) -> tuple[str, ...]:
        """range and smoothness."""
        return ("range", "nu")

    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """Matern's correlation."""
        r, nu = map(lift, natural)
        return matern(column(distance, r) / r, nu)

    def start(self) -> list[float]:
        """ExponentialKernel."""
        return [*super().start(), 0.5]

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """By least squares over all pairs: two numbers of a curve."""
        from scipy.optimize import least_squares

        row, column = self._pairs
        found = []
        for one in R.reshape(-1, self.q, self.q):
            target = one[row, column]

            def miss(z: np.ndarray, target: np.ndarray = target) -> np.ndarray:
                return np.asarray(self.entries(self.natural(list(z)))) - target

            start = np.array(self.free(self.start()), float)
            fit = least_squares(miss, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
            found.append(np.array(self.natural(list(fit.x))))
        shape = R.shape[:-2]
        return [np.array([x[k] for x in found]).reshape(shape) for k in range(2)]
