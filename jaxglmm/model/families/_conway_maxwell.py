"""The Conway-Maxwell-Poisson distribution by its mean: sums, and their moments.

P(y) = exp(t y - nu log y!) / Z(t, nu). With x = exp(t / nu) and
D(y) = y log(y / x) - y + x, which is zero at x, each term of Z is

    exp(nu x - nu (D(y) + log(2 pi y) / 2 + delta(y))),

and nu x cancels in a density. Where x nu < ``NEAR`` the terms are summed from zero on:
one by one first, further out by Gauss's rule for sums in blocks that double, whose
nodes and log y! are constants. Elsewhere by few terms around x (``_series``).

t belongs to a mean by Newton's method, and its derivatives by two steps of it that
carry tangents: after them the error is of the fourth order in what the mean or nu move.
"""

from __future__ import annotations

from functools import cache
from math import lgamma
from typing import Any, NamedTuple

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families import _series
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error
from jaxglmm.runtime.arrays import detached, jnp, lax
from jaxglmm.runtime.host import is_host

NEAR = 64.0
FIRST = 32  # terms one by one
BLOCKS = 9  # up to 2^14
NODES = 16  # of a block
MOST = 100  # steps of the search for t
CLOSE = 1e-13  # in log mean


class CountMoments(NamedTuple):
    """log Z (less nu x where ``far``), mean and central moments of y."""

    log_z: Array
    mean: Array
    variance: Array
    third: Array
    fourth: Array


@cache
def _constants() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, log y! and log weights of a sum over 0, 1, 2, ..., 2^14 - 1."""
    y, log_weights = [np.arange(float(FIRST))], [np.zeros(FIRST)]
    for k in range(BLOCKS):
        N = FIRST * 2**k
        n = np.arange(1.0, NODES)
        # the polynomials orthogonal on 0, ..., N - 1 are Chebyshev's discrete ones
        b = np.sqrt(n**2 * (N**2 - n**2) / (4 * (4 * n**2 - 1)))
        value, vector = np.linalg.eigh(np.diag(b, 1) + np.diag(b, -1))
        y.append(N + (N - 1) / 2 + value)
        log_weights.append(np.log(N * vector[0] ** 2))
    nodes = np.concatenate(y)
    return nodes, np.array([lgamma(v + 1) for v in nodes]), np.concatenate(log_weights)


def is_far(t: Array, log_nu: Array) -> Array:
    """Whether terms around x are enough: nu x is the square of x over its sd."""
    return detached(log_nu + t * jnp.exp(-log_nu)) > np.log(NEAR)


def moments(t: Array, log_nu: Array, far: Array) -> CountMoments:
    """Of rows (...), log_nu of the same shape."""
    e, y, middle = _from_zero(jnp.where(far, -1.0, t), jnp.where(far, 0.0, log_nu))
    found = _weighted(e, y, middle)
    if is_host() and not np.any(far):
        return found
    some = jnp.where(far, t, 10.0), jnp.where(far, log_nu, 0.0)
    others = _weighted(*_around(*some))
    return CountMoments(
        *(jnp.where(far, b, a) for a, b in zip(found, others, strict=True))
    )


def _weighted(e: Array, y: Array, middle: Array) -> CountMoments:
    log_z = _series.log_sum(e)
    p = jnp.exp(e - log_z)
    off = y - middle
    shift = jnp.sum(p * off, axis=0)
    d = off - shift
    square = p * d * d
    second, third = jnp.sum(square, axis=0), jnp.sum(square * d, axis=0)
    fourth = jnp.sum(square * d * d, axis=0)
    return CountMoments(log_z, middle + shift, second, third, fourth)


def _from_zero(t: Array, log_nu: Array) -> tuple[Array, Array, Array]:
    y, log_factorial, log_weight = _constants()
    count = len(y)
    if is_host():  # the terms that are something
        nu = np.exp(detached(log_nu))
        x = np.exp(np.minimum(detached(t) / nu, 30.0))
        last = np.max(x + 14 * np.sqrt(x / nu) + 45 / np.minimum(nu, 1.0) + 30)
        count = int(np.searchsorted(y, last)) + 1
    y, log_factorial, log_weight = (
        _series.column(v[:count], jnp.ndim(t)) for v in (y, log_factorial, log_weight)
    )
    e = t * y - jnp.exp(log_nu) * log_factorial + log_weight
    return e, y, jnp.zeros_like(t)


def _around(t: Array, log_nu: Array) -> tuple[Array, Array, Array]:
    nu = jnp.exp(log_nu)
    x = jnp.exp(t / nu)
    y, step = _series.around(x, jnp.sqrt(x / nu))
    inside = y >= 0
    e = -nu * _less(jnp.where(inside, y, 1.0), x) + jnp.log(step)
    return jnp.where(inside, e, -jnp.inf), y, jnp.round(detached(x))


def _less(y: Array, x: Array) -> Array:
    """x - (y log x - log y!)."""
    some = y > 0
    y1 = jnp.where(some, y, 1.0)
    distance = y1 * jnp.log1p((y1 - x) / x) - (y1 - x)
    rest = HALF_LOG_2PI + 0.5 * jnp.log(y1) + stirling_error(jnp.log(y1))
    return jnp.where(some, distance + rest, x)


def log_density(y: Array, t: Array, log_nu: Array, log_z: Array, far: Array) -> Array:
    """log P(y) from t and log Z."""
    nu = jnp.exp(log_nu)
    some = y > 0
    y1 = jnp.where(some, y, 1.0)
    log_y = jnp.log(y1)
    factorial = (y1 + 0.5) * log_y - y1 + HALF_LOG_2PI + stirling_error(log_y)
    near = t * y - nu * jnp.where(some, factorial, 0.0)
    x = jnp.exp(jnp.where(far, t, 1.0) / jnp.where(far, nu, 1.0))
    return jnp.where(far, -nu * _less(y, x), near) - log_z


def canonical(log_mu: Array, log_nu: Array) -> tuple[Array, Array]:
    """t of a mean, with its derivatives up to the third order, and ``is_far``."""
    goal, log_size = detached(log_mu), detached(log_nu)
    t = _solve(goal, log_size)
    far = is_far(t, log_size)
    for _ in range(2):
        found = moments(t, log_nu, far)
        t = t + (log_mu - jnp.log(found.mean)) * found.mean / found.variance
    return t, far


def _solve(log_mu: Any, log_nu: Any) -> Any:
    """Newton's method on the log mean, between values that enclose it."""
    mu, nu = jnp.exp(log_mu), jnp.exp(log_nu)
    shifted = mu + 0.5 - 0.5 / nu
    large = (mu > 1.0) & (shifted > 0.2 * mu)
    by_size = nu * jnp.log(jnp.where(large, shifted, 1.0))
    small = log_mu - (1 - jnp.minimum(nu, 1.0)) * jnp.log1p(mu)
    start = jnp.where(large, by_size, small)
    reach = jnp.maximum(1.0, nu)

    def body(state):
        t, low, high, _, k = state
        found = moments(t, log_nu, is_far(t, log_nu))
        gap = log_mu - jnp.log(found.mean)
        low, high = jnp.where(gap > 0, t, low), jnp.where(gap < 0, t, high)
        step = gap * found.mean / found.variance
        step = jnp.where(jnp.isfinite(step), step, jnp.sign(gap) * reach)
        new = t + jnp.clip(step, -reach, reach)
        middle = jnp.where(jnp.isfinite(low + high), 0.5 * (low + high), new)
        new = jnp.where((new > low) & (new < high), new, middle)
        done = (jnp.abs(gap) < CLOSE) | ~jnp.isfinite(log_mu) | (new == t)
        return jnp.where(done, t, new), low, high, jnp.all(done), k + 1

    def going(state):
        return ~state[3] & (state[4] < MOST)

    none = jnp.zeros_like(start)
    first = start, none - jnp.inf, none + jnp.inf, np.bool_(False), np.int64(0)
    return lax.while_loop(going, body, first)[0]
