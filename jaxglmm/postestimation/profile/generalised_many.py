"""Parameters of many generalised models with one grouping factor, held in lanes.

The subspaces are those of ``generalised.profile``: a fixed effect is one direction of
the internal beta, a standard deviation the entry Lambda_11 of a term whose own effect
is in front, a correlation the ratio of Lambda_21 and Lambda_22.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm.many.collection import Source
from jaxglmm.many.generalised import SharedRows, suits
from jaxglmm.many.responses import Responses
from jaxglmm.model import covariances
from jaxglmm.postestimation.profile import generalised_lanes as lanes
from jaxglmm.postestimation.profile.constraint import (
    Parameter,
    correlation,
    lower,
    run,
    size_of,
    variance_names,
)
from jaxglmm.postestimation.profile.generalised_lanes import AffineHold, HeldRowsFit
from jaxglmm.postestimation.profile.root_search import FISHER, LOG, PLAIN, Scale
from jaxglmm.postestimation.profile.rows import Rows, of_responses
from jaxglmm.runtime.devices import Devices, choose
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import ColumnMaps

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised

TOLERANCE, STEPS = 1e-10, 300
SMALL, AWAY = 0.02, 0.1  # a diagonal this small starts from there: zero is stationary
BOUNDS = (-30.0, 30.0)  # of log phi, where it stands for zero and infinity
WIDEST = 5.0  # a first step where the likelihood says nothing of its size
PHI_STEP = 0.5  # a first step of log phi


@dataclass(frozen=True)
class Estimates:
    """In the user's coordinates: beta, se (D, p), log phi (D, r), criterion (D,).

    lam: (D, q, q) Lambda over all columns of the factor, lower triangular a term;
    se_phi: (D, r) standard errors of log phi, None where they are not known.
    """

    beta: np.ndarray
    se: np.ndarray
    phi: np.ndarray
    criterion: np.ndarray
    lam: np.ndarray
    se_phi: np.ndarray | None = None


@dataclass(frozen=True)
class _Way:
    """How one parameter is held in each of D models.

    basis: (D, k, k); direction: (D, k), origin = value internal times it; idle: (k,);
    start: (D, k); unit: (D,), value internal = unit times the value, of a dispersion
    its logarithm; cor: positions of Lambda_11, Lambda_21, Lambda_22 of a correlation.
    """

    M: np.ndarray
    basis: np.ndarray
    direction: np.ndarray
    idle: np.ndarray
    start: np.ndarray
    unit: np.ndarray
    log: bool = False
    cor: tuple[int, int, int] | None = None


class GeneralisedModels:
    """D generalised models whose parameters can be held; see ``held.Models``."""

    def __init__(self, rows: Rows, found: Estimates, devices: Devices):
        self.rows, self.found, self.devices = rows, found, devices
        self.D, self.p = found.beta.shape
        self.m, self.q = rows.factor.covariance.m, rows.factor.q
        self.k = self.p + self.m + found.phi.shape[1]
        lam = lower(rows.T @ found.lam)
        R = np.linalg.inv(rows.R_inverse) if self.p else rows.R_inverse
        beta = np.einsum(
            "dij,dj->di", np.broadcast_to(R, (self.D, *R.shape[1:])), found.beta
        )
        self.psi = np.concatenate([beta, self._entries(lam), found.phi], axis=1)
        made = [*self._variances(), *self._dispersion(), *self._fixed()]
        self.parameters: list[Parameter] = [p for p, _ in made]
        self.ways = ways = [way for _, way in made]

        def stacked(name: str, *own: int) -> np.ndarray:
            parts = [np.broadcast_to(getattr(w, name), (self.D, *own)) for w in ways]
            return np.stack(parts)

        self.M, self.basis = (
            stacked("M", self.q, self.q),
            stacked("basis", self.k, self.k),
        )
        self.direction, self.begin = (
            stacked("direction", self.k),
            stacked("start", self.k),
        )
        self.idle, self.unit = np.stack([w.idle for w in ways]), stacked("unit")
        self.log = np.array([w.log for w in ways])
        self.cor = np.array([w.cor is not None for w in ways])
        self.places = np.array([w.cor or (0, 0, 0) for w in ways])
        self.program = HeldRowsFit(rows.family, rows.marginal, rows.factor.covariance)
        self.lanes = size_of(self.D, len(made), rows.chunk)
        self.common = (rows.shared, np.float64(TOLERANCE), np.int64(STEPS))

    # Lanes ---------------------------------------------------------------------------

    def start(self, parameter: np.ndarray, model: np.ndarray) -> Any:
        """Free coordinates (k, r) at the estimates, and modes (q, J, r) of zero."""
        free = np.ascontiguousarray(self.begin[parameter, model].T)
        return free, np.zeros((self.q, self.rows.padded, len(parameter)))

    @double_precision
    def evaluate(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray, state: Any
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Rise (r,), no slope, (free, u) at the end."""
        hold = self._hold(parameter, model, value)
        out = self._run(model, hold, *state)
        self._again(parameter, model, hold, out)
        crossed = np.flatnonzero(self._crossed(parameter, out.free))
        if len(crossed):
            self._within(parameter, model, hold, out, crossed)
        rise = out.value - self.found.criterion[model]
        return rise, np.full(len(rise), np.nan), (out.free, out.u)

    def _again(
        self,
        parameter: np.ndarray,
        model: np.ndarray,
        hold: AffineHold,
        out: lanes.Held,
    ) -> None:
        """Lanes that did not converge from where they were sent, from the estimates."""
        late = np.flatnonzero(out.status != _status.CONVERGED)
        if not len(late):
            return
        held = jax.tree.map(lambda x: x[..., late], hold)
        start = self.start(parameter[late], model[late])
        other = self._run(model[late], held, *start)
        done = other.status == _status.CONVERGED
        lower = ~(out.value[late] <= other.value)
        better = np.flatnonzero(done | (np.isfinite(other.value) & lower))
        for name in ("free", "u", "value", "status"):
            getattr(out, name)[..., late[better]] = getattr(other, name)[..., better]

    def _hold(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray
    ) -> AffineHold:
        with np.errstate(all="ignore"):
            log = np.clip(np.log(np.abs(value)), *BOUNDS)
        inner = np.where(self.log[parameter], log, value * self.unit[parameter, model])
        origin = self.direction[parameter, model] * inner[:, None]
        basis = self.basis[parameter, model].copy()
        which = np.flatnonzero(self.cor[parameter])
        _, one, two = self.places[parameter[which]].T
        rho = value[which]
        basis[which, one, two] = rho
        basis[which, two, two] = np.sqrt(np.maximum(1 - rho**2, 0.0))
        return AffineHold(
            np.moveaxis(self.M[parameter, model], 0, -1),
            np.ascontiguousarray(origin.T),
            np.ascontiguousarray(np.moveaxis(basis, 0, -1)),
            np.ascontiguousarray(self.idle[parameter].T),
        )

    def _run(
        self, model: np.ndarray, hold: AffineHold, free: np.ndarray, u: np.ndarray
    ) -> lanes.Held:
        def take(rows: np.ndarray) -> tuple[Any, ...]:
            there = {k: v[..., model[rows]] for k, v in self.rows.own.items()}
            return (there, *jax.tree.map(lambda x: x[..., rows], (hold, free, u)))

        size = self.lanes
        found = run(self.devices, self.program, self.common, take, len(model), size)
        return jax.tree.map(np.array, found)

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
        out: lanes.Held,
        rows: np.ndarray,
    ) -> None:
        """The best of this sign where the other is better, or with an entry of zero."""
        own, which = model[rows], parameter[rows]
        held = jax.tree.map(lambda x: x[..., rows], hold)
        again = self._run(own, held, *self.start(which, own))
        again.value[self._crossed(which, again.free)] = np.inf
        found = [again]
        r = np.arange(len(rows))
        for column in (0, 2):
            at = self.places[which, column]
            basis, idle = held.basis.copy(), held.idle.copy()
            basis[:, at, r], idle[at, r] = 0.0, 1.0
            edge = AffineHold(held.M, held.origin, basis, idle)
            end = self._run(own, edge, out.free[:, rows], out.u[..., rows])
            end.free[at, r] = 0.0
            found.append(end)
        values = np.stack(
            [np.where(np.isfinite(f.value), f.value, np.inf) for f in found]
        )
        for k, best in enumerate(found):
            mine = np.flatnonzero(values.argmin(axis=0) == k)
            for name in ("free", "u", "value"):
                getattr(out, name)[..., rows[mine]] = getattr(best, name)[..., mine]

    # Parameters ----------------------------------------------------------------------

    def _variances(self) -> list[tuple[Parameter, _Way]]:
        out, factor = [], self.rows.factor
        for place in variance_names(self.rows.design, factor):
            index, start, stop, i, j, name = place
            lam = self.found.lam[:, start:stop, start:stop]
            if j is None:
                sd = np.sqrt(np.sum(lam[:, i] ** 2, axis=1))
                out.append(self._sd(index, start, stop, i, name, sd))
            else:
                rho = correlation(lam, i, j)
                out.append(self._cor(index, start, stop, i, j, name, rho))
        return out

    def _sd(
        self, index: int, start: int, stop: int, i: int, name: str, sd: np.ndarray
    ) -> tuple[Parameter, _Way]:
        T = self.rows.T[:, start:stop, start:stop]
        order = [*(c for c in range(stop - start) if c != i), i]
        if not self._mixes(index):
            own = np.broadcast_to(np.eye(stop - start)[:, order[::-1]], T.shape)
            unit = T[:, i, i]
        else:
            Q, R = np.linalg.qr(T[:, :, order])
            signs = np.where(np.diagonal(R, axis1=1, axis2=2) < 0, -1.0, 1.0)
            back = [stop - start - 1, *range(stop - start - 1)]
            own, unit = (Q * signs[:, None])[:, :, back], np.abs(R[:, -1, -1])
        M, begin = self._frame(index, start, stop, own)
        at = self._at(start, start)
        way = replace(self._plain(begin), M=M, unit=unit)
        way.basis[:, :, at] = 0.0
        way.direction[:, at] = 1.0
        way.idle[at] = 1.0
        step = np.maximum(sd, 0.05 / unit) / np.sqrt(2 * np.maximum(self.rows.J, 3))
        return self._parameter(name, sd, step, (0.0, np.inf), PLAIN), way

    def _cor(
        self,
        index: int,
        start: int,
        stop: int,
        i: int,
        j: int,
        name: str,
        rho: np.ndarray,
    ) -> tuple[Parameter, _Way]:
        T = self.rows.T[:, start:stop, start:stop]
        order = [*(c for c in range(stop - start) if c not in (i, j)), j, i]
        Q, R = np.linalg.qr(T[:, :, order])
        two = R[:, -2:, -2:]
        two = two / np.linalg.norm(two, axis=1, keepdims=True)
        own = np.concatenate([Q[:, :, -2:] @ two, Q[:, :, :-2]], axis=2)
        M, begin = self._frame(index, start, stop, own)
        first, below, second = (
            self._at(start + a, start + b) for a, b in ((0, 0), (1, 0), (1, 1))
        )
        length = np.hypot(begin[:, below], begin[:, second])
        begin[:, second] = np.maximum(length, AWAY)
        way = replace(self._plain(begin), M=M, cor=(first, below, second))
        way.basis[:, :, below] = 0.0
        way.idle[below] = 1.0
        # Fisher's z has a variance of 1 / (J - 3)
        step = 1 / np.sqrt(np.maximum(self.rows.J, 4))
        return self._parameter(name, rho, step, (-1.0, 1.0), FISHER), way

    def _dispersion(self) -> list[tuple[Parameter, _Way]]:
        out = []
        names = self.rows.family.phi_names if self.found.phi.shape[1] else ()
        for r, name in enumerate(names):
            at = self.p + self.m + r
            way = replace(self._plain(self._away()), log=True)
            way.basis[:, :, at] = 0.0
            way.direction[:, at] = 1.0
            way.idle[at] = 1.0
            step = np.full(self.D, PHI_STEP)
            if self.found.se_phi is not None:
                se = self.found.se_phi[:, r]
                step = np.where((se > 0) & (se < WIDEST), se, PHI_STEP)
            estimate = np.exp(self.found.phi[:, r])
            ends = (0.0, np.inf)
            out.append((self._parameter(name, estimate, step, ends, LOG), way))
        return out

    def _fixed(self) -> list[tuple[Parameter, _Way]]:
        out, p = [], self.p
        ends = (-np.inf, np.inf)
        for j, name in enumerate(self.rows.design.x_names):
            row = self.rows.R_inverse[:, j]
            size = np.linalg.norm(row, axis=1)
            # an orthonormal basis of internal beta whose first vector is the row
            eye = np.broadcast_to(np.eye(p), (len(row), p, p))
            U = np.linalg.qr(np.concatenate([row[:, :, None], eye], axis=2))[0]
            sign = np.sign(np.einsum("di,di->d", U[:, :, 0], row))
            U[:, :, 0] *= sign[:, None]
            begin = self._away()
            wide = np.broadcast_to(U, (self.D, p, p))
            begin[:, :p] = np.einsum("dji,dj->di", wide, begin[:, :p])
            way = replace(self._plain(begin), unit=1 / size)
            way.basis[:, :p, :p] = U
            way.basis[:, :, 0] = 0.0
            way.direction[:, :p] = U[:, :, 0]
            way.idle[0] = 1.0
            se, most = self.found.se[:, j], WIDEST / size
            step = np.where((se > 0) & (se < most), se, most)
            estimate = self.found.beta[:, j]
            out.append((self._parameter(name, estimate, step, ends, PLAIN), way))
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

    def _plain(self, begin: np.ndarray) -> _Way:
        """Nothing held yet, internal coordinates."""
        k, n = self.k, max(len(self.rows.T), len(self.rows.R_inverse))
        return _Way(
            np.eye(self.q)[None],
            np.tile(np.eye(k), (n, 1, 1)),
            np.zeros((n, k)),
            np.zeros(k),
            begin,
            np.ones(1),
        )

    def _mixes(self, index: int) -> bool:
        """Whether a term's columns may be turned."""
        own = covariances.of(self.rows.design.terms[index])
        return own.maps is ColumnMaps.ANY

    def _frame(
        self, index: int, start: int, stop: int, own: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """M (., q, q) with the term's columns Z~ own, and psi there (D, k)."""
        here = slice(start, stop)
        M = np.tile(np.eye(self.q), (len(own), 1, 1))
        M[:, here, here] = own
        lam = lower(self.rows.T @ self.found.lam)
        turned = np.linalg.solve(own, (self.rows.T @ self.found.lam)[:, here, here])
        if self._mixes(index):
            lam[:, here, here] = lower(turned)
        else:  # their order alone has changed
            size = np.sqrt(np.sum(turned**2, axis=2))
            lam[:, here, here] = size[:, :, None] * np.eye(stop - start)
        return M, self._away(self._entries(lam))

    def _at(self, row: int, column: int) -> int:
        """Position in psi of an entry of Lambda."""
        return self.p + self.rows.factor.covariance.entries.index((row, column))

    def _entries(self, lam: np.ndarray) -> np.ndarray:
        """(D, m) the free entries of Lambda."""
        return self.rows.factor.covariance.theta(lam)

    def _away(self, theta: np.ndarray | None = None) -> np.ndarray:
        """(D, k) psi with no diagonal of Lambda at a stationary zero."""
        out = self.psi.copy()
        if theta is not None:
            out[:, self.p : self.p + self.m] = theta
        for a, scale in enumerate(self.rows.factor.covariance.is_scale, self.p):
            if scale:
                out[:, a] = np.where(np.abs(out[:, a]) < SMALL, AWAY, out[:, a])
        return out


def of_fit(fit: FittedGeneralised) -> GeneralisedModels | None:
    """One model whose parameters can be held in lanes; None where no program has it."""
    design, devices = fit.design, choose("cpu", 0.0)
    given = (design.weights, design.offset, design.trials)
    marginal = fit.engine.marginal
    source = Source(design, None, None, *given, marginal, fit.family, TOLERANCE)
    if not design.terms or not suits(source):
        return None
    source = replace(source, responses=Responses(design.y[:, None], design.n))
    rows = of_responses(SharedRows(source, False, devices), np.zeros(1, int))
    lam = np.zeros((1, rows.factor.q, rows.factor.q))
    for index, start, stop in rows.factor.spans:
        lam[0, start:stop, start:stop] = fit.estimates.lam[index]
    phi = np.asarray(fit.estimates.phi, float)[None]
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(np.diagonal(fit.parameter_covariance))
    found = Estimates(
        np.asarray(fit.coefficients)[None],
        np.sqrt(np.diagonal(fit.coefficient_covariance()))[None],
        phi,
        np.array([fit.criterion]),
        lam,
        spread[None, len(spread) - phi.shape[1] :],
    )
    return GeneralisedModels(rows, found, devices)
