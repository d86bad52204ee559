"""Power by the size of a design, or by the size of an effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.postestimation.power.assumed import for_rows, with_values
from jaxglmm.postestimation.power.extend import along_factor, within_levels
from jaxglmm.postestimation.power.simulation import (
    AT_ONCE,
    Power,
    asked,
    has_lanes,
    p_values,
    power,
    tested,
)
from jaxglmm.runtime.progress import bar


@dataclass(frozen=True)
class PowerCurve:
    """Power at several sizes; shows itself.

    along: what varies; sizes: (k,); powers: a ``Power`` each
    """

    along: str
    sizes: tuple[float, ...]
    powers: tuple[Power, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row a size: power, conf_low, conf_high (exact), successes, n, failed."""
        return self.tidy()

    def tidy(self, level: float = 0.95) -> pd.DataFrame:
        """``table`` with limits of another level."""
        rows = [
            (p.power, *p.interval(level), p.successes, p.n, p.failed)
            for p in self.powers
        ]
        columns = ["power", "conf_low", "conf_high", "successes", "n", "failed"]
        index = pd.Index(self.sizes, name=self.along)
        return pd.DataFrame(rows, index=index, columns=columns)

    def size_for(self, wanted: float = 0.8) -> float:
        """The size at which the power passes ``wanted``, between those of the curve.

        By linear interpolation of the curve made monotone; NaN where it does not.
        """
        wanted = _arguments.between("wanted", wanted, "a share of simulations")
        share = np.maximum.accumulate([p.power for p in self.powers])
        if share[-1] < wanted:
            return np.nan
        k = int(np.argmax(share >= wanted))
        if k == 0:
            return float(self.sizes[0])
        part = (wanted - share[k - 1]) / (share[k] - share[k - 1])
        return float(self.sizes[k - 1] + part * (self.sizes[k] - self.sizes[k - 1]))

    def __repr__(self) -> str:
        first = self.powers[0]
        head = (
            f"Power of {first.test!r} ({first.method}, alpha {first.alpha:g}) by "
            f"{self.along}, {first.n:,} simulations each"
        )
        return f"{head}\n{self.table.round(3).to_string()}"


def power_curve(
    model: Any,
    test: Any,
    along: str | None = None,
    sizes: Sequence[float] | None = None,
    within: str | None = None,
    effect: Sequence[float] | None = None,
    **options: Any,
) -> PowerCurve:
    """See ``jg.power_curve``; options: those of ``power``."""
    given = [x for x in (along, within, effect) if x is not None]
    if len(given) != 1:
        raise NotApplicableError(
            "power_curve() varies one of along= (levels of a grouping factor), within= "
            "(rows of its levels), both with sizes=, and effect= (values of the tested "
            "coefficient)"
        )
    values = effect if effect is not None else sizes
    try:
        found = sorted(np.ravel(np.asarray([] if values is None else values, float)))
    except (TypeError, ValueError, OverflowError) as error:
        raise NotApplicableError(
            f"power_curve() needs numbers to vary, sizes=[10, 20, 40] ({error})"
        ) from error
    if not found or not np.isfinite(found).all():
        raise NotApplicableError("power_curve() needs sizes= to vary, [10, 20, 40]")
    found = [int(x) if x == np.floor(x) else float(x) for x in found]
    seed = options.pop("seed", 0)
    if along is not None:
        powers = _along(model, test, along, found, seed, options)
    else:
        powers = _one_by_one(model, test, found, within, seed, options)
    word = (
        f"levels of {along}" if along else f"rows in {within}" if within else "effect"
    )
    return PowerCurve(word, tuple(found), tuple(powers))


def _one_by_one(
    model: Any, test: Any, found: list, within: str | None, seed: Any, options: dict
) -> list[Power]:
    """Of rows in levels, or where that is None of values of the coefficient."""
    powers = []
    seeds = _arguments.sequence(seed).spawn(len(found))
    for value, own in zip(found, seeds, strict=True):
        if within is not None:
            one = for_rows(model, within_levels(model.design, within, value))
        else:
            what = tested(model.design, test)
            if len(what.columns) != 1:
                raise NotApplicableError(
                    f"effect= varies one coefficient, and {test!r} has several"
                )
            one = with_values(model, {model.design.x_names[what.columns[0]]: value})
        powers.append(power(one, test, seed=own, **options))
    return powers


def _along(
    model: Any, test: Any, along: str, found: list, seed: Any, options: dict
) -> list[Power]:
    """Of levels: those of the largest design, of which smaller ones have the first.

    Rows of the others are missing, so that all sizes are lanes of one program; models
    that have none are simulated size by size.
    """
    models = [for_rows(model, along_factor(model.design, along, n)) for n in found]
    largest = models[-1]
    given = asked(largest, test, **options)
    seeds = _arguments.sequence(seed).spawn(len(found))
    cells = largest.design.n * given.n * len(found)
    if not has_lanes(largest, given.kind, given.what) or cells > AT_ONCE:
        both = zip(models, seeds, strict=True)
        return [power(one, test, seed=own, **options) for one, own in both]
    code = next(t.codes for t in largest.design.terms if t.factor == along)
    Y = []
    for n, own in zip(found, seeds, strict=True):
        drawn = np.array(largest.drawn(given.n, own, None), float)
        drawn[:, code >= n] = np.nan
        Y.append(drawn)
    total = given.n * len(found) * (2 if given.kind == "lrt" else 1)
    with bar(total, given.progress, " fits", "power") as shown:
        p = p_values(largest, np.concatenate(Y), given.what, given.kind, shown)
    each = np.split(p, len(found))
    return [given.judged(one, own) for one, own in zip(models, each, strict=True)]
