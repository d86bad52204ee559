"""Independent rows of few variances, and one random effect a level: sums by cells.

A model of these reads its rows once (``structure.strata``); all else is as for blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxglmm.fitting.block_rows import n_scales
from jaxglmm.model.marginal_problem import BlockEffect, Stack
from jaxglmm.model.residuals import Pairs
from jaxglmm.structure.fixed import Basis
from jaxglmm.structure.strata import Strata, columns_of

DENSE = 4  # cells a row up to which a table of levels by strata is made


@dataclass(frozen=True)
class Cells:
    """Sums of [X y] by level and stratum, times the roots of the weights.

    basis: of X; y: (n,); root: (n,) of the weights, None: ones
    """

    strata: Strata
    basis: Basis
    y: np.ndarray
    root: np.ndarray | None

    @property
    def c(self) -> int:
        """Columns of X, and the response."""
        return self.basis.X.shape[1] + 1

    def _column(self, j: int) -> np.ndarray:
        column = self.y if j == self.c - 1 else self.basis.column(j)
        return column if self.root is None else column * self.root

    def _pieces(self) -> Iterator[tuple[slice, np.ndarray]]:
        for here, X in self.basis.pieces():
            rows = np.concatenate([X, self.y[here, None]], axis=1)
            yield here, rows if self.root is None else rows * self.root[here, None]

    @cached_property
    def squares(self) -> np.ndarray:
        """(S,) of the response."""
        y = self._column(self.c - 1)
        return np.bincount(self.strata.stratum, y * y, self.strata.S)

    @cached_property
    def means(self) -> np.ndarray:
        """(J, S, c) sums of z times each column over those of z^2."""
        return columns_of(self.strata, self._column, self.c)

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """Of the first rows of cells, and of the others."""
        strata, out = self.strata, []
        if strata.J:
            k = strata.kinds
            out.append(
                _stack(
                    strata.scales[k.slots],
                    (k.length,),
                    k.mask,
                    np.bincount(k.pattern, minlength=len(k.mask)),
                    *strata.blocks(self.means),
                )
            )
        S, left = strata.S, strata.left
        if left.any():
            rows = strata.roots(strata.rest(self._pieces(), self.means))
            effects = (np.zeros((S, 1)),) if strata.J else ()
            own = strata.scales[:, None]
            out.append(_stack(own, effects, np.ones((S, 1)), left, *rows))
        return tuple(out)

    def modes(self, scales: np.ndarray, sd: float, beta: np.ndarray) -> np.ndarray:
        """(J,) of the effects, in internal units."""
        w = np.exp(-2 * (self.strata.scales @ scales))
        square = self.strata.square
        means = self.means.reshape(-1, self.c)
        r = (means @ np.append(-beta, 1.0)).reshape(square.shape) * square
        return sd**2 * (r @ w) / (1 + sd**2 * (square @ w))


def _stack(
    scales: np.ndarray,
    effects: tuple[np.ndarray, ...],
    mask: np.ndarray,
    count: np.ndarray,
    rows: np.ndarray,
    pattern: np.ndarray,
) -> Stack:
    """Every pattern is a template; effects: (K, T) values of a level's rows."""
    K, T = mask.shape
    lag = np.zeros((K, T, T))
    return Stack(
        scales,
        Pairs(np.zeros((K, T), int), lag, 1.0),
        np.ones((K, 1)),
        tuple(BlockEffect(z[..., None], np.ones_like(lag)) for z in effects),
        mask,
        np.arange(K),
        count.astype(float),
        rows,
        pattern,
    )


def cells_of(engine: Any) -> Cells:
    """Those of an engine's strata."""
    y, root = engine._response[0], None if engine.weights is None else engine.root
    return Cells(engine.strata, engine._basis[1], y, root)


def strata_of(engine: Any) -> Strata | None:
    """The rows of a design by their variances and one random effect.

    None where rows are correlated, or of too many variances or effects.
    """
    design, term = engine.design, engine.design.residual
    if term.structure or term.known is not None or term.is_silent:
        return None
    single = len(design.terms) <= 1 and len(term.group_levels) == 1
    if not single or any(len(t.names) > 1 for t in design.terms):
        return None
    if term.strata is None:
        return None
    code, own = term.strata
    scales = np.concatenate([np.ones((len(own), n_scales(design))), own], axis=1)
    if engine.turn is not None:
        scales = scales @ engine.turn
    code = engine.kept(code)
    if not design.terms:
        return Strata(code, scales, None, 0, None)
    (random,) = design.terms
    if random.n_levels * len(scales) > DENSE * len(engine.keep):
        return None
    z = engine.kept(random.values)[:, 0]
    if engine.weights is not None:
        z = z * engine.root
    ones = None if (z == 1.0).all() else z
    return Strata(code, scales, engine.kept(random.codes), random.n_levels, ones)
