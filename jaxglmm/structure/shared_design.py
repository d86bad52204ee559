"""Rows of one design with many responses, to cross-products by matrix products.

The responses of a chunk are columns: Y (n, L). Least squares is taken off and each
column is scaled to a residual of unit size, as for a single fit (``structure.fixed``),
so that nothing cancels; Z'e of all columns is one product.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array, Float, Int
from jaxglmm.runtime.arrays import jnp, segment_sum
from jaxglmm.runtime.trees import Module, field
from jaxglmm.structure import crossproducts as cross
from jaxglmm.structure import level_types as grouped
from jaxglmm.structure.factors import Factor
from jaxglmm.structure.fixed import EXACT
from jaxglmm.structure.level_types import Groups, Sums
from jaxglmm.structure.moments_of_design import Moments

MOST_DENSE = 2_000_000  # entries of Z' up to which its product is dense


class SharedDesign(Module):
    """One design by rows.

    X: (n, p) orthonormal basis; w: (n,) weights or None; Z: (q J, n) if dense, else
    None and ``codes`` (n,), ``values`` (q, n) or None for ones, ``J``; member: (C, J)
    which levels are of a type, None where each is its own.
    """

    X: Float[Array, "n p"]
    w: Float[Array, " n"] | None
    Z: Float[Array, "k n"] | None
    codes: Int[Array, " n"] | None
    values: Float[Array, "q n"] | None
    member: Float[Array, "C J"] | None
    q: int = field(static=True)
    J: int = field(static=True)


class ResponseFacts(Module):
    """What was taken off each response.

    least_squares: (p, L) on the basis; scale: (L,); constant, exact: (L,) nothing to
    explain, or nothing left to explain.
    """

    least_squares: Float[Array, "p L"]
    scale: Float[Array, " L"]
    constant: Int[Array, " L"]
    exact: Int[Array, " L"]


class Prepared(Module):
    """Sums of L responses, and the way back."""

    sums: Sums
    facts: ResponseFacts


def rows(m: Moments) -> tuple[SharedDesign, Groups]:
    """The design of single fits, for many responses; NumPy inside."""
    (factor,) = m.factors
    J, q = factor.n_levels, factor.q
    A, X = np.asarray(m.system.A)[..., :J], m.ZX[0][..., :J]  # type: ignore[attr-defined]
    kind = grouped.types(A, X)
    C = int(kind.max()) + 1
    member = None
    count = None
    if C < J:
        member = np.zeros((C, J))
        member[kind, np.arange(J)] = 1.0
        levels = member.sum(axis=1)
        A, X, count = A @ (member.T / levels), X @ (member.T / levels), levels[:, None]
    groups = Groups(
        count, A[..., None], X[..., None], m.XX[..., None], np.array([m.n * 1.0])
    )
    return SharedDesign(
        m.basis.whole, m.weights, *_indicator(factor, m.weights), member, q, J
    ), groups


def _indicator(factor: Factor, w: np.ndarray | None):
    """Z'W as a dense matrix, or what a sum by level needs."""
    n, J, q = len(factor.codes), factor.n_levels, factor.q
    if q * J * n <= MOST_DENSE:
        Z = np.concatenate([cross.indicator(factor, i, J).toarray() for i in range(q)])
        return (Z if w is None else Z * w), None, None
    values = factor.values
    if w is not None:
        values = w[:, None] if values is None else values * w[:, None]
    return (
        None,
        factor.codes,
        None if values is None else np.ascontiguousarray(values.T),
    )


def residuals(
    X: Float[Array, "n p"], w: Float[Array, " n"] | None, Y: Float[Array, "n L"]
) -> tuple[Float[Array, "n L"], ResponseFacts]:
    """The columns of Y with least squares taken off, scaled to unit size."""
    n = len(Y)
    WX = X if w is None else X * w[:, None]
    size = jnp.sqrt(_squares(Y, w) / n)
    b = WX.T @ Y
    E = Y - X @ b
    change = WX.T @ E
    E = E - X @ change
    scale = jnp.sqrt(_squares(E, w) / n)
    exact = ~(scale > EXACT * size)
    constant = jnp.max(Y, axis=0) == jnp.min(Y, axis=0)
    return E / scale, ResponseFacts(
        b + change, scale, constant.astype(int), exact.astype(int)
    )


def _squares(E: Float[Array, "n L"], w: Float[Array, " n"] | None) -> Array:
    return jnp.sum(E * E if w is None else E * E * w[:, None], axis=0)


def prepare(rows: SharedDesign, Y: Float[Array, "n L"]) -> Prepared:
    """Cross-products of the columns of Y."""
    X, w = rows.X, rows.w
    E, facts = residuals(X, w, Y)
    Zy = _by_level(rows, E)  # (q, J, L)
    yy = Zy[:, None] * Zy[None]
    if rows.member is not None:
        Zy = jnp.einsum("cj,qjl->qcl", rows.member, Zy)
        yy = jnp.einsum("cj,qrjl->qrcl", rows.member, yy)
    WX = X if w is None else X * w[:, None]
    return Prepared(Sums(Zy, yy, WX.T @ E, _squares(E, w)), facts)


def _by_level(rows: SharedDesign, E: Float[Array, "n L"]) -> Float[Array, "q J L"]:
    """Z'W E."""
    if rows.Z is not None:
        return (rows.Z @ E).reshape(rows.q, rows.J, E.shape[1])
    columns = [E] if rows.values is None else [v[:, None] * E for v in rows.values]
    return jnp.stack([segment_sum(c, rows.codes, rows.J) for c in columns])
