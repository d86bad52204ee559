"""What a residual structure is: C of y - X beta - Z b ~ N(0, sigma^2 C).

A linear model knows its rows by cross-products with C^-1 alone, and they should be read
once. So a structure is a sum of fixed matrices with coefficients that follow theta,

    C^-1 = sum_k c_k(theta) W_k,   A'C^-1 B = sum_k c_k(theta) A'W_k B,

which holds for variances by strata (W_k: the rows of one stratum), for correlations of
neighbours in time (1, rho and rho^2 over 1 - rho^2, of rows, of neighbours and of rows
that are no ends), and for one correlation within a level (rows, and their sums). W_k
never joins rows of two levels; the levels have to lie inside those of the largest
grouping factor, so that Z'W_kZ keeps its pattern.

``independent`` is the one member. What a structure with parameters of its own needs
beside its file: its theta beside that of the random effects in the search
(``integrate.exact``, by the chain rule of ``model.covariances.base``), and a word in
formulas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglmm._typing import Float


class AbstractResiduals(ABC):
    """C for the n rows of one design; on the host, made when the rows are known."""

    @property
    @abstractmethod
    def m(self) -> int:
        """Number of parameters theta."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the parameters, as tables have them."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Lower and upper end of each theta."""

    @property
    @abstractmethod
    def start(self) -> tuple[float, ...]:
        """theta of C as in ``independent``."""

    @property
    @abstractmethod
    def n_parts(self) -> int:
        """Number of fixed matrices W_k."""

    @abstractmethod
    def coefficients(self, theta: Sequence[Any]) -> Sequence[Any]:
        """c_k from m numbers, for NumPy and JAX alike."""

    @abstractmethod
    def rows(self, k: int, A: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """W_k A."""

    @abstractmethod
    def log_det(self, theta: Sequence[Any]) -> Any:
        """log |C|, for NumPy and JAX alike."""

    def products(
        self, A: Float[np.ndarray, "n c"], B: Float[np.ndarray, "n d"]
    ) -> Float[np.ndarray, "k c d"]:
        """A'W_kB of every part: all that is read of the rows."""
        return np.stack([A.T @ self.rows(k, B) for k in range(self.n_parts)])

    def combined(self, products: Any, theta: Sequence[Any]) -> Any:
        """A'C^-1 B from ``products``, for NumPy and JAX alike."""
        parts = zip(self.coefficients(theta), products, strict=True)
        return sum(c * product for c, product in parts)
