"""One design at many parameter values: Laplace or quadrature, lanes last.

For one grouping factor with few columns and padded levels. Arrays of rows have shape
(height, J, L), the lane axis last and every sum over the first: XLA then runs along
lanes, and a chunk of lanes fits the cache. From a predicted mode one damped Newton step
is taken and the value corrected for what is left (``laplace_derivatives``); quadrature
needs no more than that as its centre. Draws of the random effects given the parameters
start from the Gaussian at the mode and take a few steps of independence Metropolis a
level, which leaves their exact conditional distribution: of small binary groups the
Gaussian is a quarter of a conditional sd off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._typing import Array, Count, Float
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.normal_rule import product_rule
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module
from jaxglmm.structure.rows import FoldedRows, PaddedRows

TRUSTED = 0.1  # decrement of a level up to which its value is corrected
MOST_APART = 8  # rows of a level that are added one by one
MOST_TOGETHER = 100  # rows of a level x nodes of one fused loop
HIGHEST = 600.0  # log of a term of quadrature, over that next to the mode


class LaneParameters(Module):
    """Parameters of L models of one design.

    beta: (p, L); lam: (q, q, L); phi: (r, L).
    """

    beta: Float[Array, "p L"]
    lam: Float[Array, "q q L"]
    phi: Float[Array, "r L"]


class Values(Module):
    """log_lik: (L,) with all constants; levels: (J, L) what each level adds to it.

    nu: (L,) decrement left; u: (q, J, L) modes; root: of M.
    """

    log_lik: Float[Array, " L"]
    levels: Float[Array, "J L"]
    nu: Float[Array, " L"]
    u: Float[Array, "q J L"]
    root: small.Matrix


def suits(problem: GeneralisedProblem) -> bool:
    """Whether the design has the shape that lanes are for."""
    if problem.predictors.K > 1:
        return False
    rows = problem.rows
    return isinstance(rows, PaddedRows) and problem.sides[0] <= _arguments.SIDES


def quadratic(problem: GeneralisedProblem) -> bool:
    """Whether the log density of a row is quadratic: one Newton step is the mode."""
    return problem.family.is_linear_model


def damping(problem: GeneralisedProblem, r: Array) -> Array:
    """Share of a Newton step that moves a predictor by r: log(1 + r) / r.

    Enough where |dw/deta| <= w (logit, log); a quadratic needs none.
    """
    if quadratic(problem):
        return jnp.ones_like(r)
    return jnp.where(r < 1e-2, 1.0, jnp.log1p(r) / jnp.maximum(r, 1e-300))


class _Rows:
    """The rows of a folded problem beside lanes, (height, J, 1)."""

    def __init__(self, problem: GeneralisedProblem, lanes: LaneParameters):
        assert isinstance(problem.rows, FoldedRows)
        self.family, self.phi = problem.family, lanes.phi
        self.y, self.trials = problem.y[..., None], problem.trials[..., None]
        self.used = problem.weights[..., None] > 0
        self.weights = problem.weights[..., None]
        self.z = [z[..., None] for z in problem.rows.z[0]]
        eta = problem.offset[..., None]
        for j in range(problem.p):
            eta = eta + problem.X[j][..., None] * lanes.beta[j]
        self.fixed = jnp.broadcast_to(eta, (*problem.y.shape, lanes.lam.shape[-1]))
        self.lam = small.lower(lanes.lam)
        base = problem.family.log_base(problem.y, problem.trials)
        used = problem.weights > 0
        self.base = jnp.sum(jnp.where(used, problem.weights * base, 0.0), axis=0)

    def eta(self, u: list[Array]) -> Array:
        """Predictors at u."""
        b = small.apply(self.lam, u)
        return self.fixed + sum(z * x for z, x in zip(self.z, b, strict=True))

    def derivatives(self, u: list[Array]) -> tuple[Array, ...]:
        """l without its base, s, w, w1 with weights."""
        out = self.family.kernel_derivatives(self.y, self.eta(u), self.phi, self.trials)
        return tuple(jnp.where(self.used, self.weights * x, 0.0) for x in out)

    def level_log_density(self, u: list[Array]) -> Array:
        """log p(y_g, u_g) up to constants, (J, L)."""
        height = len(self.fixed)
        if height > MOST_APART:
            return self.summed_log_density(u)
        # row by row: a sum in XLA's loops would keep them from being vectors
        b = small.apply(self.lam, u)
        total = -sum(x * x for x in u) / 2
        for h in range(height):
            eta = self.fixed[h] + sum(z[h] * x for z, x in zip(self.z, b, strict=True))
            l = self.family.kernel_derivatives(
                self.y[h], eta, self.phi, self.trials[h]
            )[0]
            total = total + jnp.where(self.used[h], self.weights[h] * l, 0.0)
        return total

    def summed_log_density(self, u: list[Array]) -> Array:
        """The same in one sum over rows."""
        l = self.derivatives(u)[0]
        return jnp.sum(l, axis=0) - sum(x * x for x in u) / 2

    def system(self, s: Array, w: Array, u: list[Array]):
        """Z'WZ, the root of M, and the gradient h = u - Lambda'Z's."""
        q = len(u)
        A: small.Matrix = [[0.0] * q for _ in range(q)]
        for i in range(q):
            for j in range(i + 1):
                A[i][j] = A[j][i] = jnp.sum(w * self.z[i] * self.z[j], axis=0)
        across = small.transpose(self.lam)
        M = small.plus_identity(small.symmetric(across, small.matmul(A, self.lam)))
        root = small.cholesky(M)
        t = [jnp.sum(s * z, axis=0) for z in self.z]
        pulled = small.apply(across, t)
        return root, [a - b for a, b in zip(u, pulled, strict=True)]


def values(
    problem: GeneralisedProblem,
    lanes: LaneParameters,
    u: Float[Array, "q J L"],
    nodes: int = 1,
    steps: Count | int = 1,
) -> Values:
    """Log-likelihoods from predicted modes u.

    Args:
        problem: folded.
        lanes: the parameters.
        u: where the modes are expected.
        nodes: 1 for Laplace, more for adaptive Gauss-Hermite.
        steps: damped Newton steps before the value.
    """
    rows = _Rows(problem, lanes)

    def step(k: int, at: list[Array]) -> list[Array]:
        _, s, w, _ = rows.derivatives(at)
        root, h = rows.system(s, jnp.maximum(w, 0.0), at)
        delta = small.solve(root, h)
        b = small.apply(rows.lam, delta)
        r = sum(
            jnp.max(jnp.abs(z), axis=0) * jnp.abs(x)
            for z, x in zip(rows.z, b, strict=True)
        )
        rho = damping(problem, r)
        return [a - rho * d for a, d in zip(at, delta, strict=True)]

    at = lax.fori_loop(0, steps, step, list(u))
    l, s, w, w1 = rows.derivatives(at)
    root, h = rows.system(s, w, at)
    z = small.forward(root, h)
    delta = [-x for x in small.backward(root, z)]
    nu = sum(x * x for x in z)
    mode = [a + d for a, d in zip(at, delta, strict=True)]
    squares = sum(a * a for a in at)
    if nodes > 1:
        near = jnp.sum(l, axis=0) - squares / 2
        log_g = _quadrature(rows, mode, root, near, nodes)
    else:
        W = small.forward_matrix(root, small.transpose(rows.lam))
        N = small.symmetric(small.transpose(W), W)
        q = len(N)
        lev = sum(rows.z[i] * rows.z[j] * N[i][j] for i in range(q) for j in range(q))
        Za = [jnp.sum(w1 * lev * z, axis=0) for z in rows.z]
        moved = small.apply(rows.lam, delta)
        # far from the mode the corrections promise too much
        trust = (nu < TRUSTED) | quadratic(problem)
        trusted = jnp.where(trust, small.dot(moved, Za) - nu, 0.0)
        log_g = jnp.sum(l, axis=0) - (squares + trusted) / 2 - _half_log_det(root)
    levels = log_g + rows.base[:, None]
    total = jnp.sum(levels, axis=0)
    return Values(total, levels, jnp.sum(nu, axis=0), jnp.stack(mode), root)


def _half_log_det(root: small.Matrix) -> Array:
    return small.log_diagonal(root)


def _quadrature(
    rows: _Rows, mode: list[Array], root: small.Matrix, near: Array, nodes: int
) -> Array:
    """log of the sum over nodes of each level, less half the log-determinant.

    near: (J, L) log density close to the mode, which terms are measured from: one
    exponential a node, and no running maximum.
    """
    grid, log_w = product_rule(nodes, len(mode))
    log_w = log_w + np.sum(grid**2, axis=1) / 2
    one = jnp.ones_like(mode[0])

    def visit(density: Any, z: Any, weight: Any) -> Array:
        shift = small.backward(root, [x * one for x in z])
        there = density([a + b for a, b in zip(mode, shift, strict=True)])
        term = weight + there - near
        # a mode that was lost shall not overflow: its draw has no weight to speak of
        return jnp.where(jnp.isfinite(term), jnp.exp(jnp.minimum(term, HIGHEST)), 0.0)

    if len(grid) * len(rows.fixed) <= MOST_TOGETHER and len(rows.fixed) <= MOST_APART:
        total = sum(
            visit(rows.level_log_density, z, weight)
            for z, weight in zip(grid, log_w, strict=True)
        )
    else:
        total, _ = lax.scan(
            lambda total, node: (total + visit(rows.summed_log_density, *node), None),
            0.0 * one,
            (jnp.asarray(grid), jnp.asarray(log_w)),
        )
    return near + jnp.log(total) - _half_log_det(root)


class LaneNoise(Module):
    """Random numbers behind the draws of u: one Gaussian and one exponential a move.

    z: (moves + 1, q, J, L) standard normal; e: (moves, J, L) standard exponential.
    """

    z: Float[Array, "m q J L"]
    e: Float[Array, "h J L"]


def draws(
    problem: GeneralisedProblem, lanes: LaneParameters, found: Values, noise: LaneNoise
) -> tuple[Float[Array, "q J L"], Float[Array, " L"]]:
    """One draw of u given each lane's parameters, and the share of moves accepted.

    The moves are of independence Metropolis, from the Gaussian at the mode; without any
    that Gaussian is what is drawn from.
    """
    mode, moves = list(found.u), len(noise.e)

    def shifted(z: Array) -> list[Array]:
        shift = small.backward(found.root, list(z))
        return [a + b for a, b in zip(mode, shift, strict=True)]

    if not moves:
        return jnp.stack(shifted(noise.z[0])), jnp.ones(found.u.shape[-1])
    rows = _Rows(problem, lanes)

    def log_ratio(z: Array) -> Array:
        """log of target over proposal."""
        return rows.level_log_density(shifted(z)) + jnp.sum(z * z, axis=0) / 2

    # of all proposals first, in a loop: what comes out of one is not found again for
    # each of its readers
    ratios = lax.map(log_ratio, noise.z)
    u, ratio, moved = shifted(noise.z[0]), ratios[0], 0.0
    for z, e, new_ratio in zip(noise.z[1:], noise.e, ratios[1:], strict=True):
        take = new_ratio - ratio > -e
        u = [jnp.where(take, a, b) for a, b in zip(shifted(z), u, strict=True)]
        ratio = jnp.where(take, new_ratio, ratio)
        moved = moved + jnp.mean(take, axis=0)
    return jnp.stack(u), moved / moves
