"""Lanes whose designs differ: other weights, missing rows, data sets of their own.

``DatasetProducts`` has cross-products of each lane in coordinates that all share;
``localise`` takes them to the lane's own internal coordinates, in which a single fit of
that data set would work (``structure.fixed``, ``structure.factors``): X'WX = I, and the
columns of Z uncorrelated with mean square one. So flags and thresholds mean the same.
"""

from __future__ import annotations

import dataclasses

from jaxglmm._typing import Array, Float, Int
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import jnp, segment_sum
from jaxglmm.runtime.trees import Module, field
from jaxglmm.structure.fixed import EXACT
from jaxglmm.structure.level_types import Groups, Sums, entries

DEPENDENT = 1e-9  # pivot of X'WX, relative to its diagonal: a column too many
COLLINEAR = 1e-7  # a pivot of Z'WZ, relative to its diagonal, by Cholesky

Spans = tuple[tuple[int, int, bool], ...]  # first column, last + 1, unstructured


class DesignRows(Module):
    """One design by rows, for weights that differ from lane to lane.

    X: (n, p) basis; Z: (q, n); level: (J, n) indicator, dense, or None; codes: (n,).
    """

    X: Float[Array, "n p"]
    Z: Float[Array, "q n"]
    level: Float[Array, "J n"] | None
    codes: Int[Array, " n"]
    J: int = field(static=True)


class DatasetProducts(Module):
    """Cross-products of L data sets, responses less their least squares, unit size.

    A: (q, q, J, L); X: (q, p, J, L); XX: (p, p, L); ZZ: (q, q, L) mean of w z_i z_j
    over the rows of positive weight; n, J: (L,) rows and levels; y: (q, J, L); Xy:
    (p, L); rr: (L,); b: (p, L) least squares; scale, log_weights: (L,); constant,
    exact, dependent: (L,) flags.
    """

    A: Float[Array, "q q J L"]
    X: Float[Array, "q p J L"]
    XX: Float[Array, "p p L"]
    ZZ: Float[Array, "q q L"]
    n: Float[Array, " L"]
    J: Float[Array, " L"]
    y: Float[Array, "q J L"]
    Xy: Float[Array, "p L"]
    rr: Float[Array, " L"]
    b: Float[Array, "p L"]
    scale: Float[Array, " L"]
    log_weights: Float[Array, " L"]
    constant: Int[Array, " L"]
    exact: Int[Array, " L"]
    dependent: Int[Array, " L"]


class DesignFacts(Module):
    """The part of ``DatasetProducts`` that the way back needs."""

    n: Float[Array, " L"]
    J: Float[Array, " L"]
    b: Float[Array, "p L"]
    scale: Float[Array, " L"]
    log_weights: Float[Array, " L"]
    constant: Int[Array, " L"]
    exact: Int[Array, " L"]
    dependent: Int[Array, " L"]

    @staticmethod
    def of(raw: DatasetProducts) -> DesignFacts:
        """Its facts."""
        return DesignFacts(
            *(getattr(raw, f.name) for f in dataclasses.fields(DesignFacts))
        )


class Local(Module):
    """The same in the lanes' own coordinates, and the way back.

    back: (p, p, L) R^-1; T_inverse: (q, q, L); log_det: (L,) log |X'WX|.
    """

    groups: Groups
    sums: Sums
    back: Float[Array, "p p L"]
    T_inverse: Float[Array, "q q L"]
    log_det: Float[Array, " L"]


def weigh(
    rows: DesignRows, Y: Float[Array, "n L"], W: Float[Array, "n L"]
) -> DatasetProducts:
    """Cross-products of the columns of Y under the weights W; weight 0 is no row."""
    X, Z = rows.X, rows.Z
    q, p = len(Z), X.shape[1]
    present = W > 0
    Y = jnp.where(present, Y, 0.0)
    n = jnp.sum(present, axis=0)

    def level(V: Array) -> Array:
        if rows.level is not None:
            return rows.level @ V
        return segment_sum(V, rows.codes, rows.J)

    def pairs(left: list[Array], right: list[Array], by) -> Array:
        return jnp.stack([jnp.stack([by(a, b) for b in right]) for a in left])

    columns = [X[:, a] for a in range(p)]
    XX = pairs(columns, columns, lambda a, b: (a * b) @ W)
    ZZ = pairs(list(Z), list(Z), lambda a, b: ((a * b) @ W) / n)
    A = pairs(list(Z), list(Z), lambda a, b: level((a * b)[:, None] * W))
    ZX = pairs(list(Z), columns, lambda a, b: level((a * b)[:, None] * W))
    L, dependent = _pivoted(XX)
    b, E = _least_squares(L, X, Y, W)
    change, E = _least_squares(L, X, E, W)
    rr = jnp.sum(W * E * E, axis=0)
    scale = jnp.sqrt(rr / n)
    size = jnp.sqrt(jnp.sum(W * Y * Y, axis=0) / n)
    WE = W * (E / scale)
    first = jnp.max(jnp.where(present, Y, -jnp.inf), axis=0)
    last = jnp.min(jnp.where(present, Y, jnp.inf), axis=0)
    return DatasetProducts(
        A,
        ZX.reshape(q, p, *A.shape[2:]),
        XX.reshape(p, p, XX.shape[-1]),
        ZZ,
        n * 1.0,
        jnp.sum(level(present * 1.0) > 0, axis=0) * 1.0,
        jnp.stack([level(z[:, None] * WE) for z in Z]),
        X.T @ WE,
        n * 1.0,
        b + change,
        scale,
        jnp.sum(jnp.log(jnp.where(present, W, 1.0)), axis=0),
        (first == last).astype(int),
        (~(scale > EXACT * size)).astype(int),
        dependent.astype(int),
    )


def _least_squares(
    L: small.Matrix, X: Array, Y: Array, W: Array
) -> tuple[Array, Array]:
    """Coefficients (p, L) and residuals (n, L)."""
    if not L:
        return jnp.zeros((0, Y.shape[1])), Y
    b = jnp.stack(small.solve(L, list(X.T @ (W * Y))))
    return b, Y - X @ b


def _pivoted(XX: Float[Array, "p p L"]) -> tuple[small.Matrix, Array]:
    """The Cholesky factor of each X'WX, and whether a column depends on others."""
    if not len(XX):
        return [], jnp.zeros(XX.shape[-1], bool)
    L = small.cholesky(entries(XX))
    worst = jnp.min(
        jnp.stack([L[a][a] ** 2 / XX[a, a] for a in range(len(XX))]), axis=0
    )
    return L, ~(worst > DEPENDENT)


def localise(raw: DatasetProducts, spans: Spans) -> Local:
    """To the lanes' own coordinates."""
    q, p = len(raw.A), len(raw.XX)
    lanes = raw.n.shape
    Lx, _ = _pivoted(raw.XX)
    zero, one = jnp.zeros(lanes), jnp.ones(lanes)
    eye = [[one if i == j else zero for j in range(p)] for i in range(p)]
    # R^-1 = L'^-1, R = L'
    back = small.transpose([small.backward(Lx, column) for column in eye]) if p else []
    log_det = 2 * small.log_diagonal(Lx) if p else zero
    Lz, size = _standard(raw.ZZ, spans)

    def into(v: list) -> list:
        """T^-T v for a list of q entries."""
        return small.forward(Lz, [x / s for x, s in zip(v, size, strict=True)])

    A = entries(raw.A)
    A = small.transpose([into(column) for column in small.transpose(A)])
    A = [into(row) for row in A]
    X = entries(raw.X) if p else [[] for _ in range(q)]
    X = small.transpose([into(column) for column in small.transpose(X)]) if p else X
    X = [small.forward(Lx, row) for row in X] if p else X
    y = into(list(raw.y))
    rows = []
    for i in range(q):
        unit = [one / size[i] if i == j else 0.0 * one for j in range(q)]
        rows.append(small.forward(Lz, unit))  # column i of T^-T
    J = raw.A.shape[2:]
    stacked = jnp.stack(y)
    return Local(
        Groups(
            None,
            _stack(A, (q, q, *J)),
            _stack(X, (q, p, *J)),
            _stack(eye, (p, p, *lanes)),
            raw.n,
        ),
        Sums(
            stacked,
            stacked[:, None] * stacked[None],
            jnp.stack(small.forward(Lx, list(raw.Xy))) if p else raw.Xy,
            raw.rr,
        ),
        _stack(back, (p, p, *lanes)),
        _stack(rows, (q, q, *lanes)),
        log_det,
    )


def _standard(
    ZZ: Float[Array, "q q L"], spans: Spans
) -> tuple[small.Matrix, list[Array]]:
    """L and sizes s of T = L' diag(s), block by block of the terms."""
    q = len(ZZ)
    size = []
    for i in range(q):
        s = jnp.sqrt(ZZ[i, i])
        size.append(jnp.where(s > 0, s, 1.0))
    one = jnp.ones_like(size[0])
    out: small.Matrix = [[one if i == j else 0.0 for j in range(q)] for i in range(q)]
    for start, stop, unstructured in spans:
        if stop - start == 1 or not unstructured:
            continue
        block = [
            [ZZ[i, j] / (size[i] * size[j]) for j in range(start, stop)]
            for i in range(start, stop)
        ]
        L = small.cholesky(block)
        ok = jnp.min(jnp.stack([L[i][i] for i in range(len(L))]), axis=0) > COLLINEAR
        for i in range(len(L)):
            for j in range(i + 1):
                out[start + i][start + j] = jnp.where(ok, L[i][j], 1.0 * (i == j))
    return out, size


def _stack(M: small.Matrix, shape: tuple[int, ...]) -> Array:
    if 0 in shape:
        return jnp.zeros(shape)
    return jnp.stack(
        [jnp.broadcast_to(x, shape[2:]) for row in M for x in row]
    ).reshape(shape)
