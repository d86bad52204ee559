"""How estimates on the scale of a linear predictor are shown: as they are, or back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm.model.links import Link
from jaxglmm.postestimation.prediction.means import MeanRows

RATIOS = {"log": "ratio", "logit": "odds ratio", "cloglog": "hazard ratio"}


@dataclass(frozen=True)
class Shown:
    """A transformation of estimates, errors and limits.

    link: of the predictor, None of what has no link; difference: whether the estimates
    are differences (whose inverse is a ratio, for logarithms); back: whether they are
    transformed at all.
    """

    link: Link | None = None
    difference: bool = False
    back: bool = False

    @property
    def plain(self) -> bool:
        """Whether there is nothing to transform."""
        return self.link is None or self.link.name == "identity"

    @property
    def changes(self) -> bool:
        """Whether numbers are shown on another scale than they were made on."""
        if self.plain or not self.back:
            return False
        return not self.difference or self.link.name in RATIOS  # type: ignore[union-attr]

    @property
    def scale(self) -> str:
        """Name of the scale that is shown."""
        if self.plain:
            return "response"
        name = self.link.name  # type: ignore[union-attr]
        if not self.difference:
            return "response" if self.back else name
        ratio = RATIOS.get(name)
        if ratio is None:
            return f"{name} (differences)"
        return ratio if self.back else f"log {ratio}"

    def value(self, eta: Any) -> np.ndarray:
        """On the scale that is shown."""
        eta = np.asarray(eta, float)
        if not self.changes:
            return eta
        with np.errstate(over="ignore"):
            if self.difference:
                return np.exp(eta)
            return np.asarray(self.link.inverse(eta), float)  # type: ignore[union-attr]

    def slope(self, eta: np.ndarray) -> np.ndarray:
        """Its derivative."""
        if not self.changes:
            return np.ones(np.shape(eta))
        if self.difference:
            return self.value(eta)
        return np.asarray(self.link.slope(eta), float)  # type: ignore[union-attr]

    def transformed(self, rows: MeanRows, drawn: bool) -> MeanRows:
        """Estimates on the scale of the response, by slopes or draw by draw."""
        back = replace(self, back=True)
        if drawn:
            jacobian = back.value(rows.jacobian)
            value = jacobian.mean(axis=1)
        else:
            jacobian = back.slope(rows.value)[:, None] * rows.jacobian
            value = back.value(rows.value)
        none = np.zeros(len(value))
        return replace(rows, value=value, jacobian=jacobian, offset=none)
