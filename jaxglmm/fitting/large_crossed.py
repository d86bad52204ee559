"""Engine of linear models with large crossed factors, on the host.

By size, or as ``probes`` of ``jg.REML(probes=)`` says:

    columns left after the largest factor    how log|M| and its derivatives are found
    up to ``LARGE``                          as for all models, on the device
    up to ``MOST_DENSE``                     a dense matrix in place, exactly
    more                                     fixed probes and conjugate gradients

Where the device is an accelerator, what its memory takes stands in place of ``LARGE``.

The exact way begins with a search by probes, a hundred times as cheap, and ends with a
few exact steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError, NotApplicableError
from jaxglmm.estimate import scoring, start
from jaxglmm.estimate.base import Fitted
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import linear
from jaxglmm.fitting.large_plan import LargePlan
from jaxglmm.fitting.linear import STEPS, TOLERANCE, Engine
from jaxglmm.formula.design import Design
from jaxglmm.model import assemble, covariances
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.sparse_arrow import SparseArrow
from jaxglmm.runtime import placement
from jaxglmm.runtime.host import on_host
from jaxglmm.runtime.memory import available
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.moments_of_design import MOST_DENSE, Moments, coarse_system

LARGE = 8_000  # columns from which the host's one matrix beats the device's several
PROBES = 64
ENOUGH = 0.8  # of the memory that is free
MATRICES = 8  # of the Schur complement's and the coupling's size that a device holds


class LargeEngine(Engine):
    """One design with large crossed factors; see the module."""

    def __init__(self, moments: Moments, base: Problem, estimator: Maximise):
        super().__init__(moments, base, estimator, _no_program)
        self.facts: dict[str, Any] = {}

    @property
    def probes(self) -> int:
        """Random vectors of the final evaluations; none of an exact fit."""
        if self.estimator.probes is not None:
            return self.estimator.probes
        return PROBES if self.moments.system.m > MOST_DENSE else 0

    @cached_property
    @double_precision
    def problem(self) -> Problem:
        """The problem on the device, for questions that need all of M.

        Raises:
            NotApplicableError: it would not fit there.
        """
        m = self.moments
        if m.system.m > MOST_DENSE or m.counts is not None:
            raise NotApplicableError(
                f"this question needs a dense matrix of the {m.system.m:,} random "
                "effects that are left after the largest factor; at most "
                f"{MOST_DENSE:,} are supported. Estimates, standard errors, random "
                "effects, predictions and the log-likelihood do without"
            )
        return linear.of_moments(coarse_system(m), Maximise(self.reml)).problem

    def on_host(self, probes: int) -> Problem:
        """The problem for evaluations by ``probes`` random vectors."""
        B, RR = assemble.right_sides(self.moments)
        system = self.moments.system.with_probes(probes)
        return tree_at(lambda p: (p.system, p.B, p.RR), self.base, (system, B, RR))

    @double_precision
    def fit(
        self,
        tol: float = TOLERANCE,
        max_steps: int = STEPS,
        theta: np.ndarray | None = None,
    ) -> tuple[Fitted, float]:
        """Fit; arrays as NumPy, and the criterion with its constants.

        theta: (m,) where to start, in internal coordinates; by moments where None.

        Raises:
            ModelError: the dense matrix of an exact fit is larger than the memory.
        """
        columns, probes = self.moments.system.m, self.probes
        memory = 8.0 * columns**2
        free = available()
        if not probes and free is not None and memory > ENOUGH * free:
            raise ModelError(
                f"{columns:,} columns are left after the largest factor: exactly, they "
                f"need a matrix of {memory / 1e9:.3g} GB, and {free / 1e9:.3g} GB are "
                f"free. Fit by method=jg.REML(probes={PROBES})"
            )
        with on_host():
            first = self.on_host(probes or PROBES)
            theta = np.asarray(start.moments(first) if theta is None else theta, float)
            point, n, status, seconds = self._searched(first, theta, tol, max_steps)
            counts, times = [n, 0], [seconds, 0.0]
            if not probes and status != _status.NOT_FINITE:
                last = self.on_host(0)
                point, n, status, seconds = self._searched(
                    last, point.theta, tol, max_steps
                )
                counts[1], times[1] = n, seconds
        entries = int(self.moments.system.N.nnz)
        plan = LargePlan(
            columns,
            entries,
            probes,
            memory,
            (counts[0], counts[1]),
            (times[0], times[1]),
        )
        self.facts = {"large": asdict(plan)} | self._noise(point)
        ml, reml = assemble.constants(self.moments)
        criterion = point.value + (reml if self.reml else ml)
        done = {"steps": sum(counts), "status": status, "decrement": point.decrement}
        fields = {name: getattr(point.fitted, name) for name in Fitted._names} | done
        return Fitted(**fields), criterion

    def _searched(
        self, problem: Problem, theta: np.ndarray, tol: float, max_steps: int
    ) -> tuple[scoring.ScoredPoint, int, int, float]:
        """The search, and once more where standard deviations are next to zero."""
        began = time.perf_counter()

        def at(x: np.ndarray) -> scoring.ScoredPoint:
            return scoring.evaluate(problem, x, self.reml)

        found, n, status = scoring.search(at, theta, tol, max_steps)
        zero = scoring.pinned(problem, found.theta)
        if zero is not None:
            there, n = at(zero), n + 1
            error = float(np.sqrt(np.sum(found.value_noise**2)))
            if there.value <= found.value + 1e-8 * abs(found.value) + error:
                found = there
        return found, n, status, time.perf_counter() - began

    def _noise(self, point: scoring.ScoredPoint) -> dict[str, Any]:
        """What another step would change of standard deviations; their errors, if any.

        Monte Carlo errors of these and of the criterion, with what the tolerances of
        the solutions and of the search may add.
        """
        theta, moved = point.theta, point.theta_noise
        here = self._deviations(theta, 0.0)
        slopes = []
        for a in range(len(theta)):
            step = 1e-4 * max(1.0, abs(theta[a]))
            e = step * np.eye(len(theta))[a]
            there = self._deviations(theta + e, step * point.lean[a])
            slopes.append((there - here) / step)
        size = np.sqrt(float(point.fitted.sigma2)) * self.moments.fixed.scale
        left = -size * point.step @ np.stack(slopes)
        out: dict[str, Any] = {"step_left": left.tolist()}
        if not len(point.noise):
            return out
        each = size * moved @ np.stack(slopes)
        errors = np.sqrt(np.sum(each**2, axis=0) + left**2)
        out["monte_carlo"] = {
            "probes": int(self.probes),
            "sd": errors.tolist(),
            "criterion": float(np.sqrt(np.sum(point.value_noise**2))),
        }
        return out

    def _deviations(self, theta: np.ndarray, moved: float) -> np.ndarray:
        """Standard deviations over the residual's, times exp(moved / 2), by term."""
        return np.exp(moved / 2) * deviations(self.base, self.factors, theta)

    def for_response(self, y: np.ndarray) -> LargeEngine:
        """The same design with another response (n,), offset taken off."""
        return LargeEngine(self.moments.respond(y), self.base, self.estimator)

    def with_method(self, reml: bool) -> LargeEngine:
        """The same problem by the other criterion."""
        estimator = Maximise(reml, self.estimator.probes)
        return LargeEngine(self.moments, self.base, estimator)


def deviations(
    problem: Problem | GeneralisedProblem, factors: Sequence[Factor], theta: np.ndarray
) -> np.ndarray:
    """Standard deviations over the residual's, by term, in the user's coordinates."""
    roots = linear.roots(factors, linear.lambdas(problem, theta))
    return np.concatenate([np.sqrt(np.sum(x**2, axis=-1)) for x in roots])


def _no_program(numbers: np.ndarray) -> Any:
    raise NotApplicableError("large crossed factors have no compiled search")


def is_large(design: Design, estimator: Maximise) -> bool:
    """Whether crossed factors are too large for the device's way, or asked to be."""
    eliminated, columns = columns_left(design)
    if not columns:
        return False
    if estimator.probes is not None:
        return True
    return not has_known(design) and columns > most_on_device(eliminated)


def columns_left(design: Design) -> tuple[int, int]:
    """Random effects of the largest factor, and of all the others together."""
    sizes: dict[str, list[int]] = {}
    for term in design.terms:
        known = sizes.setdefault(term.factor, [term.n_levels, 0])
        known[1] += term.values.shape[1]
    if not sizes:
        return 0, 0
    first = max(sizes.values(), key=lambda x: x[0])
    eliminated = first[0] * first[1]
    return eliminated, sum(J * q for J, q in sizes.values()) - eliminated


def has_known(design: Design) -> bool:
    """Whether levels have a covariance between them that is known."""
    return any(isinstance(covariances.of(t), _KNOWN) for t in design.terms)


def most_on_device(eliminated: int) -> int:
    """Columns left up to which M is on the device, after so many were eliminated."""
    memory = placement.memory()
    if memory is None:
        return LARGE
    numbers = ENOUGH * memory / (8 * MATRICES)  # m (m + eliminated)
    most = (np.sqrt(eliminated**2 + 4 * numbers) - eliminated) / 2
    return int(min(most, MOST_DENSE))


_KNOWN = covariances.KnownBetweenLevels


@double_precision
def build(design: Design, estimator: Maximise) -> Engine:
    """Design to engine, by size."""
    large = is_large(design, estimator)
    moments = assemble.moments(design, "sparse" if large else None)
    return of_moments(moments, estimator)


@double_precision
def of_moments(moments: Moments, estimator: Maximise) -> Engine:
    """The engine of cross-products, wherever they come from, by size."""
    if isinstance(moments.system, SparseArrow):
        return LargeEngine(moments, assemble.problem(moments), estimator)
    return linear.of_moments(moments, estimator)


def rebuild(design: Design, reml: bool) -> Engine:
    """The engine of a fit that came from a file."""
    return build(design, Maximise(reml))
