"""Modes and parameters of many generalised models, searched together.

``estimate.search`` with the lanes last: the same inner and outer steps, the same tests,
lane by lane. A lane that is done keeps its state while others go on. The state, what is
accepted and learned, how long a step may be, when a search is over and what is tried
then are one code for both (``search_steps``); the loops are two, since one model goes
on to several factors and LAPACK, and lanes to what all of them need at once
(``lax.cond``), which costs one model more than it saves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm._typing import Array, Float, Int
from jaxglmm.estimate.search import (
    EXACT,
    FINER,
    MOST_AT_FIRST,
    MOST_INNER,
    MOST_TRIES,
    ROUGH,
    ROUGH_LEVEL,
)
from jaxglmm.estimate.search_steps import (
    SETTLED,
    SearchState,
    accepted,
    begin,
    either,
    ended,
    free,
    is_finite,
    judged_status,
    learned,
    next_damping,
    not_higher,
    shortened,
    within,
)
from jaxglmm.integrate.laplace_derivatives_lanes import (
    Evaluate,
    LanePoint,
    Split,
    moved,
)
from jaxglmm.integrate.rows_lanes import LaneRows
from jaxglmm.model.families import AbstractFamily
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.newton import RUNNING
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module


class LanesFound(Module):
    """psi (k, L), its modes u (q, J, L); the rest (L,); status RUNNING out of steps."""

    psi: Float[Array, "k L"]
    u: Float[Array, "q J L"]
    value: Float[Array, " L"]
    decrement: Float[Array, " L"]
    steps: Int[Array, " L"]
    status: Int[Array, " L"]


def minimise(
    d: LaneRows,
    split: Split,
    evaluate: Evaluate,
    start: Float[Array, "k L"],
    u: Float[Array, "q J L"],
    tol: Array,
    max_steps: Array,
    near: float | None = None,
    n_levels: Array | None = None,
) -> LanesFound:
    """From ``start`` and u; near: decrement of u that counts as the mode."""
    (k, L), J = start.shape, d.shape[1]
    size = J if n_levels is None else n_levels
    diagonal, effects = np.zeros((k, 1), bool), np.zeros((k, 1), bool)
    effects[split.p : split.p + split.m] = True
    diagonal[split.p : split.p + split.m, 0] = split.covariance.is_scale
    search = _Search(
        d.family,
        split,
        evaluate,
        tol,
        near if near is not None else jnp.maximum(ROUGH, ROUGH_LEVEL * size),
        diagonal,
        effects,
        reaches(d),
        damped=d.family.is_self_concordant,
    )
    _, end = lax.while_loop(
        lambda c: (c[0] < max_steps) & jnp.any(c[1].status == RUNNING),
        lambda c: (c[0] + 1, search(c[1])),
        (jnp.zeros((), int), begin(start, u, (J, L))),
    )
    return LanesFound(end.x, end.u, end.f, end.gain, end.steps, end.status)


@dataclass(frozen=True, eq=False)
class _Search:
    """As in ``estimate.search``; largest: |z| of each column of Z."""

    family: AbstractFamily
    split: Split
    evaluate: Evaluate
    tol: Array
    rough: Array | float
    diagonal: np.ndarray
    effects: np.ndarray
    largest: list[Array | float]
    damped: bool

    def __call__(self, s: SearchState) -> SearchState:
        """The state after the next evaluation, of lanes that are not done."""
        split, damped, effects = self.split, self.damped, self.effects
        family = self.family
        at = self.evaluate(s.trial, s.v, s.exact)
        finite, first = is_finite(at), s.accepted == 0
        limit = jnp.where(s.pinning, SETTLED, self.rough)
        arrived = finite & at.valid & (at.nu < limit)
        again = ~finite & s.exact & (not family.has_canonical_link)
        if damped:
            stuck = (~finite & ~again) | (s.inner > MOST_INNER)
        else:  # u may leave the domain of the link: it is halved back
            outside = ~finite & jnp.all(jnp.isfinite(s.level), axis=0)
            most = jnp.where(first, MOST_AT_FIRST, MOST_INNER)
            stuck = (~finite & ~again & ~outside) | (s.inner > most)
        judged = arrived & ~stuck
        ok = judged & ~s.pinning & not_higher(s, at)
        moving = judged | stuck
        restart = moving & ~ok & first & (s.tries < MOST_TRIES) & (not damped)

        E = learned(s, at, ok & ~first & (at.nu < 1e-2 * s.gain))
        x, f, g, H, D = accepted(s, at, ok)
        # the mode is a step ahead, which may leave the domain of the link
        step_ahead = ok if damped else ok & (at.nu < EXACT)
        kept = jnp.where(step_ahead, at.mode, jnp.where(ok, s.v, s.u))
        # the value of a point that was not at its mode may be too low for any other to
        # pass: it is looked at once more before a step is blamed
        look = moving & ~ok & ~first & ~s.pinning & (s.rough > EXACT) & ~s.look
        mu = next_damping(s, ok, moving & ~restart, look)
        needed = moving & (s.status == RUNNING)
        step, mu, E = _step(*free(family, x, H, E, D, g), mu, ok, needed)
        gain = jnp.where(moving, jnp.sum(g * step, axis=0), s.gain)
        reach = effects, family.is_unit_free
        short = 1.0 if damped else shortened(step, x, reach)
        beyond = within(family, x - short * step)
        trial = jnp.where(moving, jnp.where(look, x, beyond), s.trial)

        # settled for a lane here, not again for each of its levels
        trial, ok, moving = lax.optimization_barrier((trial, ok, moving))
        follow = moved(split, at, trial - s.trial)
        ahead, base, level = lax.cond(
            jnp.all(moving | (s.status != RUNNING)),  # most often nobody waits for u
            lambda: (s.v, s.base, s.level),
            lambda: _inner(s, at, damped, self.largest),
        )
        ahead = jnp.where(again, s.v, ahead)
        v = jnp.where(ok, follow, jnp.where(moving, kept, ahead))
        level = jnp.where(moving, jnp.inf, level)

        taken = ok & (short == 1.0)
        failed = moving & ~ok & ~restart
        status = judged_status(
            s, taken, failed, first, gain, mu, at.nu, self.tol, FINER
        )
        words, point = (ok, judged, moving), (x, kept, f)
        now, (trial, v), status, pin = ended(
            s, at, words, point, (trial, v, gain), status, self.diagonal
        )
        if not damped:  # again, from a quarter of the random effects
            weaker = jnp.where(effects, 0.25 * s.trial, s.trial)
            trial = jnp.where(restart, weaker, trial)
            v = jnp.where(restart, 0.0, v)
        new = SearchState(
            *now,
            g,
            H,
            D,
            E,
            trial,
            v,
            base,
            level,
            mu,
            jnp.where(s.pinning, s.gain, gain),
            jnp.where(moving, 0, s.inner + 1),
            finite & (at.nu < limit),
            s.steps + 1,
            s.accepted + ok,
            s.pinning | pin,
            jnp.where(ok, jnp.where(s.look, 0.0, at.nu), s.rough),
            jnp.where(moving, look, s.look),
            s.tries + restart,
            s.evaluations,
            status,
        )
        return either(s.status == RUNNING, new, s)


def reaches(d: LaneRows) -> list[Array | float]:
    """The largest |z| of each column of Z."""
    return [1.0] if d.Z is None else [jnp.max(jnp.abs(z), axis=(0, 1)) for z in d.Z]


def damping(reach: list[Array | float], change: list[Array]) -> Array:
    """log(1 + r) / r of each level, r the largest change of eta."""
    r = sum(z * jnp.abs(x) for z, x in zip(reach, change, strict=True))
    return jnp.where(r < 1e-2, 1.0, jnp.log1p(r) / jnp.maximum(r, 1e-300))


def solve(H: Float[Array, "k k L"], g: Float[Array, "k L"]) -> tuple[Array, Array]:
    """H^-1 g by elimination without pivots, and whether H is positive definite."""
    H = jnp.broadcast_to(H, (*H.shape[:2], *g.shape[1:]))
    W = jnp.concatenate([H, g[:, None]], axis=1)
    ok = jnp.ones(g.shape[1:], bool)
    unit = np.eye(len(g))[:, :, None]
    for j in range(len(g)):
        pivot = W[j, j]
        ok = ok & (pivot > 0)
        row = W[j] / pivot
        W = W - (W[:, j] - unit[:, j])[:, None] * row[None]
    x = W[:, -1]
    return x, ok & jnp.isfinite(jnp.sum(x, axis=0))


def _step(
    H: Array, E: Array, D: Array, g: Array, mu: Array, ok: Array, needed: Array
) -> tuple[Array, Array, Array]:
    """The damped Newton step, with what was learned where that is usable."""
    # D is zero for a parameter that no row depends on
    damping = (mu * (1e-12 + jnp.abs(D)))[:, None] * np.eye(len(g))[:, :, None]
    better, usable = solve(H + damping + E, g)
    usable = usable & ok

    def either() -> tuple[Array, Array]:
        plain, solved = solve(H + damping, g)
        return jnp.where(usable, better, plain), usable | solved

    # most often nobody needs the other one
    step, solved = lax.cond(jnp.all(usable | ~needed), lambda: (better, usable), either)
    mu = jnp.where(solved | ~needed, mu, jnp.maximum(10 * mu, 0.1))
    bound = jnp.sum(jnp.abs(H), axis=1) + mu * (1e-12 + jnp.abs(D))
    return jnp.where(solved, step, g / bound), mu, jnp.where(usable, E, 0.0)


def _inner(
    s: SearchState, at: LanePoint, damped: bool, reach: list[Array | float]
) -> tuple[Array, Array, Array]:
    """The next u at the same psi; the u to go back to, and its deviances."""
    if damped:
        change = small.apply(at.Lam, list(at.step))
        return s.v + damping(reach, change)[None] * at.step, s.base, s.level
    slack = 1e-10 * (1 + jnp.abs(s.level))
    ok = jnp.isfinite(at.level) & (jnp.isinf(s.level) | (at.level <= s.level + slack))
    base = jnp.where(ok, s.v, s.base)
    level = jnp.where(ok, at.level, s.level)
    return jnp.where(ok, s.v + at.step, (s.v + s.base) / 2), base, level
