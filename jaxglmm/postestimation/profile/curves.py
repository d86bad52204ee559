"""Profile likelihood: how the deviance rises as one parameter is held elsewhere.

zeta(v) = sign(v - estimate) sqrt(d(v) - d) is close to linear where the likelihood is
close to normal; the interval of a level is where it meets minus and plus the normal
quantile, found by a search and not by interpolation. The deviance is that of ML, as in
lme4, on the scale of standard deviations and correlations. Bates, Maechler, Bolker and
Walker (2015), section 5.1.

How a parameter is held is the business of ``constraint``, ``linear`` and
``generalised``. Models with one grouping factor are profiled in lanes: both sides of
all parameters march together (``root_search``), each step one call of one compiled
program. Others are fitted one value after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm import _arguments
from jaxglmm._brief import listed
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.postestimation.profile import constraint as held
from jaxglmm.postestimation.profile import root_search as march
from jaxglmm.postestimation.profile.root_search import FISHER as FISHER
from jaxglmm.postestimation.profile.root_search import LOG as LOG
from jaxglmm.postestimation.profile.root_search import PLAIN as PLAIN
from jaxglmm.postestimation.profile.root_search import Scale as Scale
from jaxglmm.runtime.precision import double_precision

if TYPE_CHECKING:
    import pandas as pd

GRID = (0.6, 1.2, 1.8, 2.4, 3.0)  # zetas at which a curve is drawn


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
        models, number: what evaluates several parameters at once, and which one this
            is; None where each is evaluated alone.
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
        models: held.Models | None = None,
        number: int = 0,
    ):
        self.name, self.estimate, self.step, self.ends = name, estimate, step, ends
        self.scale, self.models, self.number = scale, models, number
        self._deviance, self._best = deviance, best
        self._known: dict[float, float] = {estimate: 0.0}

    def __repr__(self) -> str:
        return f"<Curve of {self.name}, zero at {self.estimate:.4g}>"

    @property
    def points(self) -> dict[float, float]:
        """Value -> zeta, of all values so far."""
        return self._known

    @double_precision
    def zeta(self, value: float) -> float:
        """Signed square root of the rise of the deviance."""
        if value not in self._known:
            rise = max(self._deviance(value) - self._best, 0.0)
            self._known[value] = float(np.sign(value - self.estimate) * np.sqrt(rise))
        return self._known[value]

    @double_precision
    def meets(self, target: float) -> float:
        """The value at which zeta is ``target``; an end where it never gets there."""
        return float(meets([self], [target])[0])


def in_lanes(models: held.Models) -> list[Curve]:
    """The curves of one model whose parameters are held in lanes."""
    return _curves(models, models)


def alone(models: held.Models) -> list[Curve]:
    """The curves of one model whose parameters are held one after the other."""
    return _curves(models, None)


def _curves(models: held.Models, together: held.Models | None) -> list[Curve]:
    return [
        Curve(
            p.name,
            float(p.estimate[0]),
            float(p.step[0]),
            (float(p.lower[0]), float(p.upper[0])),
            held.one_by_one(models, k),
            0.0,
            p.scale,
            together,
            k,
        )
        for k, p in enumerate(models.parameters)
    ]


def meets(curves: Sequence[Curve], targets: Sequence[float]) -> np.ndarray:
    """(R,) values at which each curve has its target; those of one model together."""
    models = curves[0].models if len(curves) else None
    if models is None:
        return _searched(curves, np.array(targets, float))
    number = np.array([curve.number for curve in curves])

    def seen(rows: np.ndarray, value: np.ndarray, zeta: np.ndarray) -> None:
        for i, v, z in zip(rows, value, zeta, strict=True):
            curves[i].points[float(v)] = float(z)

    model = np.zeros(len(curves), int)
    return held.limits(models, number, model, np.array(targets, float), seen)


def _searched(curves: Sequence[Curve], targets: np.ndarray) -> np.ndarray:
    """One value after the other, where no program takes several."""
    points = march.Points(
        np.array([curve.estimate for curve in curves], float),
        np.array([curve.step for curve in curves], float),
        (
            np.array([curve.ends[0] for curve in curves], float),
            np.array([curve.ends[1] for curve in curves], float),
        ),
        [curve.scale for curve in curves],
    )
    rows = points.rows(targets)
    for i, (curve, target) in enumerate(zip(curves, targets, strict=True)):
        near = [
            (z, v)
            for v, z in curve.points.items()
            if z * target > 0 and np.isfinite(z) and np.isfinite(v)
        ]
        if near:  # by interpolation in the points so far
            z, v = min(near, key=lambda point, t=target: abs(point[0] - t))
            with np.errstate(all="ignore"):
                x = float(curve.scale.to(np.float64(v)))
            rows.guess[i] = rows.centre[i] + (x - rows.centre[i]) * target / z

    def evaluate(which: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = points.value(which, x)
        pairs = zip(which, value, strict=True)
        zeta = np.array([curves[i].zeta(float(v)) for i, v in pairs])
        return zeta, np.full(len(x), np.nan)

    return points.value(None, march.meet(rows, evaluate))


class Profile:
    """Profiles of several parameters.

    intervals(level): frame of lower and upper; zeta: frame (parameter, value, zeta).
    """

    def __init__(self, curves: Sequence[Curve]):
        self.curves = {curve.name: curve for curve in curves}

    @double_precision
    @conf_level_too
    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """Profile-likelihood intervals, one row a parameter."""
        import pandas as pd
        from scipy.special import ndtri

        _arguments.level(level)
        z = float(ndtri((1 + level) / 2))
        curves = list(self.curves.values())
        found = meets([*curves, *curves], [-z] * len(curves) + [z] * len(curves))
        limits = found.reshape(2, len(curves)).T
        return pd.DataFrame(limits, list(self.curves), ["lower", "upper"])

    @property
    @double_precision
    def zeta(self) -> pd.DataFrame:
        """Points of the curves, for plots: columns parameter, value, zeta."""
        import pandas as pd

        targets = [side * target for target in GRID for side in (1, -1)]
        curves = list(self.curves.values())
        meets(
            [curve for curve in curves for _ in targets],
            [target for _ in curves for target in targets],
        )
        rows = [
            (name, value, z)
            for name, curve in self.curves.items()
            for value, z in sorted(curve.points.items())
            if abs(z) < 1.2 * GRID[-1]
        ]
        return pd.DataFrame(rows, columns=["parameter", "value", "zeta"])

    def __repr__(self) -> str:
        return f"Profile of {listed(self.curves)}"
