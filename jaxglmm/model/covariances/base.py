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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.model.correlations.base import unit
from jaxglmm.model.covariances import names
from jaxglmm.runtime.arrays import block_diag, jnp, jvp_rows, put
from jaxglmm.runtime.host import on_host
from jaxglmm.structure.factors import ColumnMaps

Entry = tuple[int, int]
Natural = tuple[str, tuple[str, ...]]  # its kind ("cor", "range", ...) and its words


class AbstractCovariance(ABC):
    """The covariance of q effects; hashable, static in compiled programs.

    free: whether theta are the entries themselves; maps: of Z that it survives;
    is_chain: whether Sigma^-1 is tridiagonal, beside one standard deviation;
    is_multiple: whether Lambda is a number times I, of any number of columns.
    """

    q: int
    free: ClassVar[bool] = False
    has_own: ClassVar[bool] = False  # parameters in place of all sds and correlations
    maps: ClassVar[ColumnMaps]
    is_chain: Any = False
    is_multiple: ClassVar[bool] = False

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """(i, j), i >= j, of Lambda that may differ from zero, column by column."""
        return tuple((i, j) for j in range(self.q) for i in range(j, self.q))

    @cached_property
    def at(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the entries, to index with."""
        row, column = np.array(self.entries, int).reshape(-1, 2).T
        return row, column

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

    def starts(self, sd: Sequence[Any]) -> list[list[Any]]:
        """``start``, and where else a search may begin."""
        return [self.start(sd)]

    @abstractmethod
    def theta(self, lam: Float[np.ndarray, "*D q q"]) -> Float[np.ndarray, "*D m"]:
        """theta of triangles with diagonals that are not negative; on the host."""

    @property
    def sharing(self) -> tuple[int, ...]:
        """For each column the number of its standard deviation."""
        return tuple(range(self.q))

    @property
    def is_scale(self) -> tuple[bool, ...]:
        """Which thetas are standard deviations: at zero an effect has no variance."""
        return tuple(lower == 0 for lower, _ in self.bounds)

    def jacobian(self, theta: Sequence[Array]) -> list[list[Array]] | None:
        """d values / d theta, a row an entry; None: the identity."""
        if self.free:
            return None
        units = (unit(theta, a) for a in range(self.m))
        columns = [jvp_rows(self._values, tuple(theta), x)[1] for x in units]
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
            list(jvp_rows(pulled, tuple(theta), unit(theta, b))[1])
            for b in range(self.m)
        ]

    def bend_matrix(
        self, theta: Sequence[Array], slopes: Float[Array, " e"]
    ) -> Float[Array, "m m"] | None:
        """``bend`` of one model, as a matrix."""
        # duals on the host are of arrays, not of NumPy's numbers
        lanes = [jnp.reshape(x, (1,)) for x in theta]
        bent = self.bend(lanes, [jnp.reshape(x, (1,)) for x in slopes])
        if bent is None:
            return None
        return jnp.stack([jnp.stack(x) for x in bent]).reshape(self.m, self.m)

    def jacobian_matrix(self, theta: Sequence[Array]) -> Float[Array, "e m"]:
        """``jacobian`` of one model, as a matrix."""
        if (J := self.jacobian(theta)) is None:
            return jnp.eye(self.m, dtype=jnp.asarray(theta[0]).dtype)
        return jnp.stack([jnp.stack(row) for row in J])

    def _values(self, *theta: Array) -> tuple[Array, ...]:
        return tuple(0.0 * theta[0] + x for x in self.values(theta))

    def matrix(self, theta: Float[np.ndarray, "*D m"]) -> Float[np.ndarray, "*D q q"]:
        """Lambda, on the host."""
        theta = np.asarray(theta)
        out = np.zeros((*theta.shape[:-1], self.q, self.q))
        with on_host():
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

    def parameters(
        self, columns: Sequence[str]
    ) -> tuple[list[tuple[str, ...]], list[Natural]]:
        """What people read: words of the standard deviations, then what is beside."""
        pairs = [(columns[i], columns[j]) for i, j in self.pairs]
        return [(column,) for column in columns], [(names.COR, x) for x in pairs]

    def natural(
        self, cov: Float[np.ndarray, "*D q q"]
    ) -> tuple[Float[np.ndarray, "*D s"], Float[np.ndarray, "*D r"]]:
        """The values of these; a correlation beside a variance of zero is NaN."""
        sd = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
        later, earlier = np.array(self.pairs, int).reshape(-1, 2).T
        with np.errstate(divide="ignore", invalid="ignore"):
            cor = cov[..., later, earlier] / (sd[..., later] * sd[..., earlier])
        return sd, np.clip(cor, -1.0, 1.0)

    def curves(
        self, theta: Float[np.ndarray, " m"], sigma2: float
    ) -> tuple[Float[np.ndarray, "r q q"], Float[np.ndarray, "r r q q"] | None]:
        """First and second derivatives of G = sigma^2 Sigma, on the host.

        In the parameters in which Kenward and Roger's method is stated: variances,
        covariances, and of a structure its natural ones. None: G is linear in them.
        """
        (i, j), k = self.at, np.arange(len(self.entries))
        E = np.zeros((len(k), self.q, self.q))
        E[k, i, j] = E[k, j, i] = 1.0
        return E, None

    def elsewhere(
        self, lam: Float[np.ndarray, "q q"], at: Float[np.ndarray, "r k"], first: float
    ) -> Float[np.ndarray, "r q"]:
        """Weights of the q effects in the expectation of others at places ``at``.

        first: the place of the first column, where columns are whole steps.
        """
        raise NotImplementedError

    def is_end(self, correlation: float) -> bool:
        """Whether a correlation of the structure is at an end of its range."""
        return False

    def common(self, natural: Sequence[float]) -> float | None:
        """One or zero where a range is so long, or so short, that R is all that."""
        return None

    def at_end(self, theta: Float[np.ndarray, " m"]) -> bool:
        """Whether one of them is, with all standard deviations above zero."""
        return False

    def from_natural(self, x: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """theta of the values of the parameters, where it ``has_own``."""
        raise NotImplementedError

    def natural_jacobian(
        self, theta: Float[np.ndarray, " m"], scale: Float[np.ndarray, " q"]
    ) -> Float[np.ndarray, "s m"] | None:
        """d natural / d theta where columns were divided by ``scale``.

        None: from those of Sigma, for a covariance that has no parameters of its own.
        """
        return None


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
        found = [b.values(x) for b, x in self._each(theta)]
        if all(isinstance(x, list | tuple) for x in found):
            return [value for part in found for value in part]
        return jnp.concatenate([_stacked(x) for x in found])

    def jacobian_matrix(self, theta: Sequence[Array]) -> Array:
        return block_diag(*(b.jacobian_matrix(x) for b, x in self._each(theta)))

    def bend_matrix(self, theta: Sequence[Array], slopes: Array) -> Array | None:
        if self.free:
            return None
        own = self._cut(slopes, [len(block.entries) for block in self.blocks])
        each = zip(self._each(theta), own, strict=True)
        bent = [(b, b.bend_matrix(x, slope)) for (b, x), slope in each]
        return block_diag(*(jnp.zeros((b.m, b.m)) if x is None else x for b, x in bent))

    @property
    def sharing(self) -> tuple[int, ...]:
        return sharing(self.blocks)

    def at_end(self, theta: np.ndarray) -> bool:
        return any(b.at_end(x) for b, x in self._each(theta))

    def start(self, sd: Sequence[Any]) -> list[Any]:
        return self.starts(sd)[0]

    def starts(self, sd: Sequence[Any]) -> list[list[Any]]:
        return starts(self.blocks, sd)

    def theta(self, lam: np.ndarray) -> np.ndarray:
        out, at = [], 0
        for block in self.blocks:
            here = slice(at, at + block.q)
            out.append(block.theta(lam[..., here, here]))
            at += block.q
        return np.concatenate(out, axis=-1)

    def curves(
        self, theta: np.ndarray, sigma2: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        found = [b.curves(x, sigma2) for b, x in self._each(theta)]
        r = sum(len(E) for E, _ in found)
        first, second = np.zeros((r, self.q, self.q)), np.zeros((r, r, self.q, self.q))
        at = place = 0
        for block, (E, bend) in zip(self.blocks, found, strict=True):
            own, here = slice(at, at + len(E)), slice(place, place + block.q)
            first[own, here, here] = E
            if bend is not None:
                second[own, own, here, here] = bend
            at, place = own.stop, here.stop
        return first, second if any(b is not None for _, b in found) else None

    def _shifted(self, what: str) -> tuple[Entry, ...]:
        first = np.cumsum([0, *(block.q for block in self.blocks)]).tolist()
        own = [getattr(block, what) for block in self.blocks]
        return tuple(
            (at + i, at + j) for at, x in zip(first, own, strict=False) for i, j in x
        )

    def _each(self, theta: Sequence[Any]) -> Iterator[tuple[AbstractCovariance, Any]]:
        """Blocks and their thetas."""
        sizes = [block.m for block in self.blocks]
        return zip(self.blocks, self._cut(theta, sizes), strict=True)

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


def sharing(covariances: Sequence[AbstractCovariance]) -> tuple[int, ...]:
    """For each column of all the number of its standard deviation."""
    out: list[int] = []
    for c in covariances:
        out += [max(out, default=-1) + 1 + k for k in c.sharing]
    return tuple(out)


def start(covariances: Sequence[AbstractCovariance], sd: Sequence[Any]) -> list[Any]:
    """theta from one standard deviation a column, factor after factor."""
    out, at = [], 0
    for c in covariances:
        out += c.start(sd[at : at + c.q])
        at += c.q
    return out


def starts(
    covariances: Sequence[AbstractCovariance], sd: Sequence[Any]
) -> list[list[Any]]:
    """``start``, and with it what the covariances have of other beginnings."""
    found, at = [], 0
    for c in covariances:
        found.append(c.starts(sd[at : at + c.q]))
        at += c.q
    most = max(map(len, found), default=1)
    each = [[own[min(k, len(own) - 1)] for own in found] for k in range(most)]
    return [[x for own in parts for x in own] for parts in each]


def identity(covariances: Sequence[AbstractCovariance]) -> list[float]:
    """theta of Lambda = I, or next to it."""
    return start(covariances, [1.0] * sum(c.q for c in covariances))


def values(
    theta: Float[Array, " m"], covariances: Sequence[AbstractCovariance]
) -> Float[Array, " e"]:
    """The entries of all Lambdas, packed like theta."""
    if all(c.free for c in covariances):
        return theta
    each = zip(covariances, parts(theta, covariances), strict=True)
    found = [c.values(part) for c, part in each]
    return jnp.concatenate([_stacked(x) for x in found])


def _stacked(x: Any) -> Array:
    return jnp.stack(x) if isinstance(x, list | tuple) else x


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
        if q <= 4:
            place = {entry: start + a for a, entry in enumerate(c.entries)}
            flat = [
                entries[place[i, j]] if (i, j) in place else zero
                for i in range(q)
                for j in range(q)
            ]
            out.append(jnp.stack(flat).reshape(q, q))
        else:
            part = entries[start : start + len(c.entries)]
            out.append(put(jnp.zeros((q, q), entries.dtype), c.at, part))
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
        else matrix[c.at]
        for matrix, c in zip(matrices, covariances, strict=True)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def jacobian(
    theta: Float[Array, " m"], covariances: Sequence[AbstractCovariance]
) -> Float[Array, "e m"] | None:
    """d values / d theta of all factors; None: the identity, nothing to multiply."""
    if all(c.free for c in covariances):
        return None
    each = zip(covariances, parts(theta, covariances), strict=True)
    return block_diag(*(c.jacobian_matrix(part) for c, part in each))


def slopes(
    J: Float[Array, "e m"], covariances: Sequence[AbstractCovariance]
) -> list[Float[Array, "q q m"]]:
    """d Lambda / d theta, of each factor in its own thetas."""
    out, row, column = [], 0, 0
    for c in covariances:
        e = len(c.entries)
        own = J[row : row + e, column : column + c.m]
        out.append(put(jnp.zeros((c.q, c.q, c.m), J.dtype), c.at, own))
        row, column = row + e, column + c.m
    return out


def pulled(J: Float[Array, "e m"] | None, g: Float[Array, " e"]) -> Float[Array, " m"]:
    """A gradient over entries as one over theta: J'g."""
    return g if J is None else J.T @ g


def pushed(J: Float[Array, "e m"] | None, change: Float[Array, " m"]) -> Array:
    """How entries move with theta: J dtheta."""
    return change if J is None else J @ change
