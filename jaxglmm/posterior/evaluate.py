"""Likelihood, prior and random effects at many parameters of a posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxglmm.estimate import importance as _nested
from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.integrate import curve_lanes as _lanes
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.runtime.executors import executor, threads

AT_ONCE = 4_000_000  # random effects x draws held at once
MOST_KEPT = 50_000_000  # random effects x draws that are kept
MOVES, MOVES_SMALL = 1, 2  # of Metropolis for u: groups in general, small ones
MOST_STEPS = 10  # Newton steps for a mode, where they end with it


@dataclass(frozen=True)
class EvaluatedPosterior:
    """``nested.Evaluated`` as NumPy; u is None where there are too many effects."""

    log_lik: np.ndarray
    log_prior: np.ndarray
    u: tuple[np.ndarray, ...] | None
    nu: np.ndarray
    moved: np.ndarray
    levels: np.ndarray


def evaluate(
    engine: PosteriorEngine,
    marginal: AbstractMarginal,
    mode: _map.Mode,
    x: np.ndarray,
    seed: int,
    steps: int | None = None,
    keep: bool = True,
    like: int | None = None,
) -> EvaluatedPosterior:
    """Likelihood, prior and draws of u at every x, in blocks of equal size.

    like: number of points of another call, whose program serves this one as well.
    """
    posterior = engine.posterior
    S = len(x)
    lanes = bool(posterior.problem.sides) and _lanes.suits(posterior.problem)
    n_effects = sum(
        q * J
        for q, J in zip(
            posterior.problem.sides, posterior.problem.rows.sizes, strict=True
        )
    )
    size = like or S
    few = n_effects * size <= MOST_KEPT
    moved, keep = few and (keep or like is not None), few and keep
    chunk = _nested.chunk_size(posterior, size)
    block = _block(size, chunk, n_effects)
    padded = -(-S // block) * block
    rows = np.concatenate([x, np.broadcast_to(mode.x, (padded - S, x.shape[1]))])
    moves = MOVES_SMALL if marginal.beyond else MOVES
    if not lanes:
        steps = MOST_STEPS
    elif steps is None:
        steps = 1

    def one(start: int) -> Any:
        numbers = _nested.noise(
            posterior, block, moves if moved else 0, seed + start, chunk
        )
        found = _nested.evaluate(
            marginal,
            posterior,
            mode,
            rows[start : start + block],
            numbers,
            np.int64(steps),
            chunk=chunk,
        )
        host = jax.device_get(found)
        if keep:
            return host
        rest = (host.log_lik, host.log_prior, None, host.nu, host.moved, host.levels)
        return EvaluatedPosterior(*rest)

    starts = range(0, padded, block)
    several = lanes and len(starts) > 1  # lanes: nothing of LAPACK runs in them
    with executor(None if several else 1) as pool:
        parts = list(pool.map(one, starts))
    u = None
    if keep:
        u = tuple(
            np.concatenate([p.u[f] for p in parts])[:S]
            for f in range(len(posterior.problem.sides))
        )
    names = ("log_lik", "log_prior", "nu", "moved", "levels")
    joined = {k: np.concatenate([getattr(p, k) for p in parts])[:S] for k in names}
    return EvaluatedPosterior(u=u, **joined)


def _block(S: int, chunk: int, n_effects: int) -> int:
    """Draws a call: a multiple of ``chunk``, two calls at least, within memory."""
    size = -(-S // threads())
    size = min(size, max(chunk, AT_ONCE // max(n_effects, 1)))
    return max(-(-size // chunk) * chunk, chunk)
