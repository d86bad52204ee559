"""A damped Newton method in one flat loop, one evaluation a step.

Minimises f from a function that returns (f, g, H, D): value, gradient, a positive
semidefinite stand-in for the Hessian and the diagonal scale of the damping. The step is
x = (H + mu diag(D))^-1 g; a step that does not raise f is accepted and mu falls
tenfold, another raises it. The test of convergence looks at what is still to gain: the
Newton decrement g'x, and the ratio by which it shrank in the last step (``to_gain``).
It counts only under light damping, for a heavily damped step gains nothing from any
point.

Where the stand-in is not the Hessian, convergence is linear; ``secant`` learns the
difference: E is carried so that H + E satisfies the secant equation of the last step
(BFGS), used while it is positive definite and forgotten when a step is rejected.

An evaluation may carry something from accepted point to accepted point (``aux``: the
mode of an inner problem, to start the next from).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.numerics import spd
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module

Derivatives = tuple[Scalar, Array, Array, Array]

# enough to keep a first step short, little enough to count as light
START_DAMPING = 1e-2
LIGHT_DAMPING = 1e-2
HOPELESS = 1e12
RUNNING = -1  # a status before there is one
NEAR = 10.0  # decrement of the last step below which its secant is believed


class Minimum(Module):
    """x: (m,) the minimiser; value: f there; decrement: g'H^-1g, in units of f.

    aux: what the evaluation at the last accepted point left.
    """

    x: Float[Array, " m"]
    value: Scalar
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]
    aux: Any = None


class _State(Module):
    x: Array
    f: Scalar
    g: Array
    H: Array
    D: Array
    E: Array
    trial: Array
    mu: Scalar
    gain: Scalar
    steps: Count
    status: Int[Array, ""]
    aux: Any


def minimise(
    evaluate: Callable[[Array], Derivatives],
    start: Float[Array, " m"],
    tol: float | Scalar,
    max_steps: int | Count,
) -> Minimum:
    """Minimise ``evaluate`` from ``start``; ``tol`` is in units of the value."""
    return minimise_carrying(
        lambda x, aux: (*evaluate(x), aux), start, None, tol, max_steps, secant=False
    )


def minimise_carrying(
    evaluate: Callable[[Array, Any], tuple[Scalar, Array, Array, Array, Any]],
    start: Float[Array, " m"],
    aux: Any,
    tol: float | Scalar,
    max_steps: int | Count,
    secant: bool,
    within: Callable[[Array], Array] = lambda x: x,
    free: Callable[..., tuple[Array, Array, Array, Array]] | None = None,
) -> Minimum:
    """The same for an evaluation (x, aux) -> (f, g, H, D, aux).

    within: the nearest point of the region that is searched. free: (x, H, E, D, g) to
    (H, E, D, g) that move nothing which the end of the region holds.
    """
    m = len(start)
    dtype = start.dtype

    def body(s: _State) -> _State:
        f, g, H, D, aux = evaluate(s.trial, s.aux)
        slack = 1e-9 + 1e-12 * jnp.abs(s.f)  # rounding of f
        ok = jnp.isfinite(f) & (jnp.isinf(s.f) | (f <= s.f + slack))
        first = s.steps == 0
        E = s.E
        if secant:
            E = _learn(s, ok & ~first, g, H)
        x = jnp.where(ok, s.trial, s.x)
        value = jnp.where(ok, f, s.f)
        aux = jax.tree.map(lambda a, b: jnp.where(ok, a, b), aux, s.aux)
        g, H, D = jnp.where(ok, g, s.g), jnp.where(ok, H, s.H), jnp.where(ok, D, s.D)
        mu = jnp.where(
            ok, jnp.where(first, s.mu, s.mu * 0.1), jnp.maximum(10 * s.mu, 0.1)
        )
        H1, E1, D1, g1 = (H, E, D, g) if free is None else free(x, H, E, D, g)
        damped = H1 + mu * (np.eye(m) * D1)
        step = spd.solve(spd.cholesky(damped), g1)
        if secant:
            better = spd.solve(spd.cholesky(damped + E1), g1)
            usable = jnp.isfinite(better).all()
            step = jnp.where(usable, better, step)
            E = jnp.where(usable, E, 0.0)
        gain = jnp.sum(g * step)
        status = judged(s, ok, gain, mu, tol)
        steps = s.steps + 1
        status = jnp.where(
            (status < 0) & (steps >= max_steps), _status.MAX_STEPS, status
        )
        ahead = within(x - step)
        return _State(x, value, g, H, D, E, ahead, mu, gain, steps, status, aux)

    init = _State(
        x=start,
        f=jnp.asarray(jnp.inf, dtype),
        g=jnp.zeros(m, dtype),
        H=jnp.zeros((m, m), dtype),
        D=jnp.ones(m, dtype),
        E=jnp.zeros((m, m) if secant else (0, 0), dtype),
        trial=start,
        mu=jnp.asarray(START_DAMPING, dtype),
        gain=jnp.asarray(jnp.inf, dtype),
        steps=jnp.asarray(0),
        status=jnp.asarray(RUNNING),
        aux=aux,
    )
    end = lax.while_loop(lambda s: s.status < 0, body, init)
    done = (end.status == _status.CONVERGED) & (end.mu <= LIGHT_DAMPING)
    x = jnp.where(done, end.trial, end.x)
    return Minimum(x, end.f, end.gain, end.steps, end.status, end.aux)


def minimise_on_host(
    evaluate: Callable[[np.ndarray], tuple | None],
    x: np.ndarray,
    tol: float,
    max_steps: int,
    keep: Callable[[np.ndarray, float], None] | None = None,
) -> Minimum:
    """The same loop in NumPy, for a function that is no program of JAX.

    Args:
        evaluate: x -> (f, g, H, D), or None where f is not defined.
        x: (m,) start.
        tol: in units of the value.
        max_steps: most evaluations.
        keep: told of each accepted point and its value.
    """
    first, trial = evaluate(x), x
    if first is None or not np.isfinite(first[0]):
        return Minimum(x, np.nan, np.inf, 1, _status.NOT_FINITE)
    best: Any = first
    mu, gain = START_DAMPING, np.inf
    for step in range(1, max_steps + 1):
        found = best if step == 1 else evaluate(trial)
        value = np.inf if found is None or np.isnan(found[0]) else found[0]
        if value <= best[0] + 1e-9 + 1e-12 * abs(best[0]):
            mu = mu if step == 1 else mu * 0.1
            best, x = found, trial
            if keep is not None:
                keep(x, value)
        elif gain < 10 * tol and mu <= LIGHT_DAMPING:  # the rest is lost in rounding
            return Minimum(x, best[0], gain, step, _status.CONVERGED)
        else:
            mu = max(10 * mu, 0.1)
        value, g, H, D = best
        change = np.linalg.lstsq(H + mu * np.diag(D), g, rcond=None)[0]
        before, gain = gain, float(g @ change)
        ratio = min(1.0, gain / before) if np.isfinite(before) else 1.0
        if mu <= LIGHT_DAMPING and gain < 1e-4 and gain * ratio < tol and step > 1:
            return Minimum(x - change, value, gain, step, _status.CONVERGED)
        # an exact optimum, or a start that was one: there is no last gain to compare
        # with
        if mu <= LIGHT_DAMPING and gain < 1e-3 * tol:
            return Minimum(x, value, gain, step, _status.CONVERGED)
        if mu > HOPELESS:
            return Minimum(x, value, gain, step, _status.STALLED)
        trial = x - change
    return Minimum(x, best[0], gain, max_steps, _status.MAX_STEPS)


def judged(s: Any, ok: Array, gain: Array, mu: Array, tol: Any) -> Array:
    """The status after a step, of one search or of lanes; RUNNING where it goes on."""
    first = s.steps == 0
    ratio = jnp.minimum(1.0, gain / jnp.where(first, gain, s.gain))
    light = mu <= LIGHT_DAMPING
    small = (gain < 1e-4) & (to_gain(gain, ratio) < tol) & light
    status = jnp.where(
        ok & small & jnp.isfinite(gain) & ~first,
        _status.CONVERGED,
        jnp.where(
            first & ~ok,
            _status.NOT_FINITE,
            jnp.where(mu > HOPELESS, _status.STALLED, RUNNING),
        ),
    )
    # nothing left to gain at all: an exact optimum is met, or was the start; or
    # the last gain is lost in the rounding of f
    nothing = ok & (gain < 1e-3 * tol) & light
    rounding = ~ok & ~first & (s.gain < 10 * tol) & (s.mu <= LIGHT_DAMPING)
    return jnp.where(nothing | rounding, _status.CONVERGED, status)


def to_gain(decrement: Array, ratio: Array) -> Array:
    """What is left after the step that is about to be taken, at least.

    Decrements that shrink by ``ratio`` a step belong to a stand-in 1 / (1 - sqrt ratio)
    times the Hessian; with it the rest is (1/2) decrement ratio / (1 - sqrt ratio).
    Decrements that do not shrink promise nothing: infinity.
    """
    # a ratio may be negative by rounding, or above one far from the optimum
    rest = jnp.maximum(1 - jnp.sqrt(jnp.maximum(ratio, 0.0)), 0.0)
    return jnp.where(
        rest > 0, decrement * ratio / jnp.where(rest > 0, rest, 1), jnp.inf
    )


def _learn(s: _State, accepted: Array, g: Array, H: Array) -> Array:
    """E such that H + E maps the step just taken to the change of the gradient."""
    step, change = s.trial - s.x, g - s.g
    B = H + s.E
    Bs = B @ step
    old, new = step @ Bs, step @ change
    believed = accepted & (s.gain < NEAR) & (new > 0.1 * old) & (new < 10 * old)
    believed = believed & (old > 0)
    safe_old = jnp.where(believed, old, 1.0)
    safe_new = jnp.where(believed, new, 1.0)
    update = jnp.outer(change, change) / safe_new - jnp.outer(Bs, Bs) / safe_old
    kept = jnp.where(accepted, s.E, 0.0)
    return jnp.where(believed, s.E + update, kept)
