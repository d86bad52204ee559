"""Profiles of linear mixed models: fits by ML with one parameter held.

D models of one shape in internal coordinates, and how each parameter is held there
(``constraint.Covariances``): a standard deviation by Lambda_11 = sd / sigma, a
correlation by the ratio of Lambda_21 and Lambda_22, a fixed effect by an offset; the
other entries and log sigma^2 are free; parameters of structures are coordinates
themselves (``structured``). Models with one grouping factor are lanes of one
compiled program (``linear_lanes``); a single model of any other structure takes the
same steps one value after the other (``LinearAlone``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxglmm.estimate import information
from jaxglmm.many.linear import CELLS, LANES, is_free, suits
from jaxglmm.postestimation.profile import linear_lanes
from jaxglmm.postestimation.profile import moments as held_moments
from jaxglmm.postestimation.profile.constraint import (
    BETA,
    SD,
    SIGMA,
    Covariances,
    Optima,
    Parameter,
    run,
    size_of,
)
from jaxglmm.postestimation.profile.curves import Curve, alone, in_lanes
from jaxglmm.postestimation.profile.linear_lanes import HeldFit, Hold, LinearEnds
from jaxglmm.postestimation.profile.moments import Internal
from jaxglmm.postestimation.profile.root_search import PLAIN
from jaxglmm.postestimation.profile.structured import StructuredCovariances
from jaxglmm.runtime.devices import Devices, choose
from jaxglmm.runtime.host import on_host
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure import shared_design as shared

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.model.linear_problem import Problem

STEPS = (8, 20, 100)  # of a search for the free coordinates: all lanes, the rest
LEAST_SIGMA = 1e-6  # of its estimate: the lower end of sigma's range

Minimise = Callable[[np.ndarray, Hold, np.ndarray, int], LinearEnds]


def curves(fit: FittedModel) -> list[Curve]:
    """Standard deviations, correlations, sigma, fixed effects."""
    if suits(fit.design):
        return in_lanes(lanes(fit))
    return alone(one(fit))


@double_precision
def lanes(fit: FittedModel) -> LinearModels:
    """One model, fitted by ML, whose parameters can be held in lanes."""
    own = _by_ml(fit)
    moments, devices = own.engine.moments, choose("cpu", 0.0)
    rows, groups = shared.rows(moments)
    y = fit.design.y if fit.design.offset is None else fit.design.y - fit.design.offset
    y = y if moments.keep is None else y[moments.keep]
    internal = held_moments.of_responses(
        fit.design, moments, groups, rows.member, y[:, None]
    )
    return LinearModels(internal, _optima(own), LinearInLanes(internal, devices))


@double_precision
def one(fit: FittedModel) -> LinearModels:
    """One model of any structure, fitted by ML, whose parameters can be held."""
    own = _by_ml(fit)
    internal, found = held_moments.of_fit(own), _optima(own)
    if is_free(own.design):
        return LinearModels(internal, found, LinearAlone(own))
    theta, sigma = own.engine.theta(own.estimates), float(own.sigma)
    structures = StructuredCovariances(own, internal.factors, theta, sigma, True)
    return LinearModels(internal, found, LinearAlone(own, structures), structures)


def _by_ml(fit: FittedModel) -> FittedModel:
    from jaxglmm.fitting.refit import with_method

    return with_method(fit, False) if fit.reml else fit


def _optima(fit: FittedModel) -> Optima:
    return Optima.of(
        fit, fit.engine.moments.factors, sigma=np.array([float(fit.sigma)])
    )


class LinearModels:
    """D linear models whose parameters can be held; see ``constraint.Models``."""

    def __init__(
        self,
        internal: Internal,
        found: Optima,
        minimise: Minimise,
        structures: StructuredCovariances | None = None,
    ):
        self.internal, self.found, self.minimise = internal, found, minimise
        self.D, self.p = found.beta.shape
        assert found.sigma is not None
        self.sigma: np.ndarray = found.sigma
        self.best = found.criterion - internal.constant
        self.covariances = structures or Covariances(
            internal.design,
            internal.factors,
            internal.T,
            found.lam,
            internal.J,
            found.sigma,
        )
        self.k = self.covariances.m + 1
        turned = list(self.covariances.held())
        ends = [self._sigma(), *self._fixed()]
        self.parameters: list[Parameter] = [p for p, *_ in (*turned, *ends)]
        P, D = len(self.parameters), self.D
        self.kind = np.array([t.kind for _, t in turned] + [k for _, k in ends])
        self.M = [np.tile(np.eye(f.q), (P, D, 1, 1)) for f in internal.factors]
        self.places = np.zeros((3, P, self.k))  # ones at Lambda_11, _21, _22
        self.begin = np.empty((P, D, self.k))
        self.begin[:, :, :-1] = self.covariances.start()
        with np.errstate(all="ignore"):
            self.begin[:, :, -1] = 2 * np.log(self.sigma / internal.scale)
        self.unit, self.offset, self.size = (np.ones((P, D)) for _ in range(3))
        self.offset[:] = 0.0
        self.contrast = np.zeros((P, D, self.p))
        for a, (_, way) in enumerate(turned):
            self.M[way.factor][a] = way.M
            self.begin[a, :, :-1] = way.theta
            for place, at in zip(self.places[:, a], way.places, strict=False):
                place[at] = 1.0
            if way.kind == SD:  # the others have no unit
                self.unit[a], self.size[a] = way.unit, internal.scale
        self.size[len(turned) :] = internal.scale
        for j in range(self.p):
            a = P - self.p + j
            self.contrast[a] = internal.R_inverse[:, j]
            self.offset[a] = internal.beta0[:, j]

    def start(self, parameter: np.ndarray, model: np.ndarray) -> np.ndarray:
        """(k, r) free coordinates at the estimates, no diagonal a stationary zero."""
        return np.ascontiguousarray(self.begin[parameter, model].T)

    @double_precision
    def evaluate(
        self,
        parameter: np.ndarray,
        model: np.ndarray,
        value: np.ndarray,
        state: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rise (r,), its slope in the value, free coordinates at the end (k, r)."""
        hold = self._hold(parameter, model, value)
        out = self._run(model, hold, state)
        # a length of zero may be the edge of the wrong valley
        again = np.flatnonzero(out.at_edge)
        if len(again):
            p, d = parameter[again], model[again]
            other = self._run(d, _some(hold, again), self.start(p, d))
            better = np.flatnonzero(other.value < out.value[again])
            for name in ("free", "value", "slope"):
                here, there = getattr(out, name), getattr(other, name)
                here[..., again[better]] = there[..., better]
        rise = out.value - self.best[model]
        return rise, out.slope / self.size[parameter, model], out.free

    def _run(self, model: np.ndarray, hold: Hold, free: np.ndarray) -> LinearEnds:
        """A few steps for all, so that few wait for the slowest."""
        out = self.minimise(model, hold, free, STEPS[0])
        for steps in STEPS[1:]:
            late = np.flatnonzero(~out.done)
            if len(late):
                rest = _some(hold, late)
                more = self.minimise(model[late], rest, out.free[:, late], steps)
                for name in ("free", "value", "slope", "at_edge", "done"):
                    getattr(out, name)[..., late] = getattr(more, name)
        return out

    def _hold(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray
    ) -> Hold:
        at = parameter, model
        first, below, second = (
            np.ascontiguousarray(x[parameter].T) for x in self.places
        )
        return Hold(
            self.kind[parameter],
            tuple(np.moveaxis(M[at], 0, -1) for M in self.M),
            first,
            below,
            second,
            np.ascontiguousarray(self.contrast[at].T),
            self.unit[at],
            (value - self.offset[at]) / self.size[at],
        )

    def _sigma(self) -> tuple[Parameter, int]:
        free = self.internal.n - self.p - self.k
        step = self.sigma / np.sqrt(2 * np.maximum(free, 1))
        ends = LEAST_SIGMA * self.sigma, np.full(self.D, np.inf)
        return Parameter("sigma", self.sigma, step, *ends, PLAIN), SIGMA

    def _fixed(self) -> list[tuple[Parameter, int]]:
        ends = np.full(self.D, -np.inf), np.full(self.D, np.inf)
        names = enumerate(self.internal.design.x_names)
        beta, se = self.found.beta, self.found.se
        return [
            (Parameter(name, beta[:, j], se[:, j], *ends, PLAIN), BETA)
            for j, name in names
        ]


def _some(hold: Hold, rows: np.ndarray) -> Hold:
    return jax.tree.map(lambda x: x[..., rows], hold)


class LinearInLanes:
    """Models with one grouping factor, in lanes of one compiled program."""

    def __init__(self, internal: Internal, devices: Devices):
        self.internal, self.devices = internal, devices
        (factor,), groups = internal.factors, internal.groups
        assert groups is not None
        self.program = HeldFit(factor.covariance)
        self.own = groups.A.shape[-1] > 1
        self.common = None if self.own else devices.shared(groups)
        D, p = internal.beta0.shape
        chunk = devices.chunk(groups.A.shape[2], CELLS, LANES)
        self.lanes = size_of(D, factor.covariance.m + 1 + p, chunk)

    def __call__(
        self, model: np.ndarray, hold: Hold, free: np.ndarray, steps: int
    ) -> LinearEnds:
        """Where the searches end, in as many steps."""

        def take(rows: np.ndarray) -> tuple[Any, ...]:
            d = model[rows]
            sums = jax.tree.map(lambda x: x[..., d], self.internal.sums)
            lanes = (sums, _some(hold, rows), free[:, rows])
            if not self.own:
                return lanes
            groups = jax.tree.map(lambda x: x[..., d], self.internal.groups)
            return (groups, *lanes)

        common = self.common, np.int64(steps)
        found = run(self.devices, self.program, common, take, len(model), self.lanes)
        return jax.tree.map(np.array, found)


class LinearAlone:
    """One model of any structure, one value after the other."""

    def __init__(
        self, fit: FittedModel, structures: StructuredCovariances | None = None
    ):
        self.engine, self.structures = fit.engine, structures

    def __call__(
        self, model: np.ndarray, hold: Hold, free: np.ndarray, steps: int
    ) -> LinearEnds:
        """Where the searches end, in as many steps."""
        lanes = range(len(model))
        found = [self._one(_some(hold, [k]), free[:, [k]], steps) for k in lanes]
        return jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *found)

    def _one(self, hold: Hold, free: np.ndarray, steps: int) -> LinearEnds:
        if hold.kind[0] == BETA:
            row, held = hold.contrast[:, 0], float(hold.value[0])
            value = held_moments.with_contrast(self.engine, row, held)
            unknown, yes = np.array([np.nan]), np.array([True])
            return LinearEnds(free, np.array([value]), unknown, ~yes, yes)
        with on_host():
            search = linear_lanes.NewtonSteps.of(hold, free)
            state = search.begin()
        for _ in range(steps):
            with on_host():
                full, jacobian, along = linear_lanes.point(hold, state.trial)
            new = self._derivatives(hold, full[:, 0])
            with on_host():
                state = search.step(state, new.pulled(jacobian, along))
            if state.done.all():
                break
        with on_host():
            out = search.end(state)
        # what a structure's search ends in may depend on where it began: both are tried
        edge = out.at_edge if self.structures is None else np.array([True])
        return LinearEnds(out.free, out.value, out.slope, edge, out.done)

    def _derivatives(self, hold: Hold, full: np.ndarray) -> linear_lanes.Deviance:
        """Value, score and the stand-in Hessian over (coordinates, log sigma^2)."""
        if self.structures is not None:
            lam, changes = self.structures.at(full[:-1])
        else:
            lam, changes = _turned(self.engine.problem, hold, full)
        m = len(full) - 1
        if not all(np.isfinite(x).all() for x in (*lam, *changes)):
            score, H = np.zeros((m + 1, 1)), np.zeros((m + 1, m + 1, 1))
            return linear_lanes.Deviance(np.array([np.nan]), score, H)
        s2 = np.float64(np.exp(full[-1]))
        found = information.along(self.engine.problem, tuple(lam), s2, tuple(changes))
        n, r2 = float(self.engine.moments.n), float(found.r2_ratio)
        H = np.zeros((m + 1, m + 1))
        H[:m, :m] = found.info
        H[:m, m] = H[m, :m] = found.tv
        H[m, m] = max(r2, 0.5 * n)
        if self.structures is None:
            H[:m, :m] += _boundary(found.G, hold, self.engine.problem)
        score = np.append(np.asarray(found.score), n - r2)
        value = np.array([float(found.value)])
        return linear_lanes.Deviance(value, score[:, None], H[:, :, None])


def _entries(problem: Problem) -> list[tuple[int, int, int]]:
    """(factor, i, j) of every theta."""
    pairs = enumerate(problem.covariances)
    return [(f, i, j) for f, c in pairs for i, j in c.entries]


def _turned(problem: Problem, hold: Hold, full: np.ndarray) -> tuple[list, list]:
    """Lambda and d Sigma of every factor, whose columns ``hold`` has turned."""
    entries, turn = _entries(problem), [M[..., 0] for M in hold.M]
    own = [np.zeros((q, q)) for q in problem.sides]
    for value, (f, i, j) in zip(full, entries, strict=False):
        own[f][i, j] = value
    internal = []
    for M, lam in zip(turn, own, strict=True):
        L = M @ lam
        if len(L) > 1 and np.triu(L, 1).any():
            L = np.linalg.qr(L.T, mode="r").T
        internal.append(L)
    changes = [np.zeros((len(entries), q, q)) for q in problem.sides]
    for a, (f, i, j) in enumerate(entries):
        outer = np.outer(turn[f][:, i], turn[f] @ own[f][:, j])
        changes[f][a] = outer + outer.T
    return internal, changes


def _boundary(G: Any, hold: Hold, problem: Problem) -> np.ndarray:
    """2 (M'GM)+ where columns agree."""
    entries, turn = _entries(problem), [M[..., 0] for M in hold.M]
    m = len(entries)
    out, positive = np.zeros((m, m)), []
    for M, g in zip(turn, G, strict=True):
        values, vectors = np.linalg.eigh(M.T @ np.asarray(g) @ M)
        positive.append((vectors * np.maximum(values, 0)) @ vectors.T)
    for a, (f, i, j) in enumerate(entries):
        for b, (g, h, k) in enumerate(entries):
            if f == g and j == k:
                out[a, b] = 2 * positive[f][i, h]
    return out
