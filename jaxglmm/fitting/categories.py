"""What records of models of categories have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design
    from jaxglmm.model.families import AbstractFamily


class OfCategories:
    """``design.y`` has the categories' codes 0, 1, ..., ``levels`` their labels."""

    design: Design
    family: AbstractFamily

    @property
    def levels(self) -> np.ndarray:
        """(K,) labels of the categories, in order."""
        found = self.design.response_levels
        assert found is not None
        return np.asarray(found)

    @property
    def is_ordered(self) -> bool:
        """Whether the categories have an order."""
        return self.family.family_kind == "ordinal"

    @property
    def dispersion(self) -> float:
        """1: the categories' probabilities say their spread; no threshold is one."""
        return 1.0
