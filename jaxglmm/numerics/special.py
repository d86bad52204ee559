"""Special functions of likelihoods, exact in the tails and cheap to differentiate.

Likelihoods need three derivatives and more, which stay finite and accurate here where
those of library routines do not, and are cheap to compile. The
gamma function enters through the error of Stirling's formula,

    lgamma(z) = (z - 1/2) log z - z + log(2 pi) / 2 + delta(z),

because the large parts cancel on paper in every density that uses it (Loader 2000,
"Fast and accurate computation of binomial probabilities"): what is left is small, and
right to the last digits for counts of a billion.

Its argument is log z, which is what the models have, and its derivatives are taken in
log z: nothing overflows where z underflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import factorial

import jax

from jaxglmm._typing import Array, Float
from jaxglmm.runtime.arrays import by_order, jnp, lax

SHIFT = 10  # Stirling's series is used from here on; below, the recurrence leads there
LOG_2PI = 1.8378770664093453
HALF_LOG_2PI = LOG_2PI / 2
# B_2k / (2k (2k - 1)), the coefficients of z^(1 - 2k)
_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
_LOG_SHIFT = 2.302585092994046
_SERIES = 0.25  # below this log((1 - e^-x) / x) is a short power series
_TAIL = -4.0  # below this the normal distribution function is a continued fraction


def stirling_error(log_z: Array, order: int = 0) -> Float[Array, ...]:
    """delta(z), or its derivatives in log z: orders by closed form, not by autodiff.

    About 1 / (12 z) for large z and -log(2 pi z) / 2 towards zero. With
    A_p = z^p times the p-th derivative of log Gamma and S Stirling's numbers of the
    second kind, the n-th derivative in log z is

        sum_p S(n, p) A_p - z log z - (n - 1) z + (1/2 if n = 1),

    and A_p at z < 10 follows from z + 10 by the recurrence of the gamma function, in
    terms of z / (z + k), which are below one. Far out the series is differentiated.
    """
    return by_order(_stirling_error, _device_stirling_error)(log_z, order)


def _stirling_error(log_z: Array, order: int) -> Array:
    z = jnp.exp(jnp.minimum(log_z, 300.0))
    small = log_z < _LOG_SHIFT
    w = jnp.where(small, jnp.where(small, z, 1.0) + SHIFT, z)
    z, t = jnp.where(small, z, 1.0), jnp.where(small, log_z, 0.0)
    if order == 0:
        correction = (
            (z + SHIFT - 0.5) * jnp.log(z + SHIFT)
            - SHIFT
            - jnp.log(_product(z))
            - (z + 0.5) * t
        )
        return _series(w, _STIRLING) + jnp.where(small, correction, 0.0)
    far = _series(w, [c * (1 - 2 * j) ** order for j, c in enumerate(_STIRLING, 1)])
    near = -z * t - (order - 1) * z + (0.5 if order == 1 else 0.0)
    ratios = [z / (z + k) for k in range(1, SHIFT)]
    powers, last = list(ratios), z / w
    for p in range(1, order + 1):
        if p > 1:
            powers = [a * r for a, r in zip(powers, ratios, strict=True)]
        near = near + _second_kind(order, p) * _scaled_polygamma(p, z, w, last, powers)
    return jnp.where(small, near, far)


_device_stirling_error = partial(jax.custom_jvp, nondiff_argnums=(1,))(_stirling_error)


@_device_stirling_error.defjvp
def _stirling_jvp(order: int, primals: tuple, tangents: tuple) -> tuple:
    (t,), (dt,) = primals, tangents
    return stirling_error(t, order), stirling_error(t, order + 1) * dt


def lgamma(z: Array) -> Float[Array, ...]:
    """log Gamma(z), z > 0, absolute error about 1e-14 near its zeros."""
    log_z = jnp.log(z)
    return (z - 0.5) * log_z - z + HALF_LOG_2PI + stirling_error(log_z)


def trigamma(z: Array) -> Float[Array, ...]:
    """The second derivative of log Gamma, z > 0."""
    low = jnp.minimum(z, float(SHIFT))
    total = sum(1.0 / (low + k) ** 2 for k in range(SHIFT))
    high = jnp.where(z < SHIFT, z + SHIFT, z)
    r2 = 1.0 / high**2
    tail = (
        1 / high
        + r2 / 2
        + r2
        / high
        * (1 / 6 - r2 * (1 / 30 - r2 * (1 / 42 - r2 * (1 / 30 - r2 * (5 / 66)))))
    )
    return tail + jnp.where(z < SHIFT, total, 0.0)


def log1mexp(x: Array) -> Float[Array, ...]:
    """log(1 - exp(-x)), x > 0."""
    near = x < 0.6931471805599453
    return jnp.where(
        near,
        jnp.log(-jnp.expm1(-jnp.where(near, x, 1.0))),
        jnp.log1p(-jnp.exp(-jnp.where(near, 1.0, x))),
    )


def log1mexp_exp(t: Array) -> Float[Array, ...]:
    """log(1 - exp(-exp(t))): t for t to minus infinity, zero for large t."""
    low, high = t < jnp.log(_SERIES), t > 4.0
    x = jnp.exp(jnp.where(low, t, 0.0))
    x2 = x * x
    series = -x / 2 + x2 * (
        1 / 24
        - x2
        * (1 / 2880 - x2 * (1 / 181440 - x2 * (1 / 9676800 - x2 * (1 / 479001600))))
    )
    middle = log1mexp(jnp.exp(jnp.where(low | high, 0.0, t)))
    return jnp.where(low, t + series, jnp.where(high, 0.0, middle))


def log_ndtr(x: Array, order: int = 0) -> Float[Array, ...]:
    """log of the normal distribution function, or a derivative of it up to the fifth.

    With h = phi(x) / Phi(x) and g = x + h these are h, -h g, h (g^2 - 1 + h g). In the
    lower tail g cancels; there z = -x, and Laplace's continued fraction has it at once,
    h = z + g, g = 1 / (z + c2), c2 = 2 / (z + c3), c3 = 3 / (z + ...), with
    g^2 - 1 + h g = -2 g^2 (c2 - c3) / (z + c3).
    """
    return by_order(_log_ndtr, _device_log_ndtr)(x, order)


def _log_ndtr(x: Array, order: int) -> Array:
    if order > 5:
        raise NotImplementedError("log_ndtr: derivatives up to the fifth")
    if order > 3:
        # w = h g: h' = -h g, g' = 1 - h g, once more and twice
        h, second, third = (log_ndtr(x, k) for k in (1, 2, 3))
        fourth = -(x * third + 2 * second + 2 * second * second + 2 * h * third)
        if order == 4:
            return fourth
        return -(x * fourth + 3 * third + 6 * second * third + 2 * h * fourth)
    tail, upper = x < _TAIL, x > 1.0
    z, body = jnp.where(tail, -x, 5.0), jnp.where(tail, 0.0, x)
    c3 = _mills_remainder(z, 3)
    c2 = 2 / (z + c3)
    g = 1 / (z + c2)
    root_half = 0.7071067811865476
    if order == 0:
        below = -z * z / 2 - HALF_LOG_2PI - jnp.log(z + g)
        middle = jnp.where(upper, 0.0, body)
        middle = jnp.log(0.5 * lax.erfc(-root_half * middle))
        above = jnp.log1p(-0.5 * lax.erfc(root_half * jnp.where(upper, x, 1.0)))
        return jnp.where(tail, below, jnp.where(upper, above, middle))
    density = jnp.exp(-0.5 * body * body - HALF_LOG_2PI)
    h = jnp.where(tail, z + g, density / (0.5 * lax.erfc(-root_half * body)))
    if order == 1:
        return h
    g = jnp.where(tail, g, body + h)
    if order == 2:
        return -h * g
    return h * jnp.where(tail, -2 * g * g * (c2 - c3) / (z + c3), g * g - 1 + h * g)


_device_log_ndtr = partial(jax.custom_jvp, nondiff_argnums=(1,))(_log_ndtr)


@_device_log_ndtr.defjvp
def _log_ndtr_jvp(order: int, primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    return log_ndtr(x, order), log_ndtr(x, order + 1) * dx


def _mills_remainder(z: Array, first: int) -> Float[Array, ...]:
    """k / (z + (k + 1) / (z + ...)) from k = ``first``, for z > 4."""
    value = z
    for k in range(26, first, -1):
        value = z + k / value
    return first / value


def _product(z: Array) -> Array:
    """(z + 1) ... (z + 9)."""
    product = z + 1.0
    for k in range(2, SHIFT):
        product = product * (z + k)
    return product


def _series(z: Array, coefficients: Sequence[float]) -> Array:
    """Sum of c_j z^(1 - 2j), z >= 10."""
    r = 1.0 / z
    r2 = r * r
    total = jnp.full_like(r, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = c + r2 * total
    return r * total


def _scaled_polygamma(
    p: int, z: Array, w: Array, ratio: Array, powers: list[Array]
) -> Array:
    """z^p (d/dz)^p log Gamma(z) from w = z + 10; powers: (z / (z + k))^p."""
    series = _series(
        w, [c * _falling(1 - 2 * j, p) for j, c in enumerate(_STIRLING, 1)]
    )
    if p == 1:
        return z * jnp.log(w) + ratio * (series - 0.5) - (1.0 + sum(powers))
    sign = -1 if p % 2 else 1
    high = sign * (factorial(p - 2) * w + factorial(p - 1) / 2) + series
    return sign * factorial(p - 1) * (1.0 + sum(powers)) + ratio**p * high


def _falling(x: int, p: int) -> int:
    """x (x - 1) ... (x - p + 1)."""
    value = 1
    for k in range(p):
        value *= x - k
    return value


def _second_kind(n: int, p: int) -> int:
    """Partitions of n things into p parts."""
    if p in (1, n):
        return 1
    return p * _second_kind(n - 1, p) + _second_kind(n - 1, p - 1)
