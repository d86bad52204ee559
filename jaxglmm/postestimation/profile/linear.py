"""Profiles of a linear mixed model: fits by ML with one parameter held.

Holding a parameter removes it: columns of its term are put in an order in which a
standard deviation is one entry of Lambda (then Lambda_11 = sd / sigma), a correlation
the ratio of two (Lambda_21 / Lambda_22); the other entries are free. So zero is an
ordinary point. A fixed effect is held by an offset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxglmm.estimate import information, refine
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import linear as _engine
from jaxglmm.many import linear as fits_linear
from jaxglmm.model import assemble, covariances
from jaxglmm.model.covariances import names
from jaxglmm.postestimation.profile import linear_many as held_linear
from jaxglmm.postestimation.profile import moments as held_moments
from jaxglmm.postestimation.profile.curves import FISHER, PLAIN, Curve, Scale, in_lanes
from jaxglmm.runtime.devices import choose
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure import shared_design as shared
from jaxglmm.structure.factors import ColumnMaps

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel
    from jaxglmm.fitting.linear import Engine


def curves(fit: FittedModel) -> list[Curve]:
    """Standard deviations, correlations, sigma, fixed effects."""
    if fits_linear.suits(fit.design):
        return in_lanes(lanes(fit))
    alone = Held(fit)
    return [*alone.variances(), *alone.fixed()]


@double_precision
def lanes(fit: FittedModel) -> held_linear.LinearModels:
    """One model, fitted by ML, whose parameters can be held in lanes."""
    own = _by_ml(fit)
    moments = own.engine.moments
    (factor,) = moments.factors
    lam = np.zeros((1, factor.q, factor.q))
    for index, start, stop in factor.spans:
        lam[0, start:stop, start:stop] = own.estimates.lam[index]
    found = held_linear.Estimates(
        np.asarray(own.estimates.beta)[None],
        np.sqrt(np.diagonal(own.coefficient_covariance()))[None],
        np.array([own.sigma]),
        np.array([own.criterion]),
        lam,
    )
    rows, groups = shared.rows(moments)
    y = fit.design.y if fit.design.offset is None else fit.design.y - fit.design.offset
    y = y if moments.keep is None else y[moments.keep]
    internal = held_moments.of_responses(
        fit.design, moments, groups, rows.member, y[:, None]
    )
    return held_linear.LinearModels(internal, found, choose("cpu", 0.0))


def _by_ml(fit: FittedModel) -> FittedModel:
    from jaxglmm.fitting.refit import with_method

    return with_method(fit, False) if fit.reml else fit


class Held:
    """Fits of one model by ML with one parameter held."""

    def __init__(self, fit: FittedModel):
        self.fit = _by_ml(fit)
        self.engine: Engine = self.fit.engine
        self.constant = assemble.constants(self.engine.moments)[0]
        self.theta = self.engine.theta(self.fit.estimates)
        self.lam = _engine.lambdas(self.engine.problem, self.theta)

    # Fixed effects -------------------------------------------------------------------

    def fixed(self) -> list[Curve]:
        """A curve for every fixed effect."""
        se = np.sqrt(np.diagonal(self.fit.coefficient_covariance()))
        return [
            Curve(
                name,
                float(self.fit.estimates.beta[j]),
                float(se[j]),
                (-np.inf, np.inf),
                self._fixed_deviance(j),
                self.fit.criterion,
            )
            for j, name in enumerate(self.fit.design.x_names)
        ]

    def _fixed_deviance(self, j: int) -> Callable[[float], float]:
        """Deviance with beta_j held: y loses its part, X its direction."""
        m, problem = self.engine.moments, self.engine.problem
        row = m.fixed.R_inverse[j]
        size = np.linalg.norm(row)
        # an orthonormal basis of internal beta whose first vector is the row
        U = np.linalg.qr(np.column_stack([row, np.eye(len(row))]))[0]
        U[:, 0] *= np.sign(U[:, 0] @ row)

        def deviance(value: float) -> float:
            held = (value - m.fixed.beta0[j]) / (m.fixed.scale * size)
            change = np.zeros((len(row) + 1, len(row)))
            change[:-1, :-1] = U[:, 1:]
            change[:-1, -1] = -held * U[:, 0]
            change[-1, -1] = 1.0
            B = tuple(
                jnp.einsum("irg,rc->icg", b, jnp.asarray(change)) for b in problem.B
            )
            RR = jnp.asarray(change.T @ np.asarray(problem.RR) @ change)
            own = eqx.tree_at(lambda s: (s.B, s.RR), problem, (B, RR))
            found = refine.fit(m, own, Maximise(False), 1e-10, 200)
            return float(found.criterion) + self.constant

        return deviance

    # Variances and correlations ------------------------------------------------------

    def variances(self) -> list[Curve]:
        """A curve for every standard deviation and correlation, and for sigma."""
        out = []
        for k, term in enumerate(self.fit.design.terms):
            place = self._place(k)
            lam = self.fit.estimates.lam[k]
            sd = self.fit.sigma * np.sqrt(np.sum(lam**2, axis=1))
            for i, name in enumerate(term.names):
                own = names.sd(name, term.label)
                out.append(self._sd_curve(place, i, own, sd[i]))
            for i, j in sorted(covariances.of(term).pairs):
                name = names.correlation(term.names[i], term.names[j], term.label)
                rho = (lam[i] @ lam[j]) * self.fit.sigma**2
                rho = rho / (sd[i] * sd[j]) if sd[i] * sd[j] > 0 else 0.0
                out.append(self._cor_curve(place, i, j, name, float(rho)))
        out.append(self._sigma_curve())
        return out

    def _place(self, k: int) -> tuple[int, int, int]:
        """(factor, first column, last + 1) of a term."""
        for f, factor in enumerate(self.engine.moments.factors):
            for term, start, stop in factor.spans:
                if term == k:
                    return f, start, stop
        raise AssertionError("every term has a factor")

    def _sd_curve(
        self, place: tuple[int, int, int], i: int, name: str, sd: float
    ) -> Curve:
        f, start, stop = place
        scale = self.engine.moments.fixed.scale
        shape = Shape(self, place, [i, *(c for c in range(stop - start) if c != i)])
        J = self.engine.moments.factors[f].n_levels
        step = max(sd, 0.05 * self.fit.sigma / shape.units[0]) / np.sqrt(2 * max(J, 3))

        def hold(value: float) -> Holding:
            return SdHeld(shape, value / scale)

        return self._curve(name, sd, step, (0.0, np.inf), hold)

    def _cor_curve(
        self, place: tuple[int, int, int], i: int, j: int, name: str, rho: float
    ) -> Curve:
        f, start, stop = place
        rest = [c for c in range(stop - start) if c not in (i, j)]
        shape = Shape(self, place, [j, i, *rest])
        J = self.engine.moments.factors[f].n_levels
        step = 1 / np.sqrt(max(J, 4))  # Fisher's z has a variance of 1 / (J - 3)

        def hold(value: float) -> Holding:
            return CorrelationHeld(shape, value)

        return self._curve(name, rho, step, (-1.0, 1.0), hold, FISHER)

    def _sigma_curve(self) -> Curve:
        scale = self.engine.moments.fixed.scale
        sigma = self.fit.sigma
        step = sigma / np.sqrt(2 * max(self.fit.df_resid, 1))
        shape = Shape(self, None, [])
        return self._curve(
            "sigma",
            sigma,
            step,
            (1e-6 * sigma, np.inf),
            lambda value: SigmaHeld(shape, value / scale),
        )

    def _curve(
        self,
        name: str,
        estimate: float,
        step: float,
        ends: tuple[float, float],
        hold: Callable[[float], Holding],
        scale: Scale = PLAIN,
    ) -> Curve:
        state: dict[float, np.ndarray] = {}

        def deviance(value: float) -> float:
            holding = hold(value)
            near = min(state, key=lambda v: abs(v - value)) if state else None
            x, best = _minimise(
                holding, holding.start() if near is None else state[near]
            )
            if near is not None and (x[holding.positive()] <= 0).any():
                other, value_there = _minimise(holding, holding.start())
                x, best = (other, value_there) if value_there < best else (x, best)
            state[value] = x
            return best + self.constant

        best = self.fit.criterion
        return Curve(name, float(estimate), float(step), ends, deviance, best, scale)


class Shape:
    """Parameters of all Lambdas, the held term's in an order and in units of its own.

    The held term: b~ = M b', where b' are the term's columns in ``order``, each divided
    by its root mean square (``units``). All other terms stay in internal coordinates.
    """

    def __init__(
        self, held: Held, place: tuple[int, int, int] | None, order: Sequence[int]
    ):
        self.held, self.place = held, place
        problem = held.engine.problem
        self.sides = problem.sides
        self.entries = [
            (f, i, j) for f, c in enumerate(problem.covariances) for i, j in c.entries
        ]
        self.M = [np.eye(q) for q in self.sides]
        self.values = [x.copy() for x in held.lam]
        self.units = np.ones(max(len(order), 1))
        if place is None:
            return
        f, start, stop = place
        T = held.engine.moments.factors[f].T[start:stop, start:stop]
        self.units = np.sqrt(np.sum(T**2, axis=0))[list(order)]
        M = T[:, list(order)] / self.units
        self.M[f][start:stop, start:stop] = M
        own = np.linalg.solve(M, held.lam[f][start:stop, start:stop])
        kind = covariances.of(held.fit.design.terms[self._term()])
        if len(own) > 1 and kind.maps is ColumnMaps.ANY:
            own = np.linalg.qr(own.T, mode="r").T
        elif len(own) > 1:  # independent columns: their order alone has changed
            own = np.diag(np.sqrt(np.sum(own**2, axis=1)))
        self.values[f][start:stop, start:stop] = own * np.where(
            np.diagonal(own) < 0, -1.0, 1.0
        )

    def _term(self) -> int:
        assert self.place is not None
        f, start, _ = self.place
        spans = self.held.engine.moments.factors[f].spans
        return next(term for term, first, _ in spans if first == start)

    def at(self, row: int, column: int) -> int:
        """Position of an entry of the held term."""
        assert self.place is not None
        f, start, _ = self.place
        return self.entries.index((f, start + row, start + column))

    def start(self) -> np.ndarray:
        """All entries at the optimum, none of them a stationary zero."""
        x = np.array([self.values[f][i, j] for f, i, j in self.entries])
        diagonal = np.array([i == j for _, i, j in self.entries])
        return np.where(diagonal & (np.abs(x) < 0.02), 0.1, x)

    def lambdas(self, x: np.ndarray) -> list[np.ndarray]:
        """Entries to one matrix a factor, in the shape's coordinates."""
        out = [np.zeros((q, q)) for q in self.sides]
        for value, (f, i, j) in zip(x, self.entries, strict=True):
            out[f][i, j] = value
        return out

    def evaluate(self, x: np.ndarray, log_sigma2: float):
        """Value, score, information and boundary over (entries, log sigma^2)."""
        own = self.lambdas(x)
        internal = []
        for M, lam in zip(self.M, own, strict=True):
            L = M @ lam
            if len(L) > 1 and np.triu(L, 1).any():
                L = np.linalg.qr(L.T, mode="r").T
            internal.append(L)
        m = len(x)
        changes = [np.zeros((m, q, q)) for q in self.sides]
        for a, (f, i, j) in enumerate(self.entries):
            left, right = self.M[f][:, i], self.M[f] @ own[f][:, j]
            outer = np.outer(left, right)
            changes[f][a] = outer + outer.T
        found = information.along(
            self.held.engine.problem,
            tuple(internal),
            np.float64(np.exp(log_sigma2)),
            tuple(changes),
        )
        n = float(self.held.engine.moments.n)
        score = np.append(np.asarray(found.score), n - float(found.r2_ratio))
        info = np.zeros((m + 1, m + 1))
        info[:m, :m] = found.info
        info[:m, m] = info[m, :m] = found.tv
        info[m, m] = max(float(found.r2_ratio), 0.5 * n)
        return float(found.value), score, info, self._boundary(found.G, m)

    def _boundary(self, G: Sequence, m: int) -> np.ndarray:
        """2 (M'GM)+ where columns agree."""
        out = np.zeros((m + 1, m + 1))
        positive = []
        for M, g in zip(self.M, G, strict=True):
            values, vectors = np.linalg.eigh(M.T @ np.asarray(g) @ M)
            positive.append((vectors * np.maximum(values, 0)) @ vectors.T)
        for a, (f, i, j) in enumerate(self.entries):
            for b, (g, h, k) in enumerate(self.entries):
                if f == g and j == k:
                    out[a, b] = 2 * positive[f][i, h]
        return out


class Holding:
    """One parameter held: free coordinates to (entries, log sigma^2)."""

    def __init__(self, shape: Shape, value: float):
        self.shape, self.value = shape, value

    def start(self) -> np.ndarray:
        """Free coordinates at the optimum."""
        raise NotImplementedError

    def full(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(entries, log sigma^2) and its Jacobian in the free coordinates."""
        raise NotImplementedError

    def positive(self) -> list[int]:
        """Free coordinates that may not be negative."""
        return []

    def _log_sigma2(self) -> float:
        held = self.shape.held
        return 2 * np.log(held.fit.sigma / held.engine.moments.fixed.scale)


class SigmaHeld(Holding):
    """sigma is ``value``; all entries free."""

    def start(self) -> np.ndarray:
        return self.shape.start()

    def full(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        jacobian = np.eye(len(free) + 1)[:, : len(free)]
        return np.append(free, 2 * np.log(self.value)), jacobian


class SdHeld(Holding):
    """Lambda_11 = value * unit / sigma; the other entries and log sigma^2 free."""

    def start(self) -> np.ndarray:
        x = np.append(self.shape.start(), self._log_sigma2())
        return np.delete(x, self.shape.at(0, 0))

    def full(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        k = self.shape.at(0, 0)
        entry = self.value * self.shape.units[0] * np.exp(-free[-1] / 2)
        jacobian = np.insert(np.eye(len(free)), k, 0.0, axis=0)
        jacobian[k, -1] = -entry / 2
        return np.insert(free, k, entry), jacobian


class CorrelationHeld(Holding):
    """Row two of Lambda is (rho, sqrt(1 - rho^2)) times its length.

    The length and Lambda_11 may be zero and not negative: another sign of one of them
    would turn the correlation into minus rho.
    """

    def start(self) -> np.ndarray:
        x = np.append(self.shape.start(), self._log_sigma2())
        one, two = self.shape.at(1, 0), self.shape.at(1, 1)
        size = np.hypot(x[one], x[two])
        x[two] = max(size, 0.05)
        return np.delete(x, one)

    def positive(self) -> list[int]:
        one = self.shape.at(1, 0)
        return [k - (k > one) for k in (self.shape.at(0, 0), self.shape.at(1, 1))]

    def full(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # the free coordinate in the place of Lambda_22 is the length of the row
        one, two = self.shape.at(1, 0), self.shape.at(1, 1)
        jacobian = np.insert(np.eye(len(free)), one, 0.0, axis=0)
        x = np.insert(free, one, 0.0)
        size = x[two]
        x[one], x[two] = self.value * size, np.sqrt(max(1 - self.value**2, 0.0)) * size
        column = int(np.flatnonzero(jacobian[two])[0])
        jacobian[one, column] = self.value
        jacobian[two, column] = np.sqrt(max(1 - self.value**2, 0.0))
        return x, jacobian


def _minimise(holding: Holding, start: np.ndarray) -> tuple[np.ndarray, float]:
    """Damped Newton over the free coordinates, as in ``numerics.newton``.

    Coordinates that may not be negative stay at zero while the gradient points below.
    """
    mu, x = 1e-3, start
    bounded = np.zeros(len(x), bool)
    bounded[holding.positive()] = True
    value, g, H = _derivatives(holding, x)
    for _ in range(100):
        free = ~(bounded & (x <= 0) & (g >= 0))
        damped = H + mu * np.diag(1e-8 + np.diagonal(H))
        step = np.zeros(len(x))
        step[free] = np.linalg.solve(damped[np.ix_(free, free)], g[free])
        to = np.where(bounded, np.maximum(x - step, 0.0), x - step)
        gain = float(g @ (x - to))
        if gain < 1e-9 and mu <= 1e-2:
            break
        trial = _derivatives(holding, to)
        if np.isfinite(trial[0]) and trial[0] <= value + 1e-9:
            x = to
            value, g, H = trial
            mu /= 10
        elif mu > 1e10:
            break
        else:
            mu = max(10 * mu, 0.1)
    return x, value


def _derivatives(holding: Holding, free: np.ndarray):
    full, jacobian = holding.full(free)
    value, score, info, boundary = holding.shape.evaluate(full[:-1], full[-1])
    H = jacobian.T @ (info + boundary) @ jacobian
    return value, jacobian.T @ score, H
