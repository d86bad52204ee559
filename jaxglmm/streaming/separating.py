"""What a likelihood of rows in parts drives to infinity, and where dispersion ended.

The rules of ``fitting.separation`` and ``fitting.diagnostics``, whose sums over rows
come from a visit to the parts: triangular factors of X in place of X, counts in place
of positions. A fit in whose rows nothing lies far out pays for one visit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglmm.fitting.diagnostics import ResponseSize
from jaxglmm.fitting.separation import (
    INVOLVED,
    LOST,
    NOTHING,
    Separation,
    lost_directions,
    possible,
    ran_off,
)
from jaxglmm.formula.absent import AbsentRows
from jaxglmm.model.families import AbstractFamily
from jaxglmm.streaming.parts import LevelBlock

Visit = Callable[[], Iterable[LevelBlock]]


@dataclass(frozen=True)
class EndOfSearch:
    """beta (p,), and b of all levels of each factor, (q, J) each, largest first."""

    beta: np.ndarray
    b: Sequence[np.ndarray]


@dataclass
class RowsSeen:
    """What a visit found: the largest and least predictor, and sums over rows.

    rows: how many; ends: of these no success, or only successes; y, trials: sums, and
    most trials of a row; R: (p, p) triangular factor of X.
    """

    eta: list[float] = field(default_factory=lambda: [0.0, 0.0])
    rows: float = 0.0
    ends: float = 0.0
    y: float = 0.0
    trials: float = 0.0
    most_trials: float = 1.0
    R: np.ndarray | None = None


@dataclass(frozen=True)
class VisitedRows:
    """Rows of a block that count: X (p, n), count (n,) of rows that each stands for."""

    X: np.ndarray
    eta: np.ndarray
    y: np.ndarray
    trials: np.ndarray
    count: np.ndarray

    def at_end(self, family: AbstractFamily) -> tuple[np.ndarray, np.ndarray]:
        """Which have no success, and which nothing else."""
        full = np.zeros(len(self.y), bool)
        if family.family_kind == "binomial":
            full = (self.y == self.trials) & (self.trials > 0)
        return (self.y == 0) & ~full, full


def visited(
    blocks: Iterable[LevelBlock], end: EndOfSearch, weighted: bool
) -> Iterator[VisitedRows]:
    """The rows of blocks; weighted: whether weights are the user's, and no counts."""
    for block in blocks:
        problem = block.problem
        (J,) = problem.rows.sizes
        level = np.zeros(J, int)
        level[: len(block.levels)] = block.levels
        X, w = np.asarray(problem.X), np.asarray(problem.weights, float)
        n = X.shape[1]
        z = np.asarray(problem.rows.z[0]).reshape(-1, n // J, J)
        eta = np.einsum("qhj,qj->hj", z, end.b[0][:, level])
        if block.shared is not None:
            shared = np.concatenate([b.T.ravel() for b in end.b[1:]])
            own = block.shared.spread(shared)
            eta[:, : own.shape[1]] += own
        eta = eta.ravel() + end.beta @ X + np.broadcast_to(problem.offset, (n,))
        used = w > 0
        count = np.ones(used.sum()) if weighted else w[used]
        trials = np.broadcast_to(np.asarray(problem.trials, float), (n,))
        y = np.asarray(problem.y, float)
        yield VisitedRows(X[:, used], eta[used], y[used], trials[used], count)


def seen(rows: Iterable[VisitedRows], family: AbstractFamily) -> RowsSeen:
    """Sums over all rows."""
    out = RowsSeen()
    for own in rows:
        low, high = (own.eta.min(), own.eta.max()) if len(own.eta) else (0.0, 0.0)
        out.eta = [min(out.eta[0], float(low)), max(out.eta[1], float(high))]
        zero, full = own.at_end(family)
        out.rows += float(own.count.sum())
        out.ends += float(own.count[zero | full].sum())
        out.y += float(own.count @ own.y)
        out.trials += float(own.count @ own.trials)
        out.most_trials = max(out.most_trials, float(own.trials.max(initial=1.0)))
        out.R = _with_rows(out.R, own.X.T)
    return out


def _with_rows(R: np.ndarray | None, X: np.ndarray) -> np.ndarray:
    """The triangular factor of rows R stands for and of X (n, p) together."""
    both = X if R is None else np.concatenate([R, X])
    return np.linalg.qr(both, mode="r")


def looked_for(
    visit: Visit,
    end: EndOfSearch,
    family: AbstractFamily,
    names: Sequence[str],
    back: np.ndarray,
    weighted: bool,
) -> tuple[Separation | None, ResponseSize]:
    """The separation of a fit, and facts of its response.

    Args:
        visit: gives the blocks of all parts, as often as it is called.
        end: where the search ended.
        family: of the response.
        names: of the columns of X.
        back: (p, p) R of X = X~ R, with X~ the columns of the parts.
        weighted: whether weights are the user's.
    """

    def rows() -> Iterator[VisitedRows]:
        return visited(visit(), end, weighted)

    found = seen(rows(), family)
    mean = found.y / max(found.rows, 1.0)
    share = found.y / max(found.trials, 1e-300)
    facts = ResponseSize(mean, share, found.most_trials, None)
    p = len(end.beta)
    if not (p and possible(family, np.array(found.eta))) or found.R is None:
        return None, facts
    if found.R.shape != (p, p):
        return None, facts
    R = found.R
    left = NOTHING / max(1.0, found.ends)
    held = np.zeros((0, p))
    for own in rows():
        inside = _side(own, family, left) == 0
        held = _with_rows(held, np.linalg.solve(R.T, own.X[:, inside]).T)
    lost = lost_directions(held)
    if not lost.shape[1]:
        return None, facts
    moved, out, sides = 0.0, 0.0, set()
    along = lost @ (lost.T @ (R @ end.beta))
    for own in rows():
        Q = np.linalg.solve(R.T, own.X).T
        there = np.linalg.norm(Q @ lost, axis=1) > LOST * np.linalg.norm(Q, axis=1)
        side = _side(own, family, left)
        reach = side * (Q @ along)
        moved += float(own.count[there].sum())
        out += float(own.count[there & ran_off(family, reach)].sum())
        sides |= set(np.unique(side[there]).tolist())
    if out <= moved / 2:
        return None, facts
    directions = np.linalg.solve(R @ back, lost)
    size = np.linalg.norm(R @ back, axis=0)
    part = np.linalg.norm(directions, axis=1) * size
    infinite = np.array(names)[part > INVOLVED * part.max()].tolist()
    zeros = min(sides) < 0 if len(sides) == 1 else None
    where: Any = AbsentRows(round(moved))
    return Separation(tuple(infinite), directions, where, zeros, ()), facts


def _side(own: VisitedRows, family: AbstractFamily, left: float) -> np.ndarray:
    """-1 for zeros and +1 for full successes that are fitted perfectly, else 0."""
    zero, full = own.at_end(family)
    far = np.abs(own.eta) > (np.inf if family.link.end is None else family.link.end)
    mu = np.asarray(family.mean(own.eta), float)
    if family.family_kind == "binomial":
        mu = own.trials * mu
    out = np.where(zero & far & (mu < left), -1.0, 0.0)
    return np.where(full & far & (own.trials - mu < left), 1.0, out)
