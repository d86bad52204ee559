"""Correlations of the residuals of one subject, with their derivatives in closed form.

A correlation is R(t) over pairs of rows, t its k parameters on the whole line (those of
the R package mmrm: rho = t / sqrt(1 + t^2), compound symmetry's rho between its bounds,
of spatial ones a logit). Kenward and Roger's method needs second derivatives, and the
likelihood's exact Hessian their sums, so each class gives

    tables(t)      R and dR / dt_a, over the pairs
    bend(t, M)     sum over pairs of M d2R / dt_a dt_b, (k, k)
    second(t, W)   sum over a, b of W_ab d2R / dt_a dt_b, over the pairs

``Pairs`` says where the rows of a block are: their positions among the visits, and how
far apart they lie.

``model.correlations`` has the same R for random effects, of positions that are known
when a program is made, and derives it by duals. Here distances are data, and duals
would take k (k + 1) / 2 passes over all pairs an evaluation where these formulas take
one, most of them zero: of eleven lags sixty-six. A test holds both to the same values
and two derivatives (``tests/model/test_correlations_agree.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array, Float, Int
from jaxglmm.runtime.arrays import added, jnp, nn
from jaxglmm.runtime.trees import Module

Link = Callable[[Any], tuple[Any, Any, Any]]


class Pairs(Module):
    """Pairs of rows of the blocks.

    position: (G, T) among the visits; lag: (G, T, T); within: (G, T, T), or a number:
    one where both are of one subject, zero elsewhere.
    """

    position: Int[Array, "G T"]
    lag: Float[Array, "G T T"]
    within: Float[Array, "G T T"] | float = 1.0


def bounded(t: Any) -> tuple[Any, Any, Any]:
    """rho = t / sqrt(1 + t^2) in (-1, 1), and two derivatives."""
    root = jnp.sqrt(1 + t * t)
    return t / root, root**-3, -3 * t * root**-5


def above(least: float) -> Link:
    """A correlation in (-least, 1) by the logistic function."""

    def link(t: Any) -> tuple[Any, Any, Any]:
        p = nn.sigmoid(t)
        slope = (1 + least) * p * (1 - p)
        return (1 + least) * p - least, slope, slope * (1 - 2 * p)

    return link


class Correlation(ABC):
    """k: number of parameters; names: of the natural ones.

    far: t from which on a parameter is at an end of its range, to three digits
    """

    k: int
    far: ClassVar[float] = 22.0

    names: tuple[str, ...]

    @abstractmethod
    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        """The natural parameters (k,), with two derivatives, each of its own t."""

    @abstractmethod
    def tables(self, t: Array, at: Pairs) -> tuple[Array, Array]:
        """R (G, T, T) and dR (k, G, T, T)."""

    @abstractmethod
    def bend(self, t: Array, at: Pairs, M: Float[Array, "G T T"]) -> Array:
        """(k, k): M, symmetric, against the second derivatives."""

    @abstractmethod
    def second(self, t: Array, at: Pairs, W: Float[Array, "k k"]) -> Array:
        """(G, T, T): the second derivatives against W, symmetric."""

    def start(self) -> np.ndarray:
        """t to start from: no correlation, or a moderate one."""
        return np.zeros(self.k)


class Smooth(Correlation):
    """R, dR and d2R in natural parameters as arrays; the link is chained here."""

    @abstractmethod
    def of_natural(self, r: Array, at: Pairs) -> tuple[Array, Array, Array | None]:
        """R, dR (k, ...), d2R (k, k, ...) or None where it is zero."""

    def tables(self, t: Array, at: Pairs) -> tuple[Array, Array]:
        r, slope, _ = self.natural(t)
        R, dR, _ = self.of_natural(r, at)
        return R, slope[:, None, None, None] * dR

    def bend(self, t: Array, at: Pairs, M: Array) -> Array:
        r, slope, curve = self.natural(t)
        _, dR, d2R = self.of_natural(r, at)
        out = jnp.diag(curve * jnp.einsum("gij,agij->a", M, dR))
        if d2R is None:
            return out
        return out + jnp.outer(slope, slope) * jnp.einsum("gij,abgij->ab", M, d2R)

    def second(self, t: Array, at: Pairs, W: Array) -> Array:
        r, slope, curve = self.natural(t)
        _, dR, d2R = self.of_natural(r, at)
        out = jnp.einsum("a,agij->gij", curve * jnp.diagonal(W), dR)
        if d2R is None:
            return out
        return out + jnp.einsum("ab,abgij->gij", W * jnp.outer(slope, slope), d2R)


def apart(at: Pairs) -> Array:
    """One between two rows, zero on the diagonal."""
    T = at.lag.shape[-1]
    return jnp.broadcast_to(1 - np.eye(T), at.lag.shape)


def _power(r: Any, exponent: Any) -> Any:
    """r^exponent, and 0 where the exponent is negative: a derivative that is none."""
    return jnp.where(exponent < 0, 0.0, r ** jnp.maximum(exponent, 0.0))


@dataclass(frozen=True)
class CompoundSymmetry(Smooth):
    """Compound symmetry: one correlation in (-1 / (size - 1), 1)."""

    size: int
    k = 1
    far = 12.0
    names = ("rho",)

    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        return above(1 / (self.size - 1))(t)

    def of_natural(self, r: Array, at: Pairs) -> tuple[Array, Array, None]:
        off = apart(at)
        return 1 - off + r[0] * off, off[None], None

    def start(self) -> np.ndarray:
        a = 1 / (self.size - 1)
        p = (0.2 + a) / (1 + a)
        return np.array([np.log(p / (1 - p))])


@dataclass(frozen=True)
class FirstOrder(Smooth):
    """AR(1): rho^lag, lags whole numbers."""

    k = 1
    names = ("rho",)

    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        return bounded(t)

    def of_natural(self, r: Array, at: Pairs) -> tuple[Array, Array, Array]:
        d = at.lag
        first = d * _power(r[0], d - 1)
        second = d * (d - 1) * _power(r[0], d - 2)
        return _power(r[0], d), first[None], second[None, None]

    def start(self) -> np.ndarray:
        return np.array([0.2])


@dataclass(frozen=True)
class Arma11(Smooth):
    """ARMA(1, 1): gamma phi^(lag - 1), gamma from phi and theta as in nlme."""

    k = 2
    names = ("phi", "theta")

    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        return bounded(t)

    def of_natural(self, r: Array, at: Pairs) -> tuple[Array, Array, Array]:
        f, h = r[0], r[1]
        D = 1 + 2 * f * h + h * h
        g = (1 + f * h) * (f + h) / D
        gf = (D - g * 2 * h) / D
        gh = (1 + f * f + 2 * f * h - g * 2 * (f + h)) / D
        gff = (2 * h - 2 * gf * 2 * h) / D
        gfh = (2 * (f + h) - gf * 2 * (f + h) - gh * 2 * h - 2 * g) / D
        ghh = (2 * f - 2 * gh * 2 * (f + h) - 2 * g) / D
        d, off = at.lag, apart(at)
        e = jnp.maximum(d - 1, 0.0)
        p0 = _power(f, e)
        p1, p2 = e * _power(f, e - 1), e * (e - 1) * _power(f, e - 2)
        R = 1 - off + off * g * p0
        dR = jnp.stack([off * (gf * p0 + g * p1), off * gh * p0])
        ff = off * (gff * p0 + 2 * gf * p1 + g * p2)
        fh, hh = off * (gfh * p0 + gh * p1), off * ghh * p0
        return R, dR, jnp.stack([jnp.stack([ff, fh]), jnp.stack([fh, hh])])

    def start(self) -> np.ndarray:
        return np.array([0.3, 0.0])


@dataclass(frozen=True)
class Distance(Correlation):
    """rho^(d^power), rho in (0, 1) of a unit of distance; perhaps with a nugget.

    power 1: continuous AR(1), exponential; 2: Gaussian. With a nugget c it is
    (1 - c) rho^(d^power) between two rows.
    """

    power: int
    nugget: bool = False
    range_name: str = "range"
    far: ClassVar[float] = 12.0

    @property
    def k(self) -> int:  # type: ignore[override]
        return 1 + self.nugget

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.range_name, "nugget")[: self.k]

    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        """The range (rho for continuous AR(1)) and the nugget."""
        p = nn.sigmoid(t)
        slope = p * (1 - p)
        curve = slope * (1 - 2 * p)
        z = nn.softplus(-t[0])  # -log rho
        s, q = nn.sigmoid(-t[0]), nn.sigmoid(t[0])
        if self.range_name == "rho":
            value, first, bent = q, q * s, q * s * (s - q)
        else:
            e = -1 / self.power
            value = z**e
            first = -e * s * z ** (e - 1)
            bent = e * ((e - 1) * s * s * z ** (e - 2) + s * q * z ** (e - 1))
        head = [jnp.stack([x]) for x in (value, first, bent)]
        if not self.nugget:
            return head[0], head[1], head[2]
        return tuple(  # type: ignore[return-value]
            jnp.concatenate([h, x[1:]])
            for h, x in zip(head, (p, slope, curve), strict=True)
        )

    def _parts(self, t: Array, at: Pairs) -> tuple[Array, ...]:
        d = at.lag**self.power
        R = jnp.exp(-d * nn.softplus(-t[0]))
        a, b = nn.sigmoid(-t[0]), -nn.sigmoid(t[0]) * nn.sigmoid(-t[0])
        return R, d * a * R, (d * b + d * d * a * a) * R

    def _kept(self, t: Array) -> tuple[Any, Any, Any]:
        """1 - nugget and two derivatives."""
        q = nn.sigmoid(-t[1])
        slope = -q * (1 - q)
        return q, slope, slope * (2 * q - 1)

    def tables(self, t: Array, at: Pairs) -> tuple[Array, Array]:
        R, R1, _ = self._parts(t, at)
        if not self.nugget:
            return R, R1[None]
        off = apart(at)
        q, q1, _ = self._kept(t)
        return 1 - off + q * off * R, jnp.stack([q * R1, q1 * off * R])

    def _seconds(self, t: Array, at: Pairs) -> list[list[Array]]:
        R, R1, R2 = self._parts(t, at)
        if not self.nugget:
            return [[R2]]
        q, q1, q2 = self._kept(t)
        return [[q * R2, q1 * R1], [q1 * R1, q2 * apart(at) * R]]

    def bend(self, t: Array, at: Pairs, M: Array) -> Array:
        rows = [[jnp.sum(M * x) for x in row] for row in self._seconds(t, at)]
        return jnp.stack([jnp.stack(row) for row in rows])

    def second(self, t: Array, at: Pairs, W: Array) -> Array:
        found = self._seconds(t, at)
        k = range(self.k)
        return sum(W[a, b] * found[a][b] for a in k for b in k)  # type: ignore

    def start(self) -> np.ndarray:
        return np.array([0.0, -1.5])[: self.k]


@dataclass(frozen=True)
class ByPosition(Smooth):
    """Correlations of positions among ``size`` visits, spread over the pairs."""

    size: int

    @abstractmethod
    def of_levels(self, r: Array) -> tuple[Array, Array, Array | None]:
        """R (size, size), dR and d2R over the visits."""

    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        return bounded(t)

    def of_natural(self, r: Array, at: Pairs) -> tuple[Array, Array, Array | None]:
        i, j = at.position[:, :, None], at.position[:, None, :]
        R, dR, d2R = self.of_levels(r)
        return R[i, j], dR[:, i, j], None if d2R is None else d2R[:, :, i, j]


@dataclass(frozen=True)
class ByLag(ByPosition):
    """One correlation a distance among the ordered visits."""

    @property
    def k(self) -> int:  # type: ignore[override]
        return self.size - 1

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"lag {a}" for a in range(1, self.size))

    def of_levels(self, r: Array) -> tuple[Array, Array, None]:
        at = np.arange(self.size)
        lag = np.abs(at[:, None] - at)
        which = (lag == np.arange(1, self.size)[:, None, None]).astype(float)
        return np.eye(self.size) + jnp.einsum("a,aij->ij", r, which), which, None


@dataclass(frozen=True)
class BySteps(ByPosition):
    """Products of the correlations of neighbours."""

    @property
    def k(self) -> int:  # type: ignore[override]
        return self.size - 1

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"step {a}" for a in range(1, self.size))

    def of_levels(self, r: Array) -> tuple[Array, Array, Array]:
        T, k = self.size, self.size - 1
        at = np.arange(T)
        low = np.minimum(at[:, None], at)
        high = np.maximum(at[:, None], at)
        step = np.arange(k)[:, None, None]
        inside = (step >= low) & (step < high)  # (k, T, T)

        def product(without: np.ndarray) -> Array:
            """Over the steps between two visits but those in ``without`` (..., k)."""
            used = inside & ~without[..., None, None]
            return jnp.prod(jnp.where(used, r[:, None, None], 1.0), axis=-3)

        one = np.eye(k, dtype=bool)
        two = one[:, None] | one[None]
        both = inside[:, None] & inside[None] & ~one[..., None, None]
        R = product(np.zeros(k, bool))
        return R, inside * product(one), both * product(two)


@dataclass(frozen=True)
class AnyCorrelation(Correlation):
    """U = L L', L unit triangular with t below the diagonal, row by row.

    Not a correlation: with the scales beside it, a covariance without any structure.
    """

    size: int

    @property
    def k(self) -> int:  # type: ignore[override]
        return self.size * (self.size - 1) // 2

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"{i + 1},{j + 1}" for i, j in zip(*self._below, strict=True))

    @property
    def _below(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(self.size, -1)

    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        return t, jnp.ones_like(t), jnp.zeros_like(t)

    def root(self, t: Array) -> Array:
        """(size, size) L."""
        eye = jnp.asarray(np.eye(self.size))
        return added(eye, self._below, t) if self.k else eye

    def tables(self, t: Array, at: Pairs) -> tuple[Array, Array]:
        L = self.root(t)
        i, j = at.position[:, :, None], at.position[:, None, :]
        row, column = self._below
        half = np.eye(self.size)[row][:, :, None] * L[:, column].T[:, None, :]
        dU = half + jnp.swapaxes(half, 1, 2)
        return (L @ L.T)[i, j], dU[:, i, j]

    def bend(self, t: Array, at: Pairs, M: Array) -> Array:
        i, j = at.position[:, :, None], at.position[:, None, :]
        shape = (self.size, self.size)
        flat = jnp.zeros(shape, M.dtype)
        there = jnp.broadcast_to(i, M.shape), jnp.broadcast_to(j, M.shape)
        total = added(flat, there, M)
        row, column = self._below
        same = column[:, None] == column
        return jnp.where(same, 2 * total[row][:, row], 0.0)

    def second(self, t: Array, at: Pairs, W: Array) -> Array:
        i, j = at.position[:, :, None], at.position[:, None, :]
        row, column = self._below
        same = (column[:, None] == column).astype(float)
        pick = np.eye(self.size)[row]
        return (2 * pick.T @ (W * same) @ pick)[i, j]


@dataclass(frozen=True)
class Known(Correlation):
    """A correlation that is given, in the place of the lags; no parameter."""

    k = 0
    names = ()

    def natural(self, t: Array) -> tuple[Array, Array, Array]:
        return t, t, t

    def tables(self, t: Array, at: Pairs) -> tuple[Array, Array]:
        return at.lag, at.lag[None][:0]

    def bend(self, t: Array, at: Pairs, M: Array) -> Array:
        return jnp.zeros((0, 0), at.lag.dtype)

    def second(self, t: Array, at: Pairs, W: Array) -> Array:
        return jnp.zeros_like(at.lag)
