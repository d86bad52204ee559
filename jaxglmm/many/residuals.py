"""Many responses of one design with correlated residuals, in lanes of one program.

The blocks of rows are the same for all; a response has its own last column in them, its
own start by moments and its own scale.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._typing import Array, Float
from jaxglmm.estimate.maximise_blocks import MaximiseBlocks
from jaxglmm.fitting import blocks
from jaxglmm.fitting.linear import SAFETY
from jaxglmm.many.block_lanes import row, searched
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.columns import KeptColumns
from jaxglmm.many.responses import marked, without_offset
from jaxglmm.model.marginal_problem import MarginalProblem
from jaxglmm.runtime.precision import double_precision
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.fixed import EXACT

CHUNK = 256  # lanes of one call
MEMORY = 4e7  # numbers in their blocks


class SharedBlocks:
    """One design, responses as columns without missing rows."""

    surer_alone = False

    @double_precision
    def __init__(self, source: ModelSource, columns: KeptColumns):
        self.source, self.columns = source, columns
        self.base = blocks.BlockEngine(source.design, source.model.reml)
        size = sum(s.rows.size + s.pairs.lag.size for s in self.base.shared.stacks)
        self.lanes = int(np.clip(MEMORY // size, 1, CHUNK))

    @double_precision
    def fit(self, which: np.ndarray, steps: int) -> np.ndarray:
        """Rows of the table for responses ``which`` (L,), at most ``steps`` steps."""
        source, keep = self.source, self.base.keep
        assert source.responses is not None
        Y = without_offset(source.responses, source.offset, which, keep)
        status = self._status(Y)
        good = np.flatnonzero(status == 0)
        out = np.full((len(which), self.columns.width), np.nan)
        out[:, -1] = status
        if len(good):
            engines = [self.base.for_response(Y[:, i]) for i in good]
            out[good] = self._fitted(engines, steps)
        return out

    def _status(self, Y: np.ndarray) -> np.ndarray:
        """Zero for responses that can be fitted."""
        status = np.zeros(Y.shape[1])
        X, root = self.base.rows[:, :-1], self.base.root[:, None]
        with np.errstate(invalid="ignore"):
            rooted = Y * root
            rest = rooted - X @ (X.T @ rooted)
            size = np.sqrt(np.sum(rooted**2, axis=0))
            exact = ~(np.sqrt(np.sum(rest**2, axis=0)) > EXACT * size)
        status[exact] = _status.EXACT
        status[np.ptp(Y, axis=0) == 0] = _status.CONSTANT
        return marked(Y, status)

    def _fitted(self, engines: list[blocks.BlockEngine], steps: int) -> np.ndarray:
        shared = self.base.shared
        lanes = self.lanes
        rows = [
            np.stack([a.padded(e.rows[:, -1:])[..., 0] for e in engines])
            for a in self.base.arrangements
        ]
        starts = np.stack([e.start for e in engines])
        found = []
        for begin in range(0, len(engines), lanes):
            here = np.arange(begin, begin + lanes) % len(engines)  # one shape
            one = _lanes(
                MaximiseBlocks(self.base.reml),
                shared,
                [r[here] for r in rows],
                starts[here],
                np.float64(SAFETY * self.source.tol),
                np.int64(steps),
            )
            found.append(jax.tree.map(np.asarray, one))
        joined = jax.tree.map(lambda *x: np.concatenate(x)[: len(engines)], *found)
        return np.stack(
            [
                row(
                    e,
                    jax.tree.map(lambda x, i=i: x[i], joined),
                    self.columns,
                    self.source.satterthwaite,
                )
                for i, e in enumerate(engines)
            ]
        )


@partial(jax.jit, static_argnums=0)
def _lanes(
    estimator: MaximiseBlocks,
    problem: MarginalProblem,
    rows: list[Float[Array, "L N T"]],
    starts: Float[Array, "L m"],
    tol: Any,
    steps: Any,
) -> Any:
    """Fit every lane; the Hessian, Fisher's information and F at its end."""

    def one(own: list[Array], start: Array) -> Any:
        mine = tree_at(
            lambda p: [p.stacks[k].rows for k in range(len(own))],
            problem,
            [
                jax.numpy.concatenate([s.rows[..., :-1], y[..., None]], axis=-1)
                for s, y in zip(problem.stacks, own, strict=True)
            ],
        )
        return searched(estimator, mine, start, tol, steps)

    return jax.vmap(one)(rows, starts)
