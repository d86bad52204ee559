"""Coordinates that all data sets of a long table share: a basis of X, and one of Z.

Columns of Z are mostly columns of X too. So a row is taken to one short list of columns
U, the basis of the fixed effects and then what terms have beside it, of mean square
one; with X~ = U / sqrt(n) for the first p, and Z~ = U B with a small B, whatever is
summed over rows is a product of two columns of U.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.model import covariances
from jaxglmm.structure.factors import Factor, TermColumns, join, standardise
from jaxglmm.structure.fixed import FixedBasis, orthonormal

WELL = 1e-6  # smallest eigenvalue of X'X at unit diagonal whose root serves as a basis
GLANCE = 1000  # rows that tell most columns apart


@dataclass(frozen=True)
class Coordinates:
    """What all lanes share.

    fixed: R of X~ = X R^-1; factors: the one factor, whose rows are left out; extra:
    (n, e) the columns of U beside sqrt(n) X~; B: (p + e, q), Z~ = U B.
    """

    fixed: FixedBasis
    factors: tuple[Factor, ...]
    extra: np.ndarray
    B: np.ndarray


def coordinates(design: Design) -> Coordinates:
    """Without the cross-products of a single fit, and in few passes.

    A basis that is nearly orthonormal will do: each lane makes its own from it. The
    columns of Z are standardised as for a single fit, but by their coordinates in U.
    """
    R, (n, p) = _triangle(design.X), design.X.shape
    extra: list[np.ndarray] = []
    parts = []
    for term in design.terms:
        at = [_place(design.X, column) for column in term.values.T]
        known = [j for j in at if j is not None]
        if len(known) == len(at):
            parts.append((0, R[:, known] / np.sqrt(n)))
            continue
        T, values = standardise(term.values, covariances.of(term).maps)
        parts.append((p + sum(x.shape[1] for x in extra), T))
        extra.append(np.ones((n, 1)) if values is None else values)
    r = p + sum(x.shape[1] for x in extra)
    small = [
        TermColumns(
            t.factor,
            np.zeros(r, np.int32),
            _placed(part, start, r) * np.sqrt(r),
            t.n_levels,
            covariances.of(t),
        )
        for t, (start, part) in zip(design.terms, parts, strict=True)
    ]
    (factor,) = join(small)
    values = np.ones((r, 1)) if factor.values is None else factor.values
    return Coordinates(
        FixedBasis(R, np.zeros(p), 1.0),
        (factor,),
        np.concatenate(extra, axis=1) if extra else np.zeros((n, 0)),
        values / np.sqrt(r),
    )


def _triangle(X: np.ndarray) -> np.ndarray:
    """R of X = X~ R; by the Gram matrix where that is accurate enough."""
    with np.errstate(over="ignore"):
        gram = X.T @ X
    size = np.sqrt(np.diag(gram))
    if len(size) and (size > 0).all() and np.isfinite(gram).all():
        gram = gram / np.outer(size, size)
        if np.linalg.eigvalsh(gram)[0] > WELL:
            return np.linalg.cholesky(gram).T * size
    return orthonormal(X, None)[0]


def _place(X: np.ndarray, column: np.ndarray) -> int | None:
    """Which column of X it is."""
    for j in range(X.shape[1]):
        same = np.array_equal(X[:GLANCE, j], column[:GLANCE])
        if same and np.array_equal(X[:, j], column):
            return j
    return None


def _placed(part: np.ndarray, start: int, rows: int) -> np.ndarray:
    """``part`` from row ``start`` on, zeros around it."""
    out = np.zeros((rows, part.shape[1]))
    out[start : start + len(part)] = part
    return out
