"""Newton's method with the exact Hessian, in coordinates that follow the covariance.

Where random slopes have a mean that the fixed effects lack, their covariance is nearly
of rank one, and two things fail in the search of ``maximise``. The average information
overstates the curvature by orders of magnitude, so that convergence is linear with a
rate next to one; and the lower triangle Lambda bends the way to the optimum, for the
large direction has to move from one column to another. Both are mended here: columns
of Z are turned to the eigenvectors of the present covariance, the largest first, where
Lambda is diagonal and a change of the large direction is one entry; and the Hessian is
exact, with the absolute values of its eigenvalues.

On the host, a step at a time, by the program that Satterthwaite's method uses
(``information.curvature``): nothing new is compiled. Slower a step than ``maximise``
and sure, it is for what that leaves undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Float
from jaxglmm.estimate import information
from jaxglmm.estimate.base import Fitted
from jaxglmm.estimate.maximise import Maximise, fit_compiled
from jaxglmm.model.covariances.host import host_lambdas, host_theta
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics.system import AbstractSystem
from jaxglmm.runtime import placement
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.moments_of_design import Moments, rotated

FIRST_STEPS = 40  # of the compiled search; few fits take more than 15
NO_RESIDUAL = 1e-12  # residual variance over that of least squares
LEAST = 1e-10  # eigenvalues of the scaled Hessian are kept above this
START, LIGHT, HOPELESS = 1e-3, 1e-2, 1e8  # damping
TURN = 4  # accepted steps after which the coordinates are turned again
ROUNDING = 1e-6  # decrements below this that no step lowers are rounding
DIGITS = 1e-12  # of the criterion: a gain that is none
DOWNWARD = -1e-5  # an eigenvalue of the scaled Hessian that is truly negative

Turned = Callable[[Sequence[np.ndarray]], AbstractSystem]


@dataclass(frozen=True)
class Refined:
    """theta: (m,) in the coordinates of the problem; value: of the criterion there.

    decrement: what is left to gain, in units of the criterion; steps: evaluations.
    """

    theta: Float[np.ndarray, " m"]
    value: float
    decrement: float
    steps: int
    status: int


@dataclass
class _Point:
    """The criterion with its derivatives over theta, sigma profiled out."""

    theta: np.ndarray
    value: float
    g: np.ndarray
    H: np.ndarray

    @property
    def finite(self) -> bool:
        parts = (self.value, self.g.sum(), self.H.sum())
        return bool(np.isfinite(parts).all())


@dataclass
class _Step:
    """x: (m,) to take off theta; decrement; lowest: eigenvalue and its direction."""

    x: np.ndarray
    decrement: float
    lowest: float
    direction: np.ndarray


class TurnedProblem:
    """The problem with the columns of Z turned, and the way back."""

    def __init__(
        self,
        problem: Problem,
        factors: Sequence[Factor],
        turned: Turned,
    ):
        self.base, self.problem, self._turned = problem, problem, turned
        self.spans = [_spans(f) for f in factors]
        self.U = [np.eye(f.q) for f in factors]
        self.B = [np.asarray(b) for b in problem.B]
        self.turns = any(self.spans)

    def turn(self, theta: np.ndarray) -> np.ndarray:
        """Turn the columns to where Lambda is diagonal; theta there."""
        out = []
        for k, lam in enumerate(host_lambdas(theta, self.problem.covariances)):
            U = np.eye(len(lam))
            for a, b in self.spans[k]:
                V, s, _ = np.linalg.svd(lam[a:b, a:b])
                U[a:b, a:b] = V
                lam[a:b, a:b] = np.diag(s)
            self.U[k] = self.U[k] @ U
            out.append(lam)
        B = [
            np.einsum("ia,ipg->apg", U, b) for U, b in zip(self.U, self.B, strict=True)
        ]
        new = placement.beside((self._turned(self.U), tuple(B)), self.base)
        self.problem = tree_at(lambda p: (p.system, p.B), self.base, new)
        return host_theta(out, self.problem.covariances)

    def back(self, theta: np.ndarray) -> np.ndarray:
        """theta in the coordinates of the problem as given."""
        out = []
        for U, lam, spans in zip(
            self.U,
            host_lambdas(theta, self.problem.covariances),
            self.spans,
            strict=True,
        ):
            for a, b in spans:
                lam[a:b, a:b] = triangular(U[a:b, a:b] @ lam[a:b, a:b])
            out.append(lam)
        return host_theta(out, self.problem.covariances)


def fit(
    m: Moments,
    problem: Problem,
    estimator: Maximise,
    tol: float,
    max_steps: int,
) -> Fitted:
    """Fit ``problem``, of the design of ``m``: the compiled search, then this one."""
    first = np.int64(min(max_steps, FIRST_STEPS))
    fitted = fit_compiled(estimator, problem, np.float64(tol), first)
    if fitted.status == _status.CONVERGED or not fitted.sigma2 > NO_RESIDUAL:
        return fitted

    def at(theta: np.ndarray) -> Fitted:
        return fit_compiled(estimator, problem, np.float64(tol), np.int64(1), theta)

    return finished(m, problem, fitted, estimator.reml, tol, max_steps, at, tol)


def finished(
    m: Moments,
    problem: Problem,
    fitted: Fitted,
    reml: bool,
    tol: float,
    max_steps: int,
    at: Callable[[np.ndarray], Fitted],
    asked: float,
) -> Fitted:
    """``fitted``, or what ``finish`` found beyond it.

    at: the compiled evaluation at a theta (m,); asked: what may be left to gain, not
    less than ``tol``, at which the search aims.
    """
    best = finish(m, problem, fitted, reml, tol, max_steps)
    found = float(fitted.criterion)
    known = fitted.status == _status.CONVERGED
    least = max(asked, DIGITS * abs(found))
    if best is None or (known and best.value > found - least):
        return fitted
    status = _status.CONVERGED if best.decrement < asked else best.status
    return tree_at(
        lambda f: (f.decrement, f.steps, f.status),
        at(np.asarray(best.theta)),
        (best.decrement, min(fitted.steps + best.steps, max_steps), status),
    )


def finish(
    m: Moments,
    problem: Problem,
    fitted: Fitted,
    reml: bool,
    tol: float,
    max_steps: int,
) -> Refined | None:
    """Go on where ``fitted`` stopped; None where nothing better can be said.

    max_steps: of both searches together. Where none is left, a step is looked at but
    not taken: its decrement is an honest one.
    """
    theta = np.asarray(fitted.theta)
    left = max(max_steps - int(fitted.steps), 1)
    best: Refined | None = None
    for start in (theta, _plain(problem)):
        if not np.isfinite(start).all():
            continue
        coordinates = TurnedProblem(problem, m.factors, partial(rotated, m))
        found = search(coordinates, start, reml, tol, left)
        if np.isfinite(found.value) and (best is None or found.value < best.value):
            best = found
        left -= found.steps
        if left < 1 or found.status == _status.CONVERGED:
            break
    return best


def _plain(problem: Problem) -> np.ndarray:
    """Lambda = I."""
    return np.asarray(problem.start, float)


def search(
    coordinates: TurnedProblem,
    theta: Float[np.ndarray, " m"],
    reml: bool,
    tol: float,
    max_steps: int,
) -> Refined:
    """Minimise the criterion from ``theta``; ``tol`` is in units of the criterion."""
    here: _Point | None = None
    x = coordinates.turn(theta) if coordinates.turns else np.array(theta, float)
    mu, since, idle, gain = START, 0, 0, np.inf
    status, steps = _status.MAX_STEPS, 0
    step = _Step(np.zeros_like(x), np.inf, 0.0, np.zeros_like(x))
    while steps < max_steps:
        at = _evaluate(coordinates.problem, x, reml)
        steps += 1
        if here is None and not at.finite:
            return Refined(theta, at.value, np.inf, steps, _status.NOT_FINITE)
        # rounding of a sum of n terms: a step that loses no more has lost nothing
        slack = 1e-9 + 1e-12 * abs(here.value) if here is not None else 0.0
        ok = at.finite and (here is None or at.value <= here.value + slack)
        if ok:
            idle = idle + 1 if here is not None and here.value - at.value < slack else 0
            here, since, mu = at, since + 1, max(0.1 * mu, 1e-12)
        else:
            mu = max(10 * mu, 0.1)
        assert here is not None
        step = _newton(here, mu)
        gain = step.decrement
        arrived = ok and mu <= LIGHT and (gain < tol or (idle > 1 and gain < ROUNDING))
        lost = not ok and gain < tol  # in the rounding of the criterion
        if arrived or lost:
            if step.lowest > DOWNWARD or idle > 1:
                status = _status.CONVERGED
                break
            x = here.theta + step.direction  # off a saddle
            continue
        if mu > HOPELESS:
            status = _status.STALLED
            break
        if coordinates.turns and (since > TURN or (not ok and since > 1)):
            turned = coordinates.turn(here.theta)
            here, since = _evaluate(coordinates.problem, turned, reml), 0
            step = _newton(here, mu)
        x = here.theta - step.x
    if here is None:
        return Refined(theta, np.inf, np.inf, steps, _status.MAX_STEPS)
    end = here.theta
    if status == _status.CONVERGED and gain < tol:
        end = end - step.x
    gain = gain if status == _status.CONVERGED else 0.5 * _newton(here, 0.0).decrement
    return Refined(coordinates.back(end), here.value, gain, steps, status)


def _evaluate(problem: Problem, theta: np.ndarray, reml: bool) -> _Point:
    found = information.curvature(problem, theta, np.float64(np.nan), reml)
    H, score = np.asarray(found.hessian), np.asarray(found.score)
    with np.errstate(all="ignore"):  # not finite: the step is refused
        profiled = H[:-1, :-1] - np.outer(H[:-1, -1], H[-1, :-1]) / H[-1, -1]
    return _Point(theta, float(found.value), score[:-1], profiled)


def _newton(at: _Point, mu: float) -> _Step:
    """|H|^-1 g with eigenvalues of the scaled Hessian raised by mu."""
    size = np.sqrt(np.maximum(np.abs(np.diagonal(at.H)), 1e-8))
    values, vectors = np.linalg.eigh(at.H / np.outer(size, size))
    # descent along directions of negative curvature, too, and no step without end
    kept = np.maximum(np.abs(values), LEAST * np.abs(values).max()) + mu
    along = vectors.T @ (at.g / size)
    x = vectors @ (along / kept) / size
    down = vectors[:, 0] / size
    # as far as the quadratic model promises a tenth, down the slope if there is one
    far = np.sqrt(0.2 / max(abs(values[0]), 1e-8)) * (-1 if at.g @ down > 0 else 1)
    return _Step(x, float(at.g @ x), float(values[0]), far * down)


def _spans(factor: Factor) -> list[tuple[int, int]]:
    """First column and last + 1 of the unstructured blocks of Lambda."""
    full = set(factor.covariance.entries)
    if not factor.covariance.free:  # the turned one would not be of its kind
        return []
    return [(a, b) for _, a, b in factor.spans if b - a > 1 and (a + 1, a) in full]


def triangular(A: np.ndarray) -> np.ndarray:
    """L of A = L Q, the diagonal not negative."""
    L = np.linalg.qr(A.T, mode="r").T
    return np.tril(L * np.where(np.diagonal(L) < 0, -1.0, 1.0))
