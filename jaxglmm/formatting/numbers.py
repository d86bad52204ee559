"""Numbers for people: columns that line up, from 1e-6 to 1e6 and beyond.

Numbers below each other share one number of decimals while the smallest shows
``digits`` significant digits and the largest at most nine; where their sizes differ
more than that, each is written for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MOST_DIGITS = 9
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))
STARS_LEGEND = "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


def _exponents(values: Iterable[float]) -> list[int]:
    sizes = [abs(v) for v in values if math.isfinite(v) and v != 0]
    return [math.floor(math.log10(size)) for size in sizes]


def _decimals(small: Sequence[float], large: Sequence[float], digits: int):
    """Decimals that show ``digits`` of the smallest; None where none of them does."""
    low, high = _exponents(small), _exponents(large)
    if not low:
        low = high
    if not high:
        return digits - 1
    decimals = max(digits - 1 - min(low), 0)
    fits = max(high) + 1 + decimals <= MOST_DIGITS and decimals <= digits + 3
    return decimals if fits and max(high) < 7 else None


def fixed(value: float, decimals: int) -> str:
    """``decimals`` digits after the point; "NaN" and "Inf" in words."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Inf" if value > 0 else "-Inf")
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def general(value: float, digits: int = 4) -> str:
    """``digits`` significant digits, with an exponent below 1e-4 and from 1e7."""
    if value == 0 or not math.isfinite(value):
        return fixed(value, 0)
    size = math.floor(math.log10(abs(value)))
    if -5 < size < 7:
        return fixed(value, max(digits - 1 - size, 0))
    return f"{value:.{digits - 1}e}"


def column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Numbers that stand below each other."""
    decimals = _decimals(values, values, digits)
    if decimals is None:
        return [general(v, digits) for v in values]
    return [fixed(v, decimals) for v in values]


def with_errors(
    estimates: Sequence[float], errors: Sequence[float], digits: int = 4
) -> tuple[list[str], list[str]]:
    """Estimates and standard errors, to as many decimals as the errors deserve."""
    decimals = _decimals(errors, [*estimates, *errors], digits)
    if decimals is not None:
        return tuple([fixed(v, decimals) for v in side] for side in (estimates, errors))
    pairs = [_pair(e, s, digits) for e, s in zip(estimates, errors, strict=True)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _pair(estimate: float, error: float, digits: int) -> tuple[str, str]:
    decimals = _decimals([error], [estimate, error], digits)
    if decimals is None:
        return general(estimate, digits), general(error, digits)
    return fixed(estimate, decimals), fixed(error, decimals)


def df(values: Sequence[float]) -> list[str]:
    """Degrees of freedom: two decimals while they are small."""
    largest = max((v for v in values if math.isfinite(v)), default=0.0)
    decimals = 2 if largest < 1e3 else 1 if largest < 1e5 else 0
    return [fixed(v, decimals) for v in values]


def p_value(p: float) -> str:
    """Three significant digits; "< 2e-16" where that is all there is to say."""
    if not math.isfinite(p):
        return "NaN"
    if p < 2.2e-16:
        return "< 2e-16"
    return f"{p:.2e}" if p < 1e-4 else f"{p:.3g}" if p < 0.001 else f"{p:.4f}"


def stars(p: float) -> str:
    """The usual marks of significance."""
    return next((mark for bound, mark in STARS if p <= bound), "")
