"""Sums over the rows, a piece of the rows at a time where these are many.

What a row needs on the way to a sum (predictor, derivatives, products with columns) is
some twenty numbers; of a million rows they would be several times the data. Pieces are
as long as their sums allow: a piece with fewer rows than levels would cost more to add
than to compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxglmm._typing import Array
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.levels import WHOLE, each, last
from jaxglmm.runtime.trees import tree_at
from jaxglmm.structure.cut_rows import CutOneFactor
from jaxglmm.structure.rows import AbstractRows, OneFactorRows, PaddedRows

LEAST = 65_536  # rows of a piece
LONG = 1_000_000  # likewise, where each piece costs a reduction over the devices
A_LEVEL = 2  # and this many a level
MOST = 16  # pieces


def count(problem: GeneralisedProblem) -> int:
    """Pieces of equal length that the rows are cut into; 1 for few rows.

    One grouping factor alone: of several ones the sums are no smaller than the rows.
    """
    rows = problem.rows
    if not isinstance(rows, OneFactorRows) or isinstance(rows, PaddedRows):
        return 1
    D = _devices(rows)
    n = len(problem.y) // D
    least = LEAST if D == 1 else LONG
    wanted = min(MOST, n // max(least, A_LEVEL * rows.sizes[0] // D))
    return next((k for k in range(wanted, 1, -1) if n % k == 0), 1)


def _devices(rows: AbstractRows) -> int:
    return rows.mesh.size if isinstance(rows, CutOneFactor) else 1


def summed(
    problem: GeneralisedProblem, sums: Callable[..., Any], *columns: Array
) -> Any:
    """``sums(part, *columns of the part)``, added up over the parts of the rows.

    sums: any arrays that are sums over rows.
    """
    n = count(problem)
    if n == 1:
        return sums(problem, *columns)

    def one(k: Any) -> Any:
        return sums(*_part(problem, columns, k, n))

    def add(k: Any, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, one(k))

    shapes = jax.eval_shape(one, 0)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.fori_loop(0, n, add, zero)


def _part(
    problem: GeneralisedProblem, columns: tuple[Array, ...], k: Any, n: int
) -> tuple[Any, ...]:
    """Piece k of n, of the problem and of columns that go with it."""
    length = len(problem.y) // (n * _devices(problem.rows))

    def own(x: Array, k: Any) -> Array:
        return lax.dynamic_slice_in_dim(x, k * length, length, axis=-1)

    def cut(x: Array) -> Array:
        if x.shape[-1] == 1:  # one number for all rows
            return x
        if isinstance(problem.rows, CutOneFactor):  # of each device's rows
            spec = last(x.ndim)
            return each(own, problem.rows.mesh, (spec, WHOLE), spec)(x, k)
        return own(x, k)

    def of_rows(p: GeneralisedProblem) -> tuple[Any, ...]:
        r = p.rows
        return r.codes, r.z, p.X, p.y, p.trials, p.weights, p.offset

    part = tree_at(of_rows, problem, jax.tree.map(cut, of_rows(problem)))
    return part, *map(cut, columns)
