"""log(F(a) - F(b)), a = t - eta > b = t' - eta: the probability of a category.

As jets in eta, for the distributions behind the links of cumulative models. Differences
of F lose everything in the tails, so each is written without one: with d = a - b > 0,

    logit    log F(a) + log S(b) + log(1 - e^-d)
    cloglog  -e^b + log(1 - exp(-e^b (e^d - 1)))
    probit   log F(a) + log(1 - F(b) / F(a)), from the nearer tail
    cauchit  log(arctan2(d, 1 + a b) / pi)

Of the lowest category b is minus infinity, of the highest a is infinity: ``below`` and
``above`` say which rows have a lower and an upper end. d comes by its logarithm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.links import Link, Logit, Probit
from jaxglmm.numerics.jets import Jet, chain, where
from jaxglmm.numerics.special import log1mexp_exp
from jaxglmm.runtime.arrays import jnp

SERIES = 0.25  # e^x below which 1 - e^x - g' is a power series
FAR = 6.5  # x from which 1 - exp(-e^x) is one
LOG_PI = float(np.log(np.pi))


class Apart(NamedTuple):
    """Of d = a - b: left e^-d, rest 1 - e^-d, and the logarithm of that."""

    left: Array
    rest: Array
    log_rest: Array


class Ends(NamedTuple):
    """Ends of each row's category, (n,) each; what is not there is a harmless number.

    a, b: less eta; log_gap: log(a - b); below, above: whether there is b, a; known:
    what follows from the gap, where it was found once for all rows of a category.
    """

    a: Array
    b: Array
    log_gap: Array
    below: Array
    above: Array
    known: Apart | None = None

    @property
    def gap(self) -> Apart:
        """What follows from the gap."""
        return gap_of(self.log_gap) if self.known is None else self.known

    @property
    def log_rest(self) -> Array:
        """log(1 - e^-d)."""
        return log1mexp_exp(self.log_gap) if self.known is None else self.known.log_rest


def gap_of(log_gap: Array) -> Apart:
    """By the logarithm of d."""
    d = jnp.exp(log_gap)
    return Apart(jnp.exp(-d), -jnp.expm1(-d), log1mexp_exp(log_gap))


def logit(ends: Ends, order: int) -> Jet:
    """The logistic distribution."""
    up = _along(Logit().log_jet(ends.a, order), -1.0)
    down = Logit().log_jet(-ends.b, order)
    nothing = Jet(tuple(jnp.zeros_like(x) for x in up.parts))
    found = where(ends.above, up, nothing) + where(ends.below, down, nothing)
    inside = ends.below & ends.above
    return found + jnp.where(inside, ends.log_rest, 0.0)


def probit(ends: Ends, order: int) -> Jet:
    """The normal distribution."""
    inside = ends.below & ends.above
    lower = jnp.where(inside, ends.a + ends.b <= 0, ends.above)
    sign = jnp.where(lower, -1.0, 1.0)
    top = jnp.where(lower, ends.a, -ends.b)
    rest = jnp.where(inside, jnp.where(lower, ends.b, -ends.a), top - 1.0)
    link = Probit()
    near, far = link.log_jet(top, order), link.log_jet(rest, order)
    share = chain(_log1mexp((near - far).value, order), near - far)
    nothing = Jet(tuple(jnp.zeros_like(x) for x in share.parts))
    return _along(near + where(inside, share, nothing), sign)


def cloglog(ends: Ends, order: int) -> Jet:
    """F(x) = 1 - exp(-exp(x)), Gumbel's distribution of the least."""
    gap = jnp.exp(ends.log_gap)
    stretched = gap + ends.log_rest  # log(e^d - 1)
    x = jnp.where(ends.below, ends.b + stretched, ends.a)
    e = jnp.exp(jnp.where(ends.below, ends.b, -1e3))
    down = Jet(tuple([-e] * (order + 1)))
    up = chain(_log1mexp_exp(x, order), _identity(x, order))
    nothing = Jet(tuple(jnp.zeros_like(v) for v in up.parts))
    return _along(down + where(ends.above, up, nothing), -1.0)


def loglog(ends: Ends, order: int) -> Jet:
    """F(x) = exp(-exp(-x)), Gumbel's distribution of the largest."""
    other = Ends(-ends.b, -ends.a, ends.log_gap, ends.above, ends.below, ends.known)
    return _along(cloglog(other, order), -1.0)


def cauchit(ends: Ends, order: int) -> Jet:
    """The Cauchy distribution."""
    inside = ends.below & ends.above
    a, b = (
        jnp.where(k, x, 0.0) for k, x in ((ends.above, ends.a), (ends.below, ends.b))
    )
    gap = jnp.where(inside, jnp.exp(ends.log_gap), 1.0)
    angle = jnp.arctan2(gap, jnp.where(inside, 1 + a * b, b - a))
    value = jnp.log(angle) - LOG_PI
    if order == 0:
        return Jet((value,))
    p, q = (
        jnp.where(k, 1 / (1 + x * x), 0.0)
        for k, x in ((ends.above, a), (ends.below, b))
    )
    # derivatives of arctan in a less those in b, over the angle; eta moves both down
    first = jnp.where(inside, -gap * (a + b) * p * q, p - q)
    one = -first / angle
    two = -2 * (a * p * p - b * q * q) / angle
    three = -((6 * a * a - 2) * p**3 - (6 * b * b - 2) * q**3) / angle
    return Jet((value, one, two - one * one, three - 3 * one * two + 2 * one**3))


def _along(f: Jet, sign: Array | float) -> Jet:
    """f as a function of something that moves by ``sign`` (plus or minus one)."""
    return Jet(tuple(x * sign if k % 2 else x for k, x in enumerate(f.parts)))


def _identity(x: Array, order: int) -> Jet:
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    return Jet((x, one, zero, zero)[: order + 1])


def _log1mexp(x: Array, order: int) -> list[Array]:
    """g(x) = log(1 - e^-x), x > 0: g' = 1 / (e^x - 1), g'' = -g' (1 + g')."""
    near = x < 0.6931471805599453
    small = -jnp.expm1(-jnp.where(near, x, 1.0))
    value = jnp.where(
        near, jnp.log(small), jnp.log1p(-jnp.exp(-jnp.where(near, 1.0, x)))
    )
    if order == 0:
        return [value]
    e = jnp.exp(-x)
    first = e / jnp.where(near, small, 1 - e)
    second = -first * (1 + first)
    return [value, first, second, -second * (1 + 2 * first)]


def _log1mexp_exp(x: Array, order: int) -> list[Array]:
    """g(x) = log(1 - exp(-v)), v = e^x: g' = r = v / (e^v - 1), g'' = r (1 - v - r)."""
    value = log1mexp_exp(x)
    if order == 0:
        return [value]
    v = jnp.exp(jnp.minimum(x, FAR))
    r = v / jnp.expm1(v)
    w = jnp.where(v < SERIES, v, 0.0)
    w2 = w * w
    series = -w / 2 - w2 * (
        1 / 12 - w2 * (1 / 720 - w2 * (1 / 30240 - w2 * (1 / 1209600)))
    )
    u = jnp.where(v < SERIES, series, 1 - v - r)
    second = r * u
    return [value, r, second, second * (u - r) - r * v]


INTERVALS: dict[str, Callable[[Ends, int], Jet]] = {
    "logit": logit,
    "probit": probit,
    "cloglog": cloglog,
    "loglog": loglog,
    "cauchit": cauchit,
}


def curvature(link: str, x: Array) -> tuple[Array, Array]:
    """f' / f and f'' / f of the density f of a link's distribution."""
    if link == "logit":
        t = -jnp.tanh(0.5 * x)
        return t, 0.5 * (3 * t * t - 1)
    if link == "probit":
        return -x, x * x - 1
    if link == "cauchit":
        r = 1 / (1 + x * x)
        return -2 * x * r, (6 * x * x - 2) * r * r
    sign = 1.0 if link == "cloglog" else -1.0
    e = jnp.exp(jnp.minimum(sign * x, 300.0))
    return sign * (1 - e), 1 - 3 * e + e * e


def upper(link: Link, ends: Ends, l: Array) -> tuple[Array, Array, Array]:
    """f(a) / P, and f' / f and f'' / f at a; l = log P."""
    if link.name == "logit":
        return _upper_logit(ends)
    p = jnp.exp(jnp.where(ends.above, link.log_slope(ends.a) - l, -jnp.inf))
    return p, *curvature(link.name, ends.a)


def _upper_logit(ends: Ends) -> tuple[Array, Array, Array]:
    """The same from the two exponentials that log P has: S(a) / (S(b) (1 - e^-d))."""
    a, b, gap = ends.a, ends.b, ends.gap
    e, g = jnp.exp(-jnp.abs(a)), jnp.exp(-jnp.abs(b))
    r = 1 / (1 + e)
    survival = jnp.where(a >= 0, e, 1.0) * r
    # e^-d is all that is left where both are far up
    share = jnp.where(b >= 0, gap.left, jnp.where(a >= 0, e, 1.0)) * r * (1 + g)
    p = jnp.where(ends.below, share / gap.rest, survival)
    t = jnp.where(a >= 0, e - 1, 1 - e) * r  # S(a) - F(a)
    return jnp.where(ends.above, p, 0.0), t, 0.5 * (3 * t * t - 1)
