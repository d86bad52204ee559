"""How estimates on the scale of a linear predictor are shown: as they are, or back."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm.model.links import Link
from jaxglmm.postestimation.comparisons.transformed import Transformed
from jaxglmm.postestimation.prediction.means import MeanRows, Means

RATIOS = {"log": "ratio", "logit": "odds ratio", "cloglog": "hazard ratio"}


@dataclass(frozen=True)
class Shown:
    """A transformation of estimates, errors and limits.

    link: of the predictor, or what the formula did to the response; None of what has
    neither; difference: whether the estimates are differences (whose inverse is a
    ratio, for logarithms); back: whether they are transformed at all.
    """

    link: Link | Transformed | None = None
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
        return not self.difference or self.ratio is not None

    @property
    def ratio(self) -> str | None:
        """What the inverse of a difference is; None where it is nothing."""
        if isinstance(self.link, Transformed):
            return self.link.ratio
        return None if self.link is None else RATIOS.get(self.link.name)

    def turned(self, back: bool) -> Shown:
        """The same on the scale of the response, or not.

        Raises:
            NotApplicableError: there is no way back.
        """
        if back and isinstance(self.link, Transformed):
            self.link.check()
        return replace(self, back=back)

    @property
    def scale(self) -> str:
        """Name of the scale that is shown."""
        if self.plain:
            return "response"
        name = self.link.name  # type: ignore[union-attr]
        if not self.difference:
            return "response" if self.back else name
        ratio = self.ratio
        if ratio is None:
            return f"{name} (differences)"
        log = self.link.function if isinstance(self.link, Transformed) else "log"
        return ratio if self.back else f"{log} {ratio}"

    def value(self, eta: Any) -> np.ndarray:
        """On the scale that is shown."""
        eta = np.asarray(eta, float)
        if not self.changes:
            return eta
        with np.errstate(over="ignore"):
            if self.difference and isinstance(self.link, Transformed):
                return self.link.inverse_of_difference(eta)
            if self.difference:
                return np.exp(eta)
            return np.asarray(self.link.inverse(eta), float)  # type: ignore[union-attr]

    def slope(self, eta: np.ndarray) -> np.ndarray:
        """Its derivative."""
        if not self.changes:
            return np.ones(np.shape(eta))
        if self.difference and not isinstance(self.link, Transformed):
            return self.value(eta)
        return np.asarray(self.link.slope(eta), float)  # type: ignore[union-attr]

    def transformed(self, rows: MeanRows, drawn: bool) -> MeanRows:
        """Estimates on the scale of the response, by slopes or draw by draw."""
        back = self.turned(True)
        if drawn:
            jacobian = back.value(rows.jacobian)
            value = jacobian.mean(axis=1)
        else:
            jacobian = back.slope(rows.value)[:, None] * rows.jacobian
            value = back.value(rows.value)
        none = np.zeros(len(value))
        return replace(rows, value=value, jacobian=jacobian, offset=none)


def on_response(means: Means) -> Means:
    """The same parameters, for estimates that are no longer linear in them."""
    out = copy(means)
    out.is_link = out.is_linear = out.is_affine = False
    return out
