"""What a covariance of random effects is: theta -> Lambda, and back.

Sigma_f = Lambda_f Lambda_f' is the covariance of the effects of one level, relative to
the residual variance; Lambda_f is lower triangular. Derivatives of a criterion are
found over ``entries``, the entries of Lambda that are not zero by construction, and go
to theta by the Jacobian of ``values``:

    dd/dtheta = J' dd/dLambda,   average information: J' A J,

where the exact Hessian adds sum_e dd/dLambda_e d2Lambda_e / dtheta dtheta'. Where theta
*is* these entries (``free``) there is no Jacobian and nothing is multiplied.

A standard deviation may have either sign in theta: the criterion is even in the sign
of a column of Lambda, and a zero column is an ordinary point where a log-Cholesky would
run off to minus infinity. ``bounds`` names zero as the lower end of such a theta;
searches are unconstrained, so that all others need a map from the whole line.

To add one: a file with a subclass beside these, and a row in ``REGISTRY``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.model.covariances import names
from jaxglmm.runtime.arrays import block_diag, jnp, jvp_rows, put
from jaxglmm.structure.factors import ColumnMaps

Entry = tuple[int, int]


class AbstractCovariance(ABC):
    """The covariance of q effects; hashable, static in compiled programs.

    free: whether theta are the entries themselves; maps: of the columns of Z, which the
    structure survives.
    """

    q: int
    free: ClassVar[bool] = False
    maps: ClassVar[ColumnMaps]

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """(i, j), i >= j, of Lambda that may differ from zero, column by column."""
        return tuple((i, j) for j in range(self.q) for i in range(j, self.q))

    @property
    @abstractmethod
    def m(self) -> int:
        """Number of thetas."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Lower and upper end of every theta; 0 below: a sd, whose sign is free."""

    @property
    def pairs(self) -> tuple[Entry, ...]:
        """(later, earlier) columns that are correlated, column by column."""
        return tuple((i, j) for j in range(self.q) for i in range(j + 1, self.q))

    @abstractmethod
    def values(self, theta: Sequence[Any]) -> Sequence[Any]:
        """The entries from m numbers or arrays of one shape, elementwise.

        For NumPy and JAX alike: ``numerics.array_namespace`` has the functions.
        """

    @abstractmethod
    def start(self, sd: Sequence[Any]) -> list[Any]:
        """theta of uncorrelated effects with these q relative standard deviations."""

    @abstractmethod
    def theta(self, lam: Float[np.ndarray, "*D q q"]) -> Float[np.ndarray, "*D m"]:
        """theta of triangles with diagonals that are not negative; on the host."""

    @property
    def is_scale(self) -> tuple[bool, ...]:
        """Which thetas are standard deviations: at zero an effect has no variance."""
        return tuple(lower == 0 for lower, _ in self.bounds)

    def jacobian(self, theta: Sequence[Array]) -> list[list[Array]] | None:
        """d values / d theta, a row an entry; None: the identity."""
        if self.free:
            return None
        columns = [
            jvp_rows(self._values, tuple(theta), _unit(theta, a))[1]
            for a in range(self.m)
        ]
        return [list(row) for row in zip(*columns, strict=True)]

    def bend(
        self, theta: Sequence[Array], slopes: Sequence[Array]
    ) -> list[list[Array]] | None:
        """sum_e slopes_e d2 values_e / d theta d theta'; None: zero."""
        if self.free:
            return None

        def pulled(*x: Array) -> tuple[Array, ...]:
            J = self.jacobian(x)
            assert J is not None
            return tuple(
                sum((s * row[a] for s, row in zip(slopes, J, strict=True)), 0.0 * x[a])
                for a in range(self.m)
            )

        return [
            list(jvp_rows(pulled, tuple(theta), _unit(theta, b))[1])
            for b in range(self.m)
        ]

    def _values(self, *theta: Array) -> tuple[Array, ...]:
        return tuple(0.0 * theta[0] + x for x in self.values(theta))

    def matrix(self, theta: Float[np.ndarray, "*D m"]) -> Float[np.ndarray, "*D q q"]:
        """Lambda, on the host."""
        theta = np.asarray(theta)
        out = np.zeros((*theta.shape[:-1], self.q, self.q))
        values = self.values(list(np.moveaxis(theta, -1, 0)))
        for (i, j), value in zip(self.entries, values, strict=True):
            out[..., i, j] = value
        return out

    def beside(self, others: Sequence[AbstractCovariance]) -> AbstractCovariance:
        """With others as diagonal blocks of one Lambda: terms on one factor."""
        return SideBySide((self, *others)) if others else self

    def sd_names(self, columns: Sequence[str], label: str) -> list[str]:
        """Of the term's standard deviations."""
        return [names.sd(column, label) for column in columns]

    def correlation_names(
        self, columns: Sequence[str], label: str, by_row: bool = False
    ) -> list[str]:
        """Of the correlations, in the order of ``pairs`` or row by row."""
        pairs = sorted(self.pairs) if by_row else self.pairs
        return [names.correlation(columns[i], columns[j], label) for i, j in pairs]


def _unit(theta: Sequence[Array], a: int) -> tuple[Array, ...]:
    """The tangent along one theta, of all lanes."""
    return tuple(
        jnp.ones_like(x) if k == a else jnp.zeros_like(x) for k, x in enumerate(theta)
    )


class AbstractFree(AbstractCovariance):
    """theta are the entries of Lambda themselves."""

    free = True

    @property
    def m(self) -> int:
        return len(self.entries)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return tuple((0.0 if i == j else -np.inf, np.inf) for i, j in self.entries)

    @property
    def is_scale(self) -> tuple[bool, ...]:
        return tuple(i == j for i, j in self.entries)

    def values(self, theta: Sequence[Any]) -> Sequence[Any]:
        return theta

    def start(self, sd: Sequence[Any]) -> list[Any]:
        return [sd[i] if i == j else 0 * sd[0] for i, j in self.entries]

    def theta(self, lam: np.ndarray) -> np.ndarray:
        i, j = zip(*self.entries, strict=True)
        return lam[..., i, j]


@dataclass(frozen=True)
class SideBySide(AbstractCovariance):
    """Independent blocks on one factor, each with a covariance of its own."""

    blocks: tuple[AbstractCovariance, ...]
    maps: ClassVar[ColumnMaps] = ColumnMaps.NONE  # each block has its own

    @cached_property
    def q(self) -> int:
        return sum(block.q for block in self.blocks)

    @cached_property
    def free(self) -> bool:
        return all(block.free for block in self.blocks)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        return self._shifted("entries")

    @property
    def m(self) -> int:
        return sum(block.m for block in self.blocks)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return tuple(bound for block in self.blocks for bound in block.bounds)

    @property
    def pairs(self) -> tuple[Entry, ...]:
        return self._shifted("pairs")

    def values(self, theta: Sequence[Any]) -> Sequence[Any]:
        parts = self._cut(theta, [block.m for block in self.blocks])
        found = (b.values(x) for b, x in zip(self.blocks, parts, strict=True))
        return [value for part in found for value in part]

    def start(self, sd: Sequence[Any]) -> list[Any]:
        parts = self._cut(sd, [block.q for block in self.blocks])
        found = (b.start(x) for b, x in zip(self.blocks, parts, strict=True))
        return [value for part in found for value in part]

    def theta(self, lam: np.ndarray) -> np.ndarray:
        out, at = [], 0
        for block in self.blocks:
            here = slice(at, at + block.q)
            out.append(block.theta(lam[..., here, here]))
            at += block.q
        return np.concatenate(out, axis=-1)

    def _shifted(self, what: str) -> tuple[Entry, ...]:
        out: list[Entry] = []
        at = 0
        for block in self.blocks:
            out += [(at + i, at + j) for i, j in getattr(block, what)]
            at += block.q
        return tuple(out)

    @staticmethod
    def _cut(x: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
        ends = np.cumsum([0, *sizes]).tolist()
        return [x[a:b] for a, b in pairwise(ends)]


# All factors of a problem, theta packed factor by factor ------------------------------


def total(covariances: Sequence[AbstractCovariance]) -> int:
    """Number of thetas."""
    return sum(c.m for c in covariances)


def is_scale(covariances: Sequence[AbstractCovariance]) -> np.ndarray:
    """(m,) which thetas are standard deviations."""
    return np.array([known for c in covariances for known in c.is_scale], dtype=bool)


def start(covariances: Sequence[AbstractCovariance], sd: Sequence[Any]) -> list[Any]:
    """theta from one standard deviation a column, factor after factor."""
    out, at = [], 0
    for c in covariances:
        out += c.start(sd[at : at + c.q])
        at += c.q
    return out


def identity(covariances: Sequence[AbstractCovariance]) -> list[float]:
    """theta of Lambda = I, or next to it."""
    return start(covariances, [1.0] * sum(c.q for c in covariances))


def values(
    theta: Float[Array, " m"], covariances: Sequence[AbstractCovariance]
) -> Float[Array, " e"]:
    """The entries of all Lambdas, packed like theta."""
    if all(c.free for c in covariances):
        return theta
    return jnp.stack(
        [
            value
            for c, part in zip(covariances, parts(theta, covariances), strict=True)
            for value in c.values(part)
        ]
    )


def parts(theta: Array, covariances: Sequence[AbstractCovariance]) -> list[list[Array]]:
    """The thetas of each factor."""
    out, at = [], 0
    for c in covariances:
        out.append([theta[a] for a in range(at, at + c.m)])
        at += c.m
    return out


def triangles(
    entries: Float[Array, " e"], covariances: Sequence[AbstractCovariance]
) -> tuple[Float[Array, "q q"], ...]:
    """One lower triangle a factor from the packed entries."""
    out, start = [], 0
    zero = jnp.zeros((), entries.dtype)
    for c in covariances:
        q = c.q
        place = {entry: start + a for a, entry in enumerate(c.entries)}
        if q <= 4:
            flat = [
                entries[place[i, j]] if (i, j) in place else zero
                for i in range(q)
                for j in range(q)
            ]
            out.append(jnp.stack(flat).reshape(q, q))
        else:
            rows, columns = zip(*c.entries, strict=True)
            part = entries[start : start + len(c.entries)]
            out.append(put(jnp.zeros((q, q), entries.dtype), (rows, columns), part))
        start += len(c.entries)
    return tuple(out)


def lambdas(
    theta: Float[Array, " m"], covariances: Sequence[AbstractCovariance]
) -> tuple[Float[Array, "q q"], ...]:
    """One lower triangle a factor from the packed theta."""
    return triangles(values(theta, covariances), covariances)


def pack(
    matrices: Sequence[Float[Array, "q q"]],
    covariances: Sequence[AbstractCovariance],
) -> Float[Array, " e"]:
    """The entries of one (q, q) matrix a factor, packed."""
    parts = [
        jnp.stack([matrix[i, j] for i, j in c.entries])
        if len(c.entries) <= 10
        else matrix[tuple(zip(*c.entries, strict=True))]
        for matrix, c in zip(matrices, covariances, strict=True)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def jacobian(
    theta: Float[Array, " m"], covariances: Sequence[AbstractCovariance]
) -> Float[Array, "e m"] | None:
    """d values / d theta of all factors; None: the identity, nothing to multiply."""
    if all(c.free for c in covariances):
        return None
    blocks = []
    for c, part in zip(covariances, parts(theta, covariances), strict=True):
        J = c.jacobian(part)
        eye = jnp.eye(c.m, dtype=theta.dtype)
        blocks.append(eye if J is None else jnp.stack([jnp.stack(row) for row in J]))
    return block_diag(*blocks)


def pulled(J: Float[Array, "e m"] | None, g: Float[Array, " e"]) -> Float[Array, " m"]:
    """A gradient over entries as one over theta: J'g."""
    return g if J is None else J.T @ g


def pulled_square(
    J: Float[Array, "e m"] | None, H: Float[Array, "e e"]
) -> Float[Array, "m m"]:
    """A curvature over entries as one over theta: J'H J."""
    return H if J is None else J.T @ H @ J


def pulled_columns(
    J: Float[Array, "e m"] | None, v: Sequence[Float[Array, "q e J"]]
) -> tuple[Float[Array, "q m J"], ...]:
    """Directions, one an entry, as one a theta."""
    if J is None:
        return tuple(v)
    return tuple(jnp.einsum("qeg,em->qmg", x, J) for x in v)


def pushed(J: Float[Array, "e m"] | None, change: Float[Array, " m"]) -> Array:
    """How entries move with theta: J dtheta."""
    return change if J is None else J @ change


def host_lambdas(
    theta: Float[np.ndarray, "*D m"], covariances: Sequence[AbstractCovariance]
) -> list[Float[np.ndarray, "*D q q"]]:
    """One Lambda a factor (or a term), on the host."""
    out, at = [], 0
    for c in covariances:
        out.append(c.matrix(theta[..., at : at + c.m]))
        at += c.m
    return out


def host_theta(
    lams: Sequence[Float[np.ndarray, "*D q q"]],
    covariances: Sequence[AbstractCovariance],
) -> Float[np.ndarray, "*D m"]:
    """theta of triangles, one a factor (or a term)."""
    parts = [c.theta(x) for x, c in zip(lams, covariances, strict=True)]
    return np.concatenate(parts, axis=-1) if parts else np.zeros(0)
