"""Profiles of a generalised linear mixed model: fits with one parameter held.

Every parameter is held as a linear equation in psi = (beta, theta, phi), so that one
compiled program (``subspace``) serves all. A fixed effect is one direction
of the internal beta. For standard deviations and correlations the columns of the term
are changed first, Z b = (Z M)(M^-1 b): with its own effect in front, a standard
deviation is the entry Lambda_11; with two in front, their correlation is rho where
(Lambda_21, Lambda_22) = L (rho, sqrt(1 - rho^2)). Zero is an ordinary point of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np

from jaxglmm.fitting.components import sd_and_correlation
from jaxglmm.fitting.linear import lambdas
from jaxglmm.model import covariances
from jaxglmm.model.covariances import names
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.system import Effects
from jaxglmm.postestimation.profile import curves as profile
from jaxglmm.postestimation.profile import generalised_many as held_generalised
from jaxglmm.postestimation.profile.curves import FISHER, LOG, PLAIN, Curve, Scale
from jaxglmm.postestimation.profile.subspace import Restricted, Subspace, maximise_along
from jaxglmm.structure.factors import ColumnMaps

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.generalised import GeneralisedEngine

TOLERANCE, STEPS = 1e-10, 300
SMALL = 0.02  # a diagonal of Lambda below this starts from AWAY: zero is stationary
AWAY = 0.1
BOUNDS = (-30.0, 30.0)  # of log phi, where it stands for zero and infinity
WIDEST = 5.0  # a first step where the likelihood says nothing of its size


def curves(fit: FittedGeneralised) -> list[Curve]:
    """Standard deviations, correlations, dispersion, fixed effects.

    In lanes of one program where there is one grouping factor with one random effect a
    level and no dispersion parameter: cbpp takes 11 ms on 2 cores where one value after
    the other takes 20. With slopes the program of lanes gains less than its compilation
    costs (epil2: 29 against 38 ms warm, 5.7 against 4.3 s at first), with a dispersion
    parameter it is the slower one (epil2, nbinom2: 120 against 86 ms), for all lanes
    wait for the slowest of dear evaluations. Crossed factors have no program of lanes.
    """
    terms = fit.design.terms
    scalar = len(terms) == 1 and len(terms[0].names) == 1
    if scalar and not fit.family.n_phi:
        models = held_generalised.of_fit(fit)
        if models is not None:
            return profile.in_lanes(models)
    return alone(fit)


def alone(fit: FittedGeneralised) -> list[Curve]:
    """The same, one value after the other."""
    held = Held(fit)
    return [*held.variances(), *held.dispersion(), *held.fixed()]


@dataclass(frozen=True)
class Place:
    """One term in the engine: its position, its factor, first column, last + 1."""

    term: int
    factor: int
    start: int
    stop: int

    @property
    def q(self) -> int:
        """Columns of the term."""
        return self.stop - self.start


class Held:
    """Fits of one model with one parameter held."""

    def __init__(self, fit: FittedGeneralised):
        self.fit = fit
        self.engine: GeneralisedEngine = fit.engine
        self.psi = np.asarray(fit.internal()[0])
        p, m = self.engine.base.p, self.engine.base.m
        self.lam = lambdas(self.engine.base, self.psi[p : p + m])

    @cached_property
    def spread(self) -> np.ndarray:
        """(k,) standard errors of psi, zero where there is none."""
        variances = np.diagonal(self.fit.parameter_covariance)
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.sqrt(variances), posinf=0.0)

    # Fixed effects -------------------------------------------------------------------

    def fixed(self) -> list[Curve]:
        """A curve for every fixed effect."""
        return [self._fixed_curve(j) for j in range(self.engine.base.p)]

    def _fixed_curve(self, j: int) -> Curve:
        row = self.engine.R_inverse[j]
        size = np.linalg.norm(row)
        # an orthonormal basis of internal beta whose first vector is the row
        U = np.linalg.qr(np.column_stack([row, np.eye(len(row))]))[0]
        U[:, 0] *= np.sign(U[:, 0] @ row)

        def line(value: float) -> Line:
            out = Line(len(self.psi))
            p = len(row)
            out.basis[:p, :p] = U
            out.drop(0)
            out.origin[:p] = value / size * U[:, 0]
            return out

        frame = Frame(self, self.engine.base, self.psi, self.lam)
        free = frame.start()
        free[: len(row)] = U.T @ self.psi[: len(row)]
        se = float(np.sqrt(self.fit.coefficient_covariance()[j, j]))
        step = se if 0 < se < WIDEST / size else WIDEST / size
        name = self.fit.design.x_names[j]
        estimate = float(self.fit.coefficients[j])
        search = Search(frame, line, free, estimate, self._trace(row, U))
        return self._curve(name, estimate, step, (-np.inf, np.inf), search)

    def _trace(self, row: np.ndarray, U: np.ndarray) -> np.ndarray:
        """(k,) how the free coordinates follow row'beta, to first order."""
        p = len(row)
        out = self.fit.parameter_covariance[:, :p] @ row
        size = row @ out[:p]
        if not (np.isfinite(out).all() and size > 0):
            return np.zeros(len(out))
        out /= size
        out[:p] = U.T @ out[:p]
        return out

    # Dispersion ----------------------------------------------------------------------

    def dispersion(self) -> list[Curve]:
        """A curve for every dispersion parameter, on its natural scale."""
        return [self._phi_curve(r, x) for r, x in enumerate(self.fit.dispersion_names)]

    def _phi_curve(self, r: int, name: str) -> Curve:
        k = self.engine.base.p + self.engine.base.m + r
        low, high = BOUNDS

        def line(value: float) -> Line:
            with np.errstate(divide="ignore"):
                return Line(len(self.psi)).hold(k, np.clip(np.log(value), low, high))

        step = self.spread[k] if 0 < self.spread[k] < WIDEST else 1.0
        frame = Frame(self, self.engine.base, self.psi, self.lam)
        search = Search(frame, line, frame.start())
        estimate = float(np.exp(self.psi[k]))
        return self._curve(name, estimate, step, (0.0, np.inf), search, LOG)

    # Variances and correlations ------------------------------------------------------

    def variances(self) -> list[Curve]:
        """A curve for every standard deviation and correlation."""
        out = []
        for k, term in enumerate(self.fit.design.terms):
            place, lam = self._place(k), self.fit.estimates.lam[k]
            sd, corr = sd_and_correlation(lam @ lam.T)
            out += [self._sd_curve(place, i, float(sd[i])) for i in range(len(sd))]
            for i, j in sorted(covariances.of(term).pairs):
                rho = float(np.nan_to_num(corr[i, j]))
                out.append(self._cor_curve(place, i, j, rho))
        return out

    def _place(self, k: int) -> Place:
        for f, factor in enumerate(self.engine.factors):
            for term, start, stop in factor.spans:
                if term == k:
                    return Place(term, f, start, stop)
        raise AssertionError("every term has a factor")

    def _sd_curve(self, place: Place, i: int, sd: float) -> Curve:
        frame, unit = self._one_in_front(place, i)
        k = frame.at(place, 0, 0)

        def line(value: float) -> Line:
            return Line(len(self.psi)).hold(k, value * unit)

        J = self.engine.factors[place.factor].n_levels
        step = max(sd, 0.05 / unit) / np.sqrt(2 * max(J, 3))
        term = self.fit.design.terms[place.term]
        name = names.sd(term.names[i], term.label)
        search = Search(frame, line, frame.start())
        return self._curve(name, sd, step, (0.0, np.inf), search)

    def _cor_curve(self, place: Place, i: int, j: int, rho: float) -> Curve:
        frame = self._two_in_front(place, j, i)
        first, one, two = (frame.at(place, *x) for x in ((0, 0), (1, 0), (1, 1)))

        def line(value: float) -> Line:
            out = Line(len(self.psi)).drop(one)
            out.basis[one, two] = value
            out.basis[two, two] = np.sqrt(max(1 - value**2, 0.0))
            out.positive = (first, two)
            return out

        free = frame.start()
        free[two] = max(np.hypot(free[one], free[two]), AWAY)
        J = self.engine.factors[place.factor].n_levels
        step = 1 / np.sqrt(max(J, 4))  # Fisher's z has a variance of 1 / (J - 3)
        term = self.fit.design.terms[place.term]
        name = names.correlation(term.names[i], term.names[j], term.label)
        return self._curve(
            name, rho, step, (-1.0, 1.0), Search(frame, line, free), FISHER
        )

    def _one_in_front(self, place: Place, i: int) -> tuple[Frame, float]:
        """The term's effects rotated so that the first is ``unit`` times that of i."""
        T = self._scales(place)
        order = [*(c for c in range(place.q) if c != i), i]
        if self._independent(place):
            M = np.eye(place.q)[:, order[::-1]]
            return Frame.of(self, place, M), float(T[i, i])
        Q, R = np.linalg.qr(T[:, order])
        back = [place.q - 1, *range(place.q - 1)]
        signs = np.where(np.diagonal(R) < 0, -1.0, 1.0)
        return Frame.of(self, place, (Q * signs)[:, back]), float(abs(R[-1, -1]))

    def _two_in_front(self, place: Place, j: int, i: int) -> Frame:
        """The first two effects those of j and i, scaled; the rest rotated."""
        T = self._scales(place)
        order = [*(c for c in range(place.q) if c not in (i, j)), j, i]
        Q, R = np.linalg.qr(T[:, order])
        two = R[-2:, -2:]
        M = np.column_stack(
            [Q[:, -2:] @ (two / np.linalg.norm(two, axis=0)), Q[:, :-2]]
        )
        return Frame.of(self, place, M)

    def _scales(self, place: Place) -> np.ndarray:
        """(q, q): internal effects = T times the user's."""
        T = self.engine.factors[place.factor].T
        return T[place.start : place.stop, place.start : place.stop]

    def _independent(self, place: Place) -> bool:
        own = covariances.of(self.fit.design.terms[place.term])
        return own.maps is not ColumnMaps.ANY

    def _curve(
        self,
        name: str,
        estimate: float,
        step: float,
        ends: tuple[float, float],
        search: Search,
        scale: Scale = PLAIN,
    ) -> Curve:
        best = self.fit.criterion
        return Curve(name, estimate, float(step), ends, search, best, scale)


class Frame:
    """The problem with one term's columns changed, and psi there.

    A rotation M of the term's columns, b~ = M b': Z' = Z~ M, and Lambda' the triangular
    square root of M^-1 Sigma~ M^-T.
    """

    def __init__(
        self,
        held: Held,
        problem: GeneralisedProblem,
        psi: np.ndarray,
        lam: Sequence[np.ndarray],
    ):
        self.held, self.problem, self.psi, self.lam = held, problem, psi, lam
        self.entries = [
            (f, i, j) for f, c in enumerate(problem.covariances) for i, j in c.entries
        ]

    @staticmethod
    def of(held: Held, place: Place, M: np.ndarray) -> Frame:
        """The frame in which ``place`` has the columns Z~ M."""
        engine, f = held.engine, place.factor
        span = slice(place.start, place.stop)
        whole = np.eye(engine.factors[f].q)
        whole[span, span] = M
        z = np.asarray(engine.base.rows.z[f])
        problem = eqx.tree_at(
            lambda p: p.rows.z[f], engine.base, jax.device_put(whole.T @ z)
        )
        lam = [x.copy() for x in held.lam]
        own = np.linalg.solve(M, lam[f][span, span])
        if held._independent(place):  # their order alone has changed
            own = np.diag(np.sqrt(np.sum(own**2, axis=1)))
        elif len(own) > 1:
            own = np.linalg.qr(own.T, mode="r").T
            own = own * np.where(np.diagonal(own) < 0, -1.0, 1.0)
        lam[f][span, span] = own
        frame = Frame(held, problem, held.psi.copy(), lam)
        p = problem.p
        theta = [lam[g][i, j] for g, i, j in frame.entries]
        frame.psi[p : p + len(theta)] = theta
        return frame

    def at(self, place: Place, row: int, column: int) -> int:
        """Position in psi of an entry of a term's Lambda."""
        entry = (place.factor, place.start + row, place.start + column)
        return self.problem.p + self.entries.index(entry)

    def start(self) -> np.ndarray:
        """psi with no diagonal of Lambda at a stationary zero."""
        out = self.psi.copy()
        for a, (_, i, j) in enumerate(self.entries, self.problem.p):
            if i == j and abs(out[a]) < SMALL:
                out[a] = AWAY
        return out


class Line:
    """psi = origin + basis f for one value of the held parameter.

    positive: coordinates of f whose product may not be negative.
    """

    positive: tuple[int, ...] = ()

    def __init__(self, k: int):
        self.origin, self.basis = np.zeros(k), np.eye(k)
        self.idle = np.zeros(k, bool)

    def drop(self, coordinate: int) -> Line:
        """Take a coordinate out."""
        self.basis[:, coordinate] = 0.0
        self.idle[coordinate] = True
        return self

    def hold(self, coordinate: int, value: float) -> Line:
        """Hold one entry of psi at a value."""
        self.origin[coordinate] = value
        return self.drop(coordinate)


class Search:
    """value -> deviance, each search from where the nearest one ended.

    estimate, trace: where ``free`` belongs, and how it moves with the value, (k,).
    """

    def __init__(
        self,
        frame: Frame,
        line: Callable[[float], Line],
        free: np.ndarray,
        estimate: float = 0.0,
        trace: np.ndarray | float = 0.0,
    ):
        self.frame, self.line, self.first = frame, line, free
        self.estimate, self.trace = estimate, trace
        self.ends: dict[float, Restricted] = {}

    def __call__(self, value: float) -> float:
        line = self.line(value)
        free, u = self.first + self.trace * (value - self.estimate), self._modes()
        if self.ends:
            at = min(self.ends, key=lambda v: abs(v - value))
            free = np.asarray(self.ends[at].free) + self.trace * (value - at)
            u = self.ends[at].u
        found = [self._from(line, free, u)]
        if line.positive and _crossed(line, found[-1]):
            found = self._within(line, found[-1])
        best = min(found, key=lambda x: float(x.value))
        self.ends[value] = best
        return float(best.value)

    def _within(self, line: Line, crossed: Restricted) -> list[Restricted]:
        """Where the other sign of an entry is better: this sign, or entries of zero."""
        again = self._from(line, self.first, self._modes())
        found = [] if _crossed(line, again) else [again]
        for coordinate in line.positive:
            edge = Line(len(line.origin))
            edge.origin, edge.basis = line.origin, line.basis.copy()
            edge.idle = line.idle.copy()
            free = np.asarray(crossed.free)
            found.append(self._from(edge.drop(coordinate), free, crossed.u))
        return found

    def _from(self, line: Line, free: np.ndarray, u: Effects) -> Restricted:
        return maximise_along(
            self.frame.held.engine.marginal,
            self.frame.problem,
            Subspace(line.origin, line.basis, line.idle),
            free,
            u,
            np.float64(TOLERANCE),
            np.int64(STEPS),
        )

    def _modes(self) -> Effects:
        problem = self.frame.problem
        return tuple(
            np.zeros((q, 1, J))
            for q, J in zip(problem.sides, problem.rows.sizes, strict=True)
        )


def _crossed(line: Line, found: Restricted) -> bool:
    free = np.asarray(found.free)
    return bool(np.prod([free[c] for c in line.positive]) < 0)
