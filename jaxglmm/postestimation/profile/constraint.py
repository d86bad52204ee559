"""Parameters of many models held at values: what profiles of all kinds share.

D models with the same P parameters. A lane is a parameter of a model at a value; lanes
are asked for by number, in any order and as often as a search needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.model import covariances
from jaxglmm.postestimation.profile import root_search as march
from jaxglmm.postestimation.profile.root_search import Scale
from jaxglmm.runtime.devices import Devices
from jaxglmm.runtime.executors import executor
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import Factor

FEW = 16  # lanes that make the small one of two shapes
MANY = 256  # lanes from which the large one pays for its compilation
REACH = 1.5  # how far a start is extrapolated, in distances between what is known ...
ENDLESS = 3.0  # ... and where there is no end: by how much a search outward grows


@dataclass(frozen=True)
class Parameter:
    """One parameter in each of D models.

    estimate, step: (D,), the latter about one unit of zeta on ``scale``; lower, upper:
    (D,) ends of its range.
    """

    name: str
    estimate: np.ndarray
    step: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    scale: Scale


class Models(Protocol):
    """D models whose parameters can be held."""

    parameters: list[Parameter]

    def start(self, parameter: np.ndarray, model: np.ndarray) -> Any:
        """State to start from, arrays with the lanes last."""
        ...

    def evaluate(
        self, parameter: np.ndarray, model: np.ndarray, value: np.ndarray, state: Any
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Rise of the deviance (r,), its slope in the value, the state at the end."""
        ...


def size_of(models: int, parameters: int, chunk: int) -> int:
    """Lanes of a call, of which there are two shapes: a single fit takes the small."""
    return chunk if 2 * models * parameters > MANY else min(FEW, chunk)


def run(
    devices: Devices, program: Any, common: Any, take: Any, r: int, size: int
) -> Any:
    """``program`` for r lanes, padded to calls of ``size``, in two threads.

    take: lanes (numbers) -> arrays with the lanes last.
    """
    unit = size * len(devices.devices)
    parts = [np.arange(k, min(k + unit, r)) for k in range(0, r, unit)]

    def work(part: np.ndarray) -> Any:
        found = devices.run(program, common, take(np.resize(part, unit)), size)
        return jax.tree.map(lambda x: np.asarray(x)[..., : len(part)], found)

    with executor(devices.threads if len(parts) > 1 else 1) as pool:
        done = list(pool.map(work, parts))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *done)


class Path:
    """Warm starts of lanes that move: where the last two values ended."""

    def __init__(self, models: Models, parameter: np.ndarray, model: np.ndarray):
        self.models, self.parameter, self.model = models, parameter, model
        self.state = models.start(parameter, model)
        self.before = jax.tree.map(np.copy, self.state)
        estimates = np.stack([p.estimate for p in models.parameters])
        self.value = estimates[parameter, model].astype(float)
        self.value_before = self.value.copy()
        ends = [np.isinf(p.lower) & np.isinf(p.upper) for p in models.parameters]
        self.reach = np.where(np.stack(ends)[parameter, model], ENDLESS, REACH)

    def __call__(
        self, rows: np.ndarray, value: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rise and slope of lanes ``rows`` at their values (r,)."""
        past = self.value[rows] - self.value_before[rows]
        with np.errstate(all="ignore"):
            share = np.where(past == 0, 0.0, (value - self.value[rows]) / past)
        reach = self.reach[rows]
        share = np.where(np.isfinite(share), np.clip(share, -reach, reach), 0.0)

        def ahead(now: np.ndarray, before: np.ndarray) -> np.ndarray:
            here = now[..., rows]
            return here + share * (here - before[..., rows])

        guess = jax.tree.map(ahead, self.state, self.before)
        rise, slope, state = self.models.evaluate(
            self.parameter[rows], self.model[rows], value, guess
        )
        good = np.isfinite(rise)
        kept, new = rows[good], np.flatnonzero(good)

        def keep(now: np.ndarray, before: np.ndarray, found: np.ndarray) -> None:
            before[..., kept] = now[..., kept]
            now[..., kept] = found[..., new]

        jax.tree.map(keep, self.state, self.before, state)
        self.value_before[kept] = self.value[kept]
        self.value[kept] = value[new]
        return rise, slope


Seen = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


@double_precision
def limits(
    models: Models,
    parameter: np.ndarray,
    model: np.ndarray,
    target: np.ndarray,
    seen: Seen | None = None,
) -> np.ndarray:
    """(R,) values at which zeta of a parameter of a model is ``target``.

    seen: is told rows, values and zetas on the way.
    """
    points = march.Points.of(models.parameters, parameter, model)
    path = Path(models, parameter, model)

    def evaluate(rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = points.value(rows, x)
        zeta, slope = points.zeta(rows, x, value, *path(rows, value))
        if seen is not None:
            seen(rows, value, zeta)
        return zeta, slope

    return points.value(None, march.meet(points.rows(target), evaluate))


def one_by_one(models: Models, number: int) -> Callable[[float], float]:
    """value -> rise of one parameter of a single model, from the nearest value."""
    which, zero = np.array([number]), np.zeros(1, int)
    known = {float(models.parameters[number].estimate[0]): models.start(which, zero)}

    def rise(value: float) -> float:
        near = known[min(known, key=lambda v: abs(v - value))]
        found, _, state = models.evaluate(which, zero, np.array([value]), near)
        if np.isfinite(found[0]):
            known[value] = state
        return float(found[0])

    return rise


# Covariances of random effects --------------------------------------------------------


def variance_names(
    design: Design, factor: Factor
) -> Iterator[tuple[int, int, int, int, int | None, str]]:
    """(term, first column, last + 1, i, j, name); j is None for a sd."""
    for index, start, stop in sorted(factor.spans):
        term = design.terms[index]
        own = covariances.of(term)
        places = [(i, None) for i in range(stop - start)] + sorted(own.pairs)
        for (i, j), name in zip(places, covariances.names_by_term([term]), strict=True):
            yield index, start, stop, i, j, name


def correlation(lam: np.ndarray, i: int, j: int) -> np.ndarray:
    """(D,) of effects i and j from Lambda (D, q, q); zero where one has no variance."""
    size = np.sqrt(np.sum(lam[:, i] ** 2, axis=1) * np.sum(lam[:, j] ** 2, axis=1))
    with np.errstate(all="ignore"):
        rho = np.einsum("dk,dk->d", lam[:, i], lam[:, j]) / size
    return np.where(size > 0, rho, 0.0)


def lower(lam: np.ndarray) -> np.ndarray:
    """(D, q, q) lower triangular with diagonals not negative, the same products."""
    if lam.shape[-1] > 1 and np.triu(lam, 1).any():
        safe = np.where(np.isfinite(lam).all(axis=(1, 2), keepdims=True), lam, 0.0)
        lam = np.swapaxes(np.linalg.qr(np.swapaxes(safe, 1, 2), mode="r"), 1, 2)
    sign = np.where(np.diagonal(lam, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return lam * sign[:, None, :]
