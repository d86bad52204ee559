"""Precision weights of counts, as users see them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from jaxglmm.many.voom import Voom


@dataclass(frozen=True, repr=False)
class PrecisionWeights(Voom):
    """What ``jg.voom`` returns: ``.log_cpm`` and ``.weights``, and their trend."""

    @classmethod
    def showing(cls, found: Voom) -> Self:
        """The face of a record."""
        return cls(**{f.name: getattr(found, f.name) for f in fields(found)})

    def plot(self, ax: Any = None) -> Any:
        """Standard deviations against means, with the trend; returns the axes."""
        from jaxglmm.plots.voom import voom

        return voom(self, ax=ax)
