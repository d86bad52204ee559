"""Maximum likelihood and REML: a damped Newton method on the profiled criterion.

Then the rule of the boundary: a standard deviation, such as a diagonal of Lambda, below
``NEAR_ZERO`` (columns are scaled to mean square one, so this is a thousandth of the
residual's) becomes exactly zero where the criterion does not mind. What depends on
values is a status, never an exception.
"""

from __future__ import annotations

import jax
import numpy as np

from jaxglmm._typing import Array, Count, Float, Scalar
from jaxglmm.estimate import start as _start
from jaxglmm.estimate.base import AbstractEstimator, Fitted
from jaxglmm.integrate import exact
from jaxglmm.model.covariances.base import is_scale
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics import newton
from jaxglmm.numerics.system import Effects, scale, scale_transposed
from jaxglmm.runtime.arrays import chosen, empty_like, jnp, lax
from jaxglmm.runtime.compile import stored
from jaxglmm.runtime.levels import whole
from jaxglmm.runtime.trees import Module, field

NEAR_ZERO = 1e-3
INDIFFERENT = 1e-8  # of the criterion, relative to its size


class Maximise(AbstractEstimator):
    """reml: integrate beta out too; tol: of the criterion; max_steps: evaluations.

    probes: of crossed factors, random vectors for log-determinants, zero for none; None
    leaves it to their size.
    """

    reml: bool = field(static=True)
    probes: int | None = field(static=True, default=None)

    def __repr__(self) -> str:
        """As a preset is typed."""
        own = "" if self.probes is None else f"probes={self.probes}"
        return f"jg.REML({own})" if self.reml else f"jg.ML({own})"

    def fit(
        self,
        problem: Problem,
        theta: Float[Array, " m"] | None = None,
        tol: float | Scalar = 1e-10,
        max_steps: int | Count = 200,
    ) -> Fitted:
        """Fit from ``theta`` (by moments where it is None)."""
        if theta is None:
            theta = _start.best(problem, self.reml)
        # a structure's parameters bend the covariance, which the average information
        # does not see: convergence is linear at 0.5 a step and worse
        bent = not all(c.free for c in problem.covariances)

        def evaluate(x: Array, aux: None) -> tuple:
            x = whole(x, problem.mesh)
            at = exact.profiled_derivatives(problem, x, self.reml)
            return *whole(at, problem.mesh), aux

        found = newton.minimise_carrying(
            evaluate,
            theta,
            None,
            tol,
            max_steps,
            secant=bent,
        )
        return solution(problem, found.x, self.reml, found)


class _Point(Module):
    """One theta and what is reported of it."""

    theta: Float[Array, " m"]
    criterion: Scalar
    beta: Float[Array, " p"]
    LQ: Float[Array, "p p"]
    r2: Scalar
    b: Effects


def _evaluate(problem: Problem, theta: Float[Array, " m"], reml: bool) -> _Point:
    lam = problem.lambdas(theta)
    at = exact.marginal(problem, lam)
    b = scale(lam, scale_transposed(lam, at.t))
    value = exact.profiled_value(problem, at, reml)
    return _Point(theta, value, at.beta, at.LQ, at.r2, b)


def solution(
    problem: Problem, theta: Float[Array, " m"], reml: bool, found: newton.Minimum
) -> Fitted:
    """Everything at the optimum; diagonals next to zero are zero if that costs nothing.

    A loop of one step, or two where there are such diagonals, so that the model is
    compiled once.
    """
    near = is_scale(problem.covariances) & (jnp.abs(theta) < NEAR_ZERO)
    pinned = jnp.where(near, 0.0, theta)
    last = jnp.any(near).astype(int)

    def step(state: tuple[Array, _Point | None]) -> tuple[Array, _Point]:
        k, best = state
        there = _evaluate(problem, jnp.where(k == 0, theta, pinned), reml)
        here = jnp.inf if best is None else best.criterion
        cost = INDIFFERENT * jnp.maximum(1.0, jnp.abs(here))
        better = (k == 0) | (there.criterion <= here + cost)
        return k + 1, chosen(better, there, best)

    empty = empty_like(lambda x: _evaluate(problem, x, reml), theta)
    _, at = lax.while_loop(lambda s: s[0] <= last, step, (jnp.zeros((), int), empty))
    return Fitted(
        at.theta,
        at.beta,
        at.LQ,
        at.r2 / exact.degrees(problem, reml),
        at.b,
        at.criterion,
        found.decrement,
        found.steps,
        found.status,
    )


@jax.jit
def fit_compiled(
    estimator: Maximise,
    problem: Problem,
    tol: Scalar,
    max_steps: Count,
    theta: Float[Array, " m"] | None = None,
) -> Fitted:
    """The one jit boundary of a fit."""
    return estimator.fit(problem, theta, tol, max_steps)


@stored(fast=False, host=True)
def fit_numbers(
    estimator: Maximise, problem: Problem, numbers: Float[Array, " k"]
) -> Float[Array, " r"]:
    """``fit_compiled`` with one array in and one out, for each array costs time.

    numbers: Z'y factor by factor, X'y, y'y (these replace the problem's), tol,
    max_steps, theta to start from (NaN: by moments). Returns the leaves of ``Fitted``
    end to end; ``unpack`` puts them back.
    """
    numbers = whole(numbers, problem.mesh)
    Zy, start = [], 0
    for b in problem.B:
        q, _, J = b.shape
        Zy.append(numbers[start : start + q * J].reshape(q, J))
        start += q * J
    Xy, rest = numbers[start : start + problem.p], numbers[start + problem.p :]
    yy, tol, max_steps, theta = rest[0], rest[1], rest[2].astype(int), rest[3:]
    own = problem.with_response(tuple(Zy), Xy, yy)
    theta = jnp.where(jnp.isnan(theta), _start.best(own, estimator.reml), theta)
    fitted = estimator.fit(own, theta, tol, max_steps)
    leaves = jax.tree.leaves(whole(fitted, problem.mesh))
    return jnp.concatenate([jnp.ravel(x).astype(numbers.dtype) for x in leaves])


def unpack(problem: Problem, flat: np.ndarray) -> Fitted:
    """The ``Fitted`` whose leaves ``fit_numbers`` put end to end, as NumPy."""
    m, p = problem.m, problem.p
    theta, beta = flat[:m], flat[m : m + p]
    start = m + p + p * p
    LQ, sigma2 = flat[m + p : start].reshape(p, p), flat[start]
    b, start = [], start + 1
    for q, _, J in (x.shape for x in problem.B):
        b.append(flat[start : start + q * J].reshape(q, 1, J))
        start += q * J
    criterion, decrement, steps, status = flat[start:].tolist()
    found = theta, beta, LQ, sigma2, tuple(b), criterion, decrement
    return Fitted(*found, int(steps), int(status))
