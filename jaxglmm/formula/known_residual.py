"""Residual covariances that are known up to one variance, sigma^2 V.

V is split into its blocks, and each into variances, which become weights, and
correlations. Of a diagonal V nothing but weights is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, ModelError
from jaxglmm.formula.design import Design, ResidualTerm

KNOWN = "known"
SYMMETRIC = 1e-8  # largest difference from its transpose, of the roots of variances
MOST = 20_000  # rows of a dense matrix


def independent(n: int) -> ResidualTerm:
    """Rows that are alike and independent, as a residual structure."""
    zeros = np.zeros(n, np.int32)
    one = np.array([""], object)
    return ResidualTerm(
        text="",
        structure="",
        time="",
        subject="",
        group="",
        codes=np.arange(n, dtype=np.int32),
        levels=np.arange(n),
        position=zeros.astype(int),
        visits=np.ones(1, int),
        times=np.zeros((n, 1)),
        group_codes=zeros,
        group_levels=one,
        scales=np.zeros((n, 0)),
    )


def with_covariance(design: Design, V: Any, what: str = "residual") -> Design:
    """The design with residuals of covariance sigma^2 V, V over all rows of the data.

    V: (n, n) array or frame, a SciPy matrix, or a list of square blocks in the order of
        the rows; rows that were dropped have their places in it.

    Raises:
        DataError: a matrix of another size, not symmetric, not finite, not positive.
        ModelError: weights beside it.
    """
    if design.weights is not None:
        raise ModelError(
            f"weights= and a matrix {what}= both say how variances differ; put them "
            "into the matrix: V_ij / sqrt(w_i w_j)"
        )
    rows = np.arange(design.n) if design.rows is None else np.asarray(design.rows)
    blocks, of = _blocks(V, design.n + design.n_missing, rows, what)
    variances = np.concatenate([np.diagonal(b) for b in blocks])
    v = np.empty(design.n)
    v[np.concatenate(of)] = variances
    out = replace(design, weights=1.0 / v)
    if max(map(len, of)) == 1:
        return replace(out, residual=independent(design.n))
    width = max(map(len, of))
    known = np.zeros((design.n, width))
    codes, position = np.zeros(design.n, np.int32), np.zeros(design.n, int)
    for k, (block, here) in enumerate(zip(blocks, of, strict=True)):
        sd = np.sqrt(np.diagonal(block))
        known[here, : len(here)] = block / sd[:, None] / sd
        codes[here], position[here] = k, np.arange(len(here))
    term = replace(
        independent(design.n),
        text=f"{KNOWN}(V)",
        structure=KNOWN,
        codes=codes,
        levels=np.arange(1, len(blocks) + 1),
        position=position,
        visits=np.arange(1, width + 1),
        known=known,
    )
    return replace(out, residual=term)


def _blocks(
    V: Any, n: int, rows: np.ndarray, what: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Square blocks of the kept rows, and which rows (of these) each has."""
    from scipy import sparse  # slow to import
    from scipy.sparse import csgraph

    if isinstance(V, list | tuple) and V and all(np.ndim(b) == 2 for b in V):
        try:
            V = sparse.block_diag([np.asarray(b, float) for b in V], format="csr")
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{what}= has blocks that are no numbers: {error}"
            ) from None
    if sparse.issparse(V):
        S = sparse.csr_array(V, dtype=float)
    else:
        try:
            dense = np.asarray(V, dtype=float)
        except (TypeError, ValueError) as error:
            raise DataError(f"{what}= is not a matrix of numbers: {error}") from None
        if dense.ndim == 2 and len(dense) > MOST:
            raise ModelError(
                f"{what}= has {len(dense):,} rows: give a SciPy sparse matrix, or a "
                "list of blocks"
            )
        if dense.shape != (n, n):
            raise DataError(
                f"{what}= has the shape {dense.shape}; it is a square matrix with a "
                f"row and a column for each of the {n} rows of the data"
            )
        S = sparse.csr_array(dense)
    if S.shape != (n, n):
        raise DataError(
            f"{what}= has the shape {S.shape}; it is a square matrix with a row and a "
            f"column for each of the {n} rows of the data"
        )
    S = S[rows][:, rows]
    if not np.isfinite(S.data).all():
        raise DataError(f"{what}= holds numbers that are not finite")
    v = S.diagonal()
    if not (v > 0).all():
        row = int(np.argmin(v > 0))
        raise DataError(
            f"{what}=: {int((~(v > 0)).sum())} variances are not positive, the first "
            f"({v[row]:g}) of row {rows[row]}; leave these rows out"
        )
    _, label = csgraph.connected_components(S, directed=False)
    order = np.argsort(label, kind="stable")
    of = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    blocks = [S[here][:, here].toarray() if len(here) > 1 else None for here in of]
    made = []
    for block, here in zip(blocks, of, strict=True):
        block = np.array([[v[here[0]]]]) if block is None else block
        made.append(_checked(block, rows[here], what))
    return made, list(of)


def _checked(block: np.ndarray, rows: np.ndarray, what: str) -> np.ndarray:
    sd = np.sqrt(np.diagonal(block))
    R = block / sd[:, None] / sd
    far = np.abs(R - R.T)
    if far.max() > SYMMETRIC:
        i, j = np.unravel_index(far.argmax(), R.shape)
        raise DataError(
            f"{what}= is not symmetric: {block[i, j]:.6g} and {block[j, i]:.6g} "
            f"between rows {rows[i]} and {rows[j]}"
        )
    least = np.linalg.eigvalsh((R + R.T) / 2)[0]
    if not least > 1e-12:
        raise DataError(
            f"{what}= is not positive definite: the block of rows {rows[0]} to "
            f"{rows[-1]} has, as correlations, an eigenvalue of {least:.3g}. Are two "
            "of its rows the same, or covariances larger than variances?"
        )
    return (block + block.T) / 2
