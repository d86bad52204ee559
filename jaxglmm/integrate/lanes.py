"""One design at many parameter values: Laplace or quadrature, lanes last.

For one grouping factor with few columns and padded levels. Arrays of rows have shape
(height, J, L), the lane axis last and every sum over the first: XLA then runs along
lanes, and a chunk of lanes fits the cache. From a predicted mode one damped Newton step
is taken and the value corrected for what is left (``integrate.point``); quadrature
needs no more than that as its centre. Draws of the random effects given the parameters
start from the Gaussian at the mode and take a few steps of independence Metropolis a
level, which leaves their exact conditional distribution: of small binary groups the
Gaussian is a quarter of a conditional sd off.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxglmm._typing import Array, Float
from jaxglmm.integrate.quadrature import product_rule
from jaxglmm.model.generalised import GeneralisedProblem
from jaxglmm.numerics import small
from jaxglmm.structure.rows import FoldedRows, PaddedRows

MOST_COLUMNS = 3
TRUSTED = 0.1  # decrement of a level up to which its value is corrected


class Lanes(eqx.Module):
    """Parameters of L models of one design.

    beta: (p, L); lam: (q, q, L); phi: (r, L).
    """

    beta: Float[Array, "p L"]
    lam: Float[Array, "q q L"]
    phi: Float[Array, "r L"]


class Values(eqx.Module):
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
    rows = problem.rows
    return isinstance(rows, PaddedRows) and problem.sides[0] <= MOST_COLUMNS


def quadratic(problem: GeneralisedProblem) -> bool:
    """Whether the log density of a row is quadratic: one Newton step is the mode."""
    return (problem.family.name, problem.family.link.name) == ("gaussian", "identity")


def damping(problem: GeneralisedProblem, r: Array) -> Array:
    """Share of a Newton step that moves a predictor by r: log(1 + r) / r.

    Enough where |dw/deta| <= w (logit, log); a quadratic needs none.
    """
    if quadratic(problem):
        return jnp.ones_like(r)
    return jnp.where(r < 1e-2, 1.0, jnp.log1p(r) / jnp.maximum(r, 1e-300))


class _Rows:
    """The rows of a folded problem beside lanes, (height, J, 1)."""

    def __init__(self, problem: GeneralisedProblem, lanes: Lanes):
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
    lanes: Lanes,
    u: Float[Array, "q J L"],
    nodes: int = 1,
    steps: int = 1,
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
    at = list(u)
    for _ in range(steps):
        _, s, w, _ = rows.derivatives(at)
        root, h = rows.system(s, jnp.maximum(w, 0.0), at)
        delta = small.solve(root, h)
        b = small.apply(rows.lam, delta)
        r = sum(
            jnp.max(jnp.abs(z), axis=0) * jnp.abs(x)
            for z, x in zip(rows.z, b, strict=True)
        )
        rho = damping(problem, r)
        at = [a - rho * d for a, d in zip(at, delta, strict=True)]
    l, s, w, w1 = rows.derivatives(at)
    root, h = rows.system(s, w, at)
    z = small.forward(root, h)
    delta = [-x for x in small.backward(root, z)]
    nu = sum(x * x for x in z)
    mode = [a + d for a, d in zip(at, delta, strict=True)]
    if nodes > 1:
        log_g = _quadrature(rows, mode, root, nodes)
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
        squares = sum(a * a for a in at)
        log_g = jnp.sum(l, axis=0) - (squares + trusted) / 2 - _half_log_det(root)
    levels = log_g + rows.base[:, None]
    total = jnp.sum(levels, axis=0)
    return Values(total, levels, jnp.sum(nu, axis=0), jnp.stack(mode), root)


def _half_log_det(root: small.Matrix) -> Array:
    return small.log_diagonal(root)


def _quadrature(
    rows: _Rows, mode: list[Array], root: small.Matrix, nodes: int
) -> Array:
    """log of the sum over nodes of each level, less half the log-determinant."""
    grid, log_w = product_rule(nodes, len(mode))
    log_w = log_w + np.sum(grid**2, axis=1) / 2
    one = jnp.ones_like(mode[0])

    def visit(total: tuple[Array, Array], node: tuple[Array, Array]):
        z, weight = node
        shift = small.backward(root, [x * one for x in z])
        term = weight + rows.level_log_density(
            [a + b for a, b in zip(mode, shift, strict=True)]
        )
        term = jnp.where(jnp.isfinite(term), term, -jnp.inf)
        top, mass = total
        new = jnp.maximum(top, term)
        safe = jnp.where(jnp.isfinite(new), new, 0.0)
        return (new, mass * jnp.exp(top - safe) + jnp.exp(term - safe)), None

    start = (jnp.full_like(one, -jnp.inf), jnp.zeros_like(one))
    (top, mass), _ = lax.scan(visit, start, (jnp.asarray(grid), jnp.asarray(log_w)))
    return top + jnp.log(mass) - _half_log_det(root)


class Noise(eqx.Module):
    """Random numbers behind the draws of u: one Gaussian and one exponential a move.

    z: (moves + 1, q, J, L) standard normal; e: (moves, J, L) standard exponential.
    """

    z: Float[Array, "m q J L"]
    e: Float[Array, "h J L"]


def draws(
    problem: GeneralisedProblem, lanes: Lanes, found: Values, noise: Noise
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

    def log_ratio(u: list[Array], z: Array) -> Array:
        """log of target over proposal."""
        return rows.level_log_density(u) + jnp.sum(z * z, axis=0) / 2

    u = shifted(noise.z[0])
    ratio, moved = log_ratio(u, noise.z[0]), 0.0
    for z, e in zip(noise.z[1:], noise.e, strict=True):
        new = shifted(z)
        new_ratio = log_ratio(new, z)
        take = new_ratio - ratio > -e
        u = [jnp.where(take, a, b) for a, b in zip(new, u, strict=True)]
        ratio = jnp.where(take, new_ratio, ratio)
        moved = moved + jnp.mean(take, axis=0)
    return jnp.stack(u), moved / moves
