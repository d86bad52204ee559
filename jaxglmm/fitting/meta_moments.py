"""Moment estimators of the variance between studies, and what they are made of.

With W = diag(1 / (v + tau^2)) and P = W - WX (X'WX)^-1 X'W: DerSimonian and Laird
(1986), Hedges and Olkin (1985), Sidik and Jonkman (2005), Paule and Mandel (1982). P is
never stored: traces of its products come from X'W^k X.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MOMENTS = ("DL", "HE", "SJ", "PM")


@dataclass(frozen=True)
class Weighted:
    """Weighted least squares at weights w (k,)."""

    y: np.ndarray
    X: np.ndarray
    w: np.ndarray

    @cached_property
    def _root(self) -> np.ndarray:
        """(k, p) orthonormal basis of W^1/2 X."""
        return np.linalg.qr(np.sqrt(self.w)[:, None] * self.X)[0]

    @cached_property
    def r(self) -> np.ndarray:
        """W^1/2 (y - X beta)."""
        rooted = np.sqrt(self.w) * self.y
        return rooted - self._root @ (self._root.T @ rooted)

    @property
    def Q(self) -> float:
        """The weighted residual sum of squares."""
        return float(self.r @ self.r)

    @property
    def Py(self) -> np.ndarray:
        """(k,)."""
        return np.sqrt(self.w) * self.r

    def trace(self, a: np.ndarray | float = 1.0) -> float:
        """tr(P diag(a))."""
        wa = self.w * a
        return float(np.sum(wa * (1 - np.sum(self._root**2, axis=1))))

    def square(self, a: np.ndarray | float = 1.0) -> float:
        """tr(P diag(a) P diag(a))."""
        wa, G = self.w * a, self._root
        once = G.T @ (wa[:, None] * G)
        twice = np.sum((wa**2)[:, None] * G**2)
        return float(np.sum(wa**2) - 2 * twice + np.sum(once**2))


def tau2_of(
    y: np.ndarray, X: np.ndarray, v: np.ndarray, method: str
) -> tuple[float, float]:
    """tau^2 and its standard error by one of ``MOMENTS``; ``v`` of about one."""
    k, p = X.shape
    fixed = Weighted(y, X, 1.0 / v)
    if method == "DL":
        trace = fixed.trace()
        t = max((fixed.Q - (k - p)) / trace, 0.0)
        inner = 2 * (k - p) + 4 * t * trace + 2 * t * t * fixed.square()
        return t, float(np.sqrt(inner)) / trace
    if method == "HE":
        plain = Weighted(y, X, np.ones(k))
        t = max((plain.Q - plain.trace(v)) / (k - p), 0.0)
        inner = 2 * plain.square(v) + 4 * t * plain.trace(v) + 2 * t * t * (k - p)
        return t, float(np.sqrt(inner)) / (k - p)
    if method == "SJ":
        first = float(np.var(y))
        if first == 0.0:
            return 0.0, 0.0
        at = Weighted(y, X, 1.0 / (v + first))
        tau2 = first * at.Q / (k - p)
        return tau2, first / (k - p) * float(np.sqrt(2 * at.square(v + tau2)))
    tau2 = _paule_mandel(y, X, v, k - p)
    mean = (k - p) / k * float(np.sum(1.0 / (v + tau2)))  # trace P, if alike
    return tau2, float(np.sqrt(2 * (k - p))) / mean


def _paule_mandel(y: np.ndarray, X: np.ndarray, v: np.ndarray, df: int) -> float:
    """Where Q(tau^2), which falls, is its expectation; else zero."""
    from scipy.optimize import brentq  # slow to import

    def excess(tau2: float) -> float:
        return Weighted(y, X, 1.0 / (v + tau2)).Q - df

    if excess(0.0) <= 0:
        return 0.0
    most = Weighted(y, X, np.ones(len(y))).Q / df  # Q is less than that over tau^2
    return float(brentq(excess, 0.0, most, xtol=1e-16 * most, maxiter=1000))


def error_of(X: np.ndarray, v: np.ndarray, tau2: float, reml: bool) -> float:
    """Of tau^2 by REML or ML, from Fisher's information."""
    unit = float(np.max(v + tau2))
    at = Weighted(np.zeros(len(v)), X, unit / (v + tau2))
    size = at.square() if reml else float(np.sum(at.w**2))
    return unit * float(np.sqrt(2.0 / size))
