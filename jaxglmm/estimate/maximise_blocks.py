"""Maximum likelihood and REML where rows come in blocks: Newton's method.

The Hessian is exact where it is positive definite, and Fisher's information elsewhere.
Standard deviations of random effects that are next to zero become zero, as in
``estimate.maximise``; scales of residuals are logarithms and cannot.
"""

from __future__ import annotations

import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Count, Float, Scalar
from jaxglmm.estimate.base import AbstractEstimator, Fitted
from jaxglmm.estimate.held import HeldCoordinates, least_or_zero
from jaxglmm.estimate.maximise import INDIFFERENT, NEAR_ZERO
from jaxglmm.integrate import exact_blocks
from jaxglmm.model.covariances.base import is_scale
from jaxglmm.model.marginal_problem import MarginalProblem
from jaxglmm.numerics import newton
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import field


class MaximiseBlocks(AbstractEstimator):
    """reml: integrate beta out too."""

    reml: bool = field(static=True)

    def fit(  # type: ignore[override]
        self,
        problem: MarginalProblem,
        theta: Float[Array, " m"] | None = None,
        tol: float | Scalar = 1e-10,
        max_steps: int | Count = 200,
    ) -> Fitted:
        """Fit from ``theta``, the problem's start where it is None."""
        theta = problem.start if theta is None else theta
        found = newton.minimise(
            lambda x: evaluated(problem, x, self.reml), theta, tol, max_steps
        )
        scales = np.zeros(problem.m, bool)
        scales[problem.n_residual :] = is_scale(problem.covariances)
        at, value = self._point(problem, found.x)
        x = found.x
        if scales.any():
            near = scales & (jnp.abs(x) < NEAR_ZERO)
            pinned = jnp.where(near, 0.0, x)
            there, other = self._point(problem, pinned)
            cost = INDIFFERENT * jnp.maximum(1.0, jnp.abs(value))
            better = other <= value + cost
            x = jnp.where(better, pinned, x)
            value = jnp.where(better, other, value)
            at = exact_blocks.BlockMarginal(
                (),
                at.log_det,
                jnp.where(better, there.LQ, at.LQ),
                jnp.where(better, there.beta, at.beta),
                at.r2,
            )
        return Fitted(
            x,
            at.beta,
            at.LQ,
            jnp.ones(()),
            (),
            value,
            found.decrement,
            found.steps,
            found.status,
        )

    def held(
        self,
        problem: MarginalProblem,
        pieces: HeldCoordinates,
        tol: float,
        max_steps: int,
    ) -> Fitted:
        """Fit where some parameters are held, in the coordinates of the others."""
        chart = pieces.chart

        def evaluate(f: np.ndarray):
            theta = chart.theta(f)
            if not np.isfinite(theta).all():
                return np.inf, f, np.eye(len(f))
            d = exact_blocks.derivatives(problem, theta, self.reml)
            J, score = chart.slopes(f), np.asarray(d.score)
            H = J.T @ np.asarray(d.hessian) @ J + chart.bend(f, score)
            return float(d.value), J.T @ score, H

        f, decrement, steps, done = pieces.start, np.float64(0.0), 1, True
        if chart.k:
            rest = chart.scales, tol, max_steps
            f, decrement, steps, done = least_or_zero(evaluate, f, *rest)
        f, at, value = self._settled(problem, f, chart.scales, chart.theta)
        status = _status.CONVERGED if done else _status.MAX_STEPS
        theta = chart.theta(f)
        return Fitted(
            theta,
            at.beta,
            at.LQ,
            np.ones(()),
            (),
            value,
            np.float64(decrement),
            steps,
            status,
        )

    def _settled(self, problem: MarginalProblem, x, scales, to):
        """Standard deviations next to zero at zero, where that costs nothing."""
        at, value = self._point(problem, to(x))
        near = scales & (np.abs(x) < NEAR_ZERO)
        if near.any():
            pinned = np.where(near, 0.0, x)
            there, other = self._point(problem, to(pinned))
            if other <= value + INDIFFERENT * max(1.0, abs(float(value))):
                return pinned, there, other
        return x, at, value

    def _point(self, problem: MarginalProblem, x: Array):
        tables = [problem.tables(x, stack)[0] for stack in problem.stacks]
        at = exact_blocks.marginal(problem, tables)
        return at, exact_blocks.value_of(problem, at, self.reml)


def evaluated(
    problem: MarginalProblem, theta: Float[Array, " m"], reml: bool
) -> tuple[Scalar, Array, Array, Array]:
    """(criterion, score, curvature, scale) for ``numerics.newton``."""
    d = exact_blocks.derivatives(problem, theta, reml)
    scale = jnp.sqrt(1e-12 + jnp.diagonal(d.fisher))
    unit = d.hessian / jnp.outer(scale, scale)
    # not only definite: a direction that is next to flat would take any step
    L = jnp.linalg.cholesky(unit - 1e-3 * np.eye(problem.m))
    exact = jnp.isfinite(L).all()
    H = jnp.where(exact, d.hessian, d.fisher)
    return d.value, d.score, H, 1e-3 + jnp.diagonal(d.fisher)
