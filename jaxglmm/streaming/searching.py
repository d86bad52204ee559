"""The maximum of a marginal likelihood whose rows are in parts.

Given psi the levels of one factor are independent: each block finds its modes and gives
-2 log-likelihood, score and exact Hessian, which add up. The search begins where one
block's own fit ended, goes on with a part, which is a sample of the levels, and ends
with Newton's method on all of them: there the error squares from step to step, so few
passes are left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.estimate import generalised as laplace
from jaxglmm.estimate import hessian as exact
from jaxglmm.fitting.linear import SINGULAR
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.model.covariances.base import is_scale
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime import hosted
from jaxglmm.runtime.executors import in_order
from jaxglmm.runtime.precision import double_precision
from jaxglmm.streaming.parts import LevelBlock, Parts
from jaxglmm.structure.moments_of_design import UNROLLED

LONGEST = 1.0  # change of a parameter in a step, in internal coordinates
FLAT = 1e-9  # eigenvalue of the Hessian, at unit diagonal, that is raised to this
ROUNDING = 1e-13  # of -2 log-likelihood, that does not count as a rise
NEAR_ZERO = 1e-3  # a diagonal of Lambda that is tried at zero
LIFTED = 0.1  # where one goes on from that was at zero, and should not be
HALVED = 12


@dataclass
class AllModes:
    """u (q, J) of all levels, in their order; or of ``some``, ascending."""

    values: np.ndarray
    some: np.ndarray | None = None

    def of(self, block: LevelBlock, size: int) -> np.ndarray:
        """(q, 1, J) of a block, padded."""
        out = np.zeros((len(self.values), 1, size))
        out[:, 0, : len(block.levels)] = self.values[:, self._places(block)]
        return out

    def keep(self, block: LevelBlock, u: np.ndarray) -> None:
        """Remember those of a block."""
        self.values[:, self._places(block)] = u[:, 0, : len(block.levels)]

    def _places(self, block: LevelBlock) -> np.ndarray:
        own = block.levels
        return own if self.some is None else np.searchsorted(self.some, own)


@dataclass(frozen=True)
class SearchPoint:
    """-2 log-likelihood at psi, its score (k,) and exact Hessian (k, k)."""

    psi: np.ndarray
    value: float
    score: np.ndarray
    H: np.ndarray


@dataclass(frozen=True)
class SearchEnd:
    """Where a search ended; gain: what another step would still gain."""

    at: SearchPoint
    gain: float
    steps: int
    status: int


Evaluate = Callable[[np.ndarray], SearchPoint]


def evaluated(
    marginal: AbstractMarginal,
    psi: np.ndarray,
    blocks: Iterable[LevelBlock],
    u: AllModes,
) -> SearchPoint:
    """The sums over blocks, in their order; u is moved to the modes."""
    k = len(psi)
    value, score, H = 0.0, np.zeros(k), np.zeros((k, k))
    alone = len(u.values) > UNROLLED  # LAPACK's batched calls wait for each other

    def one(block: LevelBlock) -> tuple[float, np.ndarray, np.ndarray]:
        return _of_block(marginal, psi, block, u)

    for own, slope, curvature in in_order(one, blocks, 1 if alone else None):
        value += own
        score += slope
        H += curvature
    return SearchPoint(psi, value, score, H)


@dataclass(frozen=True)
class PartWork:
    """The sums over a part at psi, wherever they are made: a part's number and u."""

    marginal: AbstractMarginal
    psi: np.ndarray
    parts: Parts

    @double_precision
    def __call__(self, item: tuple[int, AllModes]) -> tuple[SearchPoint, AllModes]:
        """The sums, and u moved to the modes."""
        k, u = item
        blocks = self.parts.blocks(k)
        return evaluated(self.marginal, self.psi, blocks, u), u


def evaluated_there(
    pool: Executor,
    marginal: AbstractMarginal,
    psi: np.ndarray,
    parts: Parts,
    u: AllModes,
    done: Callable[[int], Any],
) -> SearchPoint:
    """``evaluated``, of parts by an executor; done: told the rows of each."""
    places = [np.flatnonzero(parts.part_of == k) for k in range(parts.count)]
    items = ((k, AllModes(u.values[:, at], at)) for k, at in enumerate(places))
    work = PartWork(marginal, psi, parts)
    value, score, H = 0.0, np.zeros(len(psi)), np.zeros((len(psi), len(psi)))
    for k, (own, moved) in enumerate(in_order(work, items, pool=pool)):
        u.values[:, places[k]] = moved.values
        value, score, H = value + own.value, score + own.score, H + own.H
        done(int(parts.rows[k]))
    return SearchPoint(psi, value, score, H)


def _of_block(
    marginal: AbstractMarginal, psi: np.ndarray, block: LevelBlock, u: AllModes
) -> tuple[float, np.ndarray, np.ndarray]:
    """-2 log-likelihood, score and Hessian of a block."""
    problem = block.problem
    start = (u.of(block, problem.rows.sizes[0]),)
    own, slope, mode = exact.looked(marginal, problem, psi, start)
    curvature = exact.hessian(marginal, problem, psi, mode)
    value, score, (found,), H = jax.device_get((own, slope, mode, curvature))
    if np.isfinite(value):
        u.keep(block, np.asarray(found))
    return float(value), np.asarray(score), np.asarray(H)


@double_precision
@hosted.one_fit
def started(
    marginal: AbstractMarginal, block: LevelBlock, max_steps: int
) -> np.ndarray:
    """psi (k,) where the fit of one block ends.

    Raises:
        ModelError: it ends nowhere.
    """
    base = block.problem
    y, trials = np.asarray(base.y), np.asarray(base.trials)
    eta, phi = base.family.start(y, None if len(trials) == 1 else trials)
    rows = f"{block.rows} rows of {len(block.levels)} levels"
    return np.asarray(begun(marginal, base, (eta, phi), 1e-6, max_steps, rows).psi)


def begun(
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    guess: tuple[np.ndarray, Any],
    tol: float,
    max_steps: int,
    rows: str,
) -> laplace.GeneralisedFitted:
    """Where the fit of some rows ends; guess: eta and phi; rows: them in words.

    Raises:
        ModelError: it ends nowhere.
    """
    eta, phi = guess
    given = np.array([*np.asarray(phi, float), tol, max_steps, 0.0])
    flat, each = laplace.fit_numbers(marginal, problem, eta, given)
    found = laplace.unpack(laplace.shapes(problem), np.asarray(flat), np.asarray(each))
    if not np.isfinite(found.psi).all():
        raise ModelError(
            f"no likelihood was found to begin with, of {rows} (status "
            f"{_status.NAMES[int(found.status)]}): look for huge values among the "
            "predictors, or a link that the data leave"
        )
    return found


def minimised(
    evaluate: Evaluate,
    psi: np.ndarray,
    scales: np.ndarray,
    tol: float,
    max_steps: int,
) -> SearchEnd:
    """Newton's method with the exact Hessian.

    Args:
        evaluate: psi -> the sums there; a pass.
        psi: where to begin.
        scales: (k,) which parameters are diagonals of Lambda.
        tol: stop where a step would gain less.
        max_steps: evaluations at most.
    """
    at, steps = evaluate(psi), 1
    if not np.isfinite(at.value):
        return SearchEnd(at, np.inf, steps, _status.NOT_FINITE)
    while True:
        lifted = scales & (at.psi == 0.0) & (np.diagonal(at.H) < 0.0)
        step, gain = newton_step(at, scales)
        if gain < tol and not lifted.any():
            return SearchEnd(at, gain, steps, _status.CONVERGED)
        if steps >= max_steps:
            return SearchEnd(at, gain, steps, _status.MAX_STEPS)
        trial = at.psi - step * min(1.0, LONGEST / np.abs(step).max(initial=1e-300))
        trial = np.where(lifted, LIFTED, trial)
        trial = np.where(scales & (np.abs(trial) < NEAR_ZERO * SINGULAR), 0.0, trial)
        new, halved = evaluate(trial), 0
        steps += 1
        slack = ROUNDING * abs(at.value)
        while not new.value <= at.value + slack and halved < HALVED:
            if steps >= max_steps:
                return SearchEnd(at, gain, steps, _status.MAX_STEPS)
            halved += 1
            trial = (trial + at.psi) / 2
            new = evaluate(trial)
            steps += 1
        if not new.value <= at.value + slack:
            return SearchEnd(at, gain, steps, _status.STALLED)
        at = new


def newton_step(at: SearchPoint, scales: np.ndarray) -> tuple[np.ndarray, float]:
    """H^-1 g with eigenvalues made positive, and what it gains; zeros stay there."""
    free = ~(scales & (at.psi == 0.0))
    H, g = at.H[np.ix_(free, free)], at.score[free]
    unit = np.sqrt(np.maximum(np.abs(np.diagonal(H)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(H / np.outer(unit, unit))
    turned = vectors.T @ (g / unit)
    along = turned / np.maximum(np.abs(values), FLAT)
    step = np.zeros(len(at.psi))
    step[free] = (vectors @ along) / unit
    return step, float(turned @ along)


def ended(end: SearchEnd, scales: np.ndarray) -> SearchEnd:
    """One more step where it is too small to be looked at."""
    if end.status != _status.CONVERGED:
        return end
    step, gain = newton_step(end.at, scales)
    psi = end.at.psi - step
    at = replace(end.at, psi=psi, value=end.at.value - gain / 2)
    return replace(end, at=at)


def scales_of(own: tuple[Any, ...], p: int, n_phi: int) -> np.ndarray:
    """(k,) which of psi are diagonals of Lambda."""
    return np.array([False] * p + is_scale(own).tolist() + [False] * n_phi)
