"""Cross-products of many linear models with one grouping factor, lanes last.

A lane is one data set. All that a fit reads of a level g is A_g = Z_g'Z_g, Z_g'X and
Z_g'y, and levels with the same A_g and Z_g'X enter every criterion through their number
and the first two moments of their Z_g'y alone. So lanes of one design share a short
list of *types* of levels: a balanced design has one type, however many levels. Lanes
with designs of their own have one level a type.

Arrays end in the lanes, so that every operation is long and without stride; arrays of
the design end in 1 where the lanes share it.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module

SAME = 1e-12  # of the largest entry: levels nearer than this are one type


class Groups(Module):
    """What depends on the design; l is L, or 1 where all lanes share it.

    count: (C, l) levels of a type, None where each type is one level; A: (q, q, C, l);
    X: (q, p, C, l), Z_g'X; XX: (p, p, l); n: (l,) rows.
    """

    count: Float[Array, "C l"] | None
    A: Float[Array, "q q C l"]
    X: Float[Array, "q p C l"]
    XX: Float[Array, "p p l"]
    n: Float[Array, " l"]

    @property
    def q(self) -> int:
        """Random effects a level."""
        return self.A.shape[0]

    @property
    def p(self) -> int:
        """Fixed effects."""
        return self.XX.shape[0]


class Sums(Module):
    """What depends on the response.

    y: (q, C, L) Z_g'y summed over the levels of a type; yy: (q, q, C, L) its products;
    Xy: (p, L); rr: (L,), y'y.
    """

    y: Float[Array, "q C L"]
    yy: Float[Array, "q q C L"]
    Xy: Float[Array, "p L"]
    rr: Float[Array, " L"]


def types(A: np.ndarray, X: np.ndarray) -> np.ndarray:
    """(J,) the type of each level, from A (q, q, J) and X (q, p, J)."""
    J = A.shape[-1]
    rows = np.concatenate([A.reshape(-1, J), X.reshape(-1, J)]).T
    size = np.abs(rows).max(initial=0.0)
    if size == 0.0:
        return np.zeros(J, np.int64)
    rounded = np.round(rows / (SAME * size) / 16)
    return np.unique(rounded, axis=0, return_inverse=True)[1].reshape(-1)


def total(x: Array) -> Array:
    """Sum over the types."""
    return jnp.sum(x, axis=0)


def weighted(count: Array | None, x: Array) -> Array:
    """``x`` (C, L), each type as often as it has levels."""
    return x if count is None else count * x


def entries(A: Array) -> small.Matrix:
    """(q, r, ...) as a list of rows."""
    return small.rows(A) if A.shape[0] and A.shape[1] else [[] for _ in A]
