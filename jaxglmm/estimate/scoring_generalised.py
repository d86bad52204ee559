"""Laplace's criterion of crossed factors by probes, a point at a time, on the host.

At the mode, found by Newton's method with conjugate gradients, the score is that of
``laplace_derivatives`` with the traces and leverages of ``ProbedFactor``. Both are
means over the same probes at every point, so that the score is a smooth function and
the difference of two has little of their noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.estimate.scoring import Judged, trace_noise
from jaxglmm.integrate import laplace
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.laplace_derivatives import Point
from jaxglmm.model.covariances.base import is_scale, jacobian, pushed, triangles
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.probed_schur import PROBED, ProbedFactor
from jaxglmm.numerics.system import Effects, scale
from jaxglmm.structure.sparse_rows import RowForms, SparseRows

NOISY = 1e-2  # decrement from which the probes' noise is looked at
NEAR = 1e-6  # decrement of the effects at which they are at their mode
NEAR_ZERO = 1e-3  # as in ``maximise``
APART = 1e-3  # half the distance of two points whose scores are compared


@dataclass(frozen=True)
class ProbedPoint(Judged):
    """The criterion at theta, which is all of psi (k,); at: None where it is lost.

    bound: the decrement to stop at, where it is known from another point.
    """

    problem: GeneralisedProblem
    theta: np.ndarray
    value: float
    score: np.ndarray
    H: np.ndarray  # positive, in place of the Hessian
    at: Point | None
    u: Effects
    bound: float | None = None

    def enough(self, tol: float) -> float:
        """The decrement to stop at; see ``Judged``."""
        if abs(self.decrement) > NOISY:
            return 0.0
        return max(super().enough(tol) if self.bound is None else self.bound, tol)

    @property
    def factor(self) -> ProbedFactor:
        """Of M."""
        assert self.at is not None
        assert isinstance(self.at.factor, ProbedFactor)
        return self.at.factor

    @property
    def value_noise(self) -> np.ndarray:
        """(K + 1,) deviations of the criterion by probe."""
        return self.factor.probed.spread[0]

    @cached_property
    def noise(self) -> np.ndarray:
        """(K + 1, k) deviations of the score by probe; see ``Judged``."""
        p, at, factor = self.problem, self.at, self.factor
        assert at is not None
        assert at.rows is not None
        assert isinstance(p.rows, SparseRows)
        J = jacobian(self.theta[p.p : p.p + p.m], p.covariances)
        lam = factor.lam
        own = trace_noise(factor, lam, p.covariances, J)
        out = np.zeros((len(own), len(self.theta)))
        out[:, p.p : p.p + p.m] = own
        moved = self._weights_moved()
        forms, probed, said = RowForms(p.rows, factor), factor.probed, []
        for w, change in probed.kept[1:]:
            said.append(_summed(forms, change, w, moved))
        y = np.concatenate(said)
        out[:-1] += probed.mean.spread(y)
        out[-1] += PROBED * np.sqrt(np.mean(y**2, axis=0))
        return out

    def _weights_moved(self) -> np.ndarray:
        """(n, k) derivatives of the rows' weights in psi, the mode following."""
        problem, at = self.problem, self.at
        assert at is not None
        assert at.rows is not None
        r, k, p, m = at.rows, len(self.theta), problem.p, problem.m
        out = np.empty((len(problem.y), k))
        for j in range(k):
            e = np.eye(k)[j]
            du = tuple(
                a - b
                for a, b in zip(_point.moved(problem, at, e), at.mode, strict=True)
            )
            dlam = triangles(pushed(at.J, e[p : p + m]), problem.covariances)
            db = tuple(
                a + b
                for a, b in zip(scale(dlam, at.mode), scale(at.lam, du), strict=True)
            )
            deta = problem.rows.spread(db) + e[:p] @ problem.X
            out[:, j] = r.w1 * deta
            if j >= p + m:
                out[:, j] += r.dw[j - p - m]
        return out

    def followed(self, psi: np.ndarray) -> Effects:
        """Where the mode of another psi is, to first order."""
        if self.at is None:
            return self.u
        return _point.moved(self.problem, self.at, psi - self.theta)

    def as_fitted(self, steps: int, status: int) -> GeneralisedFitted:
        """The end of a fit; arrays as NumPy."""
        problem, psi = self.problem, self.theta
        beta, theta, _ = problem.split(psi)
        b = scale(problem.lambdas(theta), self.u)
        eta = np.asarray(_point.predictor(problem, beta, b))
        if not np.isfinite(self.value):
            status = _status.NOT_FINITE
        gain = self.decrement if np.isfinite(self.value) else np.nan
        rest = np.float64(self.value), np.float64(gain), np.int64(steps)
        return GeneralisedFitted(psi, self.u, b, eta, *rest, np.int64(status))


def _summed(forms: RowForms, a: np.ndarray, b: np.ndarray, g: np.ndarray) -> np.ndarray:
    """(K, k) sums over rows of (r a) (r b) g for g (n, k)."""
    parts: dict[int, np.ndarray] = {}

    def told(here: slice, products: np.ndarray) -> None:
        parts[here.start] = products.T @ g[here]

    forms.products(a, b, told)
    # in the order of the rows, so that the sum has the same last digits each time
    return np.sum([parts[start] for start in sorted(parts)], axis=0)


def evaluate(
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    psi: np.ndarray,
    u: Effects,
) -> ProbedPoint:
    """The point at psi, its mode found from u; to be called on the host."""
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    k = len(psi)
    lost = ProbedPoint(problem, psi, np.nan, np.zeros(k), np.eye(k), None, u)
    try:
        mode = laplace.find_mode(problem, beta, lam, phi, u).u
        at = marginal.at(problem, marginal.terms(problem), psi, mode, always=True)
    except np.linalg.LinAlgError:  # far out M need not be positive definite
        return lost
    value = float(at.value + _point.constant(problem))
    score, H = np.asarray(at.score), np.asarray(at.curvature)
    fine = np.isfinite(value) and np.isfinite(score).all() and np.isfinite(H).all()
    if not fine or not at.nu < NEAR:
        return lost
    return ProbedPoint(problem, psi, value, score, H, at, at.mode)


def with_probes(problem: GeneralisedProblem, probes: int) -> GeneralisedProblem:
    """The same problem by another number of probes."""
    return replace(problem, rows=replace(problem.rows, probes=probes))


def pinned(problem: GeneralisedProblem, psi: np.ndarray) -> np.ndarray | None:
    """psi with standard deviations next to zero at zero; None without these."""
    theta = problem.split(psi)[1]
    near = np.asarray(is_scale(problem.covariances)) & (np.abs(theta) < NEAR_ZERO)
    if not (near & (theta != 0.0)).any():
        return None
    out = psi.copy()
    out[problem.p : problem.p + problem.m] = np.where(near, 0.0, theta)
    return out


def hessian(
    marginal: AbstractMarginal,
    problem: GeneralisedProblem,
    psi: np.ndarray,
    u: Effects,
    free: np.ndarray,
) -> np.ndarray:
    """(k, k) central differences of the score, in ``free`` (k,) parameters alone.

    By the same probes on both sides: their noise is that of a second derivative.
    """
    k = len(psi)
    H = np.zeros((k, k))
    here = evaluate(marginal, problem, psi, u)
    for j in np.flatnonzero(free):
        for sign in (1.0, -1.0):
            there = psi + sign * APART * np.eye(k)[j]
            point = evaluate(marginal, problem, there, here.followed(there))
            if point.at is None:
                return np.full((k, k), np.nan)
            H[j] += sign * point.score / (2 * APART)
    H = np.where(np.outer(free, free), H, 0.0)
    return (H + H.T) / 2
