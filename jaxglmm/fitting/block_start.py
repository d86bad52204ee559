"""Where the search for the covariance of blocks of rows begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.fitting.block_rows import distance_start, n_scales
from jaxglmm.model import covariances
from jaxglmm.model.covariances import base
from jaxglmm.model.residuals.correlations import AnyCorrelation, Distance

MODERATE = 0.7  # t of a correlation that is clearly there
SHARES = (0.3, 1.5)  # of the usual start's random effects, where another is tried


def start_of(engine: Any) -> np.ndarray:
    """No correlation, scales by moments, half the variance for random effects."""
    design, own = engine.design, engine.correlation
    if isinstance(own, AnyCorrelation) and not design.terms:
        return _moments(engine, own)
    B, size, y2, effects = _spread(engine)
    share = 0.5 if design.terms else 1.0
    mean_square = float(y2.sum() / size.sum())
    base_columns = n_scales(design)
    scales = np.zeros(B.shape[1])
    if base_columns:
        first = B[:, :base_columns]
        mean = np.maximum(first.T @ y2 / np.maximum(size @ first, 1.0), 1e-4)
        scales[:base_columns] = np.log(share * mean) / 2
    elif B.shape[1]:
        level = np.log(share * max(mean_square, 1e-300)) / 2
        root = np.sqrt(size)
        scales = np.linalg.lstsq(B * root[:, None], level * root, rcond=None)[0]
    # powers of a variable that is far from one: the level takes them up later
    t = np.zeros(0) if own is None else own.start()
    if isinstance(own, Distance):
        t[0] = distance_start(engine.arrangements, own)
    n_groups = len(design.residual.group_levels)
    start = np.tile(np.concatenate([scales, t]), n_groups)
    sd = []
    for squares in effects:
        scaled = engine.is_level.any() or not len(engine.is_level)
        whole = 0.5 if scaled else 0.5 * mean_square
        each = whole / len(effects) / len(squares)
        sd += [np.sqrt(each / s) for s in np.maximum(squares, 1e-12)]
    terms = tuple(covariances.of(x) for x in design.terms)
    return np.concatenate([start, np.asarray(base.start(terms, sd), float)])


def _spread(engine: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """Scales of rows, how many each stands for, their squares; of each term's values.

    Rows of one stratum are one.
    """
    cells = engine.cells
    if cells is not None:
        strata = cells.strata
        square = strata.square.sum() / strata.size.sum()
        effects = [np.array([square])] if strata.J else []
        return strata.scales, strata.size, cells.squares, effects
    rows = engine.block_rows
    effects = [np.mean(z * z, axis=0) for z, _ in rows.effects]
    return rows.scales, np.ones(len(rows.scales)), engine.rows[:, -1] ** 2, effects


def rivals(engine: Any) -> list[np.ndarray]:
    """Starts with positive correlation, and little or much of random effects."""
    problem, own = engine.problem, engine.correlation
    if own is None or not problem.covariances:
        return []
    start = np.array(problem.start)
    if not isinstance(own, AnyCorrelation):
        own_t = np.arange(problem.n_residual) % problem.each >= problem.each - own.k
        start[: problem.n_residual][own_t] += MODERATE
    out = []
    for share in SHARES:
        other = start.copy()
        other[problem.n_residual :] *= share
        out.append(other)
    return out


def _moments(engine: Any, own: AnyCorrelation) -> np.ndarray:
    """Scales and t of an unstructured covariance: mean products of residuals.

    Of pairs of visits that are there, shrunk to the diagonal until it is definite.
    """
    T, start = own.size, []
    rows = engine.block_rows
    e = np.zeros((int(rows.block.max()) + 1, T))
    there = np.zeros_like(e)
    e[rows.block, rows.position] = engine.rows[:, -1]
    there[rows.block, rows.position] = 1.0
    group = np.zeros(len(e), int)
    group[rows.block] = rows.group
    for g in range(rows.n_groups):
        mine = group == g
        count = np.maximum(there[mine].T @ there[mine], 1.0)
        S = e[mine].T @ e[mine] / count
        diagonal = np.diag(np.maximum(np.diagonal(S), 1e-4))
        L = np.linalg.cholesky(diagonal)
        for share in (0.9, 0.5, 0.2):
            mixed = share * S + (1 - share) * diagonal
            if (
                np.linalg.eigvalsh(
                    mixed / np.sqrt(np.outer(*2 * [np.diagonal(mixed)]))
                )[0]
                > 0.02
            ):
                L = np.linalg.cholesky(mixed)
                break
        scale = np.diagonal(L)
        unit = L / scale[:, None]
        start += [np.log(scale), np.zeros(rows.scales.shape[1] - T)]
        start.append(unit[np.tril_indices(T, -1)])
    return np.concatenate(start)
