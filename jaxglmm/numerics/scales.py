"""Scales of single parameters: where a number with a range is a number without one.

Dispersion parameters are estimated on theirs, profiles are searched on theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from jaxglmm.numerics.array_namespace import functions

NEAR_ONE = 1 - 1e-7  # an estimated correlation of one starts from here


@dataclass(frozen=True)
class Scale:
    """The scale of a parameter: x = to(value), value = back(x).

    slope: of the value in x, at a value; reach: |x| so large that it stands for the end
    of the parameter's range; None where x is the value itself; ends: that range.
    Numbers or arrays.
    """

    to: Callable[[Any], Any]
    back: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    reach: float | None = None
    ends: tuple[float, float] = (-inf, inf)

    def bounds(self, centre: Any, ends: Any) -> Any:
        """The ends of the range as x."""
        if self.reach is None:
            return ends
        low = np.minimum(-self.reach, centre - 1)
        return low, np.maximum(self.reach, centre + 1)

    def log_slope(self, x: Any) -> Any:
        """log d value / dx at x: what a density of the value gains as one of x."""
        return functions(x).log(self.slope(self.back(x)))


def between(low: float, high: float) -> Scale:
    """The logit of where a value lies between two ends."""
    width = high - low

    def to(value: Any) -> Any:
        f = functions(value)
        return f.log((value - low) / (high - value))

    def back(x: Any) -> Any:
        return low + width * functions(x).expit(x)

    def slope(value: Any) -> Any:
        return (value - low) * (high - value) / width

    return Scale(to, back, slope, 30.0, (low, high))


PLAIN = Scale(lambda v: v * 1.0, lambda x: x * 1.0, lambda v: 0.0 * v + 1.0)
LOG = Scale(
    lambda v: functions(v).log(v),
    lambda x: functions(x).exp(x),
    lambda v: v,
    30.0,
    (0.0, inf),
)
FISHER = Scale(
    lambda v: np.arctanh(np.clip(v, -NEAR_ONE, NEAR_ONE)),
    np.tanh,
    lambda v: 1 - v**2,
    12.0,
    (-1.0, 1.0),
)
