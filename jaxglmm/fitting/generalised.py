"""Engine of a generalised model: its rows on the device, and the way back.

The counterpart of ``engine.Engine``: fits the design, again for another response where
asked, and takes what was found to the user's coordinates. Nothing in it is needed to
read a fit: it is rebuilt from the design when a saved or pickled fit is asked for more.
"""

from __future__ import annotations

from functools import cached_property

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array
from jaxglmm.estimate import generalised as laplace
from jaxglmm.estimate import hessian as exact
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.fitting import exact_newton, held, held_generalised, ordinal
from jaxglmm.fitting import restarts as again
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.held import Given
from jaxglmm.fitting.linear import (
    SAFETY,
    SINGULAR,
    STEPS,
    TOLERANCE,
    internal_lambdas,
    lambdas,
    modes,
    pack,
    per_term,
    per_term_square,
)
from jaxglmm.fitting.sampled_levels import sampled
from jaxglmm.formula.design import Design
from jaxglmm.integrate.base import AbstractMarginal, Laplace
from jaxglmm.integrate.working_model import mode_at, working
from jaxglmm.model import assemble
from jaxglmm.model.covariances.base import AbstractCovariance, is_scale
from jaxglmm.model.covariances.host import any_at_end
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.model.linear_problem import Problem
from jaxglmm.runtime import hosted, levels, placement
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.cut_rows import CutArrow
from jaxglmm.structure.factors import Factor, to_user
from jaxglmm.structure.rows import LARGE_ROWS
from jaxglmm.structure.rows_of_design import RowData, build_rows

FLAT = 1e-8  # eigenvalues of the Hessian, at unit diagonal, that count as zero
FLATTEST = 1e-10  # what a smaller one counts as in a direction of beta
MOVES = 1e-3  # share of beta in a direction that counts
ROUGH = 1e-2  # left to gain where a second search stops, unless it may be the better
FAR = 10.0  # parameter of a sample from which no search is begun
NEARBY = 0.1  # move of a parameter, relative to 1 + its size, that is of one maximum

Modes = tuple[np.ndarray, ...]  # u, a factor each
Internal = tuple[np.ndarray, Modes]  # psi (k,) and u, in internal coordinates


class GeneralisedEngine:
    """One design and response, ready to be fitted.

    data: rows in internal coordinates, on the host; base: the problem on the device;
    marginal: how the random effects are integrated out; eta, phi: where to start, on
    the device and on the host; located: whether an intercept was put in front of the
    design's X, which is minus the location of its thresholds; holder: the design where
    parameters of it are held at values.
    """

    def __init__(
        self,
        data: RowData,
        base: GeneralisedProblem,
        marginal: AbstractMarginal,
        eta: Array,
        phi: np.ndarray,
        located: bool = False,
        holder: Design | None = None,
    ):
        self.data, self.base, self.marginal = data, base, marginal
        self.eta, self.phi, self.located = eta, phi, located
        self.holder = holder

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.data!r}>"

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Grouping factors in internal order."""
        return self.data.factors

    @property
    def R(self) -> np.ndarray:
        """(p, p): X of the user = X~ R."""
        return self.data.R

    @cached_property
    def R_inverse(self) -> np.ndarray:
        """(p, p) R^-1; without its first row where that is a location."""
        return self._whole_inverse[int(self.located) :]

    @cached_property
    def _whole_inverse(self) -> np.ndarray:
        return np.linalg.solve(self.R, np.eye(len(self.R)))

    @cached_property
    def location(self) -> ordinal.Location:
        """The dispersion parameters of the user from psi."""
        base = self.base
        row = -self._whole_inverse[0] if self.located else None
        n_phi = base.family.n_phi
        return ordinal.Location(row, base.p + base.m + n_phi, n_phi)

    @cached_property
    def scales(self) -> np.ndarray:
        """(m,) which thetas are standard deviations."""
        return is_scale(self.base.covariances)

    @double_precision
    @hosted.one_fit
    def fit(self, tol: float = TOLERANCE, max_steps: int = STEPS) -> GeneralisedFitted:
        """Fit; arrays as NumPy."""
        if self.holder is None:
            return self._free(tol, max_steps)
        if self.marginal.nodes == 0:  # as many as a fit without held parameters needs
            self._free(tol, max_steps)
        return held_generalised.fitted(self, self.holder, {}, tol, max_steps)

    @double_precision
    @hosted.one_fit
    def fit_from(
        self, design: Design, start: Given, tol: float, max_steps: int
    ) -> GeneralisedFitted:
        """Fit from values by name; the usual start where that leads nowhere."""
        if self.holder is not None:
            return held_generalised.fitted(self, design, start, tol, max_steps)
        if start and self.marginal.nodes > 0:
            found = held_generalised.started(self, design, start, tol, max_steps)
            if found is not None:
                return found
        return self._free(tol, max_steps)

    def _free(self, tol: float, max_steps: int) -> GeneralisedFitted:
        if self.marginal.nodes == 0:  # as many as are needed
            step = np.float64(SAFETY * tol), np.int64(max_steps)
            chosen = laplace.fit_auto(self.base, self.eta, self.phi, *step)
            self.marginal = chosen.marginal
            found = jax.device_get(chosen.fitted)
            if found.status == _status.CONVERGED:
                return found
            return again.rescued(self, found, tol, max_steps)

        def from_phi(phi: np.ndarray) -> GeneralisedFitted:
            return self._searched(phi, tol, max_steps)

        if self.base.predictors.K > 1:
            found = self._of_sample(tol, max_steps)
            if found is None:
                found = self._best(tol, max_steps)
        else:
            found = from_phi(self.phi)
        if found.status != _status.CONVERGED:
            found = again.rescued(self, found, tol, max_steps)
        elif again.steep(self, found):
            found = again.compared(self, found, tol, max_steps)
        if not self._has_rival:
            return found
        for first in self.base.family.near_zero_dispersion:
            other = from_phi(np.array([first, *self.phi[1:]]))
            if np.isnan(found.criterion) or other.criterion < found.criterion - tol:
                found = other
            if other.status == _status.CONVERGED:
                break  # else phi was on its way to the limit: from closer to it
        return found

    def _searched(
        self,
        phi: np.ndarray,
        tol: float,
        max_steps: int,
        start: Array | None = None,
        enough: float = 0.0,
    ) -> GeneralisedFitted:
        """The search from phi and guesses of the rows' predictors."""
        several = self.base.predictors.K > 1
        most = min(max_steps, exact_newton.FIRST) if several else max_steps
        numbers = np.array([*phi, SAFETY * tol, most, enough])
        start = self.eta if start is None else start
        flat, eta = laplace.fit_numbers(self.marginal, self.base, start, numbers)
        out = laplace.unpack(self.shapes, np.asarray(flat), np.asarray(eta))
        if several and out.status != _status.CONVERGED and max_steps > most:
            return exact_newton.finished(self, out, tol)
        return out

    def searched_from(
        self, psi: np.ndarray, u: Modes, tol: float, max_steps: int
    ) -> GeneralisedFitted:
        """The search from psi (k,) and u alone, without restarts."""
        numbers = np.array([SAFETY * tol, max_steps])
        flat, eta = laplace.refit_numbers(self.marginal, self.base, psi, u, numbers)
        return laplace.unpack(self.shapes, np.asarray(flat), np.asarray(eta))

    def _of_sample(self, tol: float, max_steps: int) -> GeneralisedFitted | None:
        """From the best end of a sample of the levels; None where there is none.

        Of many levels: the way to the maximum, and which of two it is, are told by few
        of them; all rows are visited for the last steps alone.
        """
        small = sampled(self.base, self.eta)
        if small is None:
            return None
        base, eta = small
        own = self.phi, self.located, self.holder
        of_some = GeneralisedEngine(self.data, base, self.marginal, eta, *own)
        found = of_some._best(tol, max_steps)
        inside = np.abs(found.psi).max() < FAR and not of_some.pinned(found.psi).any()
        if found.status != _status.CONVERGED or not inside:
            return None
        u = tuple(np.asarray(x) for x in laplace.zeros(self.base))
        out = self.searched_from(np.asarray(found.psi), u, tol, max_steps)
        return out if out.status == _status.CONVERGED else None

    def _best(self, tol: float, max_steps: int) -> GeneralisedFitted:
        """The better of a fit and of one from where its family has another maximum."""
        found = self._searched(self.phi, tol, max_steps)
        phi = self.base.split(found.psi)[2]
        rival = self.base.family.rival(self.base.y, found.eta, np.asarray(phi))
        if rival is None:
            return found
        eta, phi = rival
        eta = placement.beside(np.asarray(eta), self.base)
        if found.status == _status.CONVERGED:
            other = self._searched(phi, tol, max_steps, eta, ROUGH)
            if other.status == _status.CONVERGED and not _promising(other, found):
                return found
        other = self._searched(phi, tol, max_steps, eta)
        if not np.isfinite(other.criterion):
            return found
        worse = found.status != _status.CONVERGED and found.criterion > other.criterion
        gains = other.criterion < found.criterion - tol
        return other if gains or worse or np.isnan(found.criterion) else found

    @property
    def _has_rival(self) -> bool:
        """Whether the likelihood may have a second maximum, at no dispersion.

        Effects of single rows and a dispersion parameter explain the same excess, and
        between the two the likelihood can fall.
        """
        levels = [factor.n_levels for factor in self.factors]
        return (
            bool(self.base.family.near_zero_dispersion)
            and 2 * max(levels, default=0) > self.data.n
        )

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return laplace.shapes(self.base)

    @double_precision
    def for_response(
        self, y: np.ndarray, trials: np.ndarray | None = None
    ) -> GeneralisedEngine:
        """The same design with another response (n,)."""
        family = self.base.family
        eta, phi = family.start(y, trials)
        place = self.data.place
        rows = place(y, family.padding), place(eta)
        placed, eta = placement.beside(rows, self.base)
        base = tree_at(lambda p: p.y, self.base, placed)
        own = np.asarray(phi, float), self.located, self.holder
        return GeneralisedEngine(self.data, base, self.marginal, eta, *own)

    def psi_of(self, estimates: Estimates) -> np.ndarray:
        """psi (k,) of a fit in the engine's coordinates."""
        theta = internal_lambdas(self.factors, estimates.lam)
        beta, phi = estimates.beta, estimates.phi
        if self.located:
            beta, phi = np.concatenate([-phi[:1], beta]), phi[1:]
        return np.concatenate([self.R @ beta, theta, phi])

    @double_precision
    def recovered(self, estimates: Estimates) -> Internal:
        """psi and u from the estimates alone; the mode is found again."""
        psi = self.psi_of(estimates)
        u = jax.device_get(mode_at(self.base, psi)) if self.factors else ()
        return psi, u

    @double_precision
    def working(self, psi: np.ndarray, u: Modes) -> tuple[Problem, np.ndarray]:
        """The Gaussian model next to the mode, and theta (m,)."""
        at = working(self.base, psi, u, self.marginal.hessian)
        return at, self.base.split(psi)[1]

    @double_precision
    def parameter_root(self, psi: np.ndarray, u: Modes) -> np.ndarray:
        """(k, r) root of the covariance of (beta, theta, phi): 2 H^-1 of -2 log L.

        Directions in which the likelihood is flat, and variances at zero, are taken as
        known; flat directions of beta (separation) have a very large variance instead.
        """
        if self.holder is not None:
            own = psi, u, inverse_root
            return held_generalised.root(self, self.holder, *own)
        H = np.asarray(exact.hessian(self.marginal, self.base, psi, u))
        return inverse_root(H, self.pinned(psi), self.base.p)

    def pinned(self, psi: np.ndarray) -> np.ndarray:
        """(k,) which parameters lie on the boundary."""
        _, theta, phi = self.base.split(psi)
        at_zero = self.scales & (np.abs(theta) < SINGULAR)
        at_end = self.base.family.at_end(np.asarray(phi))
        return np.concatenate([np.zeros(self.base.p, bool), at_zero, at_end])

    def beta_covariance(self, root: np.ndarray) -> np.ndarray:
        """(p, p) of the user's beta, from ``parameter_root``.

        By the root, for its directions may differ by many orders of magnitude.
        """
        own = self.R_inverse @ root[: self.base.p]
        if self.holder is not None:
            own[held.coefficients(self.holder)[0]] = 0.0
        return own @ own.T


def _promising(other: GeneralisedFitted, found: GeneralisedFitted) -> bool:
    """Whether a search that stopped within ``ROUGH`` may end better than another."""
    gap = float(other.criterion - found.criterion)
    if gap > ROUGH:
        return False
    apart = np.abs(other.psi - found.psi) > NEARBY * (1 + np.abs(found.psi))
    return gap < -ROUGH or bool(apart.any())


def inverse_hessian(H: np.ndarray, pinned: np.ndarray, p: int = 0) -> np.ndarray:
    """2 H^-1 without pinned rows; see ``inverse_root``."""
    root = inverse_root(H, pinned, p)
    return root @ root.T


def inverse_root(H: np.ndarray, pinned: np.ndarray, p: int = 0) -> np.ndarray:
    """(k, r) root of 2 H^-1 without pinned rows and flat or falling directions.

    A direction that moves the first ``p`` coordinates, beta, is never left out: where
    the likelihood says nothing of a coefficient, its variance is large, not small.
    """
    free = np.flatnonzero(~pinned)
    inner = H[np.ix_(free, free)]
    out = np.zeros((len(H), len(free)))
    if not np.isfinite(inner).all():
        out[free] = np.nan
        return out
    unit = np.sqrt(np.maximum(np.abs(np.diagonal(inner)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(inner / np.outer(unit, unit))
    of_beta = np.linalg.norm(vectors[free < p], axis=0) > MOVES
    keep = (values > FLAT) | of_beta
    values = np.maximum(values, FLATTEST)
    out[free] = np.sqrt(2 / values) * keep * vectors / unit[:, None]
    return out


def without_effects(
    marginal: AbstractMarginal, design: Design, family: AbstractFamily
) -> tuple[AbstractMarginal, Design]:
    """Without random effects: nothing to integrate out, weights as in ``lmm``."""
    return Laplace(marginal.hessian), assemble.precise(design, family)


@double_precision
def build(
    design: Design, family: AbstractFamily, marginal: AbstractMarginal
) -> GeneralisedEngine:
    """Design to engine: rows sorted and padded, and these on the device."""
    located = ordinal.has_location(family)
    X = ordinal.with_ones(design.X) if located else assemble.fixed(design)
    data = build_rows(X, assemble.columns(design))
    family = ordinal.core(family)
    eta, phi = family.start(design.y, design.trials)
    own = tuple(f.covariance for f in data.factors)
    problem = problem_of(design, family, data, own, data.size > LARGE_ROWS)
    cut = {data.size, *data.rows.sizes[:1]}
    if isinstance(data.rows, CutArrow):  # entries and pairs of its coupling as well
        cut |= {x.shape[-1] for x in jax.tree.leaves(data.rows)}
    base, eta = levels.placed((problem, data.place(eta)), cut)
    rest = np.asarray(phi, float), located, design if design.fixed else None
    return GeneralisedEngine(data, base, marginal, eta, *rest)


def problem_of(
    design: Design,
    family: AbstractFamily,
    data: RowData,
    own: tuple[AbstractCovariance, ...],
    sparing: bool = False,
) -> GeneralisedProblem:
    """The problem of a design whose rows are sorted and padded.

    sparing: columns that the design does not have take no place.
    """
    sparing = sparing and bool(data.factors)

    def column(values: np.ndarray | None, default: float) -> np.ndarray:
        if values is None and sparing:
            return np.full(1, default)
        return data.place(default if values is None else values, default)

    weights = design.weights
    return GeneralisedProblem(
        data.rows,
        data.X,
        data.place(design.y, family.padding),
        column(design.trials, 1.0),
        data.used() if weights is None and sparing else _weights(data, weights),
        column(design.offset, 0.0),
        family,
        own,
        assemble.predictors(design),
    )


def _weights(data: RowData, weights: np.ndarray | None) -> np.ndarray:
    """Zero in the padding."""
    return data.place(1.0 if weights is None else weights)


def estimates(
    engine: GeneralisedEngine, design: Design, fitted: GeneralisedFitted
) -> Estimates:
    """Back to the user's coordinates."""
    beta, theta, _ = engine.base.split(fitted.psi)
    factors = engine.factors
    internal = lambdas(engine.base, theta)
    lam = per_term_square(
        factors, [to_user(x, f) for x, f in zip(internal, factors, strict=True)]
    )
    b = [modes(factor, x) for factor, x in zip(factors, fitted.b, strict=True)]
    status = int(fitted.status)
    at_zero = bool((np.abs(theta[engine.scales]) < SINGULAR).any())
    if at_zero and engine.holder is not None:
        at_zero = held_generalised.at_zero(engine, design, fitted.psi)
    own = engine.R_inverse @ beta
    if engine.holder is not None:
        is_held, values = held.coefficients(design)
        own = np.where(is_held, values, own)
    return Estimates(
        beta=own,
        vcov=None,
        sigma=1.0,
        lam=lam,
        theta=pack(design, lam),
        b=per_term(factors, b),
        criterion=float(fitted.criterion),
        reml=engine.marginal.reml,
        converged=status == _status.CONVERGED,
        singular=at_zero or any_at_end(theta, engine.base.covariances),
        status=status,
        n_iter=int(fitted.steps),
        decrement=float(fitted.decrement),
        phi=engine.location.phi(fitted.psi),
    )
