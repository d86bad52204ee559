"""Separation: coefficients that the likelihood drives to infinity.

Where a level of a factor has only zeros, or a line in the covariates parts the zeros
from the ones, the likelihood rises for ever along some direction of beta (Albert and
Anderson 1984, Biometrika 71, 1). An optimiser stops far out, where the rows that are
fitted perfectly have no weight left, and reports a large estimate with a meaningless
standard error. So: take the rows that are at the end of their range (no success, only
successes, a count of zero) and fitted there to within nothing; if X on all other rows
has lost rank, nothing holds beta in the lost directions, and they have run off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design
    from jaxglmm.model.families import AbstractFamily

NOTHING = 1e-4  # expected responses left in all rows together that are fitted perfectly
LOST = 1e-7  # singular value of the orthonormal columns that counts as zero
MOST_LEVELS = 50  # of a variable by which rows are described
INVOLVED = 1e-6  # share of a coefficient in a lost direction that counts


@dataclass(frozen=True)
class Separation:
    """What has run off.

    coefficients: names of those that are infinite
    directions: (p, r) changes of beta that change no other row
    rows: (k,) positions, in the design, of the rows that are fitted perfectly by them
    zeros: whether their responses are all at zero (True), at the other end (False), or
        at both (None)
    cells: variable and level that all of these rows share, where they do
    """

    coefficients: tuple[str, ...]
    directions: np.ndarray
    rows: np.ndarray
    zeros: bool | None
    cells: tuple[str, ...]


def possible(family: AbstractFamily, eta: np.ndarray) -> bool:
    """Whether any row lies so far out that separation needs a closer look."""
    if len(family.predictors) > 1:
        return False  # a probability at its end is looked at, see ``component_notes``
    far = family.link.end
    if family.family_kind == "ordinal":
        return False  # thresholds move; ``fitting.ordinal`` looks at these
    if far is None or not family.discrete or not eta.size:
        return False
    return bool(max(eta.max(), -eta.min()) > far)


def find(
    design: Design,
    family: AbstractFamily,
    beta: np.ndarray,
    eta: np.ndarray,
    y: np.ndarray | None = None,
) -> Separation | None:
    """The separation of a fit; None where there is none.

    Args:
        design: names and arrays of the model.
        family: of the response.
        beta: (p,) fixed effects.
        eta: (n,) linear predictor at the modes.
        y: (n,) another response than the design's.
    """
    found = _runaway(design, family, beta, eta, y)
    if found is None:
        return None
    R, lost, side, used, moved = found
    directions = np.linalg.solve(R, lost)
    share = np.linalg.norm(directions, axis=1) * np.linalg.norm(design.X, axis=0)
    ends = np.unique(side[moved])
    return Separation(
        tuple(np.array(design.x_names)[share > INVOLVED * share.max()].tolist()),
        directions,
        np.flatnonzero(moved),
        bool(ends[0] < 0) if len(ends) == 1 else None,
        _cells(design, used, moved),
    )


def any_found(
    design: Design,
    family: AbstractFamily,
    beta: np.ndarray,
    eta: np.ndarray,
    y: np.ndarray | None = None,
) -> bool:
    """Whether there is a separation; ``find`` without the names."""
    return _runaway(design, family, beta, eta, y) is not None


def _runaway(
    design: Design,
    family: AbstractFamily,
    beta: np.ndarray,
    eta: np.ndarray,
    y: np.ndarray | None,
) -> tuple[np.ndarray, ...] | None:
    """R of X = QR, lost directions (p, r) in Q, sides of rows, those used and moved."""
    if not (possible(family, eta) and design.p):
        return None
    used = np.ones(design.n, bool) if design.weights is None else design.weights > 0
    side = used * _perfect(design, family, eta, design.y if y is None else y)
    if not side.any() and used.all():
        return None  # all rows hold beta
    Q, R = np.linalg.qr(design.X)
    left = np.linalg.qr(Q[used & (side == 0)], mode="r")
    lost = lost_directions(left)
    change = np.linalg.norm(Q @ lost, axis=1)
    moved = used & (change > LOST * np.linalg.norm(Q, axis=1))
    # it must be beta that took these rows out, and not their random effects
    reach = (side * (Q @ (lost @ (lost.T @ (R @ beta)))))[moved]
    if np.sum(ran_off(family, reach)) <= len(reach) / 2:
        return None
    return R, lost, side, used, moved


def lost_directions(held: np.ndarray) -> np.ndarray:
    """(p, r) directions that nothing holds; held: rows Q (n, p), or their R."""
    _, s, vt = np.linalg.svd(held, full_matrices=True)
    return vt[int(np.sum(s > LOST)) :].T


def ran_off(family: AbstractFamily, reach: np.ndarray) -> np.ndarray:
    """Whether beta alone took rows so far out."""
    end = np.inf if family.link.end is None else family.link.end
    return reach > end / 2


def _perfect(
    design: Design, family: AbstractFamily, eta: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """(n,) -1 for zeros and +1 for full successes that are fitted perfectly, else 0."""
    far = np.abs(eta) > (np.inf if family.link.end is None else family.link.end)
    mu = np.asarray(family.mean(eta), float)
    trials = np.ones(len(y)) if design.trials is None else design.trials
    full = np.zeros(len(y), bool)
    if family.family_kind == "binomial":
        full = (y == trials) & (trials > 0)
        mu = trials * mu
    zero = (y == 0) & ~full
    left = NOTHING / max(1, int(np.sum(zero | full)))
    out = np.where(zero & far & (mu < left), -1.0, 0.0)
    return np.where(full & far & (trials - mu < left), 1.0, out)


def _cells(design: Design, used: np.ndarray, moved: np.ndarray) -> tuple[str, ...]:
    """Levels, of one variable or two, whose rows are exactly those that moved."""
    import pandas as pd

    known = [(n, *pd.factorize(v, use_na_sentinel=False)) for n, v in _shown(design)]
    known = [x for x in known if len(x[2]) <= MOST_LEVELS]
    for count in (1, 2):
        for some in combinations(known, count):
            code = np.zeros(design.n, int)
            for _, own, levels in some:
                code = code * len(levels) + own
            hit = np.bincount(code, used & moved)
            if not np.array_equal(hit[hit > 0], np.bincount(code, used)[hit > 0]):
                continue
            rows = [int(np.argmax(code == c)) for c in np.flatnonzero(hit)]
            return tuple(
                " and ".join(f"{n} = {levels[own[i]]}" for n, own, levels in some)
                for i in rows
            )
    return ()


def _shown(design: Design) -> Iterator[tuple[str, np.ndarray]]:
    """Variables of the fixed effects, or columns of X where there are no variables."""
    names = [
        n for n in design.variables if any(n in t.variables for t in design.fixed_terms)
    ]
    if names:
        yield from ((n, np.asarray(design.variables[n])) for n in names)
    else:
        yield from zip(design.x_names, design.X.T, strict=True)
