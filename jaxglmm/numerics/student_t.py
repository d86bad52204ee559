"""Tails of Student's t without SciPy, whose import takes longer than a small fit.

P(|T| > t) = I_x(a, 1/2), x = df / (df + t^2), a = df / 2: the regularised incomplete
beta function by its continued fraction (NIST Digital Library of Mathematical Functions,
8.17.22, evaluated by Lentz's method), on the side where it converges fast.
"""

from __future__ import annotations

import math

MOST = 20_000  # terms of the fraction
MOST_DF = 1e4  # degrees of freedom beyond which it loses digits
LARGE = 30.0  # a beyond which differences of log Gamma are expanded
TINY = 1e-300


def two_sided(t: float, df: float) -> float:
    """P(|T| > |t|), to about thirteen digits in the far tail too.

    Raises ``ArithmeticError`` where the fraction is not that exact.

    >>> round(two_sided(2.0, 10.0), 12), two_sided(3.0, math.inf) == math.erfc(4.5**0.5)
    (0.073388034771, True)
    """
    if math.isnan(t) or math.isnan(df) or df <= 0:
        return math.nan
    if math.isinf(df):
        return math.erfc(abs(t) / math.sqrt(2))
    if math.isinf(t):
        return 0.0
    if t == 0:
        return 1.0
    if df > MOST_DF:
        raise ArithmeticError(f"{df:g} degrees of freedom are too many")
    a, ratio = df / 2, (t / df) * t
    log_x = -math.log1p(ratio)
    log_rest = math.log(ratio) + log_x if ratio > TINY else -math.inf
    front = math.exp(a * log_x + 0.5 * log_rest - _log_beta(a))
    x = math.exp(log_x)
    if x < (a + 1) / (a + 2.5):
        return front * _fraction(a, 0.5, x) / a
    return 1 - front * _fraction(0.5, a, -math.expm1(log_x)) / 0.5


def _log_beta(a: float) -> float:
    """log B(a, 1/2)."""
    if a < LARGE:
        return math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    s = 1 / (a * a)
    series = (-1 / 8 + s * (1 / 192 - s * (1 / 640 - s * 17 / 14336))) / a
    return 0.5 * math.log(math.pi / a) - series


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b) over x^a (1 - x)^b / (a B(a, b))."""
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    out = d
    for m in range(1, MOST):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            c = _away(1 + step / c)
            d = 1 / _away(1 + step * d)
            out *= c * d
        if abs(c * d - 1) < 1e-15:
            return out
    raise ArithmeticError("the continued fraction does not converge")


def _away(x: float) -> float:
    return x if abs(x) > TINY else TINY
