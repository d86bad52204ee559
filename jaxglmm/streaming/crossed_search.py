"""The maximum of a generalised model with crossed factors, rows in parts.

The search begins where the fit of a few rows in memory ended, those of the most
frequent levels; goes on with a sample of the levels of the largest factor; and ends
with all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.estimate import hessian as exact
from jaxglmm.formatting import numbers
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.model.covariances.base import AbstractCovariance, is_scale
from jaxglmm.model.covariances.base import start as start_of
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics.packed_schur import PackedSchur
from jaxglmm.runtime import announce, hosted, progress
from jaxglmm.runtime.ahead import ahead
from jaxglmm.runtime.memory import available
from jaxglmm.runtime.precision import double_precision
from jaxglmm.streaming import searching
from jaxglmm.streaming.crossed import LARGE, SharedLikelihood, SharedSearch
from jaxglmm.streaming.parts import LevelBlock, Parts
from jaxglmm.streaming.searching import AllModes, SearchEnd, SearchPoint
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.padding import bucket
from jaxglmm.structure.row_layout import rows as layout_of

FEW_ROWS, FEW_LEVELS = 20_000, 1_000  # of the fit in memory, levels of one factor
SAMPLE_ROWS, MUCH = 50_000, 2.0  # of a sample of levels; times this, none is taken
SAMPLE_STEPS, GENTLE = 40, 1e-2  # of the search there, as without crossed factors
LEAST_ROWS, GUESS = 200, 0.3  # of that fit; else a standard deviation to begin with
LEAST_SCALE = 0.05  # a standard deviation where a search begins
HELD = 2  # matrices that a search holds at a time, one where G is sparse beside it
ENOUGH = 0.8  # of the free memory
ROUNDS = 4  # searches, each with the exact Hessian of the last one's end


def refuse_crossed(groupings: Sequence[str], marginal: AbstractMarginal) -> None:
    """Raise ``ModelError`` where crossed factors need Laplace's, exactly."""
    if marginal.beyond:
        raise ModelError(
            f"{len(groupings)} grouping factors, {', '.join(map(repr, groupings))}, of "
            "data in batches take Laplace's approximation, method='laplace'"
        )
    if marginal.probes:
        raise ModelError(
            f"probes={marginal.probes} of a generalised model is for rows in "
            "memory; of data in batches log|M| is exact: leave it out"
        )


def memory(sides: Sequence[tuple[int, int]]) -> float:
    """Bytes of a dense matrix of the shared effects."""
    return PackedSchur.memory(sum(J * q for J, q in sides))


def words(sides: Sequence[tuple[int, int]]) -> str:
    """What the shared effects take, for ``PassPlan.method``."""
    m = sum(J * q for J, q in sides)
    size = numbers.general(memory(sides) / 1e6, 2)
    way = f"by a dense Schur complement of {size} MB"
    if m > LARGE:
        way = f"by conjugate gradients, a dense matrix of {size} MB at the end"
    return f"parts of levels in files, {m:,} shared effects {way}"


def announced(sides: Sequence[tuple[int, int]]) -> None:
    """Say so before the search.

    Raises:
        ModelError: more memory than there is.
    """
    m = sum(J * q for J, q in sides)
    size, free = memory(sides), available()
    held = 1 if m > LARGE else HELD
    if free is not None and held * size > ENOUGH * free:
        also = ", twice in a search" if held > 1 else ""
        raise ModelError(
            f"the factors after the largest have {m:,} random effects together, whose "
            f"Schur complement takes {size / 1e9:.3g} GB{also}; "
            f"{free / 1e9:.3g} GB are free. Rows that fit in memory go on without it, "
            "by fixed random vectors: jg.glmm(formula, table); else leave out the "
            "factor with so many levels, or use a machine with more memory"
        )
    announce.tell(f"  crossed factors: {words(sides)}")


@dataclass(frozen=True)
class CrossedEnd:
    """Where the search ended, u of all levels of each factor, visits of all rows."""

    end: SearchEnd
    u: tuple[np.ndarray, ...]
    visits: int


def searched(
    parts: Parts,
    covariances: Sequence[AbstractCovariance],
    counts: Sequence[np.ndarray],
    marginal: AbstractMarginal,
    left: Any,
    tol: float,
    max_iter: int,
    shown: bool | None,
) -> CrossedEnd:
    """The maximum; counts: rows of each level of the factors beside the first."""
    shape = parts.shape
    p, n_phi = len(shape.ways.X), shape.family.n_phi
    scales = np.concatenate(
        [np.zeros(p, bool), is_scale(covariances), np.zeros(n_phi, bool)]
    )
    u = AllModes(np.zeros((len(shape.ways.Z), shape.n_levels)))
    visits = 0

    def every() -> Iterator[LevelBlock]:
        nonlocal visits
        visits += 1
        total = int(parts.rows.sum())
        with progress.bar(total, shown, "row", f"likelihood, pass {visits}") as bar:
            for k in range(parts.count):
                for block in ahead(parts.blocks(k)):
                    yield block
                    bar.update(block.rows)

    def of(blocks: Callable[[], Iterable[LevelBlock]]) -> SharedLikelihood:
        return SharedLikelihood(covariances, shape.sides, p, n_phi, blocks, u)

    def keep(at: SearchPoint, v: np.ndarray) -> None:
        if left is not None:
            left.write("search", {"value": at.value}, {"psi": at.psi, "v": v})

    likelihood = of(every)
    known = None if left is None else left.read("search")
    if known is not None:
        psi, v, H = known[1]["psi"], known[1]["v"], None
    else:
        full = int(np.flatnonzero(parts.rows)[0])
        blocks = parts.blocks(full)
        is_large = likelihood.is_large
        own = blocks, shape.family, covariances, counts, marginal, max_iter
        psi, H = started(*own, curved=is_large)
        psi = np.where(scales & (np.abs(psi) < LEAST_SCALE), LEAST_SCALE, psi)
        v = np.zeros(likelihood.m)
        sample = [] if is_large else _sample(parts, full)
        if sample:
            search = SharedSearch(of(lambda: sample), v, None, lambda *_: None)
            found = searching.minimised(search, psi, scales, GENTLE, SAMPLE_STEPS)
            if found.status == _status.CONVERGED:
                psi, v = found.at.psi, search.v
                n = sum(block.rows for block in sample)
                H = search.renew() * (parts.rows.sum() / n)
    search = SharedSearch(likelihood, v, H, keep)
    if likelihood.is_large and known is None:
        psi = search.approach(psi, scales)
    end = _ended(search, psi, scales, tol, max_iter)
    own = [u.values]
    start = 0
    for J, q in shape.sides:
        own.append(search.v[start : start + J * q].reshape(J, q).T)
        start += J * q
    return CrossedEnd(end, tuple(own), visits)


def _ended(
    search: SharedSearch,
    psi: np.ndarray,
    scales: np.ndarray,
    tol: float,
    max_iter: int,
) -> SearchEnd:
    """Searches until the exact Hessian agrees that nothing is left to gain."""
    steps = 0
    for _ in range(ROUNDS):
        end = searching.minimised(search, psi, scales, tol, max(max_iter - steps, 1))
        steps += end.steps
        if not np.isfinite(end.at.value):
            return replace(end, steps=steps)
        if search.psi is not end.at.psi and not np.array_equal(search.psi, end.at.psi):
            search(end.at.psi)  # the last trial was another point
        at = replace(end.at, H=search.renew())
        step, gain = searching.newton_step(at, scales)
        end = replace(end, at=at, gain=gain, steps=steps)
        lifted = scales & (at.psi == 0.0) & (np.diagonal(at.H) < 0.0)
        done = gain < tol and not lifted.any()
        if done or end.status != _status.CONVERGED or steps >= max_iter:
            return end
        psi = np.where(lifted, searching.LIFTED, at.psi - step)
    return replace(end, status=_status.MAX_STEPS)


def _sample(parts: Parts, k: int) -> list[LevelBlock]:
    """Some blocks of part k; none where that would be much of all rows."""
    if parts.rows.sum() < MUCH * SAMPLE_ROWS:
        return []
    out, n = [], 0
    for block in parts.blocks(k):
        out.append(block)
        n += block.rows
        if n >= SAMPLE_ROWS:
            break
    return out


# The fit of a few rows ---------------------------------------------------------------


@double_precision
@hosted.one_fit
def started(
    blocks: Iterator[LevelBlock],
    family: AbstractFamily,
    covariances: Sequence[AbstractCovariance],
    counts: Sequence[np.ndarray],
    marginal: AbstractMarginal,
    max_steps: int,
    curved: bool,
) -> tuple[np.ndarray, np.ndarray | None]:
    """psi (k,) where the fit of some rows of the most frequent levels ends.

    curved: also the Hessian there, as of all rows; None where it says nothing.

    Raises:
        ModelError: it ends nowhere.
    """
    frequent = [_most(own) for own in counts]
    taken, n, first = [], 0, None
    for block in blocks:
        first = first or block
        taken.append(_rows(block, frequent, covariances))
        n += len(taken[-1]["y"])
        if n >= FEW_ROWS:
            break
    columns = {
        name: np.concatenate([part[name] for part in taken], axis=-1)
        for name in taken[0]
    }
    if n < LEAST_ROWS and first is not None:
        every = [np.arange(len(own)) for own in counts]
        return _guess(_rows(first, every, covariances), family, covariances), None
    problem, eta, phi = _problem(columns, family, covariances)
    rows = f"{n} rows of a sample of the levels"
    found = searching.begun(marginal, problem, (eta, phi), 1e-4, max_steps, rows)
    psi = np.asarray(found.psi)
    if not curved:
        return psi, None
    H = np.asarray(exact.hessian(marginal, problem, psi, found.u))
    total = float(counts[0].sum())
    useful = np.isfinite(H).all() and np.linalg.eigvalsh(H).min() > 0
    return psi, H * (total / n) if useful else None


def _guess(
    columns: dict[str, np.ndarray],
    family: AbstractFamily,
    covariances: Sequence[AbstractCovariance],
) -> np.ndarray:
    """psi where few rows are of frequent levels: from guesses of the predictors."""
    eta, phi = family.start(columns["y"], columns["trials"])
    eta = np.broadcast_to(eta, columns["y"].shape)
    beta = np.linalg.lstsq(columns["X"].T, eta, rcond=None)[0]
    sds = [GUESS] * sum(c.q for c in covariances)
    theta = np.asarray(start_of(covariances, sds), float)
    return np.concatenate([beta, theta, np.asarray(phi, float)])


def _most(counts: np.ndarray) -> np.ndarray:
    """Place of each level among the most frequent ones, -1 of others."""
    out = np.full(len(counts), -1)
    chosen = np.argsort(-counts, kind="stable")[:FEW_LEVELS]
    out[chosen] = np.arange(len(chosen))
    return out


def _rows(
    block: LevelBlock,
    frequent: Sequence[np.ndarray],
    covariances: Sequence[AbstractCovariance],
) -> dict[str, np.ndarray]:
    """The rows of a block whose levels are frequent, columns by name."""
    problem, shared = block.problem, block.shared
    assert shared is not None
    J, (_, h, _) = len(block.levels), shared.z.shape
    size = problem.rows.sizes[0]

    def flat(x: Any) -> np.ndarray:
        whole = np.broadcast_to(np.asarray(x, float), (h * size,))
        return whole.reshape(h, size)[:, :J]

    weights = flat(problem.weights)
    used, levels, start, column = weights > 0, [], 0, 0
    for c, place in zip(covariances[1:], frequent, strict=True):
        own = place[(shared.at[column] - start) // c.q]
        used = used & (own >= 0)
        levels.append(own)
        start += len(place) * c.q
        column += c.q
    out = {"y": flat(problem.y), "weights": weights}
    out |= {"trials": flat(problem.trials), "offset": flat(problem.offset)}
    out["level0"] = np.broadcast_to(block.levels, used.shape)
    out |= {f"level{k + 1}": own for k, own in enumerate(levels)}
    out = {name: x[used] for name, x in out.items()}
    out["X"], out["z0"] = shared.X[:, used], shared.z[:, used]
    column = 0
    for k, c in enumerate(covariances[1:]):
        out[f"z{k + 1}"] = shared.values[column : column + c.q, used]
        column += c.q
    return out


def _problem(
    columns: dict[str, np.ndarray],
    family: AbstractFamily,
    covariances: Sequence[AbstractCovariance],
) -> tuple[GeneralisedProblem, np.ndarray, Any]:
    """A problem in memory, and where it begins: eta and phi."""
    order = np.argsort(columns["level0"], kind="stable")
    columns = {name: x[..., order] for name, x in columns.items()}
    n, factors = len(order), []
    for k, c in enumerate(covariances):
        seen, codes = np.unique(columns[f"level{k}"], return_inverse=True)
        z = np.ascontiguousarray(columns[f"z{k}"].T)
        own = str(k), codes.astype(np.int32), z, len(seen), np.eye(c.q), c, ()
        factors.append(Factor(*own, (0,) * c.q))
    layout = layout_of(factors, bucket(n))
    places = np.arange(n) if layout.places is None else layout.places

    def placed(x: np.ndarray, fill: float = 0.0) -> np.ndarray:
        out = np.full((*x.shape[:-1], layout.n_places), fill)
        out[..., places] = x
        return out

    y, trials = columns["y"], columns["trials"]
    eta, phi = family.start(y, trials)
    problem = GeneralisedProblem(
        layout.rows,
        placed(columns["X"]),
        placed(y, family.padding),
        placed(trials, 1.0),
        placed(columns["weights"]),
        placed(columns["offset"]),
        family,
        tuple(covariances),
    )
    return problem, placed(np.broadcast_to(eta, (n,))), phi
