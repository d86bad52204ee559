"""The likelihood of a generalised model with crossed factors, rows in parts.

Rows are dealt by the levels of the largest factor; effects of the others are shared by
all parts (``integrate.laplace_shared``). A first visit of all rows gives every block's
modes and its share of the gradient and of the Schur complement G, so that the shared
effects move by Newton's method; a second one, with S^-1, gives the score. From then on
S^-1 of the point before moves them as well, without a sum and a factor of its own,
until they are as good as at their mode, where such factors are dear. The Hessian is the
score's difference, all points of it in two visits more, as far as memory takes a matrix
for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import numpy as np

from jaxglmm.integrate.laplace_shared import ReducedRows, RowsAtMode, rows_at_mode
from jaxglmm.model.covariances.base import AbstractCovariance, jacobian
from jaxglmm.model.covariances.host import host_lambdas
from jaxglmm.numerics.packed_schur import PackedSchur, scaled
from jaxglmm.numerics.summed_schur import Inverse, KnownInverse, SummedSchur, probes
from jaxglmm.runtime.executors import in_order
from jaxglmm.runtime.memory import available
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.streaming.parts import LevelBlock
from jaxglmm.streaming.searching import AllModes, SearchPoint, newton_step
from jaxglmm.structure.moments_of_design import UNROLLED

NEAR = 1e-10  # decrement of the shared effects at which they are at their mode
MOST = 60  # visits until they are
PRICE = 1e5  # m^3 over the rows, from which a factor of S costs more than a visit
SLOW = 0.25  # decrement over the last one, from which a held inverse is too far off
APART = 1e-4  # half the distance of two points whose scores are compared
ENOUGH = 0.6  # of the free memory
LARGE = 4_000  # shared effects from which G is sparse, and dense once S^-1 is needed
PROBES = 128  # random signs that S^-1 is estimated by, for the Hessian
FEW = 32  # of them on the way there
APPROACHES, NEXT_TO, WIDEST = 12, 1e-2, 0.3  # steps there, gain to stop at, longest one
STILL = 1e-4  # change of psi, of order one, below which the Hessian stays what it was
ROUNDING = 1e-12  # of -2 log density, that does not count as a rise

Blocks = Callable[[], Iterable[LevelBlock]]


@dataclass
class SharedPoint:
    """psi and v (m,), and what the visits add up.

    lams, slopes: Lambda of each factor, and its derivatives in its parameters; density:
    -2 l + u'u; dets: log|M|; gradient: Z_2's (m,); moves: of -Z_2's (m, k'), k' without
    the parameters of the shared effects.
    """

    psi: np.ndarray
    v: np.ndarray
    lams: list[np.ndarray]
    slopes: list[list[np.ndarray]]
    G: PackedSchur | SummedSchur
    density: float = 0.0
    dets: float = 0.0
    gradient: np.ndarray = field(default_factory=lambda: np.zeros(0))
    moves: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def height(self) -> float:
        """-2 log density at (u, v)."""
        return self.density + float(self.v @ self.v)


@dataclass
class SharedStep:
    """What the first visit told: r (m,), -S^-1 r, r'S^-1 r, and how v moves (m, k)."""

    r: np.ndarray
    step: np.ndarray
    decrement: float
    along: np.ndarray


class SharedLikelihood:
    """-2 log-likelihood, score and Hessian by visits of blocks.

    covariances: of the factors, the first one's levels in blocks; p, n_phi: how many
    coefficients and dispersion parameters; u: of the first factor.
    """

    def __init__(
        self,
        covariances: Sequence[AbstractCovariance],
        sides: Sequence[tuple[int, int]],
        p: int,
        n_phi: int,
        blocks: Blocks,
        u: AllModes,
    ):
        self.covariances, self.sides = tuple(covariances), tuple(sides)
        self.p, self.n_phi, self.blocks, self.u = p, n_phi, blocks, u
        self.m = sum(J * q for J, q in sides)
        self._solved: np.ndarray | None = None  # of signs, where these begin
        own = covariances[0].m
        others = sum(c.m for c in covariances[1:])
        self.is_large = self.m > LARGE
        k = p + own + others + n_phi
        self.k, self.shared = k, slice(p + own, p + own + others)
        self.local = np.r_[: p + own, p + own + others : k]
        self.held: np.ndarray | None = None  # S^-1 (m, m) of a point before
        self.rows = np.inf  # of all blocks

    # Points ---------------------------------------------------------------------------

    def point(self, psi: np.ndarray, v: np.ndarray, sums: bool = True) -> SharedPoint:
        """A point before any visit; sums: with a place for G and for the moves."""
        theta = psi[self.p : self.shared.stop]
        lams, slopes, at = host_lambdas(theta, self.covariances), [], 0
        for c in self.covariances:
            slopes.append(_slopes(c, theta[at : at + c.m]))
            at += c.m
        G: PackedSchur | SummedSchur = PackedSchur(self.sides if sums else ())
        if sums and self.is_large:
            G = SummedSchur(self.sides)
        k = len(self.local)
        return SharedPoint(
            psi,
            v,
            lams,
            slopes,
            G,
            gradient=np.zeros(self.m),
            moves=np.zeros((self.m, k)),
        )

    def _reduced(self, block: LevelBlock, at: SharedPoint, keep: bool) -> ReducedRows:
        """A block at a point, with its modes."""
        problem, rows = block.problem, block.shared
        assert rows is not None
        J = len(block.levels)
        o = np.zeros((rows.z.shape[1], problem.rows.sizes[0]))
        o[:, :J] = rows.spread(scaled(at.lams[1:], self.sides, at.v[:, None])[:, 0])
        offset = np.asarray(problem.offset) + o.ravel()
        moved = tree_at(lambda x: x.offset, problem, offset)
        start = self.u.of(block, problem.rows.sizes[0])
        found = jax.device_get(rows_at_mode(moved, at.psi[self.local], start))
        if keep and np.isfinite(found.value):
            self.u.keep(block, found.u[:, None])
        cut = [np.asarray(getattr(found, name)) for name in RowsAtMode._names]
        cut = [x[..., :J] if x.ndim > 1 else x for x in cut]
        return ReducedRows(rows, RowsAtMode(*cut), at.lams[0], at.slopes[0])

    def first(self, points: Sequence[SharedPoint], keep: bool) -> None:
        """The first visit, for some points at once; keep: u, for the next one."""

        def one(block: LevelBlock) -> list[tuple[ReducedRows, np.ndarray]]:
            found = [self._reduced(block, at, keep) for at in points]
            return [(x, x.gradient_moves()) for x in found]

        self.rows = 0
        for each in in_order(one, self._counted(), self._width):
            for at, (rows, moves) in zip(points, each, strict=True):
                self._add(at, rows)
                at.dets += rows.log_det
                at.moves += moves
                rows.add_to(at.G)
        for at in points:
            at.G.close()

    def _counted(self) -> Iterable[LevelBlock]:
        for block in self.blocks():
            self.rows += block.rows
            yield block

    def _add(self, at: SharedPoint, rows: ReducedRows) -> None:
        at.density += float(rows.at.value)
        at.gradient += rows.rows.collect(rows.at.s)

    def _gradient(self, at: SharedPoint) -> np.ndarray:
        """r (m,), half the gradient of -2 log density in v, u at its mode."""
        turned = [x.T for x in at.lams[1:]]
        return at.v - scaled(turned, self.sides, at.gradient[:, None])[:, 0]

    @property
    def _width(self) -> int | None:
        return 1 if len(self.u.values) > UNROLLED else None

    def step(self, at: SharedPoint) -> SharedStep | None:
        """How the shared effects move; None where S is not positive definite."""
        lams, G, sides = at.lams[1:], at.G, self.sides
        turned = [x.T for x in lams]
        r = self._gradient(at)
        moves = np.zeros((self.m, self.k))
        moves[:, self.local] = scaled(turned, sides, at.moves)
        own = [np.zeros_like(x) for x in lams]
        j = self.shared.start
        for a, slopes in enumerate(at.slopes[1:]):
            for slope in slopes:
                only = [*own[:a], slope, *own[a + 1 :]]
                back = scaled([x.T for x in only], sides, at.gradient[:, None])
                there = G.times(scaled(only, sides, at.v[:, None]))
                moves[:, j] = (scaled(turned, sides, there) - back)[:, 0]
                j += 1
        if not np.isfinite(at.density + at.dets) or not G.factor(lams):
            return None
        found = G.solve(np.column_stack([r, moves]))
        if not np.isfinite(found).all():
            return None
        return SharedStep(r, -found[:, 0], float(r @ found[:, 0]), -found[:, 1:])

    def second(
        self,
        points: Sequence[SharedPoint],
        steps: Sequence[SharedStep],
        signs: np.ndarray | None = None,
    ) -> list[tuple[float, np.ndarray]]:
        """The second visit: values and scores.

        signs: (m, N) that S^-1 is estimated by, and then there is no value (NaN).
        """
        inverses, traces = [], []
        for at in points:
            inverse, trace = self._inverted(at, signs)
            inverses.append(inverse)
            traces.append(trace)
        scores = [np.zeros(len(self.local)) for _ in points]
        shared = [np.zeros(self.m) for _ in points]

        def one(block: LevelBlock) -> list:
            out = []
            for at, inverse in zip(points, inverses, strict=True):
                rows = self._reduced(block, at, keep=False)
                values = self._turned(rows.rows.values, at.lams[1:])
                out.append(rows.leverages(inverse, values))
            return out

        for each in in_order(one, self.blocks(), self._width):
            for k, found in enumerate(each):
                scores[k] += found.score
                shared[k] += found.shared
        out = []
        every = zip(points, steps, traces, scores, shared, strict=True)
        for at, step, trace, score, moved in every:
            out.append(self._assembled(at, step, trace, score, moved))
        return out

    def _inverted(
        self, at: SharedPoint, signs: np.ndarray | None
    ) -> tuple[Inverse, list[np.ndarray]]:
        """S^-1, and its sums with G."""
        G, lams = at.G, at.lams[1:]
        if isinstance(G, SummedSchur):
            if signs is not None:
                inverse, sums = G.probed(lams, signs, self._solved)
                self._solved = inverse.solved
                return inverse, sums
            dense = G.packed()
            if not dense.factor(lams):
                return KnownInverse(dense.A), [np.full_like(x, np.nan) for x in lams]
            G.log_det, G = dense.log_det, dense
        sums = G.invert(lams)
        return KnownInverse(G.A), sums

    def _turned(self, values: np.ndarray, lams: Sequence[np.ndarray]) -> np.ndarray:
        """Values of Z_2 Lam_2."""
        out, start = [], 0
        for lam in lams:
            q = len(lam)
            part = values[start : start + q]
            out.append(np.einsum("ab,ahj->bhj", lam, part))
            start += q
        return np.concatenate(out)

    def _assembled(
        self,
        at: SharedPoint,
        step: SharedStep,
        traces: Sequence[np.ndarray],
        score: np.ndarray,
        moved: np.ndarray,
    ) -> tuple[float, np.ndarray]:
        lams, sides = at.lams[1:], self.sides
        carried = scaled([x.T for x in lams], sides, moved[:, None])[:, 0]
        out = np.zeros(self.k)
        out[self.local] = score
        total = moved - 2 * at.gradient
        j = self.shared.start
        own = [np.zeros_like(x) for x in lams]
        for a, (slopes, trace) in enumerate(zip(at.slopes[1:], traces, strict=True)):
            for slope in slopes:
                only = [*own[:a], slope, *own[a + 1 :]]
                there = scaled(only, sides, at.v[:, None])[:, 0]
                out[j] = total @ there + 2 * np.sum(slope * trace)
                j += 1
        out += step.along.T @ (2 * step.r + carried)
        value = at.height + at.dets + at.G.log_det - step.decrement
        return value + float(carried @ step.step), out

    # Searches -------------------------------------------------------------------------

    def mode(
        self, psi: np.ndarray, v: np.ndarray
    ) -> tuple[SharedPoint, SharedStep | None]:
        """The point with v at its mode, found from v; no step where there is none."""
        best, step, trial = None, None, self._approached(psi, v)
        for _ in range(MOST):
            at = self.point(psi, trial)
            self.first([at], keep=True)
            slack = ROUNDING * (1 + abs(at.height))
            if best is not None and not at.height <= best.height + slack:
                trial = (trial + best.v) / 2
                continue
            step = self.step(at)
            if step is None or step.decrement < NEAR:
                return at, step
            best = at
            del at
            best.G = PackedSchur(())  # its matrix is not needed again
            trial = best.v + step.step
        return self.point(psi, trial), None

    def _approached(self, psi: np.ndarray, v: np.ndarray) -> np.ndarray:
        """v nearer to its mode by S^-1 of a point before, as far as that helps.

        The decrement falls by about the same factor each time; the visit that should
        find it below ``NEAR`` is left to the caller, who sums G there.
        """
        if self.held is None:
            return v
        best, last, trial, inverse = None, np.inf, v, self.held
        for _ in range(MOST):
            at = self.point(psi, trial, sums=False)
            one = partial(self._reduced, at=at, keep=True)
            for rows in in_order(one, self.blocks(), self._width):
                self._add(at, rows)
            slack = ROUNDING * (1 + abs(at.height))
            if best is not None and not at.height <= best.height + slack:
                return best.v
            r = self._gradient(at)
            step = -(inverse @ r)
            decrement = float(-r @ step)
            if not np.isfinite(decrement):
                return v if best is None else best.v
            trial = at.v + step
            ratio = decrement / last if np.isfinite(last) else 1.0
            if ratio * decrement < NEAR or (best is not None and ratio > SLOW):
                return trial
            best, last = at, decrement
        return trial

    @double_precision
    def hessian(self, psi: np.ndarray, v: np.ndarray, along: np.ndarray) -> np.ndarray:
        """(k, k) central differences of the score; along: how v moves with psi."""
        k, H = self.k, np.zeros((self.k, self.k))
        signs = probes(self.m, PROBES) if self.is_large else None
        self._solved = None
        moves = [(j, sign) for j in range(k) for sign in (1.0, -1.0)]
        room = available()
        most = len(moves)
        if room is not None and not self.is_large:
            most = int(ENOUGH * room // max(PackedSchur.memory(self.m), 1.0))
        most = max(1, min(most, len(moves)))
        for start in range(0, len(moves), most):
            here = moves[start : start + most]
            points = []
            for j, sign in here:
                change = sign * APART * np.eye(k)[j]
                points.append(self.point(psi + change, v + along @ change))
            self.first(points, keep=False)
            steps = [self.step(at) for at in points]
            if any(step is None for step in steps):
                return np.full((k, k), np.nan)
            own = [x for x in steps if x is not None]
            found = self.second(points, own, signs)
            for (j, sign), (_, score) in zip(here, found, strict=True):
                H[j] += sign * score / (2 * APART)
        return (H + H.T) / 2


class SharedSearch:
    """psi -> the point there, for ``searching.minimised``.

    v, along: where the shared effects were last, and how they move; H: the Hessian,
    exact where it was found, kept up by the symmetric rank-one formula since then
    (Conn, Gould and Toint 1991).
    """

    def __init__(
        self,
        likelihood: SharedLikelihood,
        v: np.ndarray,
        H: np.ndarray | None,
        told: Callable[[SearchPoint, np.ndarray], None],
    ):
        self.likelihood, self.v, self.H, self.told = likelihood, v, H, told
        self.psi: np.ndarray | None = None
        self.exact_at: np.ndarray | None = None  # where H was found last
        self.score = np.zeros(likelihood.k)
        self.along = np.zeros((likelihood.m, likelihood.k))

    @double_precision
    def __call__(self, psi: np.ndarray) -> SearchPoint:
        own, v = self.likelihood, self.v
        if self.psi is not None:
            v = v + self.along @ (psi - self.psi)
        at, step = own.mode(psi, v)
        nothing = np.zeros(own.k)
        if step is None:
            return SearchPoint(psi, np.inf, nothing, np.eye(own.k))
        own.held = None
        ((value, score),) = own.second([at], [step])
        if isinstance(at.G, PackedSchur) and own.m**3 > PRICE * own.rows:
            own.held = at.G.A  # inverted in its place
        if not np.isfinite(value):
            return SearchPoint(psi, np.inf, nothing, np.eye(own.k))
        v = at.v + step.step
        if self.H is None:
            del at
            self.H, self.exact_at = own.hessian(psi, v, step.along), psi
        elif self.psi is not None:
            self.H = secant(self.H, psi - self.psi, score - self.score)
        self.psi, self.score, self.v, self.along = psi, score, v, step.along
        found = SearchPoint(psi, value, score, self.H)
        self.told(found, v)
        return found

    @double_precision
    def approach(self, psi: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """psi next to the maximum, by scores with S^-1 from a few random signs.

        Newton's method on the score alone, since the signs tell no value: their error
        in the maximum is far below its standard error. The Hessian is left behind.
        """
        own, signs = self.likelihood, probes(self.likelihood.m, FEW)
        v, H, last, score = self.v, self.H, np.inf, np.zeros(len(psi))
        before = psi
        for k in range(APPROACHES):
            at, step = own.mode(psi, v)
            if step is None:
                break
            last, own._solved = score, None
            ((_, score),) = own.second([at], [step], signs)
            v = at.v + step.step
            del at
            if H is None:
                H = own.hessian(psi, v, step.along)
            elif k:
                H = secant(H, psi - before, score - last)
            here = SearchPoint(psi, 0.0, score, H)
            move, gain = newton_step(here, scales)
            self.v = v
            if not np.isfinite(gain) or gain < NEXT_TO:
                break
            move *= min(1.0, WIDEST / np.abs(move).max(initial=1e-300))
            before, psi = psi, psi - move
            psi = np.where(scales & (psi < before / 2), before / 2, psi)
            v = v + step.along @ (psi - before)
        self.H = None
        return psi

    def renew(self) -> np.ndarray:
        """The Hessian at the last point."""
        assert self.psi is not None
        if self.exact_at is not None:
            moved = np.abs(self.psi - self.exact_at).max(initial=0.0)
            if self.likelihood.is_large and moved < STILL:
                assert self.H is not None
                return self.H
        self.exact_at = self.psi
        self.H = self.likelihood.hessian(self.psi, self.v, self.along)
        return self.H


def secant(H: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """H + d d' / d's with d = change - H step, unless that is next to nothing."""
    d = change - H @ step
    size = d @ step
    if abs(size) <= 1e-8 * np.linalg.norm(d) * np.linalg.norm(step):
        return H
    return H + np.outer(d, d) / size


def _slopes(c: AbstractCovariance, theta: np.ndarray) -> list[np.ndarray]:
    """Derivatives of Lambda (q, q) in its parameters."""
    J = jacobian(theta, (c,))
    J = np.eye(c.m) if J is None else np.asarray(J)
    out = []
    for column in J.T:
        slope = np.zeros((c.q, c.q))
        for (i, j), value in zip(c.entries, column, strict=True):
            slope[i, j] = value
        out.append(slope)
    return out
