"""The fixed effects in an orthonormal basis, the response as a residual.

X~ = X R^-1 with X~'W X~ = I (QR), y~ = (y - X beta0) / s with beta0 by least squares
and s its residual standard deviation. Cross-products of these do not cancel, whatever
the origin and the units of the columns of X and of y; estimates go back by beta = beta0
+ s R^-1 beta~.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.runtime.shares import Share

ROWS = 65_536  # rows at a time
SHORT = 512  # rows of which a triangle is taken at once
FAR = 1e5  # standard deviations from zero that cost digits
EXACT = 1e-13  # residual over response below which the fit is exact to rounding


@dataclass(frozen=True)
class FixedBasis:
    """R: (p, p) upper triangular; least_squares: (p,) of y on X~; scale: s."""

    R: np.ndarray
    least_squares: np.ndarray
    scale: float

    def with_response(self, least_squares: np.ndarray, scale: float) -> FixedBasis:
        """The same basis with the regression of another response."""
        out = FixedBasis(self.R, least_squares, scale)
        for name in ("R_inverse", "log_det"):  # of X alone, and known
            out.__dict__[name] = getattr(self, name)
        return out

    @cached_property
    def beta0(self) -> np.ndarray:
        """(p,) least squares in the user's coordinates."""
        return self.R_inverse @ self.least_squares

    @cached_property
    def R_inverse(self) -> np.ndarray:
        """(p, p) R^-1."""
        return np.linalg.solve(self.R, np.eye(len(self.R)))

    def beta(self, internal: np.ndarray) -> np.ndarray:
        """(..., p) coefficients in the user's coordinates."""
        return self.beta0 + self.scale * (internal @ self.R_inverse.T)

    def vcov(self, LQ: np.ndarray, sigma: float) -> np.ndarray:
        """(p, p) sigma^2 (X'V^-1X)^-1 of the user's X from the internal factor of Q."""
        if not np.isfinite(LQ).all() or not (np.diagonal(LQ) > 0).all():
            return np.full_like(self.R, np.nan)  # V has lost the digits of X'V^-1X
        half = sigma * np.linalg.solve(LQ, self.R_inverse.T)
        return half.T @ half

    @cached_property
    def log_det(self) -> float:
        """log |X'WX| of the user's X."""
        return 2 * float(np.sum(np.log(np.abs(np.diag(self.R)))))


class Basis:
    """X~ = X R^-1, whole or a column at a time, so that a large one is never stored."""

    def __init__(self, X: np.ndarray, R: np.ndarray):
        self.X = X
        self.inverse = np.linalg.solve(R, np.eye(len(R)))

    def of_rows(self, rows: slice) -> Basis:
        """The basis in some of the rows."""
        out = copy.copy(self)
        out.__dict__.pop("whole", None)
        out.X = self.X[rows]
        return out

    @cached_property
    def whole(self) -> np.ndarray:
        """(n, p)."""
        return self.X @ self.inverse

    def column(self, j: int, out: np.ndarray | None = None) -> np.ndarray:
        """(n,)."""
        return np.matmul(self.X, self.inverse[:, j], out=out)

    def pieces(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows that fit the cache, and X~ there."""
        for here in slices(len(self.X)):
            yield here, self.X[here] @ self.inverse

    def times(self, b: np.ndarray) -> np.ndarray:
        """X~ b, (n,)."""
        return self.X @ (self.inverse @ b)

    def dot(self, r: np.ndarray) -> np.ndarray:
        """X~'r, (p,)."""
        if "whole" in self.__dict__ or len(self.X) <= ROWS:
            return r @ self.whole
        return sum(r[here] @ piece for here, piece in self.pieces())

    def gram(self, w: np.ndarray | None) -> np.ndarray:
        """X~'WX~, (p, p): the identity up to rounding."""
        total = np.zeros_like(self.inverse)
        for here, piece in self.pieces():
            total += piece.T @ (piece if w is None else piece * w[here, None])
        return total


def orthonormal(
    X: np.ndarray, w: np.ndarray | None, share: Share | None = None
) -> tuple[np.ndarray, Basis]:
    """R and X~; share: the rows that are read here, of several processes."""
    if X.shape[1] == 0:
        R = np.zeros((0, 0))
        return R, Basis(X, R)
    own = slice(0, len(X)) if share is None else share.rows
    R = triangle((_rooted(X[here], w, here) for here in _within(own)), share)
    shift = _origin(X, R)
    if shift is not None:
        R, basis = orthonormal(X - shift, w, share)
        return R + np.outer(R[:, 0], shift), basis
    # once more: the first triangle is good to cond(X) eps, the second to eps
    inverse = np.linalg.solve(R, np.eye(len(R)))
    pieces = (_rooted(X[here] @ inverse, w, here) for here in _within(own))
    R = triangle(pieces, share) @ R
    return R, Basis(X, R)


def _origin(X: np.ndarray, R: np.ndarray) -> np.ndarray | None:
    """What to take off the columns first, where some lie far from zero.

    X R^-1 would lose as many digits as the mean has more than the deviations. Beside an
    intercept a column is moved by one of its own values, which costs no digit.
    """
    diagonal = np.abs(np.diag(R))
    far = np.abs(R[0]) > FAR * np.maximum(diagonal, np.finfo(float).tiny)
    if not far[1:].any() or not (X[:, 0] == 1.0).all():
        return None
    # column by column the value next to the mean, so that nothing is far any more
    shift = np.zeros(X.shape[1])
    for j in np.flatnonzero(far[1:]) + 1:
        column = X[:, j]
        shift[j] = column[np.argmin(np.abs(column - column.mean()))]
    return shift if shift.any() else None


def slices(n: int) -> Iterator[slice]:
    """Pieces of rows that fit the cache."""
    return _within(slice(0, n))


def _within(rows: slice) -> Iterator[slice]:
    for start in range(rows.start, rows.stop, ROWS):
        yield slice(start, min(start + ROWS, rows.stop))


def _rooted(X: np.ndarray, w: np.ndarray | None, rows: slice) -> np.ndarray:
    """sqrt(w) X of a piece."""
    return X if w is None else X * np.sqrt(w[rows, None])


def triangle(pieces: Iterator[np.ndarray], share: Share | None = None) -> np.ndarray:
    """R of X = QR with a positive diagonal, from pieces of rows; of all processes'."""
    parts = [_triangle(piece) for piece in pieces]
    R = parts[0] if len(parts) == 1 else np.linalg.qr(np.concatenate(parts), mode="r")
    if share is not None:
        R = np.linalg.qr(np.concatenate(list(share.stacked(R))), mode="r")
    return R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]


def _root_mean_square(r: np.ndarray, root: np.ndarray | None) -> float:
    """sqrt(r'Wr / n) for any size of the weights, root = sqrt(W)."""
    rooted = r if root is None else r * root
    return float(np.sqrt(rooted @ rooted / len(r)))


def _triangle(X: np.ndarray) -> np.ndarray:
    """R of one piece, of short runs of its rows first, and then of their triangles.

    LAPACK goes through all rows once a column, here they stay in the cache (Demmel,
    Grigori, Hoemmen and Langou 2012); it is as stable.
    """
    n, p = X.shape
    whole = n - n % SHORT
    if n < 16 * SHORT or not 0 < p <= SHORT // 16:
        return np.linalg.qr(X, mode="r")
    runs = np.linalg.qr(X[:whole].reshape(-1, SHORT, p), mode="r").reshape(-1, p)
    return np.linalg.qr(np.concatenate([runs, X[whole:]]), mode="r")


def residual(
    y: np.ndarray, basis: Basis, w: np.ndarray | None, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """y~ (n,), the coefficients of y on the basis, and s.

    least: what s is at least, the residual's standard deviation where that is known.
    Raises ModelError where the fixed effects reproduce the response exactly.
    """
    weighted = y if w is None else y * w
    root = None if w is None else np.sqrt(w)
    size = _root_mean_square(y, root)
    coefficients = basis.dot(weighted)
    del weighted  # an array of the data's length less
    rest = -basis.times(coefficients)
    rest += y
    change = basis.dot(rest if w is None else rest * w)
    rest -= basis.times(change)
    scale = max(_root_mean_square(rest, root), least)
    if not least and not scale > EXACT * size:
        if np.ptp(y) == 0:
            raise ModelError(
                f"the response is constant ({y[0]:g} in every row): there is no "
                "variation to explain. Check that the right column was taken",
                status=_status.CONSTANT,
            )
        raise ModelError(
            "the fixed effects reproduce the response exactly: nothing is left for "
            "random effects and residuals. Is the response also a predictor?",
            status=_status.EXACT,
        )
    rest /= scale
    return rest, coefficients + change, scale
