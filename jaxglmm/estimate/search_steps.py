"""What a search for modes and parameters does at each evaluation: one model, or lanes.

The state, what is accepted and learned, how long a step may be, when it is over and
what is tried then (``estimate.search`` says why). Arrays are those of one model or have
the lanes last.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Scalar
from jaxglmm.model.families import AbstractFamily
from jaxglmm.numerics.newton import (
    HOPELESS,
    LIGHT_DAMPING,
    NEAR,
    RUNNING,
    START_DAMPING,
)
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module

NEAR_ZERO = 1e-3  # diagonals of Lambda that are tried at zero
INDIFFERENT = 1e-8
SETTLED = 1e-6  # decrement of u at the end
LEAST = 0.1  # share of the curvature along a step that stays at the next one
PATIENCE = 40  # steps after which convergence is taken for linear
SLOWEST = 0.9999  # ratio of the gains of two steps that is told from one
REACH = 3.0  # longest step of a coefficient, in units of eta where these mean the same


class SearchState(Module):
    """A search of one model or, last axis, of lanes.

    x, u, f, g, H, D: of the last accepted point; trial, v: the next one.

    base, level: last u of each level at the trial that did not raise its deviance, and
    that deviance; exact: whether M must be the true one; rough: decrement of u at x;
    look: whether x is evaluated again, at its mode; tries: starts that failed; steps:
    trials judged, evaluations: with the inner ones; pinning: whether the trial is the
    end with diagonals of zero.
    """

    x: Array
    u: Any
    f: Array
    g: Array
    H: Array
    D: Array
    E: Array
    trial: Array
    v: Any
    base: Any
    level: Array
    mu: Array
    gain: Array
    inner: Array
    exact: Array
    steps: Array
    accepted: Array
    pinning: Array
    rough: Array
    look: Array
    tries: Array
    evaluations: Array
    status: Array


def begin(start: Array, u: Any, levels: tuple[int, ...]) -> SearchState:
    """Nothing evaluated yet; start: (k, ...); levels: shape of their deviances."""
    k, lanes, dtype = len(start), start.shape[1:], start.dtype
    eye = np.eye(k).reshape(k, k, *(1,) * len(lanes))
    endless = jnp.full(lanes, jnp.inf, dtype)
    none, no = jnp.zeros(lanes, int), jnp.zeros(lanes, bool)
    return SearchState(
        x=start,
        u=u,
        f=endless,
        g=jnp.zeros(start.shape, dtype),
        H=jnp.zeros((k, *start.shape), dtype) + eye,
        D=jnp.ones(start.shape, dtype),
        E=jnp.zeros((k, *start.shape), dtype),
        trial=start,
        v=u,
        base=u,
        level=jnp.full(levels, jnp.inf, dtype),
        mu=jnp.full(lanes, START_DAMPING, dtype),
        gain=endless,
        inner=none,
        exact=no,
        steps=none,
        accepted=none,
        pinning=no,
        rough=jnp.zeros(lanes, dtype),
        look=no,
        tries=none,
        evaluations=none,
        status=jnp.full(lanes, RUNNING),
    )


def either(one: Array, a: Any, b: Any) -> Any:
    """The leaves of a where ``one`` is true, lane by lane, else those of b."""
    return jax.tree.map(lambda x, y: jnp.where(one, x, y), a, b)


def is_finite(at: Any) -> Array:
    """Whether value, score and decrement are numbers."""
    finite = jnp.isfinite(at.value) & jnp.isfinite(jnp.sum(at.score, axis=0))
    return finite & jnp.isfinite(at.nu)


def not_higher(s: SearchState, at: Any) -> Array:
    """Whether the value has not risen, its rounding aside, or is the first."""
    # rounding of a sum over the rows
    slack = 1e-9 + 1e-13 * jnp.abs(s.f)
    return jnp.isinf(s.f) | s.look | (at.value <= s.f + slack)


def accepted(s: SearchState, at: Any, ok: Array) -> tuple[Array, ...]:
    """x, f, g, H, D of the trial where it is taken, else those that were."""
    new = s.trial, at.value, at.score, at.curvature, at.scale
    old = s.x, s.f, s.g, s.H, s.D
    return tuple(jnp.where(ok, a, b) for a, b in zip(new, old, strict=True))


def next_damping(s: SearchState, ok: Array, moved: Array, look: Array) -> Array:
    """A tenth after a step that was taken, ten times as much after another."""
    less = s.mu * jnp.where((s.accepted == 0) | s.look, 1.0, 0.1)
    more = jnp.where(look, s.mu, jnp.maximum(10 * s.mu, 0.1))
    return jnp.where(ok, less, jnp.where(moved, more, s.mu))


def ended(
    s: SearchState,
    at: Any,
    words: tuple[Array, Array, Array],
    now: tuple[Array, Any, Array],
    ahead: tuple[Array, Any, Array],
    status: Array,
    diagonal: np.ndarray,
) -> tuple[tuple[Array, Any, Array], tuple[Array, Any], Array, Array]:
    """The end of a search: diagonals next to zero are then tried at zero.

    words: (ok, judged, moving); now: (x, u, f); ahead: (trial, v, gain). Returns
    ``now``, (trial, v), the status and whether zeros are what is tried next.
    """
    (ok, judged, moving), (x, kept, f), (trial, v, gain) = words, now, ahead
    done = status == _status.CONVERGED
    # the last step is taken where it was accepted, and its gain is known
    last = done & ok
    end, end_u = jnp.where(last, trial, x), either(last, v, kept)
    end_f = jnp.where(last, f - 0.5 * gain, f)
    close = diagonal & (jnp.abs(end) < NEAR_ZERO) & (end != 0.0)
    pin = done & ~s.pinning & jnp.any(close, axis=0)
    # a variance of zero is the simpler answer, where the likelihood does not mind
    cost = INDIFFERENT * jnp.maximum(1.0, jnp.abs(s.f))
    held = s.pinning & judged & (at.value <= s.f + cost)
    over = s.pinning & moving
    x = jnp.where(held, s.trial, jnp.where(done, end, x))
    kept = either(held, at.mode, either(done, end_u, kept))
    f = jnp.where(held, at.value, jnp.where(done, end_f, f))
    trial = jnp.where(pin, jnp.where(close, 0.0, end), trial)
    v = either(pin, end_u, v)
    status = jnp.where(pin, RUNNING, jnp.where(over, _status.CONVERGED, status))
    return (x, kept, f), (trial, v), status, pin


def learned(s: Any, at: Any, accepted: Array) -> Array:
    """E such that H + E maps the step just taken to the change of the score."""
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
