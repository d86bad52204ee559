"""Covariance of the random effects: theta -> Lambda, one lower triangle a factor.

Sigma_f = Lambda_f Lambda_f' is the covariance of the effects of one level, relative to
the residual variance. A pattern lists the free entries (i, j), i >= j, of Lambda_f,
column by column as in lme4; terms on one factor are diagonal blocks of one Lambda_f.
The raw triangle is the parameter, its diagonal unconstrained: the criterion is even in
the sign of each column, and a zero column is an ordinary point where a log-Cholesky
would run off to minus infinity.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxglmm._typing import Array, Float
from jaxglmm.runtime.arrays import jnp, put

Entry = tuple[int, int]
Pattern = tuple[Entry, ...]


def unstructured(q: int, start: int = 0) -> Pattern:
    """All entries of a lower triangle, column by column."""
    return tuple((start + i, start + j) for j in range(q) for i in range(j, q))


def diagonal(q: int, start: int = 0) -> Pattern:
    """The diagonal alone: independent columns."""
    return tuple((start + i, start + i) for i in range(q))


def lambdas(
    theta: Float[Array, " m"], patterns: Sequence[Pattern], sides: Sequence[int]
) -> tuple[Float[Array, "q q"], ...]:
    """One lower triangle a factor from the packed theta."""
    out, start = [], 0
    zero = jnp.zeros((), theta.dtype)
    for pattern, q in zip(patterns, sides, strict=True):
        place = {entry: start + a for a, entry in enumerate(pattern)}
        if q <= 4:
            entries = [
                theta[place[i, j]] if (i, j) in place else zero
                for i in range(q)
                for j in range(q)
            ]
            out.append(jnp.stack(entries).reshape(q, q))
        else:
            rows, columns = zip(*pattern, strict=True)
            part = theta[start : start + len(pattern)]
            out.append(put(jnp.zeros((q, q), theta.dtype), (rows, columns), part))
        start += len(pattern)
    return tuple(out)


def pack(
    matrices: Sequence[Float[Array, "q q"]], patterns: Sequence[Pattern]
) -> Float[Array, " m"]:
    """The free entries of one (q, q) matrix a factor, packed like theta."""
    parts = [
        jnp.stack([matrix[i, j] for i, j in pattern])
        if len(pattern) <= 10
        else matrix[tuple(zip(*pattern, strict=True))]
        for matrix, pattern in zip(matrices, patterns, strict=True)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def identity(patterns: Sequence[Pattern]) -> list[float]:
    """theta of Lambda = I: one on diagonals, zero elsewhere."""
    return [1.0 * (i == j) for pattern in patterns for i, j in pattern]
