"""Newton's method with the average information, a step at a time, on the host.

For models of which one evaluation takes seconds to minutes and whose criterion may
have the noise of fixed probes: few evaluations, and a step is judged by what is left to
gain, g'H^-1 g, not by the last digits of a value. With a dense matrix in place of
probes the same search ends on the exact maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate.base import Fitted
from jaxglmm.integrate import exact
from jaxglmm.model.covariances.base import is_scale, jacobian, pack, pulled
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.probed_schur import ProbedFactor
from jaxglmm.numerics.system import Lambdas, scale, scale_transposed

FAR = 0.7  # of theta, or of one: a step moves no parameter by more
COARSE = 1.0  # decrement above which the value has to fall, too
NEAR_ZERO = 1e-3  # as in ``maximise``
BELOW = 0.01  # of the noise's own decrement: a tenth of a Monte Carlo error
DIGITS = 1e-13  # decrements below this are rounding
HALVED = 6  # times at most


class Judged:
    """What a search asks of a point: theta, its value, score, curvature H and noise.

    noise: (k, m) deviations of the score by probe, whose squares add up to the Monte
    Carlo variance; none of an exact score.
    """

    if TYPE_CHECKING:
        theta: np.ndarray
        value: float
        score: np.ndarray
        H: np.ndarray

        @property
        def noise(self) -> np.ndarray: ...

    @property
    def step(self) -> np.ndarray:
        """(m,) to take off theta."""
        unit = np.sqrt(np.maximum(np.diagonal(self.H), np.finfo(float).tiny))
        values, U = np.linalg.eigh(self.H / np.outer(unit, unit))
        kept = np.maximum(values, 1e-10 * np.abs(values).max())
        return U @ ((U.T @ (self.score / unit)) / kept) / unit

    @property
    def decrement(self) -> float:
        """What is left to gain, in units of the criterion."""
        return float(self.score @ self.step) / 2

    def enough(self, tol: float) -> float:
        """The decrement to stop at: far below what the probes' noise makes of it."""
        if abs(self.decrement) > COARSE:
            return min(tol, COARSE)
        if not len(self.noise):
            return tol
        noise = float(np.sum(self.noise * self.theta_noise)) / 2
        return max(BELOW * noise, DIGITS)

    @property
    def theta_noise(self) -> np.ndarray:
        """(k, m) deviations of theta by probe."""
        return self.noise @ np.linalg.pinv(self.H).T


@dataclass(frozen=True)
class ScoredPoint(Judged):
    """The criterion at theta, with its derivatives and what the fit is made of.

    value_noise: (k,) deviations of the criterion by probe, as ``noise`` of the score;
    lean: (m,) derivative of log sigma^2.
    """

    theta: np.ndarray
    value: float
    score: np.ndarray
    H: np.ndarray
    noise: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    value_noise: np.ndarray
    lean: np.ndarray
    fitted: Fitted


def evaluate(problem: Problem, theta: np.ndarray, reml: bool) -> ScoredPoint:
    """One factorisation and all that follows from it; to be called on the host."""
    own = problem.covariances
    lam = problem.lambdas(theta)
    J = jacobian(theta, own)
    d = exact.derivatives(problem, lam, None, reml, J)
    N = float(exact.degrees(problem, reml))
    sigma2 = float(d.at.r2) / N
    value = float(exact.profiled_value(problem, d.at, reml))
    info = d.info - np.outer(d.tv, d.tv) / N
    b = scale(lam, scale_transposed(lam, d.at.t))
    found = theta, d.at.beta, d.at.LQ, sigma2, b, value, np.nan, 0, _status.CONVERGED
    noise, value_noise = np.zeros((0, len(theta))), np.zeros(0)
    if isinstance(d.at.factor, ProbedFactor):
        probed = d.at.factor.probed
        value_noise = probed.spread[0]
        noise = trace_noise(d.at.factor, lam, own, J)
    score, H = np.asarray(d.score), np.asarray(info + d.boundary)
    lean = -np.asarray(d.tv) / N
    return ScoredPoint(theta, value, score, H, noise, value_noise, lean, Fitted(*found))


def trace_noise(
    factor: ProbedFactor, lam: Lambdas, own: Any, J: np.ndarray | None
) -> np.ndarray:
    """(k, m) deviations by probe of what traces say of the score in theta.

    own: covariances of the factors; J: of Lambda's entries in theta.
    """
    spread = factor.probed.spread[1]
    still = factor.sums_to_traces([0 * x for x in spread])
    moved = factor.sums_to_traces(spread)
    G = [a - b for a, b in zip(moved, still, strict=True)]
    rows = []
    for k in range(len(spread[0])):
        each = exact.products([g[k] for g in G], lam, own)
        rows.append(np.asarray(pulled(J, 2 * pack(each, own))))
    return np.stack(rows)


P = TypeVar("P", bound=Judged)


def search(
    at: Callable[[np.ndarray], P],
    theta: np.ndarray,
    tol: float,
    max_steps: int,
) -> tuple[P, int, int]:
    """Where the score vanishes: the point, how many evaluations, and the status."""
    here, n = at(theta), 1
    while n < max_steps:
        if not (np.isfinite(here.value) and np.isfinite(here.step).all()):
            return here, n, _status.NOT_FINITE
        if abs(here.decrement) <= here.enough(tol):
            return here, n, _status.CONVERGED
        most = FAR * np.maximum(1.0, np.abs(here.theta))
        short = min(1.0, float((most / np.maximum(np.abs(here.step), 1e-300)).min()))
        for _ in range(HALVED):
            there, n = at(here.theta - short * here.step), n + 1
            rough = here.decrement > COARSE
            fell = there.value <= here.value + 1e-9 * abs(here.value)
            if np.isfinite(there.value) and (fell or not rough):
                break
            short /= 4
            if n >= max_steps:
                break
        here = there
    done = abs(here.decrement) <= here.enough(tol)
    return here, n, _status.CONVERGED if done else _status.MAX_STEPS


def pinned(problem: Problem, theta: np.ndarray) -> np.ndarray | None:
    """theta with standard deviations next to zero at zero; None without these."""
    near = np.asarray(is_scale(problem.covariances)) & (np.abs(theta) < NEAR_ZERO)
    return np.where(near, 0.0, theta) if (near & (theta != 0.0)).any() else None
