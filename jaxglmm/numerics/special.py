"""Special functions of likelihoods, exact in the tails and cheap to differentiate.

Everything is built of logs, exponentials and short rational functions, so that three
nested derivatives stay finite and accurate where those of library routines do not. The
gamma function enters through the error of Stirling's formula,

    lgamma(z) = (z - 1/2) log z - z + log(2 pi) / 2 + delta(z),

because the large parts cancel on paper in every density that uses it (Loader 2000,
"Fast and accurate computation of binomial probabilities"): what is left is small, and
right to the last digits for counts of a billion.

Arguments that are parameters come with their logarithm, which is what the models have:
its derivative is then exactly one, and z may underflow.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxglmm._typing import Array, Float

SHIFT = 10  # Stirling's series is used from here on; below, the recurrence leads there
HALF_LOG_2PI = 0.9189385332046727
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
_SERIES = 0.25  # below this log((1 - e^-x) / x) is a short power series
_TAIL = -4.0  # below this the normal distribution function is a continued fraction


def stirling_error(z: Array, log_z: Array | None = None) -> Float[Array, ...]:
    """delta(z), z > 0: 1 / (12 z) for large z, -log(2 pi z) / 2 towards zero."""
    log_z = jnp.log(z) if log_z is None else log_z
    small, low, high = _shifted(z)
    correction = (
        (low + SHIFT - 0.5) * jnp.log(low + SHIFT)
        - SHIFT
        - jnp.log(_product(low))
        - (low + 0.5) * jnp.where(small, log_z, 0.0)
    )
    return _series(high) + jnp.where(small, correction, 0.0)


def lgamma(z: Array, log_z: Array | None = None) -> Float[Array, ...]:
    """log Gamma(z), z > 0, absolute error about 1e-14 near its zeros."""
    log_z = jnp.log(z) if log_z is None else log_z
    small, low, high = _shifted(z)
    log_high = jnp.where(small, jnp.log(low + SHIFT), log_z)
    whole = jnp.where(small, low + SHIFT, z)
    large = (whole - 0.5) * log_high - whole + HALF_LOG_2PI + _series(high)
    return large - jnp.where(small, log_z + jnp.log(_product(low)), 0.0)


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


def log_rising(a: Array, log_a: Array, k: Array) -> Float[Array, ...]:
    """lgamma(a + k) - lgamma(a) - k log a for counts k >= 0, small for large a."""
    some = k > 0
    k = jnp.where(some, k, 1.0)
    tiny = log_a < -100.0  # k / a must not overflow, nor its derivatives
    ratio = k / jnp.where(tiny, 1.0, a)
    log1p = jnp.where(tiny, jnp.log(k) - log_a, jnp.log1p(ratio))
    value = (a + k - 0.5) * log1p - k + stirling_error(a + k) - stirling_error(a, log_a)
    return jnp.where(some, value, 0.0)


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


def log_ndtr(x: Array) -> Float[Array, ...]:
    """log of the normal distribution function, with derivatives that do not cancel.

    In the lower tail by Laplace's continued fraction of Mills' ratio,
    phi(z) / Q(z) = z + 1 / (z + 2 / (z + 3 / (z + ...))), z = -x.
    """
    tail, upper = x < _TAIL, x > 1.0
    z = jnp.where(tail, -x, 5.0)
    below = -z * z / 2 - HALF_LOG_2PI - jnp.log(z + mills_remainder(z, 1))
    root_half = 0.7071067811865476
    body = jnp.log(0.5 * jax.lax.erfc(-root_half * jnp.where(tail | upper, 0.0, x)))
    above = jnp.log1p(-0.5 * jax.lax.erfc(root_half * jnp.where(upper, x, 1.0)))
    return jnp.where(tail, below, jnp.where(upper, above, body))


def mills_remainder(z: Array, first: int) -> Float[Array, ...]:
    """k / (z + (k + 1) / (z + ...)) from k = ``first``, for z > 4."""
    value = z
    for k in range(26, first, -1):
        value = z + k / value
    return first / value


def _shifted(z: Array) -> tuple[Array, Array, Array]:
    small = z < SHIFT
    high = jnp.where(small, z + SHIFT, jnp.minimum(z, 1e100))
    return small, jnp.where(small, z, 1.0), high


def _product(z: Array) -> Array:
    """(z + 1) ... (z + 9)."""
    product = z + 1.0
    for k in range(2, SHIFT):
        product = product * (z + k)
    return product


def _series(z: Array) -> Array:
    """delta(z) for z >= 10."""
    r = 1.0 / z
    r2 = r * r
    total = jnp.full_like(r, _STIRLING[-1])
    for c in _STIRLING[-2::-1]:
        total = c + r2 * total
    return r * total
