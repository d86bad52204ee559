"""The mode and the parameters of a generalised model, searched together.

One flat loop, one evaluation (``laplace_derivatives``) a step. Where u is not near its
mode the step is an inner one: u moves by a Newton step, psi stays. Where it is, the
value has been corrected for what is left, and the step is judged as in
``numerics.newton``: accepted where the value has not risen, x = (H + mu diag(D))^-1 g,
mu down tenfold or up, and u follows psi by the derivative of the mode. Once psi settles
the two converge together, so that a fit takes little more than one pass over the rows a
step.

Inner steps. With one factor the levels are independent and damped each on its own: by
log(1 + r) / r, r the largest change of eta, which is enough where |dw/deta| <= w
(generalised self-concordance: logit, Poisson, negative binomial, gamma with log link);
elsewhere a level whose deviance rose goes half the way back. Several factors go to the
mode by chord steps: the factor of M of the last evaluation serves until it no longer
gains, which costs passes over the rows but no factorisation.

Where the first trial fails, because its modes leave the domain of the link or overflow,
the random effects start smaller. Steps stay within reach (``shortened``).

Curvature: average information is not the Hessian, so convergence is linear; E is
learned as in ``numerics.newton`` (BFGS). At the end diagonals of Lambda next to zero
are set to zero where that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Bool, Count, Float, Int, Scalar
from jaxglmm.estimate.start_generalised import damping
from jaxglmm.integrate import laplace_derivatives as _point
from jaxglmm.integrate.laplace_derivatives import Point
from jaxglmm.model.covariances.base import is_scale
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import spd
from jaxglmm.numerics.newton import HOPELESS, LIGHT_DAMPING, NEAR, START_DAMPING
from jaxglmm.numerics.system import Effects
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module

NEAR_ZERO = 1e-3  # diagonals of Lambda that are tried at zero
INDIFFERENT = 1e-8
ROUGH, ROUGH_LEVEL = 1.0, 0.05  # decrement of u, in all and a level, of an outer step
SETTLED = 1e-6  # decrement of u at the end
EXACT = 1e-9  # decrement of u up to which a value is believed
FINEST = 1e-12  # decrement of u that is never waited for
MOST_INNER = 40
MOST_AT_FIRST = 200  # inner steps before the first accepted point
MOST_TRIES = 8  # starts, each with a quarter of the last one's random effects
LEAST = 0.1  # share of the curvature along a step that stays at the next one
PATIENCE = 40  # steps after which convergence is taken for linear
SLOWEST = 0.9999  # ratio of the gains of two steps that is told from one
REACH = 3.0  # longest step of a coefficient, in units of eta where these mean the same
CHEAP, FINER = 20_000, 1e-6  # rows up to which an evaluation more is made, and for what
SEARCH, PIN = 0, 1

Evaluate = Callable[[Array, Effects, Bool[Array, ""]], Point]


class Found(Module):
    """psi, its mode, the value there, what a step would still gain."""

    psi: Float[Array, " k"]
    u: Effects
    value: Scalar
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]


class _State(Module):
    """x, u, f, g, H, D: of the last accepted point; trial, v: the next one.

    base, level: last u of each level at the trial that did not raise its deviance, and
    that deviance; exact: whether M must be the true one; rough: decrement of u at x;
    look: whether x is evaluated again, at its mode; tries: starts that failed; steps:
    trials judged, evaluations: with the inner ones.
    """

    x: Array
    u: Effects
    f: Scalar
    g: Array
    H: Array
    D: Array
    E: Array
    trial: Array
    v: Effects
    base: Effects
    level: Array
    mu: Scalar
    gain: Scalar
    inner: Count
    exact: Bool[Array, ""]
    steps: Count
    accepted: Count
    stage: Count
    rough: Scalar
    look: Bool[Array, ""]
    tries: Count
    evaluations: Count
    status: Int[Array, ""]


def minimise(
    problem: GeneralisedProblem,
    evaluate: Evaluate,
    start: Float[Array, " k"],
    u: Effects,
    tol: Scalar | float,
    max_steps: Count | int,
    near: float | None = None,
) -> Found:
    """From ``start`` and u; near: decrement of u that counts as the mode."""
    k, dtype = len(start), start.dtype
    levels = problem.rows.sizes[0] if len(u) == 1 else sum(problem.rows.sizes)
    rough = near if near is not None else max(ROUGH, ROUGH_LEVEL * levels)
    diagonal = _diagonal(problem)
    finer = FINER if len(problem.y) <= CHEAP else 1.0
    effects = np.arange(k)
    effects = (effects >= problem.p) & (effects < problem.p + problem.m)
    reach = effects, problem.family.is_unit_free
    family = problem.family
    canonical = family.has_canonical_link
    damped = family.is_self_concordant and len(u) == 1

    def body(s: _State) -> _State:
        at = evaluate(s.trial, s.v, s.exact)
        finite = jnp.isfinite(at.value) & jnp.isfinite(jnp.sum(at.score))
        finite = finite & jnp.isfinite(at.nu)
        first = s.accepted == 0
        # the value is right to the order of nu, so nu stays below what is to gain
        closely = (s.stage == PIN) | s.look
        limit = jnp.clip(0.1 * s.gain, FINEST, rough)
        limit = jnp.where(closely, min(EXACT, rough), limit)
        arrived = finite & at.valid & (at.nu < limit)
        again = ~finite & s.exact & (not canonical)  # M was not positive definite
        outside = ~finite & jnp.all(jnp.isfinite(s.level)) & (not damped)
        most = jnp.where(first, MOST_AT_FIRST, MOST_INNER)
        stuck = (~finite & ~again & ~outside) | (s.inner > most)
        slack = 1e-9 + 1e-13 * jnp.abs(s.f)
        judged = arrived & ~stuck
        lower = jnp.isinf(s.f) | s.look | (at.value <= s.f + slack)
        ok = judged & (s.stage == SEARCH) & lower
        moving = judged | stuck  # psi changes: not an inner step
        restart = moving & ~ok & first & (s.tries < MOST_TRIES)

        E = learned(s, at, ok & ~first & (at.nu < 1e-2 * s.gain))
        x = jnp.where(ok, s.trial, s.x)
        f = jnp.where(ok, at.value, s.f)
        g = jnp.where(ok, at.score, s.g)
        H = jnp.where(ok, at.curvature, s.H)
        D = jnp.where(ok, at.scale, s.D)
        # the mode is a step ahead, which may leave the domain of the link
        ahead = ok & (damped | (at.nu < EXACT))
        kept = jax.tree.map(
            lambda a, b, c: jnp.where(ahead, a, jnp.where(ok, b, c)), at.mode, s.v, s.u
        )
        # the value of a point that was not at its mode may be too low for any other to
        # pass: it is looked at once more before a step is blamed
        doubtful = (s.rough > 1e-3 * s.gain) & (s.rough > EXACT)
        look = moving & ~ok & ~first & (s.stage == SEARCH) & doubtful & ~s.look
        less = s.mu * jnp.where(first | s.look, 1.0, 0.1)
        more = jnp.where(look, s.mu, jnp.maximum(10 * s.mu, 0.1))
        mu = jnp.where(ok, less, jnp.where(moving & ~restart, more, s.mu))
        step, mu, E = _step(*free(family, x, H, E, D, g), mu, ok)
        gain = jnp.where(moving & ~look, jnp.sum(g * step), s.gain)
        short = shortened(step, x, reach)
        beyond = within(problem.family, x - short * step)
        trial = jnp.where(moving, jnp.where(look, x, beyond), s.trial)

        follow = _point.moved(problem, at, trial - s.trial)
        nearer, base, level = _inner(problem, s, at, damped)
        nearer = jax.tree.map(lambda a, b: jnp.where(again, b, a), nearer, s.v)
        v = jax.tree.map(
            lambda a, b, c: jnp.where(ok, a, jnp.where(moving, b, c)),
            follow,
            kept,
            nearer,
        )
        level = jnp.where(moving, jnp.inf, level)

        taken = ok & (short == 1.0)
        failed = moving & ~ok & ~look
        status = judged_status(s, taken, failed, first, gain, mu, at.nu, tol, finer)
        status = jnp.where(restart, -1, status)
        steps = s.steps + (moving & ~look)
        out = (steps >= max_steps) | (s.evaluations >= MOST_INNER * max_steps)
        remaining = left(gain, s.gain)
        status = jnp.where((status < 0) & out, _status.MAX_STEPS, status)
        enough = taken & (mu <= LIGHT_DAMPING) & (at.nu < SETTLED) & (remaining < tol)
        status = jnp.where(
            (status == _status.MAX_STEPS) & enough, _status.CONVERGED, status
        )
        # the last step is taken where it was accepted, and its gain is known
        done = status == _status.CONVERGED
        end = jnp.where(done & ok, trial, x)
        end_u = jax.tree.map(lambda a, b: jnp.where(done & ok, a, b), v, kept)
        end_f = jnp.where(done & ok, f - 0.5 * gain, f)
        # then diagonals next to zero are tried at zero
        pin = done & (s.stage == SEARCH)
        close = diagonal & (jnp.abs(end) < NEAR_ZERO) & (end != 0.0)
        pin = pin & jnp.any(close)
        cost = INDIFFERENT * jnp.maximum(1.0, jnp.abs(s.f))
        held = (s.stage == PIN) & judged & (at.value <= s.f + cost)
        over = (s.stage == PIN) & moving
        x = jnp.where(held, s.trial, jnp.where(pin, end, jnp.where(done, end, x)))
        kept = jax.tree.map(
            lambda a, b, c: jnp.where(held, a, jnp.where(done, b, c)),
            at.mode,
            end_u,
            kept,
        )
        f = jnp.where(held, at.value, jnp.where(done, end_f, f))
        trial = jnp.where(pin, jnp.where(close, 0.0, end), trial)
        v = jax.tree.map(lambda a, b: jnp.where(pin, a, b), end_u, v)
        status = jnp.where(pin, -1, jnp.where(over, _status.CONVERGED, status))
        gain = jnp.where(s.stage == PIN, s.gain, gain)
        gain = jnp.where(status > _status.CONVERGED, remaining, gain)
        trial = jnp.where(restart, jnp.where(effects, 0.25 * s.trial, s.trial), trial)
        v = jax.tree.map(lambda a: jnp.where(restart, 0.0, a), v)
        return _State(
            x,
            kept,
            f,
            g,
            H,
            D,
            E,
            trial,
            v,
            base,
            level,
            mu,
            gain,
            jnp.where(moving, 0, s.inner + 1),
            finite & (at.nu < limit),
            steps,
            s.accepted + ok,
            jnp.where(pin, PIN, s.stage),
            jnp.where(ok, jnp.where(s.look, 0.0, at.nu), s.rough),
            jnp.where(moving, look, s.look),
            s.tries + restart,
            s.evaluations + 1,
            status,
        )

    init = _State(
        x=start,
        u=u,
        f=jnp.asarray(jnp.inf, dtype),
        g=jnp.zeros(k, dtype),
        H=jnp.eye(k, dtype=dtype),
        D=jnp.ones(k, dtype),
        E=jnp.zeros((k, k), dtype),
        trial=start,
        v=u,
        base=u,
        level=jnp.full(problem.rows.sizes[0] if len(u) == 1 else (), jnp.inf, dtype),
        mu=jnp.asarray(START_DAMPING, dtype),
        gain=jnp.asarray(jnp.inf, dtype),
        inner=jnp.asarray(0),
        exact=jnp.asarray(False),
        steps=jnp.asarray(0),
        accepted=jnp.asarray(0),
        stage=jnp.asarray(SEARCH),
        rough=jnp.asarray(0.0, dtype),
        look=jnp.asarray(False),
        tries=jnp.asarray(0),
        evaluations=jnp.asarray(0),
        status=jnp.asarray(-1),
    )
    end = lax.while_loop(lambda s: s.status < 0, body, init)
    return Found(end.x, end.u, end.f, end.gain, end.steps, end.status)


def learned(s: Any, at: Any, accepted: Array) -> Array:
    """E such that H + E maps the step just taken to the change of the score.

    Of one model or, last axis, of lanes; so are ``shortened`` and ``judged_status``.
    """
    step, change = s.trial - s.x, at.score - s.g
    B = at.curvature + s.E
    Bs = jnp.sum(B * step[None], axis=1)
    old, new = jnp.sum(step * Bs, axis=0), jnp.sum(step * change, axis=0)
    believed = accepted & (s.gain < NEAR) & (old > 0)
    # where the curvature is far below H, and may be negative, it is learned in steps
    # that keep H + E positive (Powell 1978)
    less = believed & (new < LEAST * old)
    share = jnp.where(less, (1 - LEAST) * old / jnp.where(less, old - new, 1.0), 1.0)
    change = share * change + (1 - share) * Bs
    new = jnp.where(less, LEAST * old, new)
    safe_old = jnp.where(believed, old, 1.0)
    safe_new = jnp.where(believed, new, 1.0)
    update = (
        change[:, None] * change[None] / safe_new - Bs[:, None] * Bs[None] / safe_old
    )
    return s.E + jnp.where(believed, update, 0.0)


def _step(
    H: Array, E: Array, D: Array, g: Array, mu: Scalar, ok: Array
) -> tuple[Array, Scalar, Array]:
    """The damped Newton step, with what was learned where that is usable."""
    damped = H + mu * (np.eye(len(g)) * (1e-12 + jnp.abs(D)))
    plain = spd.solve(spd.cholesky(damped), g)
    better = spd.solve(spd.cholesky(damped + E), g)
    usable = jnp.isfinite(jnp.sum(better)) & ok
    step = jnp.where(usable, better, plain)
    E = jnp.where(usable, E, 0.0)
    solved = jnp.isfinite(jnp.sum(step))
    mu = jnp.where(solved, mu, jnp.maximum(10 * mu, 0.1))
    # H, or its rounding, is not positive definite: the diagonal that bounds it is
    bound = jnp.sum(jnp.abs(H), axis=1) + mu * (1e-12 + jnp.abs(D))
    return jnp.where(solved, step, g / bound), mu, E


def shortened(step: Array, x: Array, reach: tuple[np.ndarray, bool]) -> Scalar:
    """How much of a step stays where the curvature may be believed.

    A variance parameter at most doubles or grows by one, other parameters move by
    ``REACH``; times the largest parameter where eta has a unit.
    """
    effects, unitless = reach
    unit = 1.0 if unitless else jnp.maximum(1.0, jnp.max(jnp.abs(x), axis=0))
    least = jnp.where(effects, unit, REACH * unit)
    longest = jnp.maximum(least, jnp.abs(x))
    return jnp.minimum(1.0, 1.0 / jnp.max(jnp.abs(step) / longest, axis=0))


def within(family: AbstractFamily, psi: Array) -> Array:
    """psi (k, ...) with its dispersion parameters inside the family's range."""
    low, high = family.phi_range
    if not family.n_phi or (np.isinf(low).all() and np.isinf(high).all()):
        return psi
    p = len(psi) - family.n_phi
    if np.ndim(low) or np.ndim(high):  # one a parameter
        across = (-1, *(1,) * (psi.ndim - 1))
        low, high = (np.reshape(x, across) for x in (low, high))
    return jnp.concatenate([psi[:p], jnp.clip(psi[p:], low, high)])


def stopped(family: AbstractFamily, psi: Array, score: Array) -> Array | None:
    """Which of psi (k, ...) are at an end beyond which the criterion falls.

    score: of the criterion. None of families whose likelihood is flat there.
    """
    if not family.phi_stops:
        return None
    p = len(psi) - family.n_phi
    across = (-1, *(1,) * (psi.ndim - 1))
    ends = (np.broadcast_to(end, (family.n_phi,)) for end in family.phi_range)
    low, high = (np.reshape(end, across) for end in ends)
    phi, slope = psi[p:], score[p:]
    at_end = ((phi <= low) & (slope > 0)) | ((phi >= high) & (slope < 0))
    return jnp.concatenate([jnp.zeros(psi[:p].shape, bool), at_end])


def free(
    family: AbstractFamily, psi: Array, H: Array, E: Array, D: Array, score: Array
) -> tuple[Array, Array, Array, Array]:
    """H, E, D and the score of what is not ``stopped``: a step moves nothing else."""
    stop = stopped(family, psi, score)
    if stop is None:
        return H, E, D, score
    both = stop[:, None] | stop[None]
    unit = np.eye(len(H)).reshape(*H.shape[:2], *(1,) * (H.ndim - 2))
    H, E = jnp.where(both, unit, H), jnp.where(both, 0.0, E)
    return H, E, D, jnp.where(stop, 0.0, score)


def left(gain: Array, before: Array) -> Array:
    """What all further steps gain where each gains as much less than the one before."""
    ratio = gain / jnp.where(jnp.isinf(before) | (before == 0.0), gain, before)
    return gain / (1 - jnp.clip(ratio, 0.0, SLOWEST))


def judged_status(
    s: Any,
    ok: Array,
    failed: Array,
    first: Array,
    gain: Scalar,
    mu: Scalar,
    nu: Scalar,
    tol: Any,
    finer: float,
) -> Array:
    """Converged, failed, or -1."""
    light = mu <= LIGHT_DAMPING
    ratio = jnp.minimum(1.0, gain / jnp.where(jnp.isinf(s.gain), gain, s.gain))
    small = (gain < SETTLED) & (gain * ratio < 0.01 * tol * finer) & ~first
    nothing = gain < 1e-3 * tol * finer
    # convergence that stayed linear will not get better than that
    slow = (s.steps > PATIENCE) & (left(gain, s.gain) < 1e-4 * tol)
    converged = ok & light & (nu < SETTLED) & (small | nothing | slow)
    # the last gain was lost in the rounding of f
    converged = converged | (
        failed & ~first & (s.gain < 10 * tol) & (s.mu <= LIGHT_DAMPING)
    )
    failed = jnp.where(
        failed & first,
        _status.NOT_FINITE,
        jnp.where(mu > HOPELESS, _status.STALLED, -1),
    )
    return jnp.where(converged, _status.CONVERGED, failed)


def _inner(
    problem: GeneralisedProblem, s: _State, at: Point, damped: bool
) -> tuple[Effects, Effects, Array]:
    """The next u at the same psi; the u to go back to, and its deviances."""
    if damped:
        (delta,) = at.step
        lam = at.lam[0]
        change = _point.scale((lam,), (delta,))[0]
        rho = damping(problem.rows.largest(change))
        return (s.v[0] + rho * delta,), s.base, s.level
    slack = 1e-10 * (1 + jnp.abs(s.level))
    ok = jnp.isfinite(at.level) & (jnp.isinf(s.level) | (at.level <= s.level + slack))
    base = tuple(jnp.where(ok, a, b) for a, b in zip(s.v, s.base, strict=True))
    level = jnp.where(ok, at.level, s.level)
    ahead = tuple(
        jnp.where(ok, a + d, (a + b) / 2)
        for a, d, b in zip(s.v, at.step, s.base, strict=True)
    )
    return ahead, base, level


def _diagonal(problem: GeneralisedProblem) -> np.ndarray:
    inside = is_scale(problem.covariances).tolist()
    n_phi = problem.family.n_phi
    return np.array([False] * problem.p + inside + [False] * n_phi)
