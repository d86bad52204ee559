"""Where many curves meet their targets: one safeguarded search, all rows side by side.

Each row looks for x with zeta(x) = target, from a centre where zeta is zero. Newton
steps where the slope of zeta is known, secants by the Illinois rule (Dowell and Jarratt
1971) where it is not or where Newton's step leaves the bracket. All rows that are not
done ask for their next value together, so that one program evaluates them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jaxglmm.numerics.scales import FISHER as FISHER
from jaxglmm.numerics.scales import LOG as LOG
from jaxglmm.numerics.scales import NEAR_ONE as NEAR_ONE
from jaxglmm.numerics.scales import PLAIN as PLAIN
from jaxglmm.numerics.scales import Scale as Scale

CLOSE = 1e-6  # in zeta
MOST = 40  # steps of one search
FLAT = 1e-4  # rise of zeta over a doubled distance that counts as none ...
RISEN = 1e-2  # ... once it has risen at all; it may start on a plateau
HOPELESS = 1e4  # steps away from the estimate

Evaluate = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Place(Protocol):
    """Where a parameter is in some models: see ``held.Parameter``."""

    @property
    def estimate(self) -> np.ndarray:
        """(D,) estimates."""
        ...

    @property
    def step(self) -> np.ndarray:
        """(D,) about one unit of zeta on the scale of the search."""
        ...

    @property
    def lower(self) -> np.ndarray:
        """(D,) lower ends of its range."""
        ...

    @property
    def upper(self) -> np.ndarray:
        """(D,) upper ends of its range."""
        ...

    @property
    def scale(self) -> Scale:
        """The scale of the search."""
        ...


class Points:
    """R places in curves, as values and on the scales of their searches."""

    def __init__(
        self,
        estimate: np.ndarray,
        step: np.ndarray,
        ends: tuple[np.ndarray, np.ndarray],
        scales: Sequence[Scale],
    ):
        self.estimate, self.step = estimate.astype(float), step
        self.ends, kinds = ends, list(dict.fromkeys(scales))
        place = np.array([kinds.index(s) for s in scales], int)
        self.scales = [(s, place == k) for k, s in enumerate(kinds)]
        self.centre = np.empty(len(step))
        self.lower, self.upper = np.empty(len(step)), np.empty(len(step))
        with np.errstate(all="ignore"):
            for scale, mine in self.scales:
                self.centre[mine] = centre = scale.to(self.estimate[mine])
                bounds = scale.bounds(centre, (ends[0][mine], ends[1][mine]))
                self.lower[mine], self.upper[mine] = bounds

    @staticmethod
    def of(places: Sequence[Place], which: np.ndarray, model: np.ndarray) -> Points:
        """Places number ``which`` of models number ``model``, (R,) each."""

        def take(name: str) -> np.ndarray:
            return np.stack([getattr(p, name) for p in places])[which, model]

        ends = take("lower"), take("upper")
        return Points(
            take("estimate"), take("step"), ends, [places[k].scale for k in which]
        )

    def rows(self, target: np.ndarray) -> RootSearches:
        """Searches for zetas ``target``."""
        target = np.asarray(target, float)
        guess = self.centre + target * self.step
        return RootSearches(
            self.centre, self.step, self.lower, self.upper, target, guess
        )

    def value(self, rows: np.ndarray | None, x: np.ndarray) -> np.ndarray:
        """(r,) values at x of some rows, or of all."""
        rows = np.arange(len(self.step)) if rows is None else rows
        out = np.empty(len(x))
        with np.errstate(all="ignore"):
            for scale, mine in self.scales:
                here = mine[rows]
                out[here] = scale.back(x[here])
        out = np.where(x == self.lower[rows], self.ends[0][rows], out)
        out = np.where(x == self.upper[rows], self.ends[1][rows], out)
        return np.where(x == self.centre[rows], self.estimate[rows], out)

    def zeta(
        self,
        rows: np.ndarray,
        x: np.ndarray,
        value: np.ndarray,
        rise: np.ndarray,
        slope: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Signed root of the rise of the deviance, and its slope in x."""
        with np.errstate(all="ignore"):
            side = np.sign(x - self.centre[rows])
            zeta = side * np.sqrt(np.where(rise < 0, 0.0, rise))
            inner = np.empty(len(x))
            for scale, mine in self.scales:
                here = mine[rows]
                inner[here] = scale.slope(value[here])
            return zeta, slope * inner / (2 * zeta)


@dataclass
class RootSearches:
    """R searches; arrays (R,).

    centre: where zeta is zero; step: about one unit of zeta; lower, upper: ends of the
    range; target: of zeta; guess: where to look first.
    """

    centre: np.ndarray
    step: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    target: np.ndarray
    guess: np.ndarray


def meet(rows: RootSearches, evaluate: Evaluate) -> np.ndarray:
    """(R,) x where each row meets its target; an end where it never gets there.

    Args:
        rows: the searches.
        evaluate: (rows (r,), x (r,)) -> zeta and its slope, (r,) each; NaN where
            unknown.
    """
    search = _Search(rows)
    with np.errstate(all="ignore"):
        for _ in range(MOST):
            active = np.flatnonzero(~search.done)
            if not len(active):
                break
            search.guess = np.clip(search.guess, rows.lower, rows.upper)
            zeta, slope = evaluate(active, search.guess[active])
            search.take(active, zeta, slope)
    return search.end()


class _Search:
    """The bracket of each row: (x, distance to the target) inside and outside."""

    def __init__(self, rows: RootSearches):
        self.rows = rows
        R = len(rows.target)
        self.side = np.sign(rows.target)
        self.bound = np.where(self.side > 0, rows.upper, rows.lower)
        self.guess = np.array(rows.guess, float)
        self.inside, self.inside_gap = rows.centre.copy(), -rows.target.astype(float)
        self.before, self.before_gap = self.inside.copy(), self.inside_gap.copy()
        self.outside, self.outside_gap = np.full(R, np.nan), np.full(R, np.nan)
        self.last = np.zeros(R, int)
        self.gap = np.full(R, np.inf)
        self.crossed, self.done = np.zeros(R, bool), np.zeros(R, bool)
        self.found = self.bound.copy()

    def take(self, a: np.ndarray, zeta: np.ndarray, slope: np.ndarray) -> None:
        """Rows ``a`` have been evaluated at their guess."""
        guess, target, side = self.guess[a], self.rows.target[a], self.side[a]
        gap, finite = zeta - target, np.isfinite(zeta)
        slope = np.where(slope > 0, slope, np.nan)
        hit = finite & (np.abs(gap) < CLOSE)
        # what is left is taken off unseen: the root to the square of CLOSE
        polished = guess - np.where(np.isfinite(slope), gap / slope, 0.0)
        self._finish(a[hit], np.clip(polished, *self._ends(a))[hit])
        below = ~hit & finite & (side * zeta < side * target)
        has = np.isfinite(self.outside[a])
        level = np.isinf(self.bound[a]) & ~has & self._is_level(a, zeta)
        stop = below & ((guess == self.bound[a]) | level)
        self._finish(a[stop], self.bound[a][stop])
        self._inwards(a[below & ~stop], gap[below & ~stop])
        beyond = ~hit & ~below
        self._outwards(a[beyond], gap[beyond], finite[beyond])
        rest = ~hit & ~stop
        self._next(a[rest], gap[rest], slope[rest])

    def end(self) -> np.ndarray:
        """What was found; where steps ran out, the best that is known."""
        late = ~self.done & self.crossed
        return np.where(late, self.guess, self.found)

    def _ends(self, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.rows.lower[a], self.rows.upper[a]

    def _finish(self, a: np.ndarray, x: np.ndarray) -> None:
        self.found[a], self.done[a] = x, True

    def _inwards(self, a: np.ndarray, gap: np.ndarray) -> None:
        self.before[a], self.before_gap[a] = self.inside[a], self.inside_gap[a]
        self.inside[a], self.inside_gap[a] = self.guess[a], gap
        # halving the distance of an end that stays keeps the secant from creeping
        again = a[self.last[a] == 1]
        self.outside_gap[again] /= 2
        self.last[a] = 1

    def _outwards(self, a: np.ndarray, gap: np.ndarray, finite: np.ndarray) -> None:
        self.crossed[a] |= finite
        self.outside[a] = self.guess[a]
        self.outside_gap[a] = np.where(finite, gap, self.rows.target[a])
        again = a[self.last[a] == 2]
        self.inside_gap[again] /= 2
        self.last[a] = 2

    def _is_level(self, a: np.ndarray, zeta: np.ndarray) -> np.ndarray:
        """Whether zeta no longer rises from inside to the guess, farther out."""
        centre, step = self.rows.centre[a], self.rows.step[a]
        known = np.abs(self.inside_gap[a] + self.rows.target[a])
        reached, moved = np.abs(zeta), np.abs(self.guess[a] - centre)
        before = np.abs(self.inside[a] - centre)
        far = (moved > 1.5 * before) & (before > 0)
        flat = far & (reached > RISEN) & (reached - known < FLAT)
        return flat | (moved > HOPELESS * step)

    def _next(self, a: np.ndarray, gap: np.ndarray, slope: np.ndarray) -> None:
        """Where to look next: inside the bracket, or outward where there is none."""
        centre, step, target = (
            x[a] for x in (self.rows.centre, self.rows.step, self.rows.target)
        )
        inside, inside_gap = self.inside[a], self.inside_gap[a]
        outside, outside_gap = self.outside[a], self.outside_gap[a]
        share = inside_gap / (inside_gap - outside_gap)
        # a step onto an end of the bracket would evaluate what is known
        secant = inside + np.clip(share, 1e-3, 1 - 1e-3) * (outside - inside)
        newton = self.guess[a] - gap / slope
        low, high = np.minimum(inside, outside), np.maximum(inside, outside)
        faster = np.abs(gap) < 0.5 * self.gap[a]  # else Newton's steps go round
        believed = (newton > low) & (newton < high) & faster
        within = np.where(believed, newton, secant)

        rise = (inside_gap - self.before_gap[a]) / (inside - self.before[a])
        rise = np.where(np.isfinite(slope), slope, rise)
        # a correlation's curve is flat where the best sd beside it is zero
        move = np.where(rise > 0, -inside_gap / rise, np.sign(target) * np.inf)
        size = 2 * np.abs(inside - centre) + np.abs(step)
        ahead = inside + np.clip(move, -size, size)
        ahead = np.where(inside == centre, inside + 2 * target * step, ahead)
        self.guess[a] = np.where(np.isfinite(outside), within, ahead)
        self.gap[a] = np.where(np.isfinite(gap), np.abs(gap), np.inf)
