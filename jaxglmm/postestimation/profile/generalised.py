"""Profiles of generalised mixed models: fits with one parameter held.

Every parameter is held as a linear equation in psi = (beta, theta, phi), so that one
program serves all. A fixed effect is one direction of the internal beta. For standard
deviations and correlations the columns of the term are turned first
(``constraint.Covariances``): then a standard deviation is the entry Lambda_11, and a
correlation the ratio of Lambda_21 and Lambda_22. Models with one grouping factor are
lanes of one compiled program (``generalised_lanes``); a single model of any other
structure is maximised one value after the other (``GeneralisedAlone``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm.fitting.kinds import is_ordinal
from jaxglmm.fitting.refit import with_method
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.generalised import GeneralisedLanes, suits
from jaxglmm.many.linear import is_free
from jaxglmm.many.response_rows import ResponseRows
from jaxglmm.many.responses import Responses
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.postestimation.profile import curves as profile
from jaxglmm.postestimation.profile import thresholds
from jaxglmm.postestimation.profile.constraint import (
    COR,
    Covariances,
    Optima,
    Parameter,
    Turned,
    run,
    size_of,
)
from jaxglmm.postestimation.profile.curves import Curve
from jaxglmm.postestimation.profile.generalised_lanes import (
    AffineHold,
    HeldRowsFit,
    Maxima,
)
from jaxglmm.postestimation.profile.root_search import PLAIN, Scale
from jaxglmm.postestimation.profile.rows import ModelRows, of_responses
from jaxglmm.postestimation.profile.structured import StructuredCovariances
from jaxglmm.postestimation.profile.subspace import Subspace, maximise_along
from jaxglmm.runtime import placement
from jaxglmm.runtime.devices import Devices, choose
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised

TOLERANCE, STEPS = 1e-10, 300
BOUNDS = (-30.0, 30.0)  # of phi, where it stands for the ends of its range
WIDEST = 5.0  # a first step where the likelihood says nothing of its size
PHI_STEP = 0.5  # a first step of phi


def curves(fit: FittedGeneralised) -> list[Curve]:
    """Standard deviations, correlations, dispersion, fixed effects.

    In lanes of one program where there is one grouping factor with one random effect a
    level and no dispersion parameter: cbpp takes 11 ms on 2 cores where one value after
    the other takes 20. With slopes the program of lanes gains less than its compilation
    costs (epil2: 29 against 38 ms warm, 5.7 against 4.3 s at first), with a dispersion
    parameter it is the slower one (epil2, nbinom2: 120 against 86 ms), for all lanes
    wait for the slowest of dear evaluations. Crossed factors have no program of lanes.

    Of a fit by REML those of the likelihood, as of linear models.
    """
    if fit.reml:
        fit = with_method(fit, False)
    if is_ordinal(fit) and not fit.design.parts:
        return thresholds.curves(fit, lambda other: profile.alone(one(other)))
    terms = fit.design.terms
    scalar = len(terms) == 1 and len(terms[0].names) == 1
    free = is_free(fit.design)
    if scalar and free and not fit.family.n_phi and not fit.design.parts:
        models = lanes(fit)
        if models is not None:
            return profile.in_lanes(models)
    return profile.alone(one(fit))


def lanes(fit: FittedGeneralised) -> GeneralisedModels | None:
    """One model whose parameters can be held in lanes; None where no program has it."""
    design, devices = fit.design, choose("cpu", 0.0)
    given = (design.weights, design.offset, design.trials)
    marginal = fit.engine.marginal
    source = ModelSource(design, None, None, *given, marginal, fit.family, TOLERANCE)
    if not design.terms or not suits(source):
        return None
    source = replace(source, responses=Responses(design.y[:, None], design.n))
    data = ResponseRows(source, False, devices)
    chunk = GeneralisedLanes(data, devices).chunk
    rows = of_responses(data, chunk, np.zeros(1, int))
    return in_lanes(rows, _optima(fit, (rows.factor,)), devices)


def in_lanes(rows: ModelRows, found: Optima, devices: Devices) -> GeneralisedModels:
    """Models laid out by rows, whose parameters can be held in lanes."""
    D = len(found.criterion)
    T, J = (rows.T,), (rows.J,)
    own = Covariances(rows.design, (rows.factor,), T, found.lam, J, np.ones(D))
    maximise = GeneralisedInLanes(rows, devices, *found.beta.shape)
    return GeneralisedModels(rows.family, own, rows.R_inverse, found, maximise)


@double_precision
def one(fit: FittedGeneralised) -> GeneralisedModels:
    """One model of any structure, whose parameters can be held."""
    engine, factors = fit.engine, fit.engine.factors
    T, J = (tuple(f.T[None] for f in factors), [float(f.n_levels) for f in factors])
    found, levels = _optima(fit, factors), tuple(np.array([x]) for x in J)
    own: Covariances | StructuredCovariances
    if is_free(fit.design):
        own = Covariances(fit.design, factors, T, found.lam, levels, np.ones(1))
    else:
        p, m = engine.base.p, engine.base.m
        theta = np.asarray(fit.internal()[0])[p : p + m]
        own = StructuredCovariances(fit, factors, theta, 1.0, False)
    R_inverse = engine.R_inverse[None]
    alone = GeneralisedAlone(engine.base, engine.marginal)
    return GeneralisedModels(fit.family, own, R_inverse, found, alone)


def _optima(fit: FittedGeneralised, factors: Any) -> Optima:
    phi = np.asarray(fit.estimates.phi, float)[None]
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(np.diagonal(fit.parameter_covariance))
    se = spread[None, len(spread) - phi.shape[1] :]
    return Optima.of(fit, factors, phi=phi, se_phi=se)


class GeneralisedModels:
    """D generalised models whose parameters can be held; see ``constraint.Models``.

    A parameter is held where psi = origin + basis f. basis: (P, D, k, k); the origin is
    ``direction`` (P, D, k) times value times ``unit``, or times ``to`` of the
    value where there is one; ``cor``, ``places``: correlations, and where Lambda_11,
    Lambda_21 and Lambda_22 of theirs are in psi; ``others``: what maximises where a
    parameter is held in other coordinates of phi.
    """

    def __init__(
        self,
        family: AbstractFamily,
        own: Covariances | StructuredCovariances,
        R_inverse: np.ndarray,
        found: Optima,
        maximise: GeneralisedInLanes | GeneralisedAlone,
    ):
        self.family, self.covariances, self.found = family, own, found
        self.R_inverse, self.maximise = R_inverse, maximise
        self.D, self.p = found.beta.shape
        assert found.phi is not None
        self.m, r = own.m, found.phi.shape[1]
        self.k = self.p + self.m + r
        turned = list(own.held())
        names = [*(p for p, _ in turned), *self._dispersion(), *self._fixed()]
        self.parameters: list[Parameter] = names
        P, D, k = len(names), self.D, self.k
        self.M = [np.tile(np.eye(f.q), (P, D, 1, 1)) for f in own.factors]
        self.basis = np.tile(np.eye(k), (P, D, 1, 1))
        self.direction = np.zeros((P, D, k))
        self.begin = np.tile(self._psi(found.phi), (P, 1, 1))
        self.idle, self.unit = np.zeros((P, k)), np.ones((P, D))
        self.cor = np.zeros(P, bool)
        self.to: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
        self.others: dict[int, GeneralisedInLanes | GeneralisedAlone] = {}
        self.places = np.zeros((P, 3), int)
        for a, (_, way) in enumerate(turned):
            self._turn(a, way)
        for j in range(r):
            a = len(turned) + j
            self.to[a] = family.scales[j].to
            self._entry(a, self.p + self.m + j)
            self._in_own_coordinates(a, j)
        for j in range(self.p):
            self._contrast(len(turned) + r + j, R_inverse[:, j])

    # Lanes ---------------------------------------------------------------------------

    def start(self, parameter: np.ndarray, model: np.ndarray) -> Any:
        """Free coordinates (k, r) at the estimates, and modes of zero."""
        free = np.ascontiguousarray(self.begin[parameter, model].T)
        return free, self.maximise.modes(len(parameter))

    @double_precision
    def evaluate(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray, state: Any
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Rise (r,), no slope, (free, u) at the end."""
        hold = self._hold(parameter, model, value)
        out = self._best(parameter, model, hold, *state)
        self._again(parameter, model, hold, out)
        crossed = np.flatnonzero(self._crossed(parameter, out.free))
        if len(crossed):
            self._within(parameter, model, hold, out, crossed)
        rise = out.value - self.found.criterion[model]
        return rise, np.full(len(rise), np.nan), (out.free, out.u)

    def _best(
        self,
        parameter: np.ndarray,
        model: np.ndarray,
        hold: AffineHold,
        free: np.ndarray,
        u: Any,
    ) -> Maxima:
        """The maxima, each in the coordinates in which its parameter is held."""
        if not self.others:
            return self.maximise(model, hold, free, u)
        kinds = np.where(np.isin(parameter, [*self.others]), parameter, -1)
        rows = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
        found = []
        for own in rows:
            maximise = self.others.get(int(parameter[own[0]]), self.maximise)
            held = jax.tree.map(lambda x, own=own: x[..., own], (hold, free, u))
            found.append(maximise(model[own], *held))
        back = np.argsort(np.concatenate(rows))
        return jax.tree.map(lambda *x: np.concatenate(x, axis=-1)[..., back], *found)

    def _again(
        self, parameter: np.ndarray, model: np.ndarray, hold: AffineHold, out: Maxima
    ) -> None:
        """Lanes that did not converge from where they were sent, from the estimates."""
        late = np.flatnonzero(out.status != _status.CONVERGED)
        if not len(late):
            return
        start = self.start(parameter[late], model[late])
        other = self._best(parameter[late], model[late], _some(hold, late), *start)
        done = other.status == _status.CONVERGED
        lower = ~(out.value[late] <= other.value)
        better = np.flatnonzero(done | (np.isfinite(other.value) & lower))
        _put(out, late[better], other, better)

    def _hold(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray
    ) -> AffineHold:
        at = parameter, model
        inner = value * self.unit[at]
        for a, to in self.to.items():
            here = parameter == a
            # beyond, exp() is zero or infinite and the end itself has been reached
            inner[here] = np.clip(to(value[here]), *BOUNDS)
        origin = self.direction[at] * inner[:, None]
        basis = self.basis[at].copy()
        which = np.flatnonzero(self.cor[parameter])
        _, one, two = self.places[parameter[which]].T
        rho = value[which]
        basis[which, one, two] = rho
        basis[which, two, two] = np.sqrt(np.maximum(1 - rho**2, 0.0))
        return AffineHold(
            tuple(np.moveaxis(M[at], 0, -1) for M in self.M),
            np.ascontiguousarray(origin.T),
            np.ascontiguousarray(np.moveaxis(basis, 0, -1)),
            np.ascontiguousarray(self.idle[parameter].T),
        )

    def _crossed(self, parameter: np.ndarray, free: np.ndarray) -> np.ndarray:
        """(r,) where the sign of an entry turns a correlation round."""
        first, _, two = self.places[parameter].T
        r = np.arange(len(parameter))
        return self.cor[parameter] & (free[first, r] * free[two, r] < 0)

    def _within(
        self,
        parameter: np.ndarray,
        model: np.ndarray,
        hold: AffineHold,
        out: Maxima,
        rows: np.ndarray,
    ) -> None:
        """The best of this sign where the other is better, or with an entry of zero."""
        own, which, held = model[rows], parameter[rows], _some(hold, rows)
        again = self._best(which, own, held, *self.start(which, own))
        again.value[self._crossed(which, again.free)] = np.inf
        found = [again]
        r = np.arange(len(rows))
        for column in (0, 2):
            at = self.places[which, column]
            basis, idle = held.basis.copy(), held.idle.copy()
            basis[:, at, r], idle[at, r] = 0.0, 1.0
            edge = AffineHold(held.M, held.origin, basis, idle)
            u = jax.tree.map(lambda x: x[..., rows], out.u)
            end = self._best(which, own, edge, out.free[:, rows], u)
            end.free[at, r] = 0.0
            found.append(end)
        values = np.stack(
            [np.where(np.isfinite(f.value), f.value, np.inf) for f in found]
        )
        for k, best in enumerate(found):
            mine = np.flatnonzero(values.argmin(axis=0) == k)
            _put(out, rows[mine], best, mine)

    # Parameters ----------------------------------------------------------------------

    def _in_own_coordinates(self, a: int, j: int) -> None:
        """The family and phi in which the j-th natural value is one coordinate."""
        assert self.found.phi is not None
        held = [self.family.holding(j, phi) for phi in self.found.phi]
        if held and held[0][0] is not self.family:
            self.others[a] = self.maximise.of(held[0][0])
            self.begin[a, :, self.p + self.m :] = [phi for _, phi in held]

    def _psi(self, phi: np.ndarray) -> np.ndarray:
        """(D, k) estimates, no diagonal of Lambda a stationary zero."""
        R = np.linalg.inv(self.R_inverse) if self.p else self.R_inverse
        beta = np.einsum(
            "dij,dj->di", np.broadcast_to(R, (self.D, *R.shape[1:])), self.found.beta
        )
        return np.concatenate([beta, self.covariances.start(), phi], axis=1)

    def _turn(self, a: int, way: Turned) -> None:
        """Parameter ``a`` is a standard deviation or a correlation."""
        self.M[way.factor][a] = way.M
        self.begin[a, :, self.p : self.p + self.m] = way.theta
        places = [self.p + place for place in way.places]
        if way.kind == COR:
            self.cor[a], self.places[a] = True, places
            self.basis[a, :, :, places[1]] = 0.0
            self.idle[a, places[1]] = 1.0
        else:
            self.unit[a] = way.unit
            self._entry(a, places[0])
            if way.to is not None:
                self.to[a] = way.to

    def _entry(self, a: int, place: int) -> None:
        """Parameter ``a`` is one entry of psi."""
        self.basis[a, :, :, place] = 0.0
        self.direction[a, :, place] = 1.0
        self.idle[a, place] = 1.0

    def _contrast(self, a: int, row: np.ndarray) -> None:
        """Parameter ``a`` is row'beta, row (D or 1, p)."""
        p, size = self.p, np.linalg.norm(row, axis=1)
        # an orthonormal basis of internal beta whose first vector is the row
        eye = np.broadcast_to(np.eye(p), (len(row), p, p))
        U = np.linalg.qr(np.concatenate([row[:, :, None], eye], axis=2))[0]
        U[:, :, 0] *= np.sign(np.einsum("di,di->d", U[:, :, 0], row))[:, None]
        wide = np.broadcast_to(U, (self.D, p, p))
        self.begin[a, :, :p] = np.einsum("dji,dj->di", wide, self.begin[a, :, :p])
        self.unit[a] = 1 / size
        self.basis[a, :, :p, :p] = U
        self.basis[a, :, :, 0] = 0.0
        self.direction[a, :, :p] = U[:, :, 0]
        self.idle[a, 0] = 1.0

    def _dispersion(self) -> list[Parameter]:
        out, phi = [], self.found.phi
        assert phi is not None
        values = self.family.natural(phi.T)
        for j, estimate in enumerate(values):
            step = np.full(self.D, PHI_STEP)
            if self.found.se_phi is not None:
                se = self.found.se_phi[:, j]
                step = np.where((se > 0) & (se < WIDEST), se, PHI_STEP)
            name, scale = self.family.phi_names[j], self.family.scales[j]
            out.append(self._parameter(name, estimate, step, scale.ends, scale))
        return out

    def _fixed(self) -> list[Parameter]:
        out, ends = [], (-np.inf, np.inf)
        for j, name in enumerate(self.covariances.design.x_names):
            most = WIDEST / np.linalg.norm(self.R_inverse[:, j], axis=1)
            estimate, se = self.found.beta[:, j], self.found.se[:, j]
            step = np.where((se > 0) & (se < most), se, most)
            out.append(self._parameter(name, estimate, step, ends, PLAIN))
        return out

    def _parameter(
        self,
        name: str,
        estimate: np.ndarray,
        step: np.ndarray,
        ends: tuple[float, float],
        scale: Scale,
    ) -> Parameter:
        low, high = (np.full(self.D, e) for e in ends)
        return Parameter(name, estimate, step, low, high, scale)


def _some(hold: AffineHold, rows: Any) -> AffineHold:
    return jax.tree.map(lambda x: x[..., rows], hold)


def _put(out: Maxima, rows: np.ndarray, other: Maxima, theirs: np.ndarray) -> None:
    """Lanes of others in the place of ours."""

    def put(x: np.ndarray, y: np.ndarray) -> None:
        x[..., rows] = y[..., theirs]

    jax.tree.map(put, out, other)


class GeneralisedInLanes:
    """Models with one grouping factor, in lanes of one compiled program."""

    def __init__(self, rows: ModelRows, devices: Devices, D: int, p: int):
        self.rows, self.devices, self.shape = rows, devices, (D, p)
        model = assemble.predictors(rows.design)
        self.program = HeldRowsFit(
            rows.family,
            rows.marginal,
            rows.factor.covariance,
            model,
            rows.factor.predictors if model.K > 1 else None,
        )
        parameters = rows.factor.covariance.m + rows.family.n_phi + p
        self.lanes = size_of(D, parameters, rows.chunk)
        self.common = (rows.shared, np.float64(TOLERANCE), np.int64(STEPS))

    def of(self, family: AbstractFamily) -> GeneralisedInLanes:
        """The same of another family."""
        rows = replace(self.rows, family=family)
        return GeneralisedInLanes(rows, self.devices, *self.shape)

    def modes(self, n: int) -> np.ndarray:
        """Modes of zero in n lanes."""
        return np.zeros((self.rows.factor.q, self.rows.padded, n))

    def __call__(
        self, model: np.ndarray, hold: AffineHold, free: np.ndarray, u: np.ndarray
    ) -> Maxima:
        """The maxima on the subspaces."""

        def take(rows: np.ndarray) -> tuple[Any, ...]:
            there = {k: v[..., model[rows]] for k, v in self.rows.own.items()}
            return (there, *jax.tree.map(lambda x: x[..., rows], (hold, free, u)))

        n = len(model)
        found = run(self.devices, self.program, self.common, take, n, self.lanes)
        return jax.tree.map(np.array, found)


class GeneralisedAlone:
    """One model of any structure, one value after the other."""

    def __init__(self, problem: Any, marginal: Any):
        self.problem, self.marginal = problem, marginal

    def of(self, family: AbstractFamily) -> GeneralisedAlone:
        """The same of another family."""
        problem = tree_at(lambda p: p.family, self.problem, family)
        return GeneralisedAlone(problem, self.marginal)

    def modes(self, n: int) -> tuple[np.ndarray, ...]:
        """Modes of zero in n lanes, factor by factor."""
        base = self.problem
        pairs = zip(base.sides, base.rows.sizes, strict=True)
        return tuple(np.zeros((q, 1, J, n)) for q, J in pairs)

    def __call__(
        self, model: np.ndarray, hold: AffineHold, free: np.ndarray, u: Any
    ) -> Maxima:
        """The maxima on the subspaces."""
        ends = [
            self._one(*jax.tree.map(lambda x, k=k: x[..., k], (hold, free, u)))
            for k in range(len(model))
        ]
        return jax.tree.map(lambda *x: np.stack(x, axis=-1), *ends)

    def _one(self, hold: AffineHold, free: np.ndarray, u: Any) -> Maxima:
        found = maximise_along(
            self.marginal,
            self._turned(hold.M),
            Subspace(hold.origin, hold.basis, hold.idle > 0),
            free,
            u,
            np.float64(TOLERANCE),
            np.int64(STEPS),
        )
        ends = Maxima(found.free, found.u, found.value, found.status)
        return jax.tree.map(np.asarray, ends)

    def _turned(self, M: tuple[np.ndarray, ...]) -> Any:
        """The problem with the columns of Z turned, Z' = Z~ M."""
        problem = self.problem
        for f, own in enumerate(M):
            if not np.array_equal(own, np.eye(len(own))):
                rows = placement.beside(problem.rows.turned(f, own), problem)
                problem = tree_at(lambda p: p.rows, problem, rows)
        return problem
