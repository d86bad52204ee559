"""Newton's method of ``numerics.newton`` for many lanes, the lane axis last.

The same steps, damping and test of convergence, lane by lane: a lane that is done keeps
its state while others go on, so that what it finds does not depend on its neighbours.
The loop ends with its slowest lane, or after ``max_steps``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxglmm import _status
from jaxglmm._typing import Array, Count, Float, Int, Scalar
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.newton import LIGHT_DAMPING, RUNNING, START_DAMPING, judged
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module

Evaluated = tuple[Array, Array, Array, Array]


class LanesMinimum(Module):
    """x: (m, L); decrement, steps, status: (L,); status RUNNING where out of steps."""

    x: Float[Array, "m L"]
    decrement: Float[Array, " L"]
    steps: Int[Array, " L"]
    status: Int[Array, " L"]


class _State(Module):
    x: Array
    f: Array
    g: Array
    H: Array
    D: Array
    trial: Array
    mu: Array
    gain: Array
    steps: Array
    status: Array


def minimise(
    evaluate: Callable[[Array], Evaluated],
    start: Float[Array, "m L"],
    tol: float | Scalar,
    max_steps: int | Count,
) -> LanesMinimum:
    """Minimise ``evaluate``: x (m, L) -> f (L,), g (m, L), H (m, m, L), D (m, L)."""
    m, lanes = start.shape

    def body(state: tuple[Array, _State]) -> tuple[Array, _State]:
        k, s = state
        f, g, H, D = evaluate(s.trial)
        slack = 1e-9 + 1e-12 * jnp.abs(s.f)
        ok = jnp.isfinite(f) & (jnp.isinf(s.f) | (f <= s.f + slack))
        first = s.steps == 0
        x, g = jnp.where(ok, s.trial, s.x), jnp.where(ok, g, s.g)
        H, D = jnp.where(ok, H, s.H), jnp.where(ok, D, s.D)
        mu = jnp.where(
            ok, jnp.where(first, s.mu, 0.1 * s.mu), jnp.maximum(10 * s.mu, 0.1)
        )
        step = _solve(H, mu * D, g)
        gain = jnp.sum(g * step, axis=0)
        status = judged(s, ok, gain, mu, tol)
        new = _State(
            x, jnp.where(ok, f, s.f), g, H, D, x - step, mu, gain, s.steps + 1, status
        )
        active = s.status == RUNNING
        return k + 1, jax.tree.map(lambda a, b: jnp.where(active, a, b), new, s)

    init = _State(
        x=start,
        f=jnp.full(lanes, jnp.inf),
        g=jnp.zeros((m, lanes)),
        H=jnp.zeros((m, m, lanes)),
        D=jnp.ones((m, lanes)),
        trial=start,
        mu=jnp.full(lanes, START_DAMPING),
        gain=jnp.full(lanes, jnp.inf),
        steps=jnp.zeros(lanes, int),
        status=jnp.full(lanes, RUNNING),
    )
    _, end = lax.while_loop(
        lambda s: (s[0] < max_steps) & jnp.any(s[1].status == RUNNING),
        body,
        (jnp.zeros((), int), init),
    )
    done = (end.status == _status.CONVERGED) & (end.mu <= LIGHT_DAMPING)
    return LanesMinimum(
        jnp.where(done, end.trial, end.x), end.gain, end.steps, end.status
    )


def _solve(H: Array, damping: Array, g: Array) -> Array:
    """(H + diag(damping))^-1 g, unrolled."""
    m = len(g)
    rows = [[H[i, j] + damping[i] * (i == j) for j in range(m)] for i in range(m)]
    return jnp.stack(small.solve(small.cholesky(rows), list(g)))
