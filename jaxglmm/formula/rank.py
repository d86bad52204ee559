"""Columns of X that depend on earlier ones, as R's ``lm`` finds them.

Columns are compared by direction, not by size: where a constant is in the model they
are centred first, then all are scaled to length 1, and a column is dependent if less
than 1e-7 of it is left after projection on the columns before it. (A covariate such as
1e6 + noise is nearly parallel to the constant but not dependent on it; centring tells
the two apart.) Where centring itself loses digits the tolerance is what rounding
leaves.

Cost: a few passes of O(n p), and mostly no more, for a sample of rows can prove full
rank. Where it does not, the Gram matrix, O(n p^2) in BLAS, may; a QR of chunks of rows
follows only where that cannot tell, since it squares the condition number.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import ModelError, RankDeficientWarning
from jaxglmm.formula.estimable import NullSpace
from jaxglmm.formula.notices import listed, warn

TOLERANCE = 1e-7
_CHUNK = 8192
_SAMPLE = 2048
_EPS = np.finfo(float).eps


def drop_dependent(
    X: np.ndarray,
    names: tuple[str, ...],
    anchor: int = 0,
    weights: np.ndarray | None = None,
) -> tuple[
    np.ndarray, tuple[str, ...], tuple[int, ...], tuple[str, ...], NullSpace | None
]:
    """X without its dependent columns, with one warning that names them.

    Args:
        X: (n, p).
        names: of its columns.
        anchor: see ``dependent_columns``.
        weights: (n,), where rows of weight 0 tell nothing.

    Returns:
        X, its names, the positions kept, the names dropped, and what cannot be told
        without these (None: everything can).
    """
    told = X if weights is None or weights.all() else X[weights > 0]
    lost = dependent_columns(told, anchor)
    if len(lost):
        moved = near_products(told, names, lost)
        lost = lost if moved is None else dependent_columns(moved, anchor)
    kept = tuple(j for j in range(X.shape[1]) if j not in set(lost.tolist()))
    n = len(X)
    if len(kept) == n and X.shape[1] > n:
        raise ModelError(
            f"{X.shape[1]} fixed-effect columns but only {n} row{'s' * (n > 1)}; a "
            "model needs more rows than columns"
        )
    if len(lost) == 0:
        return X, names, kept, (), None
    dropped = tuple(names[j] for j in lost)
    warn(
        f"the fixed effects are rank deficient: dropped {len(lost)} column"
        f"{'s' * (len(lost) > 1)} that depend{'s' * (len(lost) == 1)} on others: "
        f"{listed(list(dropped), 12)}",
        RankDeficientWarning,
    )
    kept_names = tuple(names[j] for j in kept)
    missing = null_space(told, np.array(kept, int), lost, anchor)
    return np.ascontiguousarray(X[:, kept]), kept_names, kept, dropped, missing


def near_products(
    X: np.ndarray, names: tuple[str, ...], lost: np.ndarray
) -> np.ndarray | None:
    """X with lost products s:x as (s - s0):x, where x is in the model; None: as it was.

    Both span the same with x beside them, but far from zero s:x is nearly s0 times x,
    and what tells it from x is small beside rounding of other origins, not of its own.
    """
    place = {name: j for j, name in enumerate(names)}
    out: np.ndarray | None = None
    for j in lost.tolist():
        found = _factors_of(names[j], place)
        for one, rest in found:
            column = X[:, one]
            middle = column[len(column) // 2]
            spread = np.ptp(column)
            if not (0 < spread < 1e-3 * abs(middle) < np.inf):
                continue
            if not np.array_equal(column * X[:, rest], X[:, j]):
                continue
            out = X.copy() if out is None else out
            out[:, j] = (column - middle) * X[:, rest]
            break
    return out


def _factors_of(name: str, place: dict[str, int]) -> list[tuple[int, int]]:
    """A column and the product of the others, for each way to take one out."""
    parts = name.split(":")
    found = []
    for k, part in enumerate(parts):
        rest = ":".join(parts[:k] + parts[k + 1 :])
        if part in place and rest in place:
            found.append((place[part], place[rest]))
    return found


def null_space(
    X: np.ndarray, kept: np.ndarray, lost: np.ndarray, anchor: int = 0
) -> NullSpace:
    """The lost columns of X (n, p) as combinations of the kept, independent ones."""
    p = X.shape[1]
    mean, norm, constant = _moments(X)
    ones = kept[constant[kept] & (norm[kept] > 0)][:1]
    centre, unit = np.zeros(p), np.zeros(p)
    if len(ones):
        centre, unit[ones] = mean.copy(), 1 / mean[ones]
        centre[ones] = mean[ones]
    elif anchor:
        centre = np.where(np.arange(p) < anchor, 0.0, mean)
        unit[:anchor] = 1.0
    length = _centred_norms(X, centre, norm)
    scale = 1 / np.where(length > 64 * _EPS * norm, length, np.inf)
    used = np.array([j for j in kept if j not in ones], int)
    weights = np.zeros((len(kept), len(lost)))
    if len(used):
        order = np.concatenate([used, lost])
        R = _triangle(X, order, centre, scale[order])
        k = len(used)
        solved = np.linalg.lstsq(R[:, :k], R[:, k:], rcond=None)[0]
        solved = solved * scale[used][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            solved = np.where(scale[lost] > 0, solved / scale[lost], 0.0)
        weights[np.searchsorted(kept, used)] = _rounded(solved, scale[used])
    return NullSpace(kept, lost, weights, centre, unit)


def _rounded(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights without those that are rounding: they would count as sizes."""
    share = np.abs(weights) / scale[:, None]
    top = share.max(axis=0, initial=0.0)
    return np.where(share > 1e-10 * top, weights, 0.0)


def dependent_columns(X: np.ndarray, anchor: int = 0) -> np.ndarray:
    """Positions of the columns of X (n, p) that depend on earlier ones.

    The first constant column counts as the earliest of all. Without one, ``anchor``
    says how many leading columns together span the constant.
    """
    p = X.shape[1]
    if p == 0:
        return np.empty(0, int)
    mean, norm, constant = _moments(X)
    live = norm > 0
    ones = np.flatnonzero(constant & live)
    if len(ones):
        centre = mean
        centred = _centred_norms(X, mean, norm)
        centred[constant] = 0.0
    elif anchor:
        centre = np.where(np.arange(p) < anchor, 0.0, mean)
        centred = _centred_norms(X, centre, norm)
    else:
        centre = np.zeros(p)
        centred = norm
    with np.errstate(divide="ignore", invalid="ignore"):
        tolerance = np.maximum(TOLERANCE, 64 * _EPS * norm / centred)
    kept_constant = ones[:1]
    candidates = np.flatnonzero(centred > 64 * _EPS * norm)
    candidates = candidates[live[candidates]]
    scale = 1 / centred[candidates]
    independent = candidates
    near = tolerance[candidates]
    moved = centre[candidates] != 0
    if not (
        _full_in_sample(X, candidates, moved, scale, near)
        or _clearly_full(X, candidates, centre, scale, near)
    ):
        R = _triangle(X, candidates, centre, scale)
        independent = candidates[_greedy(R, near)]
    kept = np.zeros(p, bool)
    kept[kept_constant] = True
    kept[independent] = True
    return np.flatnonzero(~kept)


def _moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, lengths and exact constancy of the columns."""
    p = X.shape[1]
    low, high = np.full(p, np.inf), np.full(p, -np.inf)
    for Z in _blocks(X):
        np.minimum(low, Z.min(axis=1), out=low)
        np.maximum(high, Z.max(axis=1), out=high)
    size = np.maximum(np.abs(low), np.abs(high))
    safe = np.where(size > 0, size, 1.0)[:, None]
    total, square = np.zeros(p), np.zeros(p)
    for Z in _blocks(X):
        Z = Z / safe  # so that squares of 1e200 do not overflow
        total += Z.sum(axis=1)
        square += np.einsum("ij,ij->i", Z, Z)
    return total / len(X) * safe[:, 0], np.sqrt(square) * size, low == high


def _centred_norms(X: np.ndarray, mean: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Lengths after centring; ``size`` are the lengths before, to scale by."""
    safe = np.where(size > 0, size, 1.0)[:, None]
    square = np.zeros(len(mean))
    for Z in _blocks(X):
        Z = (Z - mean[:, None]) / safe
        square += np.einsum("ij,ij->i", Z, Z)
    return np.sqrt(square) * size


def _full_in_sample(X, columns, moved, scale, tolerance) -> bool:
    """Whether a few thousand rows prove full rank already.

    What is left of a column over all rows is at least what is left of it over some of
    them, whatever the coefficients: a rigorous lower bound for little work.
    """
    rows = max(_SAMPLE, 16 * len(columns))
    if 4 * rows > len(X):
        return False
    picked = np.sort(np.random.default_rng(0).integers(0, len(X), rows))
    Z = X[picked][:, columns] * scale
    Z[:, moved] -= Z[:, moved].mean(axis=0)
    length = np.sqrt(np.einsum("ij,ij->j", Z, Z))
    if not length.all():
        return False
    Z /= length
    pivots = _cholesky_pivots(Z.T @ Z)
    return pivots is not None and bool((pivots * length > 8 * tolerance).all())


def _clearly_full(X, columns, centre, scale, tolerance) -> bool:
    """Whether the Gram matrix proves full rank: pivots far above its rounding."""
    p = len(columns)
    if p > len(X):
        return False
    gram = np.zeros((p, p))
    for block in _blocks(X):
        Z = (block[columns] - centre[columns, None]) * scale[:, None]
        gram += Z @ Z.T
    pivots = _cholesky_pivots(gram)
    return pivots is not None and bool((pivots > 2 * tolerance).all())


def _cholesky_pivots(gram: np.ndarray) -> np.ndarray | None:
    """What is left of unit columns after those before; None if lost in rounding."""
    try:
        pivots = np.diag(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        return None
    return pivots if (pivots > 1e-4).all() else None


def _triangle(X, columns, centre, scale) -> np.ndarray:
    """R of a QR factorisation, folded over chunks of rows."""
    p = len(columns)
    rows = max(_CHUNK, 4 * p)
    R = np.zeros((0, p))
    for block in _blocks(X, rows):
        Z = (block[columns] - centre[columns, None]) * scale[:, None]
        R = np.asarray(np.linalg.qr(np.vstack([R, Z.T]), mode="r"))
    return R


def _greedy(R: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Columns kept when each is compared with the kept ones before it."""
    basis = np.zeros_like(R)
    kept: list[int] = []
    for j in range(R.shape[1]):
        v = R[:, j].copy()
        Q = basis[:, : len(kept)]
        for _ in range(2):  # twice is enough (Parlett)
            v -= Q @ (Q.T @ v)
        length = np.linalg.norm(v)
        if length > tolerance[j] and len(kept) < R.shape[0]:
            basis[:, len(kept)] = v / length
            kept.append(j)
    return np.array(kept, int)


def _blocks(X: np.ndarray, rows: int = _CHUNK):
    """Chunks of rows, transposed: (p, rows), so that each column lies together."""
    for start in range(0, len(X), rows):
        yield np.ascontiguousarray(X[start : start + rows].T)
