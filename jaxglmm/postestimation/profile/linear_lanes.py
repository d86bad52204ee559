"""Many linear mixed models with one grouping factor, one parameter held in each lane.

What profiles are made of: the ML deviance over (theta, log sigma^2) with a standard
deviation, a correlation, sigma or a fixed effect held at a value, minimised over what
is left. A lane is one model, one parameter and one value. Columns of Z are rotated
first, Z' = Z~ M, so that

    sd      Lambda_11 = value unit / sigma
    cor     (Lambda_21, Lambda_22) = size (rho, sqrt(1 - rho^2))
    sigma   log sigma^2 = 2 log value
    entry   of a structure: value

and all other coordinates are free. A fixed effect c'beta needs no coordinates: with
beta^ at theta the constrained minimum is r^2 + delta^2 / c'Q^-1c, delta = c'beta^ -
value, at beta^ - Q^-1c delta / c'Q^-1c. So one compiled program serves every parameter
of a model, with as many fixed effects in all lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxglmm._typing import Array, Bool, Float, Int
from jaxglmm.estimate.search_lanes import solve
from jaxglmm.integrate import exact_one_factor as crit
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.postestimation.profile.constraint import BETA, COR, ENTRY, SD, SIGMA
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module, tree_at
from jaxglmm.structure.level_types import Groups, Sums, entries, weighted

GAIN = 1e-10  # decrement of the deviance at which a search stops
LIGHT, HOPELESS = 1e-2, 1e10  # damping at which a decrement counts, or all is lost


class Hold(Module):
    """What L lanes hold, in internal coordinates; k = m + 1 with log sigma^2 last.

    kind: (L,) one of BETA, SIGMA, SD, COR, ENTRY; M: (q, q, L) for every factor, what
    turns the columns of Z;
    first, below, second: (k, L) ones at Lambda_11, Lambda_21, Lambda_22 of the held
    term, zeros where a lane has none; contrast: (p, L) of the held fixed effect; unit:
    (L,); value: (L,).
    """

    kind: Int[Array, " L"]
    M: tuple[Float[Array, "q q L"], ...]
    first: Float[Array, "k L"]
    below: Float[Array, "k L"]
    second: Float[Array, "k L"]
    contrast: Float[Array, "p L"]
    unit: Float[Array, " L"]
    value: Float[Array, " L"]


class LinearEnds(Module):
    """free: (k, L) where the search ended; value: (L,) deviance, internal scale.

    slope: (L,) its derivative in the held value; at_edge: (L,) whether a coordinate
    that may not be negative is zero; done: (L,) False where out of steps.
    """

    free: Float[Array, "k L"]
    value: Float[Array, " L"]
    slope: Float[Array, " L"]
    at_edge: Bool[Array, " L"]
    done: Bool[Array, " L"]


@dataclass(frozen=True)
class HeldFit:
    """Program: lanes of (Sums, Hold, free), or of (Groups, Sums, Hold, free)."""

    covariance: AbstractCovariance

    def __call__(self, common: Any, lanes: Any) -> LinearEnds:
        """common: (groups or None, max_steps)."""
        groups, max_steps = common
        if groups is None:
            groups, *lanes = lanes
        sums, hold, free = lanes
        return fit(
            *rotate(groups, sums, hold.M[0]), hold, free, max_steps, self.covariance
        )


def rotate(g: Groups, r: Sums, M: Float[Array, "q q L"]) -> tuple[Groups, Sums]:
    """The columns of Z in the lanes' own coordinates, Z' = Z M."""
    if g.q == 1:
        return g, r
    turn, back = entries(M), small.transpose(entries(M))

    def both(A: small.Matrix) -> small.Matrix:
        return small.symmetric(back, small.matmul(A, turn))

    def array(A: small.Matrix) -> Array:
        return jnp.stack([jnp.stack(row) for row in A])

    A = array(both(entries(g.A)))
    X = array(small.matmul(back, entries(g.X))) if g.p else g.X
    y = jnp.stack(small.apply(back, list(r.y)))
    return Groups(g.count, A, X, g.XX, g.n), Sums(
        y, array(both(entries(r.yy))), r.Xy, r.rr
    )


class Deviance(Module):
    """Of the deviance: value, score and a stand-in for the Hessian, lanes last.

    slope: in the held value; zero where it is not known yet.
    """

    f: Array
    g: Array
    H: Array
    slope: Array | float = 0.0

    def pulled(self, J: Array, along: Array) -> Deviance:
        """In coordinates with Jacobian J; along: the parameters' slope in the value."""
        HJ = jnp.sum(self.H[:, :, None] * J[None], axis=1)
        H = jnp.sum(J[:, :, None] * HJ[:, None], axis=0)
        slope = jnp.sum(self.g * along, axis=0) + self.slope
        return Deviance(self.f, jnp.sum(J * self.g[:, None], axis=0), H, slope)


def point(h: Hold, free: Array) -> tuple[Array, Array, Array]:
    """(entries, log sigma^2), its Jacobian (k, k, L), and its slope in the value."""
    k = len(free)
    eye = jnp.broadcast_to(jnp.eye(k)[:, :, None], (k, *free.shape))
    last = (np.arange(k) == k - 1)[:, None] * 1.0
    sd, cor, sigma = h.kind == SD, h.kind == COR, h.kind == SIGMA
    entry = h.kind == ENTRY
    scale = h.unit * jnp.exp(-free[-1] / 2)
    rho, rest = h.value, jnp.sqrt(jnp.maximum(1 - h.value**2, 0.0))
    size = jnp.sum(h.second * free, axis=0)
    along = h.below * rho + h.second * rest
    log_value = 2 * jnp.log(jnp.where(sigma, h.value, 1.0))

    keep = 1 - jnp.where(sd | entry, h.first, jnp.where(cor, h.below + h.second, 0.0))
    keep = keep - jnp.where(sigma, last, 0.0)
    full = keep * free
    full = full + jnp.where(sd, h.first * h.value * scale, 0.0)
    full = full + jnp.where(entry, h.first * h.value, 0.0)
    full = full + jnp.where(cor, along * size, 0.0)
    full = full + jnp.where(sigma, last * log_value, 0.0)

    J = keep[:, None] * eye
    J = J + jnp.where(sd, h.first * (-h.value * scale / 2), 0.0)[:, None] * last[None]
    J = J + jnp.where(cor, along, 0.0)[:, None] * h.second[None]

    # at a correlation of one the slope has no end
    bend = h.below - h.second * rho / jnp.maximum(rest, 1e-300)
    slope = jnp.where(sd, h.first * scale, jnp.where(cor, bend * size, 0.0))
    slope = slope + jnp.where(entry, h.first, 0.0)
    slope = slope + jnp.where(sigma, last * 2 / jnp.where(sigma, h.value, 1.0), 0.0)
    return full, J, slope


def _held_beta(
    g: Groups, at: crit.OneFactorMarginal, h: Hold
) -> tuple[Any, Array, list, Array]:
    """The residual at beta with c'beta held, its r^2, L_Q^-1 c at unit length, slope.

    t_1 and t_2 move by T_X (beta^ - beta), level by level.
    """
    if not at.beta:
        return at, at.r2, [], jnp.zeros_like(at.r2)
    held = h.kind == BETA
    half = small.forward(at.LQ, list(h.contrast))
    square = jnp.where(held, small.dot(half, half), 1.0)
    delta = small.dot(list(h.contrast), at.beta) - h.value
    ratio = jnp.where(held, delta / square, 0.0)
    change = [x * ratio for x in small.backward(at.LQ, half)]
    moved = small.apply(at.TX, change)
    q = g.q
    each = [weighted(g.count, x) for x in moved]
    t2: small.Matrix = [[0.0] * q for _ in range(q)]
    for i in range(q):
        for j in range(i + 1):
            t2[i][j] = t2[j][i] = (
                at.t2[i][j]
                + at.t1[i] * moved[j]
                + moved[i] * at.t1[j]
                + each[i] * moved[j]
            )
    t1 = [a + b for a, b in zip(at.t1, each, strict=True)]
    r2 = at.r2 + ratio * ratio * square
    out = tree_at(lambda x: (x.t1, x.t2), at, (t1, t2))
    unit = [jnp.where(held, x / jnp.sqrt(square), 0.0) for x in half]
    return out, r2, unit, jnp.where(held, -2 * ratio, 0.0)


def _evaluate(
    g: Groups, r: Sums, h: Hold, free: Array, covariance: AbstractCovariance
) -> Deviance:
    full, J, along = point(h, free)
    m, q, p = covariance.m, g.q, g.p
    s2 = jnp.exp(full[-1])
    at = crit.marginal(g, r, list(full[:-1]), covariance)
    at, r2, unit, pull = _held_beta(g, at, h)
    value = at.log_det + g.n * (LOG_2PI + full[-1]) + r2 / s2
    t = crit.tables(g, tree_at(lambda x: x.r2, at, s2 * g.n), False)
    E = crit.directions(at.Lam, covariance, at.J)
    info, tv = crit.information(g, t, E)
    if p:  # along the held fixed effect nothing is projected out
        own = []
        for a in range(m):
            F = [
                crit._contract(E[a], lambda i, j, x=x: t.Tt[i][x][j], q)
                for x in range(p)
            ]
            own.append(small.dot(unit, F))
        info = [[info[a][b] + own[a] * own[b] / s2 for b in range(m)] for a in range(m)]
    edge = crit.boundary(t.G, covariance, at.J, crit.positive_part)
    rows = [[info[a][b] + edge[a][b] for b in range(m)] + [tv[a]] for a in range(m)]
    # the true second derivative vanishes far above sigma, and Newton would leap
    rows.append([*tv, jnp.maximum(r2 / s2, 0.5 * g.n)])
    H = jnp.stack([jnp.stack(row) for row in rows])
    score = jnp.stack([*crit.score(t, at, covariance), g.n - r2 / s2])
    return Deviance(value, score, H, pull / s2).pulled(J, along)


class State(Module):
    """A search: where it is, its derivatives, what it tries next, damping."""

    x: Array
    at: Deviance
    trial: Array
    mu: Array
    steps: Array
    done: Array


class NewtonSteps(Module):
    """Damped Newton steps over the free coordinates, from ``free``.

    Coordinates that may not be negative (``bounded``) stay at zero while the score
    points below; those that do nothing are ``idle``.
    """

    free: Float[Array, "k L"]
    bounded: Bool[Array, "k L"]
    idle: Bool[Array, "k L"]

    @staticmethod
    def of(hold: Hold, free: Float[Array, "k L"]) -> NewtonSteps:
        """With what is held taken out."""
        cor, first = hold.kind == COR, (hold.kind == SD) | (hold.kind == ENTRY)
        last = (np.arange(len(free)) == len(free) - 1)[:, None]
        idle = jnp.where(first, hold.first, jnp.where(cor, hold.below, 0.0))
        idle = jnp.where(last & (hold.kind == SIGMA), 1.0, idle)
        return NewtonSteps(free, cor & (hold.first + hold.second > 0), idle > 0)

    def begin(self) -> State:
        """Nothing evaluated yet."""
        k, L = self.free.shape
        nothing = Deviance(
            jnp.full(L, jnp.inf),
            jnp.zeros((k, L)),
            jnp.zeros((k, k, L)) + np.eye(k)[:, :, None],
            jnp.zeros(L),
        )
        mu, steps = jnp.full(L, 1e-3), jnp.zeros(L, int)
        return State(self.free, nothing, self.free, mu, steps, jnp.zeros(L, bool))

    def step(self, s: State, new: Deviance) -> State:
        """What was tried is taken or not, and the next trial."""
        eye = np.eye(len(self.free))[:, :, None]
        first = s.steps == 0
        ok = jnp.isfinite(new.f) & (first | (new.f <= s.at.f + 1e-9))
        x = jnp.where(ok, s.trial, s.x)
        at = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, s.at)
        mu = jnp.where(
            ok, jnp.where(first, s.mu, s.mu / 10), jnp.maximum(10 * s.mu, 0.1)
        )
        free = ~(self.bounded & (x <= 0) & (at.g >= 0)) & ~self.idle
        H = jnp.where(free[:, None] & free[None], at.H, eye)
        # an entry beside a variance of zero has no curvature
        D = 1e-8 + jnp.sum(H * eye, axis=1)
        step, usable = solve(H + (mu * D)[:, None] * eye, jnp.where(free, at.g, 0.0))
        step = jnp.where(usable & free, step, 0.0)
        to = jnp.where(self.bounded, jnp.maximum(x - step, 0.0), x - step)
        gain = jnp.sum(at.g * (x - to), axis=0)
        done = (usable & (gain < GAIN) & (mu <= LIGHT)) | (mu > HOPELESS)
        mu = jnp.where(usable, mu, jnp.maximum(10 * mu, 0.1))
        end = State(x, at, to, mu, s.steps + 1, s.done | done)
        return jax.tree.map(lambda a, b: jnp.where(s.done, b, a), end, s)

    def end(self, s: State) -> LinearEnds:
        """Where it ended."""
        at_edge = jnp.any(self.bounded & (s.x <= 0), axis=0)
        return LinearEnds(s.x, s.at.f, s.at.slope, at_edge, s.done)


def fit(
    g: Groups,
    r: Sums,
    hold: Hold,
    free: Float[Array, "k L"],
    max_steps: Int[Array, ""],
    covariance: AbstractCovariance,
) -> LinearEnds:
    """Minimise over the free coordinates of all lanes, from ``free``."""
    search = NewtonSteps.of(hold, free)

    def body(carry: tuple[Array, State]) -> tuple[Array, State]:
        count, s = carry
        return count + 1, search.step(s, _evaluate(g, r, hold, s.trial, covariance))

    _, s = lax.while_loop(
        lambda c: (c[0] < max_steps) & ~jnp.all(c[1].done),
        body,
        (jnp.zeros((), int), search.begin()),
    )
    return search.end(s)
