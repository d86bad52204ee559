"""Parameters of many linear mixed models with one grouping factor, held in lanes.

D models of one shape in internal coordinates, by ML, and the holds of each parameter:
standard deviations and correlations term by term, sigma, fixed effects. For a standard
deviation the columns of its term are put in an order in which it is Lambda_11, for a
correlation it is the ratio of Lambda_21 and Lambda_22; each column is divided by its
root mean square, so that theta is of order one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxglmm.many.linear import CELLS, LANES
from jaxglmm.model import covariances
from jaxglmm.postestimation.profile import linear_lanes as batch_held
from jaxglmm.postestimation.profile.constraint import (
    Parameter,
    correlation,
    lower,
    run,
    size_of,
    variance_names,
)
from jaxglmm.postestimation.profile.linear_lanes import (
    BETA,
    COR,
    SD,
    SIGMA,
    HeldFit,
    Hold,
)
from jaxglmm.postestimation.profile.moments import Internal
from jaxglmm.postestimation.profile.root_search import FISHER, PLAIN
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import ColumnMaps

STEPS = (8, 20, 100)  # of a search for the free coordinates: all lanes, the rest
ZERO, AWAY = 0.02, 0.1  # a diagonal this small starts from there: zero is stationary
SMALLEST = 0.05  # size of a row whose correlation is held
LEAST_SIGMA = 1e-6  # of its estimate: the lower end of sigma's range


@dataclass(frozen=True)
class Estimates:
    """By ML, in the user's coordinates: beta, se (D, p), sigma, criterion (D,).

    lam: (D, q, q) Lambda over all columns of the factor, lower triangular a term.
    """

    beta: np.ndarray
    se: np.ndarray
    sigma: np.ndarray
    criterion: np.ndarray
    lam: np.ndarray


@dataclass(frozen=True)
class _Way:
    """How one parameter is held in each of the D models; see ``linear_lanes.Hold``.

    value internal = (value - offset) / unit of the value, (D,) each.
    """

    kind: int
    M: np.ndarray
    first: np.ndarray
    below: np.ndarray
    second: np.ndarray
    contrast: np.ndarray
    unit: np.ndarray
    start: np.ndarray
    offset: np.ndarray
    size: np.ndarray


class LinearModels:
    """D linear models whose parameters can be held; see ``held.Models``."""

    def __init__(self, internal: Internal, found: Estimates, devices: Devices):
        self.internal, self.found, self.devices = internal, found, devices
        self.D, self.p = found.beta.shape
        self.covariance = internal.factor.covariance
        self.best = found.criterion - internal.constant
        self.program = HeldFit(self.covariance)
        made = [*self._variances(), self._sigma(), *self._fixed()]
        self.parameters: list[Parameter] = [p for p, _ in made]
        ways = [way for _, way in made]
        self.kind = np.array([w.kind for w in ways])
        self.selected = [
            np.stack([getattr(w, name) for w in ways], axis=-1)
            for name in ("first", "below", "second")
        ]
        self.M = np.stack([w.M for w in ways])  # (P, D, q, q)
        self.contrast, self.begin = (
            np.stack([np.broadcast_to(x, (self.D, x.shape[-1])) for x in parts])
            for parts in ([w.contrast for w in ways], [w.start for w in ways])
        )
        self.unit, self.offset, self.size = (
            np.stack([np.broadcast_to(getattr(w, name), self.D) for w in ways])
            for name in ("unit", "offset", "size")
        )
        groups = internal.groups
        self.own = groups.A.shape[-1] > 1
        cells = groups.A.shape[2]
        chunk = devices.chunk(cells, CELLS, LANES)
        self.lanes = size_of(self.D, len(made), chunk)
        self.common = None if self.own else devices.shared(groups)

    # Lanes ---------------------------------------------------------------------------

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
        out = self._run(parameter, model, value, state)
        # a length of zero may be the edge of the wrong valley
        again = np.flatnonzero(out.at_edge)
        if len(again):
            p, d = parameter[again], model[again]
            other = self._run(p, d, value[again], self.start(p, d))
            better = np.flatnonzero(other.value < out.value[again])
            for name in ("free", "value", "slope"):
                here, there = getattr(out, name), getattr(other, name)
                here[..., again[better]] = there[..., better]
        rise = out.value - self.best[model]
        return rise, out.slope / self.size[parameter, model], out.free

    def _run(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray, state: Any
    ) -> batch_held.Held:
        """A few steps for all, so that few wait for the slowest."""
        out = self._steps(parameter, model, value, state, STEPS[0])
        for steps in STEPS[1:]:
            late = np.flatnonzero(~out.done)
            if len(late):
                where = parameter[late], model[late], value[late], out.free[:, late]
                more = self._steps(*where, steps)
                for name in ("free", "value", "slope", "at_edge", "done"):
                    getattr(out, name)[..., late] = getattr(more, name)
        return out

    def _steps(
        self,
        parameter: np.ndarray,
        model: np.ndarray,
        value: np.ndarray,
        state: Any,
        steps: int,
    ) -> batch_held.Held:
        inner = (value - self.offset[parameter, model]) / self.size[parameter, model]

        def take(rows: np.ndarray) -> tuple[Any, ...]:
            which, d = parameter[rows], model[rows]
            first, below, second = (s[:, which] for s in self.selected)
            hold = Hold(
                self.kind[which],
                np.moveaxis(self.M[which, d], 0, -1),
                first,
                below,
                second,
                np.ascontiguousarray(self.contrast[which, d].T),
                self.unit[which, d],
                inner[rows],
            )
            sums = jax.tree.map(lambda x: x[..., d], self.internal.sums)
            lanes = (sums, hold, state[:, rows])
            if not self.own:
                return lanes
            groups = jax.tree.map(lambda x: x[..., d], self.internal.groups)
            return (groups, *lanes)

        common = self.common, np.int64(steps)
        args = self.devices, self.program, common, take, len(value), self.lanes
        return jax.tree.map(np.array, run(*args))

    # Parameters ----------------------------------------------------------------------

    def _variances(self) -> list[tuple[Parameter, _Way]]:
        out, factor = [], self.internal.factor
        for place in variance_names(self.internal.design, factor):
            index, start, stop, i, j, name = place
            lam = self.found.lam[:, start:stop, start:stop]
            if j is None:
                sd = np.sqrt(np.sum(lam[:, i] ** 2, axis=1)) * self.found.sigma
                out.append(self._sd(index, start, stop, i, name, sd))
            else:
                rho = correlation(lam, i, j)
                out.append(self._cor(index, start, stop, i, j, name, rho))
        return out

    def _sd(
        self, index: int, start: int, stop: int, i: int, name: str, sd: np.ndarray
    ) -> tuple[Parameter, _Way]:
        order = [i, *(c for c in range(stop - start) if c != i)]
        M, units, begin = self._shape(index, start, stop, order)
        first = self._at(start, start)
        sigma, J = self.found.sigma, self.internal.J
        step = np.maximum(sd, 0.05 * sigma / units[:, 0])
        step = step / np.sqrt(2 * np.maximum(J, 3))
        zero = np.zeros_like(first)
        way = _Way(
            SD,
            M,
            first,
            zero,
            zero,
            np.zeros((1, self.p)),
            units[:, 0],
            begin,
            np.zeros(1),
            self.internal.scale,
        )
        ends = np.zeros(self.D), np.full(self.D, np.inf)
        return Parameter(name, sd, step, *ends, PLAIN), way

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
        rest = [c for c in range(stop - start) if c not in (i, j)]
        M, units, begin = self._shape(index, start, stop, [j, i, *rest])
        first = self._at(start, start)
        below = self._at(start + 1, start)
        second = self._at(start + 1, start + 1)
        length = np.hypot(begin @ below, begin @ second)
        begin = begin * (1 - below - second)
        begin = begin + second * np.maximum(length, SMALLEST)[:, None]
        # Fisher's z has a variance of 1 / (J - 3)
        step = 1 / np.sqrt(np.maximum(self.internal.J, 4))
        way = _Way(
            COR,
            M,
            first,
            below,
            second,
            np.zeros((1, self.p)),
            units[:, 0],
            begin,
            np.zeros(1),
            np.ones(1),
        )
        ends = np.full(self.D, -1.0), np.ones(self.D)
        return Parameter(name, rho, step, *ends, FISHER), way

    def _sigma(self) -> tuple[Parameter, _Way]:
        sigma = self.found.sigma
        free = self.internal.n - self.p - self.covariance.m - 1
        step = sigma / np.sqrt(2 * np.maximum(free, 1))
        way = self._plain(SIGMA, np.zeros((1, self.p)), np.zeros(1))
        ends = LEAST_SIGMA * sigma, np.full(self.D, np.inf)
        return Parameter("sigma", sigma, step, *ends, PLAIN), way

    def _fixed(self) -> list[tuple[Parameter, _Way]]:
        out = []
        ends = np.full(self.D, -np.inf), np.full(self.D, np.inf)
        for j, name in enumerate(self.internal.design.x_names):
            row = self.internal.R_inverse[:, j]
            way = self._plain(BETA, row, self.internal.beta0[:, j])
            beta, se = self.found.beta[:, j], self.found.se[:, j]
            out.append((Parameter(name, beta, se, *ends, PLAIN), way))
        return out

    def _plain(self, kind: int, contrast: np.ndarray, offset: np.ndarray) -> _Way:
        """In internal coordinates as they are."""
        q, m = self.internal.factor.q, self.covariance.m
        zero = np.zeros(m + 1)
        lam = self.internal.T @ self.found.lam
        eye = np.broadcast_to(np.eye(q), (self.D, q, q))
        return _Way(
            kind,
            eye,
            zero,
            zero,
            zero,
            contrast,
            np.ones(1),
            self._start(lower(lam)),
            offset,
            self.internal.scale,
        )

    def _at(self, row: int, column: int) -> np.ndarray:
        """(k,) one at an entry of Lambda."""
        out = np.zeros(self.covariance.m + 1)
        out[self.covariance.entries.index((row, column))] = 1.0
        return out

    def _shape(
        self, index: int, start: int, stop: int, order: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M (D, q, q), units (D, columns of the term), start (D, k).

        b~ = M b', where b' are the term's columns in ``order``, each divided by its
        root mean square; all other terms stay in internal coordinates.
        """
        q, here = self.internal.factor.q, slice(start, stop)
        T = np.broadcast_to(self.internal.T, (self.D, q, q))[:, here, here]
        units = np.sqrt(np.sum(T**2, axis=1))[:, order]
        M = np.broadcast_to(np.eye(q), (self.D, q, q)).copy()
        M[:, here, here] = T[:, :, order] / units[:, None]
        lam = self.internal.T @ self.found.lam
        own = self.found.lam[:, here, here][:, order] * units[:, :, None]
        if covariances.of(self.internal.design.terms[index]).maps is not ColumnMaps.ANY:
            own = np.sqrt(np.sum(own**2, axis=2))[:, :, None] * np.eye(stop - start)
        lam[:, here, here] = own
        return M, units, self._start(lower(lam))

    def _start(self, lam: np.ndarray) -> np.ndarray:
        """(D, k) entries of Lambda away from zero, and log sigma^2, internal."""
        columns = []
        for i, j in self.covariance.entries:
            x = lam[:, i, j]
            columns.append(np.where(np.abs(x) < ZERO, AWAY, x) if i == j else x)
        with np.errstate(all="ignore"):
            columns.append(2 * np.log(self.found.sigma / self.internal.scale))
        return np.stack(columns, axis=1)
