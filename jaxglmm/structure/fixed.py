"""The fixed effects in an orthonormal basis, the response as a residual.

X~ = X R^-1 with X~'W X~ = I (QR), y~ = (y - X beta0) / s with beta0 by least squares
and s its residual standard deviation. Cross-products of these do not cancel, whatever
the origin and the units of the columns of X and of y; estimates go back by beta = beta0
+ s R^-1 beta~.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxglmm._errors import ModelError

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
        half = np.linalg.solve(LQ, self.R_inverse.T)
        return sigma**2 * (half.T @ half)

    @cached_property
    def log_det(self) -> float:
        """log |X'WX| of the user's X."""
        return 2 * float(np.sum(np.log(np.abs(np.diag(self.R)))))


def orthonormal(X: np.ndarray, w: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """R and X~ (n, p)."""
    p = X.shape[1]
    if p == 0:
        return np.zeros((0, 0)), X
    root = None if w is None else np.sqrt(w)[:, None]
    R = _triangle(X if root is None else X * root)
    basis = _divide(X, R)
    # once more: the first triangle is good to cond(X) eps, the second to eps
    again = _triangle(basis if root is None else basis * root)
    return again @ R, _divide(basis, again)


def _triangle(X: np.ndarray) -> np.ndarray:
    """R of X = QR with a positive diagonal, in pieces of rows that fit the cache."""
    n, p = X.shape
    rows = max(4 * p, 20_000)
    parts = [np.linalg.qr(X[a : a + rows], mode="r") for a in range(0, n, rows)]
    R = parts[0] if len(parts) == 1 else np.linalg.qr(np.concatenate(parts), mode="r")
    return R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]


def _divide(X: np.ndarray, R: np.ndarray) -> np.ndarray:
    return X @ np.linalg.solve(R, np.eye(len(R)))


def residual(
    y: np.ndarray, basis: np.ndarray, w: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """y~ (n,), the coefficients of y on the basis, and s.

    Raises ModelError where the fixed effects reproduce the response exactly.
    """
    weighted = y if w is None else y * w
    size = float(np.sqrt(np.mean(y * weighted)))
    coefficients = basis.T @ weighted
    rest = y - basis @ coefficients
    change = basis.T @ (rest if w is None else rest * w)
    rest = rest - basis @ change
    scale = float(np.sqrt(np.mean(rest * (rest if w is None else rest * w))))
    if not scale > EXACT * size:
        if np.ptp(y) == 0:
            raise ModelError(
                f"the response is constant ({y[0]:g} in every row): there is no "
                "variation to explain. Check that the right column was taken"
            )
        raise ModelError(
            "the fixed effects reproduce the response exactly: nothing is left for "
            "random effects and residuals. Is the response also a predictor?"
        )
    return rest / scale, coefficients + change, scale
