"""Newton's method with the exact Hessian, where the search converges too slowly.

The search steps by average information, made positive row by row where the observed
one is not. With several linear predictors many rows are so (zeros that may be of two
kinds), the stand-in is too large, and convergence is linear. On the host, a step at a
time, with the signs of the Hessian's eigenvalues left out (Greenstadt 1967), halved
until the likelihood rises.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate import hessian as exact
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.estimate.search_steps import within
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime.trees import tree_at

FIRST = 60  # steps of the search before it is told that it is slow
MOST = 25  # steps here
HALVED = 12
REACH = 2.0  # longest step of a coordinate
FLATTEST = 1e-10  # eigenvalue of the Hessian, at unit diagonal, that counts as zero


class Stepped(Protocol):
    """The engine of a generalised model, as far as this needs it."""

    base: GeneralisedProblem
    marginal: AbstractMarginal

    def pinned(self, psi: np.ndarray) -> np.ndarray:
        """(k,) which parameters lie on the boundary."""
        ...


def finished(
    engine: Stepped, found: GeneralisedFitted, tol: float
) -> GeneralisedFitted:
    """The fit from where the search left off, converged where a step gains nothing."""
    psi, u = np.asarray(found.psi, float), found.u
    if not (np.isfinite(psi).all() and np.isfinite(found.criterion)):
        return found
    value, score, u = _look(engine, psi, u)
    if not np.isfinite(value):
        return found
    left, status = float(found.decrement), int(found.status)
    for _ in range(MOST):
        step, left, convex = _step(engine, psi, u, score)
        if step is None:
            break
        if left < tol and convex:
            status = _status.CONVERGED
            break
        ahead = _ahead(engine, psi, u, step, value)
        if ahead is None:
            break
        psi, value, score, u = ahead
        found = tree_at(lambda f: f.steps, found, found.steps + 1)
    return _with(engine, found, psi, u, value, left, status)


def _look(engine: Stepped, psi: np.ndarray, u: Any) -> tuple[float, np.ndarray, Any]:
    """-2 log-likelihood, its score and the mode."""
    value, score, mode = exact.looked.patient(engine.marginal, engine.base, psi, u)
    mode = tuple(np.asarray(x) for x in mode)
    return float(value), np.asarray(score), mode


def _step(
    engine: Stepped, psi: np.ndarray, u: Any, score: np.ndarray
) -> tuple[np.ndarray | None, float, bool]:
    """The step, what it gains, and whether the Hessian is positive."""
    free = ~engine.pinned(psi)
    H = np.asarray(exact.hessian.patient(engine.marginal, engine.base, psi, u))
    g, H = score[free], H[np.ix_(free, free)]
    if not (np.isfinite(g).all() and np.isfinite(H).all()):
        return None, np.inf, False
    unit = np.sqrt(np.maximum(np.abs(np.diagonal(H)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(H / np.outer(unit, unit))
    slope = vectors.T @ (g / unit)
    size = np.maximum(np.abs(values), FLATTEST)
    step = np.zeros(len(psi))
    step[free] = -(vectors @ (slope / size)) / unit
    longest = float(np.max(np.abs(step), initial=0.0))
    left = float(np.sum(slope**2 / size))
    return step * min(1.0, REACH / max(longest, 1e-300)), left, values.min() > -FLATTEST


def _ahead(
    engine: Stepped, psi: np.ndarray, u: Any, step: np.ndarray, value: float
) -> tuple[np.ndarray, float, np.ndarray, Any] | None:
    """The first point along the step where the likelihood is not lower."""
    for k in range(HALVED):
        trial = np.asarray(within(engine.base.family, psi + 0.5**k * step))
        new, score, mode = _look(engine, trial, u)
        if np.isfinite(new) and new <= value + 1e-10 * (1 + abs(value)):
            return trial, new, score, mode
    return None


def _with(
    engine: Stepped,
    found: GeneralisedFitted,
    psi: np.ndarray,
    u: Any,
    value: float,
    left: float,
    status: int,
) -> GeneralisedFitted:
    """The fit at another point."""
    b, eta = exact.effects_at(engine.base, psi, u)
    new = (
        psi,
        u,
        tuple(np.asarray(x) for x in b),
        np.asarray(eta),
        np.float64(value),
        np.float64(left),
        np.int64(status),
    )
    return tree_at(
        lambda f: (f.psi, f.u, f.b, f.eta, f.criterion, f.decrement, f.status),
        found,
        new,
    )
