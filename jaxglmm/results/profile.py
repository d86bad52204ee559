"""Profile likelihood: how the deviance rises as one parameter is held elsewhere.

zeta(v) = sign(v - estimate) sqrt(d(v) - d) is close to linear where the likelihood is
close to normal; the interval of a level is where it meets minus and plus the normal
quantile, found by a search and not by interpolation. The deviance is that of ML, as in
lme4, on the scale of standard deviations and correlations. Bates, Maechler, Bolker and
Walker (2015), section 5.1.

How a parameter is held is the business of ``profile_linear`` and
``profile_generalised``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm._precision import double_precision

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.results.fit import Fit

GRID = (0.6, 1.2, 1.8, 2.4, 3.0)  # zetas at which a curve is drawn
CLOSE = 1e-6  # in zeta
MOST = 40  # steps of one search
FLAT = 1e-4  # rise of zeta over a doubled distance that counts as none ...
RISEN = 1e-2  # ... once it has risen at all; it may start on a plateau
HOPELESS = 1e4  # steps away from the estimate


@dataclass(frozen=True)
class Scale:
    """The scale on which a parameter is searched: x = to(value), value = back(x).

    reach: |x| so large that it stands for the end of the parameter's range; None where
    x is the value itself.
    """

    to: Callable[[float], float]
    back: Callable[[float], float]
    reach: float | None = None

    def bounds(self, centre: float, ends: tuple[float, float]) -> tuple[float, float]:
        """The ends of the range as x."""
        if self.reach is None:
            return ends
        return min(-self.reach, centre - 1), max(self.reach, centre + 1)


def _fisher(value: float) -> float:
    return float(np.arctanh(min(max(value, -NEAR_ONE), NEAR_ONE)))


NEAR_ONE = 1 - 1e-7  # an estimated correlation of one starts from here
PLAIN = Scale(float, float)
LOG = Scale(lambda v: float(np.log(v)), lambda x: float(np.exp(x)), 30.0)
FISHER = Scale(_fisher, lambda x: float(np.tanh(x)), 12.0)


class Curve:
    """zeta of one parameter, evaluated where it is asked for.

    Args:
        name: of the parameter.
        estimate: where zeta is zero.
        step: about one unit of zeta, on the scale of the search.
        ends: of the parameter's range (zero for a standard deviation).
        deviance: value -> deviance with the parameter held there.
        best: the deviance at the estimate.
        scale: on which the curve is searched.
    """

    def __init__(
        self,
        name: str,
        estimate: float,
        step: float,
        ends: tuple[float, float],
        deviance: Callable[[float], float],
        best: float,
        scale: Scale = PLAIN,
    ):
        self.name, self.estimate, self.step, self.ends = name, estimate, step, ends
        self._scale, self._centre = scale, scale.to(estimate)
        self._lower, self._upper = scale.bounds(self._centre, ends)
        self._deviance, self._best = deviance, best
        self._known: dict[float, float] = {self._centre: 0.0}

    @property
    def points(self) -> dict[float, float]:
        """Value -> zeta, of all values so far."""
        return {self._value(x): z for x, z in self._known.items()}

    @double_precision
    def zeta(self, value: float) -> float:
        """Signed square root of the rise of the deviance."""
        return self._at(self._scale.to(value))

    @double_precision
    def meets(self, target: float) -> float:
        """The value at which zeta is ``target``; an end where it never gets there."""
        return self._value(self._search(target))

    def _value(self, x: float) -> float:
        known = {
            self._lower: self.ends[0],
            self._upper: self.ends[1],
            self._centre: self.estimate,
        }
        return known[x] if x in known else self._scale.back(x)

    def _at(self, x: float) -> float:
        if x not in self._known:
            rise = max(self._deviance(self._value(x)) - self._best, 0.0)
            self._known[x] = float(np.sign(x - self._centre) * np.sqrt(rise))
        return self._known[x]

    def _search(self, target: float) -> float:
        side = np.sign(target)
        bound = self._upper if side > 0 else self._lower
        # the bracket as (value, distance to the target); halving the distance of an end
        # that stays keeps the secant from creeping (the Illinois rule)
        inside, outside = (self._centre, -target), None
        before = inside
        guess = self._guess(target)
        last, crossed = 0, False
        for _ in range(MOST):
            guess = min(max(guess, self._lower), self._upper)
            here = self._at(guess)
            if abs(here - target) < CLOSE:
                return guess
            if side * here < side * target:
                level = np.isinf(bound) and outside is None
                if guess == bound or (level and self._is_level(inside[0], guess)):
                    return bound
                before, inside = inside, (guess, here - target)
                if last == 1 and outside is not None:
                    outside = (outside[0], outside[1] / 2)
                last = 1
            else:  # beyond, or so far out that the likelihood is no number
                crossed = crossed or bool(np.isfinite(here))
                outside = (guess, here - target if np.isfinite(here) else target)
                if last == 2:
                    inside = (inside[0], inside[1] / 2)
                last = 2
            guess = self._next(before, inside, outside, target)
        return guess if crossed else bound

    def _is_level(self, one: float, two: float) -> bool:
        """Whether zeta no longer rises from one value to another, farther out."""
        reached, moved = abs(self._at(two)), abs(two - self._centre)
        if moved > HOPELESS * self.step:
            return True
        far = moved > 1.5 * abs(one - self._centre) > 0
        return far and reached > RISEN and reached - abs(self._at(one)) < FLAT

    def _guess(self, target: float) -> float:
        """By interpolation in the points so far, or the first step."""
        known = [
            (z, v) for v, z in self._known.items() if z * target > 0 and np.isfinite(z)
        ]
        if not known:
            return self._centre + target * self.step
        z, v = min(known, key=lambda point: abs(point[0] - target))
        return self._centre + (v - self._centre) * target / z

    def _next(
        self,
        before: tuple[float, float],
        inside: tuple[float, float],
        outside: tuple[float, float] | None,
        target: float,
    ) -> float:
        """Secant step: inside the bracket, or outward where there is none yet."""
        value, gap = inside
        if outside is not None:
            share = gap / (gap - outside[1])
            return value + min(max(share, 1e-3), 1 - 1e-3) * (outside[0] - value)
        if value == self._centre:
            return value + 2 * (target * self.step)
        slope = (gap - before[1]) / (value - before[0])
        # a correlation's curve is flat where the best sd beside it is zero
        step = -gap / slope if slope > 0 else np.sign(target) * np.inf
        return value + float(np.clip(step, *self._reach(value)))

    def _reach(self, inside: float) -> tuple[float, float]:
        size = 2 * abs(inside - self._centre) + abs(self.step)
        return -size, size


class Profile:
    """Profiles of several parameters.

    intervals(level): frame of lower and upper; zeta: frame (parameter, value, zeta).
    """

    def __init__(self, curves: Sequence[Curve]):
        self.curves = {curve.name: curve for curve in curves}

    @double_precision
    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """Profile-likelihood intervals, one row a parameter."""
        import pandas as pd
        from scipy.special import ndtri

        if not 0 < level < 1:
            raise NotApplicableError(f"level={level!r} must lie between 0 and 1")
        z = float(ndtri((1 + level) / 2))
        limits = {
            name: (curve.meets(-z), curve.meets(z))
            for name, curve in self.curves.items()
        }
        return pd.DataFrame.from_dict(
            limits, orient="index", columns=["lower", "upper"]
        )

    @property
    @double_precision
    def zeta(self) -> pd.DataFrame:
        """Points of the curves, for plots: columns parameter, value, zeta."""
        import pandas as pd

        for curve in self.curves.values():
            for target in GRID:
                curve.meets(target)
                curve.meets(-target)
        rows = [
            (name, value, z)
            for name, curve in self.curves.items()
            for value, z in sorted(curve.points.items())
            if abs(z) < 1.2 * GRID[-1]
        ]
        return pd.DataFrame(rows, columns=["parameter", "value", "zeta"])

    def __repr__(self) -> str:
        return f"Profile of {', '.join(self.curves)}"


@double_precision
def profile(
    fit: Fit,
    which: str | Sequence[str] | None = None,
    curves: Callable[[Fit], list[Curve]] | None = None,
) -> Profile:
    """Profile the likelihood of the parameters of a fit.

    Args:
        fit: by ML or REML; a REML fit is profiled by the ML deviance, as lme4 does.
        which: names as in the table of ``confint(method="profile")``, ``"theta"`` for
            variances and correlations, ``"beta"`` for fixed effects; None for all.
        curves: makes the curves of a fit; default those of a linear model.

    Raises:
        NotApplicableError: a name that is not a parameter.
    """
    if curves is None:
        from jaxglmm.results.profile_linear import curves
    made = {curve.name: curve for curve in curves(fit)}
    return Profile([made[name] for name in _chosen(fit, which, list(made))])


def _chosen(fit: Fit, which: str | Sequence[str] | None, names: list[str]) -> list[str]:
    if which is None:
        return names
    fixed = set(fit.design.x_names)
    sets = {
        "theta": [n for n in names if n not in fixed],
        "beta": [n for n in names if n in fixed],
    }
    wanted = [which] if isinstance(which, str) else list(which)
    out = [name for w in wanted for name in sets.get(w, [w])]
    unknown = [name for name in out if name not in names]
    if unknown:
        raise NotApplicableError(
            f"profile: there is no parameter {unknown[0]!r}; there are "
            f"{', '.join(names)}"
        )
    return out
