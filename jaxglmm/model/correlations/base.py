"""Correlations of q positions as functions of few numbers, with exact derivatives.

What random effects (``covariances``) and residuals (``residuals``) share: the formulas
of R, elementwise and for NumPy and JAX alike. Natural parameters are those that people
read, rho and range; z are the same on the whole line, for searches. Sequences of
correlations that have to be those of a positive definite matrix (Toeplitz) are taken to
the whole line by their partial autocorrelations (Barndorff-Nielsen and Schou 1973,
Journal of Multivariate Analysis 3, 408); a correlation alone is z / sqrt(1 + z^2), as
in glmmTMB and mmrm, whose Fisher's z is asinh(z).

R is packed: its lower triangle, column by column, on the first axis of an array whose
other axes are those of the parameters (lanes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm._typing import Float
from jaxglmm.numerics.array_namespace import functions
from jaxglmm.runtime.arrays import jnp, jvp_rows

TINY = 1e-17  # of what is left to an end of a range
FAR = 40.0  # largest logarithm of a range or a smoothness


def correlation(z: Any) -> Any:
    """(-1, 1) from the whole line: z / sqrt(1 + z^2)."""
    return z / functions(z).sqrt(1.0 + z * z)


def from_fisher(y: Any) -> Any:
    """z of correlations tanh(y)."""
    return jnp.sinh(jnp.clip(y, -FAR, FAR))


def to_fisher(z: Any) -> Any:
    """Fisher's transform of the correlations of z."""
    return jnp.arcsinh(z)


def from_correlation(rho: Any) -> Any:
    """z of a correlation, NumPy; of one that rounds to 1 it is finite too."""
    return rho / np.sqrt(np.maximum((1.0 - rho) * (1.0 + rho), TINY))


def unit(x: Sequence[Any], a: int) -> tuple[Any, ...]:
    """The tangent along one parameter, of all lanes."""
    return tuple(
        jnp.ones_like(v) if b == a else jnp.zeros_like(v) for b, v in enumerate(x)
    )


class AbstractCorrelation(ABC):
    """Correlations of q positions; hashable, static in compiled programs."""

    q: int

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the natural parameters."""

    @property
    def is_chain(self) -> bool:
        """Whether R^-1 has a diagonal and its neighbours alone (Markov)."""
        return False

    @property
    def n(self) -> int:
        """Number of parameters."""
        return len(self.names)

    @abstractmethod
    def natural(self, z: Sequence[Any]) -> list[Any]:
        """The natural parameters from numbers (or arrays of one shape) on the line."""

    @abstractmethod
    def free(self, natural: Sequence[Any]) -> list[Any]:
        """z of natural parameters, NumPy; large at the ends of their range."""

    @abstractmethod
    def entries(self, natural: Sequence[Any]) -> Any:
        """R from natural parameters, packed."""

    @abstractmethod
    def start(self) -> list[float]:
        """Natural parameters to begin a search with: no correlation, or a weak one."""

    def other_starts(self) -> list[list[float]]:
        """Further beginnings, for a criterion that is flat far from its minimum."""
        return []

    def from_even(self, y: Any) -> Any:
        """z (n,) from coordinates in which posteriors are more nearly normal."""
        return y

    def to_even(self, z: Any) -> Any:
        """The inverse of ``from_even``."""
        return z

    def log_lkj(self, y: Any, eta: Any) -> Any:
        """log density of y = ``to_even(z)`` under LKJ(eta), Jacobian included.

        Of one correlation it is proportional to (1 - rho^2)^(eta - 1).
        """
        raise NotImplementedError

    def drawn_lkj(self, rng: np.random.Generator, S: int, eta: float) -> np.ndarray:
        """(S, n) natural parameters from that prior."""
        raise NotImplementedError

    @abstractmethod
    def fitted(self, R: Float[np.ndarray, "*D q q"]) -> list[np.ndarray]:
        """The natural parameters of a matrix of this kind, NumPy."""

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each packed entry."""
        column, row = np.triu_indices(self.q)
        return row, column

    def matrix(self, natural: Sequence[Any]) -> Float[np.ndarray, "*D q q"]:
        """R on the host."""
        return self.whole(self.entries(natural))

    def derivatives(
        self, z: Sequence[Any], natural: bool = False
    ) -> tuple[Any, list[Any], list[list[Any]]]:
        """R, its first and its second derivatives, each packed as R is.

        In z, or with ``natural`` in the natural parameters, which are given then.
        """
        z = [1.0 * x for x in z]

        def value(*x: Any) -> Any:
            return self.entries(list(x) if natural else self.natural(x))

        def slope(a: int) -> Any:
            return lambda *x: jvp_rows(value, x, unit(x, a))[1]

        first, second = [], [[None] * self.n for _ in range(self.n)]
        for a in range(self.n):
            for b in range(a + 1):
                found, bend = jvp_rows(slope(a), tuple(z), unit(z, b))
                second[a][b] = second[b][a] = bend
            first.append(found)
        return value(*z), first, second

    def whole(self, packed: np.ndarray) -> Float[np.ndarray, "*D q q"]:
        """A symmetric matrix from its packed triangle (e, *D), on the host."""
        packed = np.moveaxis(np.asarray(packed), 0, -1)
        row, column = self._pairs
        out = np.empty((*packed.shape[:-1], self.q, self.q))
        out[..., row, column] = out[..., column, row] = packed
        return out


class AbstractByDistance(AbstractCorrelation):
    """R is a function of the distance of two positions alone."""

    @property
    @abstractmethod
    def positions(self) -> np.ndarray:
        """(q, k) coordinates."""

    @abstractmethod
    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """Correlations (k, *lanes) at k distances."""

    @cached_property
    def _distances(self) -> tuple[np.ndarray, np.ndarray]:
        """Those that differ, and for each packed entry which it has."""
        row, column = self._pairs
        apart = self.positions[row] - self.positions[column]
        apart = np.sqrt(np.einsum("ij,ij->i", apart, apart))
        return np.unique(apart, return_inverse=True)

    @property
    def distances(self) -> np.ndarray:
        """The distances between positions that differ, ascending, 0 the first."""
        return self._distances[0]

    def entries(self, natural: Sequence[Any]) -> Any:
        """R, packed."""
        some, which = self._distances
        return self.at(natural, some)[which]

    def filled(self, R: Float[np.ndarray, "*D q q"]) -> Float[np.ndarray, "*D q q"]:
        """R, with NaN replaced by the mean of what is known at the same distance."""
        if np.isfinite(R).all():
            return R
        R, (some, which) = R.copy(), self._distances
        row, column = self._pairs
        for k in range(len(some)):
            i, j = row[which == k], column[which == k]
            known = np.isfinite(R[..., i, j])
            total = np.sum(np.where(known, R[..., i, j], 0.0), axis=-1)
            mean = total / known.sum(axis=-1)
            value = np.where(known, R[..., i, j], mean[..., None])
            R[..., i, j] = R[..., j, i] = value
        return R

    def between(
        self, natural: Sequence[Any], a: np.ndarray, b: np.ndarray
    ) -> Float[np.ndarray, "m n"]:
        """Correlations of positions a (m, k) with others b (n, k), on the host."""
        apart = np.sqrt(np.sum((a[:, None] - b[None]) ** 2, axis=-1))
        some, which = np.unique(apart, return_inverse=True)
        return np.asarray(self.at(natural, some))[which.reshape(apart.shape)]


def lift(x: Any) -> Any:
    """With an axis before its own."""
    return (x if hasattr(x, "shape") else np.asarray(float(x)))[None]


def column(values: np.ndarray, like: Any) -> np.ndarray:
    """Numbers along the first of the axes of ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
