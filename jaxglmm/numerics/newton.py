"""A damped Newton method in one flat loop, one evaluation a step.

Minimises f from a function that returns (f, g, H, D): value, gradient, a positive
semidefinite stand-in for the Hessian and the diagonal scale of the damping. The step is
x = (H + mu diag(D))^-1 g; a step that does not raise f is accepted and mu falls
tenfold, another raises it. The test of convergence looks at what is still to gain: the
Newton decrement g'x, times the ratio by which it shrank in the last step (the step that
is about to be taken gains the rest). It counts only under light damping, for a heavily
damped step gains nothing from any point.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from jaxglmm import _status
from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.numerics import spd

Derivatives = tuple[Scalar, Array, Array, Array]

START_DAMPING = 1e-2
LIGHT_DAMPING = 1e-2
HOPELESS = 1e12


class Minimum(eqx.Module):
    """x: (m,) the minimiser; value: f there; decrement: g'H^-1g, in units of f."""

    x: Float[Array, " m"]
    value: Scalar
    decrement: Scalar
    steps: Count
    status: Int[Array, ""]


class _State(eqx.Module):
    x: Array
    f: Scalar
    g: Array
    H: Array
    D: Array
    trial: Array
    mu: Scalar
    gain: Scalar
    steps: Count
    status: Int[Array, ""]


def minimise(
    evaluate: Callable[[Array], Derivatives],
    start: Float[Array, " m"],
    tol: float | Scalar,
    max_steps: int | Count,
) -> Minimum:
    """Minimise ``evaluate`` from ``start``; ``tol`` is in units of the value."""
    m = len(start)
    dtype = start.dtype
    running = jnp.asarray(-1)

    def body(s: _State) -> _State:
        f, g, H, D = evaluate(s.trial)
        slack = 1e-9 + 1e-12 * jnp.abs(s.f)  # rounding of f
        ok = jnp.isfinite(f) & (jnp.isinf(s.f) | (f <= s.f + slack))
        x = jnp.where(ok, s.trial, s.x)
        value = jnp.where(ok, f, s.f)
        g, H, D = jnp.where(ok, g, s.g), jnp.where(ok, H, s.H), jnp.where(ok, D, s.D)
        first = s.steps == 0
        mu = jnp.where(
            ok, jnp.where(first, s.mu, s.mu * 0.1), jnp.maximum(10 * s.mu, 0.1)
        )
        step = spd.solve(spd.cholesky(H + mu * jnp.diag(D)), g)
        gain = g @ step
        ratio = jnp.minimum(1.0, gain / jnp.where(first, gain, s.gain))
        small = (gain < 1e-4) & (gain * ratio < tol) & (mu <= LIGHT_DAMPING)
        status = jnp.where(
            ok & small & jnp.isfinite(gain) & ~first,
            _status.CONVERGED,
            jnp.where(
                first & ~ok,
                _status.NOT_FINITE,
                jnp.where(mu > HOPELESS, _status.STALLED, running),
            ),
        )
        # nothing left to gain at all: an exact optimum is met, or was the start; or the
        # last gain is lost in the rounding of f
        nothing = ok & (gain < 1e-3 * tol) & (mu <= LIGHT_DAMPING)
        rounding = ~ok & ~first & (s.gain < 10 * tol) & (s.mu <= LIGHT_DAMPING)
        status = jnp.where(nothing | rounding, _status.CONVERGED, status)
        steps = s.steps + 1
        status = jnp.where(
            (status < 0) & (steps >= max_steps), _status.MAX_STEPS, status
        )
        return _State(x, value, g, H, D, x - step, mu, gain, steps, status)

    empty = jnp.zeros((m, m), dtype)
    init = _State(
        start,
        jnp.asarray(jnp.inf, dtype),
        jnp.zeros(m, dtype),
        empty,
        jnp.ones(m, dtype),
        start,
        jnp.asarray(START_DAMPING, dtype),
        jnp.asarray(jnp.inf, dtype),
        jnp.asarray(0),
        running,
    )
    end = lax.while_loop(lambda s: s.status < 0, body, init)
    done = (end.status == _status.CONVERGED) & (end.mu <= LIGHT_DAMPING)
    return Minimum(
        jnp.where(done, end.trial, end.x), end.f, end.gain, end.steps, end.status
    )
