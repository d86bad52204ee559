"""Correlations of positions one step apart, as the levels of a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm.model.correlations.base import (
    TINY,
    AbstractByDistance,
    AbstractCorrelation,
    column,
    correlation,
    from_correlation,
    from_fisher,
    lift,
    to_fisher,
)
from jaxglmm.numerics.array_namespace import functions


class AbstractBySteps(AbstractByDistance):
    """Positions one step apart: 0, 1, ..., q - 1, as the levels of a factor."""

    @cached_property
    def positions(self) -> np.ndarray:
        """(q, 1)."""
        return np.arange(float(self.q))[:, None]


def power(x: Any, steps: np.ndarray) -> Any:
    """x^k for whole k >= 0, by squaring: exact for x of either sign, and at zero."""
    x = lift(x)
    k = column(np.rint(steps).astype(int), x)
    where = functions(x).where
    out, square = 1.0 + 0.0 * x + np.zeros(k.shape), x
    for bit in range(int(k.max(initial=0)).bit_length()):
        out = where((k >> bit) & 1 == 1, out * square, out)
        square = square * square
    return out


@dataclass(frozen=True)
class Exchangeable(AbstractBySteps):
    """One correlation of any two (compound symmetry), from -1 / (q - 1) to 1."""

    q: int

    @property
    def names(self) -> tuple[str, ...]:
        """rho."""
        return ("rho",)

    @property
    def lowest(self) -> float:
        """What any smaller rho would not be a correlation matrix of."""
        return -1.0 / max(self.q - 1, 1)

    def natural(self, z: Sequence[Any]) -> list[Any]:
        """rho."""
        share = functions(z[0]).expit(z[0] + self._middle)
        return [self.lowest + (1.0 - self.lowest) * share]

    @property
    def _middle(self) -> float:
        """So that z = 0 is no correlation."""
        return -float(np.log(max(self.q - 1, 1)))

    def free(self, natural: Sequence[Any]) -> list[Any]:
        """The log odds of where rho is between its ends."""
        rho = np.asarray(natural[0])
        below, above = np.maximum(rho - self.lowest, TINY), np.maximum(1.0 - rho, TINY)
        return [np.log(below) - np.log(above) - self._middle]

    def log_lkj(self, y: Any, eta: Any) -> Any:
        """Of a beta stretched over the range: symmetric between its ends."""
        from jaxglmm.numerics.bijections import log_share

        return log_share(y + self._middle, eta)

    def drawn_lkj(self, rng: np.random.Generator, S: int, eta: float) -> np.ndarray:
        """(S, 1)."""
        return self.lowest + (1.0 - self.lowest) * rng.beta(eta, eta, (S, 1))

    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """rho wherever the two differ."""
        rho = lift(natural[0])
        return functions(rho).where(column(distance == 0, rho), 1.0 + 0.0 * rho, rho)

    def start(self) -> list[float]:
        """No correlation."""
        return [0.0]

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """The first correlation."""
        return [R[..., 1, 0]]


@dataclass(frozen=True)
class Autoregressive(AbstractBySteps):
    """rho^steps."""

    q: int

    @property
    def is_chain(self) -> bool:
        """Each depends on its neighbours."""
        return True

    @property
    def names(self) -> tuple[str, ...]:
        """rho."""
        return ("rho",)

    def natural(self, z: Sequence[Any]) -> list[Any]:
        """rho."""
        return [correlation(z[0])]

    def free(self, natural: Sequence[Any]) -> list[Any]:
        """z."""
        return [from_correlation(np.asarray(natural[0]))]

    def from_even(self, y: Any) -> Any:
        """z, from Fisher's transform of rho."""
        return from_fisher(y)

    def to_even(self, z: Any) -> Any:
        """Fisher's transform."""
        return to_fisher(z)

    def log_lkj(self, y: Any, eta: Any) -> Any:
        """That of two neighbours."""
        from jaxglmm.numerics.bijections import log_partial

        return log_partial(y, eta)

    def drawn_lkj(self, rng: np.random.Generator, S: int, eta: float) -> np.ndarray:
        """(S, 1)."""
        return 2.0 * rng.beta(eta, eta, (S, 1)) - 1.0

    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """rho to the number of steps."""
        return power(natural[0], distance)

    def start(self) -> list[float]:
        """No correlation."""
        return [0.0]

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """The first correlation."""
        return [R[..., 1, 0]]


@dataclass(frozen=True)
class MovingAverage(AbstractBySteps):
    """ARMA(1, 1), phi and theta in (-1, 1).

    Of k steps phi^(k - 1) rho_1, where rho_1 = (1 + phi theta)(phi + theta) /
    (1 + 2 phi theta + theta^2).
    """

    q: int

    @property
    def names(self) -> tuple[str, ...]:
        """phi and theta."""
        return ("phi", "theta")

    def natural(self, z: Sequence[Any]) -> list[Any]:
        """phi, theta."""
        return [correlation(x) for x in z]

    def free(self, natural: Sequence[Any]) -> list[Any]:
        """z."""
        return [from_correlation(np.asarray(x)) for x in natural]

    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """1, rho_1, phi rho_1, ..."""
        phi, theta = natural
        first = (1.0 + phi * theta) * (phi + theta)
        first = lift(first / (1.0 + 2.0 * phi * theta + theta * theta))
        later = first * power(phi, np.maximum(distance - 1.0, 0.0))
        nothing = column(distance == 0, later)
        return functions(later).where(nothing, 1.0 + 0.0 * later, later)

    def start(self) -> list[float]:
        """A little of the first, for without any the two are one."""
        return [0.2, 0.0]

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """phi as the ratio of the second to the first, theta of the first by its root.

        Of two positions, or where nothing is correlated, it is an autoregression.
        """
        first = R[..., 1, 0]
        with np.errstate(all="ignore"):
            phi = R[..., 2, 0] / first if self.q > 2 else first
            phi = np.where(np.abs(phi) < 1.0, phi, first)
            a, b = first - phi, 2.0 * first * phi - 1.0 - phi * phi
            root = np.sqrt(np.maximum(b * b - 4.0 * a * a, 0.0))
            theta = np.where(a == 0.0, 0.0, -2.0 * a / (b - root))
        return [phi, theta]


@dataclass(frozen=True)
class Toeplitz(AbstractBySteps):
    """A correlation for each number of steps."""

    q: int

    @property
    def names(self) -> tuple[str, ...]:
        """rho_1, rho_2, ..."""
        return tuple(f"rho_{k}" for k in range(1, self.q))

    def natural(self, z: Sequence[Any]) -> list[Any]:
        """By Durbin and Levinson's recursion from partial autocorrelations."""
        rho: list[Any] = []
        phi: list[Any] = []
        left: Any = 1.0  # variance of the prediction from the last k positions
        for k, partial in enumerate(map(correlation, z)):
            known = sum((a * b for a, b in zip(phi, reversed(rho), strict=True)), 0.0)
            rho.append(known + partial * left)
            phi = [phi[i] - partial * phi[k - 1 - i] for i in range(k)] + [partial]
            left = left * (1.0 - partial * partial)
        return rho

    def free(self, natural: Sequence[Any]) -> list[Any]:
        """The recursion backwards."""
        phi: list[Any] = []
        rho: list[Any] = []
        left, out = np.ones_like(np.asarray(natural[0])), []
        for k, x in enumerate(natural):
            known = sum((a * b for a, b in zip(phi, reversed(rho), strict=True)), 0.0)
            partial = np.clip((x - known) / np.maximum(left, TINY), -1.0, 1.0)
            phi = [phi[i] - partial * phi[k - 1 - i] for i in range(k)] + [partial]
            left = left * (1.0 - partial * partial)
            rho.append(x)
            out.append(from_correlation(partial))
        return out

    def from_even(self, y: Any) -> Any:
        """z, from Fisher's transform of partial autocorrelations."""
        return from_fisher(y)

    def to_even(self, z: Any) -> Any:
        """Fisher's transform."""
        return to_fisher(z)

    def log_lkj(self, y: Any, eta: Any) -> Any:
        """By partial autocorrelations; with eta = 1 uniform over all such matrices.

        d rho_k / d pi_k = prod_(j<k) (1 - pi_j^2), so that pi_j has the exponent
        q - 1 - j there (Barndorff-Nielsen and Schou 1973).
        """
        from jaxglmm.numerics.bijections import log_partial

        return log_partial(y, eta + np.arange(self.q - 2.0, -1.0, -1.0))

    def drawn_lkj(self, rng: np.random.Generator, S: int, eta: float) -> np.ndarray:
        """(S, q - 1)."""
        b = eta + np.arange(self.q - 2.0, -1.0, -1.0)
        partial = 2.0 * rng.beta(b, b, (S, self.n)) - 1.0
        return np.stack(self.natural(list(from_correlation(partial).T)), axis=1)

    def at(self, natural: Sequence[Any], distance: np.ndarray) -> Any:
        """By the number of steps."""
        first = natural[0]
        known = functions(first).stack([1.0 + 0.0 * first, *natural])
        return known[np.rint(distance).astype(int)]

    def start(self) -> list[float]:
        """No correlation."""
        return [0.0] * (self.q - 1)

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """The first column."""
        return [R[..., k, 0] for k in range(1, self.q)]


@dataclass(frozen=True)
class Antedependence(AbstractCorrelation):
    """The product of the correlations of neighbours on the way."""

    q: int

    @property
    def names(self) -> tuple[str, ...]:
        """rho_1, rho_2, ..."""
        return tuple(f"rho_{k}" for k in range(1, self.q))

    def natural(self, z: Sequence[Any]) -> list[Any]:
        """Correlations of neighbours."""
        return [correlation(x) for x in z]

    def free(self, natural: Sequence[Any]) -> list[Any]:
        """z."""
        return [from_correlation(np.asarray(x)) for x in natural]

    def entries(self, natural: Sequence[Any]) -> Any:
        """R, packed."""
        one = 1.0 + 0.0 * natural[0]
        out = []
        for j in range(self.q):
            out.append(one)
            for i in range(j, self.q - 1):
                out.append(out[-1] * natural[i])
        return functions(one).stack(out)

    def start(self) -> list[float]:
        """No correlation."""
        return [0.0] * (self.q - 1)

    def fitted(self, R: np.ndarray) -> list[np.ndarray]:
        """Next to the diagonal."""
        return [R[..., k, k - 1] for k in range(1, self.q)]
