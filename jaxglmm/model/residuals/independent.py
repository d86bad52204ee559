"""Independent residuals with known prior weights: C^-1 = diag(w), no parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm._typing import Float
from jaxglmm.model.residuals.base import AbstractResiduals


@dataclass(frozen=True, eq=False)
class IndependentResiduals(AbstractResiduals):
    """weights: (n,) positive, or None for ones."""

    weights: Float[np.ndarray, " n"] | None = None

    @property
    def m(self) -> int:
        return 0

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        return ()

    @property
    def start(self) -> tuple[float, ...]:
        return ()

    @property
    def n_parts(self) -> int:
        return 1

    def coefficients(self, theta: Sequence[Any]) -> Sequence[Any]:
        return (1.0,)

    def rows(self, k: int, A: np.ndarray) -> np.ndarray:
        return A if self.weights is None else A * self.weights[:, None]

    def log_det(self, theta: Sequence[Any]) -> Any:
        return 0.0 if self.weights is None else -float(np.sum(np.log(self.weights)))
