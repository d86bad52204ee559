"""What families of one kind of response share: which values y may have, and a start."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from jaxglmm.model.families import _checks
from jaxglmm.model.families._base import JetFamily


class CountFamily(JetFamily):
    """Counts from zero on."""

    discrete: ClassVar[bool] = True

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.counts(self.name, y, rows)
        _checks.not_all_zero(self.name, y)

    def start(self, y: np.ndarray, trials: Any = None) -> tuple[np.ndarray, np.ndarray]:
        phi = self.start_phi(np.mean(y), np.var(y))
        assert phi is not None  # or a family has a start of its own
        return np.asarray(self.link.link(y + 0.3)), phi


class PositiveFamily(JetFamily):
    """Numbers above zero."""

    padding: ClassVar[float] = 1.0
    has_zeros: ClassVar[bool] = False

    def check(self, y: np.ndarray, trials: Any = None, rows: Any = None) -> None:
        _checks.no_trials(self.name, trials)
        _checks.positive(self.name, y, rows)
        _checks.varies(self.name, y)
