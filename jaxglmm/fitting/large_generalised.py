"""Engine of generalised models whose crossed factors leave many columns, on the host.

The counterpart of ``large_crossed``: beyond ``MOST_DENSE`` columns, or where
``jg.Laplace(probes=)`` asks for it, log|M| and its derivatives are by fixed random
vectors and conjugate gradients, on the rows in memory. The search begins with few
probes and ends with all of them.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError, NotApplicableError
from jaxglmm.estimate import scoring
from jaxglmm.estimate import scoring_generalised as probed
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.estimate.scoring_generalised import ProbedPoint
from jaxglmm.estimate.start_generalised import start
from jaxglmm.fitting import large_crossed, ordinal
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.generalised import (
    GeneralisedEngine,
    Internal,
    Modes,
    inverse_root,
    problem_of,
)
from jaxglmm.fitting.held import Given
from jaxglmm.fitting.large_crossed import PROBES
from jaxglmm.fitting.large_plan import LargePlan
from jaxglmm.fitting.linear import SAFETY
from jaxglmm.formula.design import Design
from jaxglmm.integrate import laplace
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.model import assemble
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.host import on_host
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.moments_of_design import MOST_DENSE
from jaxglmm.structure.rows_of_design import build_rows
from jaxglmm.structure.sparse_rows import SparseRows, too_large

ROUGH = 1e-6  # of the criterion that is left where few probes end
CLOSE = 1e-3  # change of parameters by which a Hessian stays as it is
FEWER = 4  # times fewer probes on the way, and for the Hessian
LEAST = 16  # of these


class LargeGeneralisedEngine(GeneralisedEngine):
    """One design and response with large crossed factors; see the module."""

    facts: dict[str, Any]

    @property
    def rows(self) -> SparseRows:
        """Those of the problem."""
        assert isinstance(self.base.rows, SparseRows)
        return self.base.rows

    @property
    def _few(self) -> int:
        """Probes on the way, and for the Hessian."""
        return max(min(LEAST, self.rows.probes), self.rows.probes // FEWER)

    @double_precision
    def fit(self, tol: float = 1e-8, max_steps: int = 200) -> GeneralisedFitted:
        """Fit; arrays as NumPy."""
        if self.holder is not None:
            raise ModelError(_HELD)
        return self._free(tol, max_steps)

    def fit_from(
        self, design: Design, start: Given, tol: float, max_steps: int
    ) -> GeneralisedFitted:
        """Refused: there is one start."""
        raise ModelError(_HELD)

    @double_precision
    def searched_from(
        self, psi: np.ndarray, u: Modes, tol: float, max_steps: int
    ) -> GeneralisedFitted:
        """The search from psi (k,) and u, with all probes."""
        with on_host():
            point, n, status = self._search(self.rows.probes, psi, u, tol, max_steps)
            return point.as_fitted(n, status)

    def _free(self, tol: float, max_steps: int) -> GeneralisedFitted:
        probes, began = self.rows.probes, time.perf_counter()
        with on_host():
            psi, u = start(self.base, self.eta, self.phi)
            psi, steps, H = np.asarray(psi), 0, None
            if self._few < probes:
                few = self._few, psi, u, max(tol, ROUGH), max_steps
                point, steps, status = self._search(*few)
                if np.isfinite(point.value):
                    psi, u = point.theta, point.u
                if status == _status.CONVERGED:
                    H = self._hessian(psi, u)
            own = probes, psi, u, SAFETY * tol, max(max_steps - steps, 1), H
            point, n, status = self._search(*own)
            steps += n
            seconds = time.perf_counter() - began
            self.facts = self._plan(steps, seconds) | self._noise(point)
            return point.as_fitted(steps, status)

    def _search(
        self,
        probes: int,
        psi: np.ndarray,
        u: Effects,
        tol: float,
        max_steps: int,
        H: np.ndarray | None = None,
    ) -> tuple[ProbedPoint, int, int]:
        """The search, and once more where standard deviations are next to zero.

        H: the Hessian next to the end, in place of the average information.
        """
        problem = probed.with_probes(self.base, probes)
        last: list[ProbedPoint] = []

        def at(x: np.ndarray) -> ProbedPoint:
            known = last[-1].followed(x) if last else u
            found = probed.evaluate(self.marginal, problem, x, known)
            if not np.isfinite(found.value):
                return found
            if H is not None:
                found = replace(found, H=H)
            if last and "noise" in vars(last[-1]):  # it hardly changes
                found = replace(found, bound=last[-1].enough(tol))
            elif last:
                found = replace(found, bound=last[-1].bound)
            last[:] = [found]
            return found

        found, n, status = scoring.search(at, psi, tol, max_steps)
        zero = probed.pinned(problem, found.theta)
        if zero is not None and np.isfinite(found.value):
            there, n = at(zero), n + 1
            error = float(np.sqrt(np.sum(found.value_noise**2)))
            if there.value <= found.value + 1e-8 * abs(found.value) + error:
                found = there
        return found, n, status

    def _plan(self, steps: int, seconds: float) -> dict[str, Any]:
        rows = self.rows
        m = rows.m
        first = rows.codes[0].astype(np.int64)
        entries = 0
        for codes, J, z in zip(rows.codes[1:], rows.sizes[1:], rows.z[1:], strict=True):
            entries += len(np.unique(first * J + codes)) * len(z) * len(rows.z[0])
        counted = (steps, 0), (seconds, 0.0)
        plan = LargePlan(m, entries, rows.probes, 8.0 * m**2, *counted)
        return {"large": asdict(plan)}

    def _noise(self, point: ProbedPoint) -> dict[str, Any]:
        """Monte Carlo errors, with what another step would change."""
        if point.at is None:
            return {}
        p, m = self.base.p, self.base.m
        here = point.theta[p : p + m]
        base = large_crossed.deviations(self.base, self.factors, here)
        slopes = []
        for a in range(m):
            e = 1e-4 * max(1.0, abs(here[a])) * np.eye(m)[a]
            there = large_crossed.deviations(self.base, self.factors, here + e)
            slopes.append((there - base) / e[a])
        turn = np.stack(slopes)
        moved, step = point.theta_noise, point.step
        left = -step[p : p + m] @ turn
        sd = np.sqrt(np.sum((moved[:, p : p + m] @ turn) ** 2, axis=0) + left**2)
        back = self.R_inverse
        coef = moved[:, :p] @ back.T
        apart = back @ step[:p]
        errors = {
            "probes": int(self.rows.probes),
            "sd": sd.tolist(),
            "coef": np.sqrt(np.sum(coef**2, axis=0) + apart**2).tolist(),
            "criterion": float(np.sqrt(np.sum(point.value_noise**2))),
        }
        return {"monte_carlo": errors, "step_left": left.tolist()}

    @double_precision
    def for_response(
        self, y: np.ndarray, trials: np.ndarray | None = None
    ) -> LargeGeneralisedEngine:
        """The same design with another response (n,)."""
        family, place = self.base.family, self.data.place
        eta, phi = family.start(y, trials)
        base = tree_at(lambda p: p.y, self.base, place(y, family.padding))
        own = np.asarray(phi, float), self.located, self.holder
        return LargeGeneralisedEngine(self.data, base, self.marginal, place(eta), *own)

    @double_precision
    def recovered(self, estimates: Estimates) -> Internal:
        """psi and u from the estimates alone; the mode is found again."""
        psi = self.psi_of(estimates)
        beta, theta, phi = self.base.split(psi)
        zero = tuple(
            np.zeros((q, 1, J))
            for q, J in zip(self.base.sides, self.rows.sizes, strict=True)
        )
        with on_host():
            lam = self.base.lambdas(theta)
            return psi, laplace.find_mode(self.base, beta, lam, phi, zero).u

    def working(self, psi: np.ndarray, u: Modes) -> tuple[Problem, np.ndarray]:
        """Refused: what is asked of it takes a dense matrix."""
        raise NotApplicableError(too_large(self.rows.m))

    @double_precision
    def parameter_root(self, psi: np.ndarray, u: Modes) -> np.ndarray:
        """(k, r) root of the covariance of (beta, theta, phi): 2 H^-1 of -2 log L.

        The Hessian by differences of the score of fewer probes.
        """
        held = self.pinned(psi)
        known = self._known
        near = known is not None and np.abs(known[0] - psi).max() < CLOSE
        with on_host():
            H = known[1] if known is not None and near else self._differences(psi, u)
        return inverse_root(H, held, self.base.p)

    _known: tuple[np.ndarray, np.ndarray] | None = None  # psi, and the Hessian there

    def _differences(self, psi: np.ndarray, u: Modes) -> np.ndarray:
        problem = probed.with_probes(self.base, self._few)
        return probed.hessian(self.marginal, problem, psi, u, ~self.pinned(psi))

    def _hessian(self, psi: np.ndarray, u: Modes) -> np.ndarray | None:
        """The Hessian, kept for standard errors; None where it is not positive."""
        if self.pinned(psi).any():
            return None
        H = self._differences(psi, u)
        if not np.isfinite(H).all() or np.linalg.eigvalsh(H).min() <= 0:
            return None
        self._known = psi, H
        return H


_HELD = (
    "fixed= and start= are for crossed factors of which a dense matrix is made, of at "
    f"most {MOST_DENSE:,} columns after the largest factor; leave them out"
)


def probes_for(design: Design, marginal: AbstractMarginal) -> int:
    """Random vectors for the crossed factors of a design; none for a dense matrix.

    Raises:
        ModelError: they are asked for where they cannot be.
    """
    asked = marginal.probes
    columns = large_crossed.columns_left(design)[1]
    if design.parts or marginal.reml or marginal.hessian != "observed":
        if asked and columns:
            raise ModelError(
                f"probes={asked} of crossed factors is for models of one linear "
                "predictor, by maximum likelihood and hessian='observed'; leave it out"
            )
        return 0
    if asked is not None:
        return asked
    if columns <= MOST_DENSE or large_crossed.has_known(design):
        return 0
    return PROBES


@double_precision
def build(
    design: Design, family: AbstractFamily, marginal: AbstractMarginal, probes: int
) -> LargeGeneralisedEngine | None:
    """Design to engine; None where factors are no crossed ones after all."""
    located = ordinal.has_location(family)
    X = ordinal.with_ones(design.X) if located else assemble.fixed(design)
    data = build_rows(X, assemble.columns(design), probes)
    if not isinstance(data.rows, SparseRows):
        return None
    family = ordinal.core(family)
    eta, phi = family.start(design.y, design.trials)
    own = tuple(f.covariance for f in data.factors)
    base = problem_of(design, family, data, own)
    rest = np.asarray(phi, float), located, design if design.fixed else None
    return LargeGeneralisedEngine(data, base, marginal, data.place(eta), *rest)
