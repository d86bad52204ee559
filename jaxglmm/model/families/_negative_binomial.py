"""The density that both negative binomials share: mean mu and size r, var mu + mu^2/r.

    log f = delta(r + y) - delta(r) - delta(y) + log(r / (2 pi y (r + y))) / 2
            + (r + y) log((r + y) / (r + mu)) - y log(y / mu),        y > 0,
    log f = -r log(1 + mu / r),                                       y = 0.

The first line is the binomial coefficient less its large parts, the second the unit
deviance. Nothing grows with r, so the Poisson limit is reached without a switch.
"""

from __future__ import annotations

from jaxglmm._typing import Array
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.numerics.jets import Jet, together, variable
from jaxglmm.numerics.special import HALF_LOG_2PI, stirling_error
from jaxglmm.runtime.arrays import jnp, nn


def fixed_size(y: Array, log_mu: Array, log_size: Array, order: int) -> Jet:
    """The log density as a jet in log mu, the size a constant."""
    value = _value(y, log_mu, log_size)
    if order == 0:
        return Jet((value,))
    d = log_mu - log_size
    e = jnp.exp(-jnp.abs(d))
    r = 1 / (1 + e)
    p, q = jnp.where(d > 0, 1.0, e) * r, jnp.where(d > 0, e, 1.0) * r
    a = jnp.exp(jnp.minimum(log_mu, log_size)) * r  # size p = mu q
    w = q * (y * p + a)
    return Jet((value, y * q - a, -w, -w * (q - p)))


def fixed_ratio(y: Array, log_mu: Array, log_ratio: Array, order: int) -> Jet:
    """The log density as a jet in log mu, where size = mu / ratio."""
    log_size = jnp.minimum(log_mu - log_ratio, 700.0)
    value = _value(y, log_mu, log_size)
    if order == 0:
        return Jet((value,))
    some = y > 0
    y1 = jnp.where(some, y, 1.0)
    size = jnp.exp(log_size)
    # shares of size and of y in their sum, and its logarithm
    gap = log_size - jnp.log(y1)
    rho, sigma = nn.sigmoid(gap), nn.sigmoid(-gap)
    rho2 = rho * sigma
    log_total = Jet((_log_total(y1, log_size), rho, rho2, rho2 * (sigma - rho)))
    total = Jet((size + y1, size, size, size))
    ratio = _log_ratio(y1, log_mu, log_size)
    log_quotient = Jet((ratio, -sigma, rho2, rho2 * (sigma - rho)))
    of_total, of_size = together(stirling_error, log_total, variable(log_size, 3))
    l = of_total - of_size - log_total * 0.5 + total * log_quotient
    zero = -size * nn.softplus(log_ratio)
    slope = jnp.where(some, l.parts[1] + 0.5 + y1, zero)
    rest = (jnp.where(some, part, zero) for part in l.parts[2:])
    return Jet((value, slope, *rest))


def kernel(y: Array, log_mu: Array, log_size: Array) -> tuple[Array, ...]:
    """(l, s, w, w1) in log mu without ``coefficient``: one exponential a row.

    l = y log mu - (y + r) log(1 + mu / r) and, with p = mu / (r + mu) and q = 1 - p,
    s = y q - r p, w = (y + r) p q, w1 = w (q - p).
    """
    size, d = jnp.exp(log_size), log_mu - log_size
    up = d >= 0
    e = jnp.exp(-jnp.abs(d))
    r = 1 / (1 + e)
    p, q = jnp.where(up, 1.0, e) * r, jnp.where(up, e, 1.0) * r
    # y log mu - (y + r) max(d, 0), the large parts cancelled
    large = jnp.where(up, y * log_size - size * d, y * log_mu)
    mean = size * p
    w = q * (y * p + mean)
    return large - (y + size) * jnp.log1p(e), y * q - mean, w, w * (q - p)


def kernel_by_size(y: Array, log_mu: Array, log_size: Array) -> ByPhi:
    """``kernel`` with its derivatives in the logarithm a of the size.

    l_a = (y + r) p - r log(1 + mu / r), l_aa = l_a + p r - (y + r) p q - y p,
    s_a = p s, w_a = r p q - w1.
    """
    size, d = jnp.exp(log_size), log_mu - log_size
    up = d >= 0
    e = jnp.exp(-jnp.abs(d))
    r, more = 1 / (1 + e), jnp.log1p(e)
    p, q = jnp.where(up, 1.0, e) * r, jnp.where(up, e, 1.0) * r
    large = jnp.where(up, y * log_size - size * d, y * log_mu)
    # r log(1 + mu / r), which is log1p(e) where mu is the smaller
    lost = size * jnp.where(up, d + more, more)
    mean = size * p
    s, w = y * q - mean, q * (y * p + mean)
    w1 = w * (q - p)
    l_a = y * p + mean - lost
    plain = large - (y + size) * more, s, w, w1
    info = w - mean - mean + lost
    return ByPhi(plain, (l_a,), (p * s,), (mean * q - w1,), ((info,),))


def coefficient(y: Array, log_size: Array) -> Array:
    """log of Gamma(r + y) / (Gamma(r) y! r^y), zero where y is."""
    some = y > 0
    y1 = jnp.where(some, y, 1.0)
    large = log_size > 0.0
    size, log_y = jnp.exp(log_size), jnp.log(y1)
    near = jnp.log1p(y1 * jnp.exp(-jnp.where(large, log_size, 0.0)))
    total = _log_total(y1, log_size)
    quotient = jnp.where(large, near, total - log_size)  # log(1 + y / r)
    errors = stirling_error(total) - stirling_error(log_size) - stirling_error(log_y)
    value = (size + y1 - 0.5) * quotient - (y1 + 0.5) * log_y + errors
    return jnp.where(some, value - HALF_LOG_2PI, 0.0)


def _value(y: Array, log_mu: Array, log_size: Array) -> Array:
    some = y > 0
    y1 = jnp.where(some, y, 1.0)
    size, log_y = jnp.exp(log_size), jnp.log(y1)
    log_total = _log_total(y1, log_size)
    terms = jnp.stack(jnp.broadcast_arrays(log_total, log_size, log_y))
    of_total, of_size, of_y = stirling_error(terms)
    value = (
        of_total
        - of_size
        - of_y
        + 0.5 * (log_size - log_y - log_total)
        - HALF_LOG_2PI
        + (size + y1) * _log_ratio(y1, log_mu, log_size)
        - y1 * (log_y - log_mu)
    )
    return jnp.where(some, value, -size * nn.softplus(log_mu - log_size))


def _log_total(y: Array, log_size: Array) -> Array:
    """log(size + y), from the logarithm of the size where that is large."""
    large = log_size > 0.0
    gain = jnp.log1p(y * jnp.exp(-jnp.where(large, log_size, 0.0)))
    small = jnp.log(jnp.exp(jnp.where(large, 0.0, log_size)) + y)
    return jnp.where(large, log_size + gain, small)


def _log_ratio(y: Array, log_mu: Array, log_size: Array) -> Array:
    """log((size + y) / (size + mu)), by log1p where the two are close."""
    mu, size = jnp.exp(log_mu), jnp.exp(log_size)
    near = jnp.abs(y - mu) < 0.5 * (size + mu)
    gap = jnp.where(near, y - mu, 0.0) / jnp.where(near, size + mu, 1.0)
    apart = _log_total(y, log_size) - jnp.logaddexp(log_size, log_mu)
    return jnp.where(near, jnp.log1p(gap), apart)
