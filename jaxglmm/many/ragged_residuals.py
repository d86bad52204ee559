"""Data sets of one long table with correlated residuals, as lanes of one program.

Each is arranged as alone: its templates, patterns and blocks. Lanes are data sets whose
blocks have the same numbers of rows; what one has fewer of (templates, patterns,
blocks) is filled up by such as have no rows, which changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxglmm._errors import JaxGLMMError
from jaxglmm._typing import Array, Float
from jaxglmm.estimate.maximise_blocks import MaximiseBlocks
from jaxglmm.fitting.blocks import BlockEngine
from jaxglmm.fitting.linear import SAFETY
from jaxglmm.fitting.residual_checks import check, check_silent
from jaxglmm.many.block_lanes import row, searched
from jaxglmm.many.collection import ModelSource, status_of
from jaxglmm.many.columns import ALONE, KeptColumns
from jaxglmm.model.marginal_problem import BlockEffect, MarginalProblem, Stack
from jaxglmm.model.residuals.correlations import Pairs
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.padding import bucket

WORTH = 800  # data sets from which a program pays for being compiled
FEW = 8  # data sets of one shape that are fitted alone
CHUNK = 64  # lanes of one call


class OwnBlocks:
    """The data sets of a long table, each with its own blocks."""

    surer_alone = False
    lanes = CHUNK

    def __init__(self, source: ModelSource, columns: KeptColumns):
        self.source, self.columns = source, columns
        self.estimator = MaximiseBlocks(source.model.reml)

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for data sets ``which`` (L,), at most ``steps`` steps."""
        sets, place = np.unique(which, return_inverse=True)
        out = np.full((len(sets), self.columns.width), np.nan)
        out[:, -1] = ALONE
        alike: dict[Any, list[tuple[int, BlockEngine]]] = defaultdict(list)
        for k, i in enumerate(sets.tolist()):
            try:
                engine = self._engine(i)
                if engine is not None:
                    alike[_shape(engine.by_rows)].append((k, engine))
            except JaxGLMMError as error:
                out[k, -1] = status_of(error)
        for found in alike.values():
            if len(found) >= FEW:
                at, engines = zip(*found, strict=True)
                out[list(at)] = self._fitted(engines, steps)
        return out[place]

    def _engine(self, i: int) -> BlockEngine | None:
        """Of a data set; None where it lacks what the others have."""
        source = self.source
        design, whole = source.usable_design_of(i), source.design
        if design.x_names != whole.x_names:
            return None
        check(design)
        engine = BlockEngine(design, source.model.reml)
        check_silent(engine)
        return engine

    def _fitted(self, engines: tuple[BlockEngine, ...], steps: int) -> np.ndarray:
        problems = [e.by_rows for e in engines]
        sizes = [
            tuple(map(_size_of_all, zip(*map(_sizes, stacks), strict=True)))
            for stacks in zip(*(p.stacks for p in problems), strict=True)
        ]
        padded = [_padded(p, sizes) for p in problems]
        lanes = np.resize(np.arange(len(padded)), bucket(len(padded), 1))
        together = jax.tree.map(lambda *x: np.stack(x), *(padded[i] for i in lanes))
        stop = np.float64(SAFETY * self.source.tol)
        found = _lanes(self.estimator, together, stop, np.int64(steps))
        found = jax.tree.map(np.asarray, found)
        return np.stack(
            [
                row(
                    e,
                    jax.tree.map(lambda x, i=i: x[i], found),
                    self.columns,
                    self.source.satterthwaite,
                )
                for i, e in enumerate(engines)
            ]
        )


@partial(jax.jit, static_argnums=0)
def _lanes(
    estimator: MaximiseBlocks, problems: MarginalProblem, tol: Any, steps: Any
) -> Any:
    """Fit every lane of problems, whose arrays have one more axis, the first."""

    def one(problem: MarginalProblem) -> Any:
        return searched(estimator, problem, problem.start, tol, steps)

    return jax.vmap(one)(problems)


def _shape(problem: MarginalProblem) -> Any:
    """What lanes of one program have in common."""
    stacks = tuple((s.mask.shape[1], np.ndim(s.pairs.within)) for s in problem.stacks)
    return stacks, problem.correlation, problem.covariances, len(problem.start)


def _sizes(stack: Stack) -> tuple[int, int, int]:
    """Templates, patterns, blocks."""
    return len(stack.group), len(stack.mask), len(stack.rows)


def _size_of_all(sizes: tuple[int, ...]) -> int:
    """One for all lanes; a few values, where they differ."""
    most = max(sizes)
    return most if min(sizes) == most else bucket(most, 4)


def _padded(
    problem: MarginalProblem, sizes: list[tuple[int, int, int]]
) -> MarginalProblem:
    """With so many templates, patterns and blocks a stack."""
    stacks = tuple(_filled(s, *n) for s, n in zip(problem.stacks, sizes, strict=True))
    return MarginalProblem(
        stacks,
        problem.n,
        problem.start,
        problem.constant,
        problem.constant_reml,
        problem.correlation,
        problem.covariances,
        problem.noise,
    )


def _filled(stack: Stack, G: int, K: int, N: int) -> Stack:
    within = stack.pairs.within
    return Stack(
        _more(stack.scales, G),
        Pairs(
            _more(stack.pairs.position, G),
            _more(stack.pairs.lag, G),
            _more(within, G) if np.ndim(within) else np.float64(within),
        ),
        _more(stack.group, G),
        tuple(BlockEffect(_more(e.z, G), _more(e.same, G)) for e in stack.effects),
        _more(stack.mask, K),
        _more(stack.template, K, last=True),
        _more(stack.count, K),
        _more(stack.rows, N),
        _more(stack.pattern, N, last=True),
    )


def _more(x: Float[Array, "k ..."], size: int, last: bool = False) -> np.ndarray:
    """Zeros up to ``size``; last: the last index, so that they stay sorted."""
    own = np.asarray(x)
    out = np.zeros((size, *own.shape[1:]), own.dtype)
    out[: len(own)] = own
    if last and len(own):
        out[len(own) :] = own[-1]
    return out
