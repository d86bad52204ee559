"""What a file holds of a fit, before it is known of which class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxglmm.fitting.estimates import Estimates
    from jaxglmm.formula.design import Design


@dataclass(frozen=True)
class Saved:
    """Read from a file.

    design, estimates: as they were; diagnostics: facts about the computation; ddf: how
    degrees of freedom were asked for; facts: those of ``model_facts``.
    """

    design: Design
    estimates: Estimates
    diagnostics: dict[str, Any]
    ddf: str
    facts: Mapping[str, Any]

    def without(self, *names: str) -> Saved:
        """The same with fewer facts: those of a base class."""
        rest = {k: v for k, v in self.facts.items() if k not in names}
        return replace(self, facts=rest)
