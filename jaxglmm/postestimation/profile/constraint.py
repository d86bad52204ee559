"""Parameters of many models held at values: what profiles of all kinds share.

D models with the same P parameters. A lane is a parameter of a model at a value; lanes
are asked for by number, in any order and as often as a search needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.model import covariances
from jaxglmm.postestimation.profile import root_search as march
from jaxglmm.postestimation.profile.root_search import FISHER, PLAIN, Scale
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.executors import executor
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import ColumnMaps, Factor

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

FEW = 16  # lanes that make the small one of two shapes
MANY = 256  # lanes from which the large one pays for its compilation
REACH = 1.5  # how far a start is extrapolated, in distances between what is known ...
ENDLESS = 3.0  # ... and where there is no end: by how much a search outward grows


@dataclass(frozen=True)
class Parameter:
    """One parameter in each of D models.

    estimate, step: (D,), the latter about one unit of zeta on ``scale``; lower, upper:
    (D,) ends of its range.
    """

    name: str
    estimate: np.ndarray
    step: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    scale: Scale


@dataclass(frozen=True)
class Optima:
    """Maxima of the likelihood of D models, in the user's coordinates.

    beta, se: (D, p); criterion: (D,); lam: for every factor (D, q, q), Lambda over all
    its columns, lower triangular a term; sigma: (D,) of linear models; phi, se_phi: (D,
    r) unconstrained dispersion parameters, errors None where they are not known.
    """

    beta: np.ndarray
    se: np.ndarray
    criterion: np.ndarray
    lam: tuple[np.ndarray, ...]
    sigma: np.ndarray | None = None
    phi: np.ndarray | None = None
    se_phi: np.ndarray | None = None

    @staticmethod
    def of(fit: FittedModel, factors: Sequence[Factor], **others: np.ndarray) -> Optima:
        """Of one fit."""
        lam = [np.zeros((1, factor.q, factor.q)) for factor in factors]
        for own, factor in zip(lam, factors, strict=True):
            for index, start, stop in factor.spans:
                own[0, start:stop, start:stop] = fit.estimates.lam[index]
        return Optima(
            np.asarray(fit.coefficients, float)[None],
            np.sqrt(np.diagonal(fit.coefficient_covariance()))[None],
            np.array([fit.criterion]),
            tuple(lam),
            **others,
        )


class Models(Protocol):
    """D models whose parameters can be held."""

    parameters: list[Parameter]

    def start(self, parameter: np.ndarray, model: np.ndarray) -> Any:
        """State to start from, arrays with the lanes last."""
        ...

    def evaluate(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray, state: Any
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Rise of the deviance (r,), its slope in the value, the state at the end."""
        ...


def size_of(models: int, parameters: int, chunk: int) -> int:
    """Lanes of a call, of which there are two shapes: a single fit takes the small."""
    return chunk if 2 * models * parameters > MANY else min(FEW, chunk)


def run(
    devices: Devices, program: Any, common: Any, take: Any, r: int, size: int
) -> Any:
    """``program`` for r lanes, padded to calls of ``size``, in two threads.

    take: lanes (numbers) -> arrays with the lanes last.
    """
    unit = size * len(devices.devices)
    parts = [np.arange(k, min(k + unit, r)) for k in range(0, r, unit)]

    def work(part: np.ndarray) -> Any:
        found = devices.run(program, common, take(np.resize(part, unit)), size)
        return jax.tree.map(lambda x: np.asarray(x)[..., : len(part)], found)

    with executor(devices.threads if len(parts) > 1 else 1) as pool:
        done = list(pool.map(work, parts))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *done)


class Path:
    """Warm starts of lanes that move: where the last two values ended."""

    def __init__(self, models: Models, parameter: np.ndarray, model: np.ndarray):
        self.models, self.parameter, self.model = models, parameter, model
        self.state = models.start(parameter, model)
        self.before = jax.tree.map(np.copy, self.state)
        estimates = np.stack([p.estimate for p in models.parameters])
        self.value = estimates[parameter, model].astype(float)
        self.value_before = self.value.copy()
        ends = [np.isinf(p.lower) & np.isinf(p.upper) for p in models.parameters]
        self.reach = np.where(np.stack(ends)[parameter, model], ENDLESS, REACH)

    def __call__(
        self, rows: np.ndarray, value: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rise and slope of lanes ``rows`` at their values (r,)."""
        past = self.value[rows] - self.value_before[rows]
        with np.errstate(all="ignore"):
            share = np.where(past == 0, 0.0, (value - self.value[rows]) / past)
        reach = self.reach[rows]
        # a guess far outside what is known leads astray more often than it saves a step
        share = np.where(np.isfinite(share), np.clip(share, -reach, reach), 0.0)

        def ahead(now: np.ndarray, before: np.ndarray) -> np.ndarray:
            here = now[..., rows]
            return here + share * (here - before[..., rows])

        guess = jax.tree.map(ahead, self.state, self.before)
        rise, slope, state = self.models.evaluate(
            self.parameter[rows], self.model[rows], value, guess
        )
        good = np.isfinite(rise)
        kept, new = rows[good], np.flatnonzero(good)

        def keep(now: np.ndarray, before: np.ndarray, found: np.ndarray) -> None:
            before[..., kept] = now[..., kept]
            now[..., kept] = found[..., new]

        jax.tree.map(keep, self.state, self.before, state)
        self.value_before[kept] = self.value[kept]
        self.value[kept] = value[new]
        return rise, slope


Seen = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


@double_precision
def limits(
    models: Models,
    parameter: np.ndarray,
    model: np.ndarray,
    target: np.ndarray,
    seen: Seen | None = None,
) -> np.ndarray:
    """(R,) values at which zeta of a parameter of a model is ``target``.

    seen: is told rows, values and zetas on the way.
    """
    points = march.Points.of(models.parameters, parameter, model)
    path = Path(models, parameter, model)

    def evaluate(rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = points.value(rows, x)
        zeta, slope = points.zeta(rows, x, value, *path(rows, value))
        if seen is not None:
            seen(rows, value, zeta)
        return zeta, slope

    return points.value(None, march.meet(points.rows(target), evaluate))


def one_by_one(models: Models, number: int) -> Callable[[float], float]:
    """value -> rise of one parameter of a single model, from the nearest value."""
    which, zero = np.array([number]), np.zeros(1, int)
    known = {float(models.parameters[number].estimate[0]): models.start(which, zero)}

    def guess(value: float) -> Any:
        """From the nearest value, along the line through the one next to it."""
        near, *others = sorted(known, key=lambda v: abs(v - value))[:2]
        if not others or not np.isfinite([value, near, *others]).all():
            return known[near]
        share = (value - near) / (near - others[0])
        share = float(np.clip(share, -REACH, REACH))
        return jax.tree.map(
            lambda a, b: a + share * (a - b), known[near], known[others[0]]
        )

    def rise(value: float) -> float:
        found, _, state = models.evaluate(which, zero, np.array([value]), guess(value))
        if np.isfinite(found[0]):
            known[value] = state
        return float(found[0])

    return rise


# Covariances of random effects --------------------------------------------------------

SMALL, AWAY = 0.02, 0.1  # a diagonal this small starts from there: zero is stationary
SD, COR, BETA, SIGMA, ENTRY = range(5)  # kinds of parameters


@dataclass(frozen=True)
class Turned:
    """How a standard deviation or a correlation is held in each of D models.

    The columns of its term are turned, Z' = Z~ M with M (D or 1, q, q) for all columns
    of ``factor``: a standard deviation is then Lambda_11 / unit, with unit (D,); a
    correlation is rho where (Lambda_21, Lambda_22) = size (rho, sqrt(1 - rho^2)); what
    is an ENTRY is the coordinate itself, or ``to`` of values.
    places: of these entries in theta; theta: (D, m) there, none a stationary zero.
    """

    kind: int
    factor: int
    M: np.ndarray
    places: tuple[int, ...]
    unit: np.ndarray
    theta: np.ndarray
    to: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class Covariances:
    """Those of D models, whose standard deviations and correlations can be held.

    T, lam, J: factor by factor, internal effects = T times the user's, (D or 1, q, q);
    the user's Lambda (D, q, q), lower triangular a term; levels (D,). sigma: (D,), what
    Lambda is relative to.
    """

    design: Design
    factors: tuple[Factor, ...]
    T: tuple[np.ndarray, ...]
    lam: tuple[np.ndarray, ...]
    J: tuple[np.ndarray, ...]
    sigma: np.ndarray

    @cached_property
    def entries(self) -> list[tuple[int, int, int]]:
        """(factor, i, j) of every theta."""
        own = [factor.covariance.entries for factor in self.factors]
        return [(f, i, j) for f, pairs in enumerate(own) for i, j in pairs]

    @property
    def m(self) -> int:
        """Number of coordinates."""
        return len(self.entries)

    @cached_property
    def internal(self) -> tuple[np.ndarray, ...]:
        """Lambda in internal coordinates."""
        return tuple(lower(T @ x) for T, x in zip(self.T, self.lam, strict=True))

    def theta(self, lam: Sequence[np.ndarray]) -> np.ndarray:
        """(D, m) the entries of internal Lambdas."""
        D = len(self.sigma)
        columns = [np.broadcast_to(lam[f][:, i, j], D) for f, i, j in self.entries]
        return np.stack(columns, axis=1) if columns else np.zeros((D, 0))

    def start(self, lam: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """(D, m) theta with no diagonal at a stationary zero."""
        out = self.theta(self.internal if lam is None else lam)
        for a, (_, i, j) in enumerate(self.entries):
            if i == j:
                out[:, a] = np.where(np.abs(out[:, a]) < SMALL, AWAY, out[:, a])
        return out

    def held(self) -> Iterator[tuple[Parameter, Turned]]:
        """Standard deviations, then correlations, term by term."""
        spans = [(*x, f) for f, factor in enumerate(self.factors) for x in factor.spans]
        for index, start, stop, f in sorted(spans):
            term = self.design.terms[index]
            pairs = sorted(covariances.of(term).pairs)
            places = [(i, None) for i in range(stop - start)] + pairs
            names = covariances.names_by_term([term])
            for (i, j), name in zip(places, names, strict=True):
                where = _Span(index, f, start, stop)
                yield (
                    self._sd(where, i, name)
                    if j is None
                    else self._cor(where, i, j, name)
                )

    def _sd(self, at: _Span, i: int, name: str) -> tuple[Parameter, Turned]:
        T = self.T[at.factor][:, at.columns, at.columns]
        order = [*(c for c in range(at.q) if c != i), i]
        if not self._mixes(at):
            own = np.broadcast_to(np.eye(at.q)[:, order[::-1]], T.shape)
            unit = T[:, i, i]
        else:
            Q, R = np.linalg.qr(T[:, :, order])
            signs = np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)
            back = [at.q - 1, *range(at.q - 1)]
            own, unit = (Q * signs[:, None])[:, :, back], np.abs(R[:, -1, -1])
        M, theta = self._turned(at, own)
        sd = np.sqrt(np.sum(self.lam[at.factor][:, at.start + i] ** 2, axis=1))
        sd = sd * self.sigma
        step = np.maximum(sd, 0.05 * self.sigma / unit)
        step = step / np.sqrt(2 * np.maximum(self.J[at.factor], 3))
        held = Turned(SD, at.factor, M, (self._at(at, 0, 0),), unit, theta)
        ends = np.zeros_like(sd), np.full_like(sd, np.inf)
        return Parameter(name, sd, step, *ends, PLAIN), held

    def _cor(self, at: _Span, i: int, j: int, name: str) -> tuple[Parameter, Turned]:
        """The first two effects those of j and i, scaled; the rest turned."""
        T = self.T[at.factor][:, at.columns, at.columns]
        order = [*(c for c in range(at.q) if c not in (i, j)), j, i]
        Q, R = np.linalg.qr(T[:, :, order])
        two = R[:, -2:, -2:]
        two = two / np.linalg.norm(two, axis=1, keepdims=True)
        own = np.concatenate([Q[:, :, -2:] @ two, Q[:, :, :-2]], axis=2)
        M, theta = self._turned(at, own)
        places = tuple(self._at(at, *x) for x in ((0, 0), (1, 0), (1, 1)))
        length = np.hypot(theta[:, places[1]], theta[:, places[2]])
        # of two effects without variance every correlation is the same: the score is
        # zero
        theta[:, places[2]] = np.maximum(length, AWAY)
        rho = correlation(self.lam[at.factor][:, at.columns, at.columns], i, j)
        # Fisher's z has a variance of 1 / (J - 3)
        step = 1 / np.sqrt(np.maximum(self.J[at.factor], 4))
        held = Turned(COR, at.factor, M, places, np.ones(1), theta)
        ends = np.full_like(rho, -1.0), np.ones_like(rho)
        return Parameter(name, rho, step, *ends, FISHER), held

    def _mixes(self, at: _Span) -> bool:
        """Whether the term's columns may be turned."""
        own = covariances.of(self.design.terms[at.term])
        return own.maps is ColumnMaps.ANY

    def _turned(self, at: _Span, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """M (., q, q) with the term's columns Z~ own, and theta there (D, m)."""
        here, f = at.columns, at.factor
        M = np.tile(np.eye(self.factors[f].q), (len(own), 1, 1))
        M[:, here, here] = own
        lam = [x.copy() for x in self.internal]
        turned = np.linalg.solve(own, (self.T[f] @ self.lam[f])[:, here, here])
        if self._mixes(at):
            lam[f][:, here, here] = lower(turned)
        else:  # their order alone has changed
            size = np.sqrt(np.sum(turned**2, axis=2))
            lam[f][:, here, here] = size[:, :, None] * np.eye(at.q)
        return M, self.start(lam)

    def _at(self, at: _Span, row: int, column: int) -> int:
        """Position in theta of an entry of a term's Lambda."""
        return self.entries.index((at.factor, at.start + row, at.start + column))


@dataclass(frozen=True)
class _Span:
    """One term: its number, its factor, first column there, last + 1."""

    term: int
    factor: int
    start: int
    stop: int

    @property
    def q(self) -> int:
        return self.stop - self.start

    @property
    def columns(self) -> slice:
        return slice(self.start, self.stop)


def correlation(lam: np.ndarray, i: int, j: int) -> np.ndarray:
    """(D,) of effects i and j from Lambda (D, q, q); zero where one has no variance."""
    size = np.sqrt(np.sum(lam[:, i] ** 2, axis=1) * np.sum(lam[:, j] ** 2, axis=1))
    with np.errstate(all="ignore"):
        rho = np.einsum("dk,dk->d", lam[:, i], lam[:, j]) / size
    return np.where(size > 0, rho, 0.0)


def lower(lam: np.ndarray) -> np.ndarray:
    """(D, q, q) lower triangular with diagonals not negative, the same products."""
    if lam.shape[-1] > 1 and np.triu(lam, 1).any():
        safe = np.where(np.isfinite(lam).all(axis=(1, 2), keepdims=True), lam, 0.0)
        lam = np.swapaxes(np.linalg.qr(np.swapaxes(safe, 1, 2), mode="r"), 1, 2)
    sign = np.where(np.diagonal(lam, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return lam * sign[:, None, :]
