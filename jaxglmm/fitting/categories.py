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

    if TYPE_CHECKING:

        def drawn(self, n: int, seed, re: str | None) -> np.ndarray:
            """Codes, of the record that this is mixed into."""
            ...

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

    def simulate(self, n: int = 1, seed=None, re: str | None = None) -> np.ndarray:
        """New responses from the fitted model, (n, nobs): labels of the categories.

        Args:
            n: number of data sets.
            seed: seed of numpy's generator.
            re: None draws new random effects, "conditional" keeps the modes.
        """
        return self.levels[self.drawn(n, seed, re).astype(int)]
