"""Intervals of many fits: of the draws of a bootstrap, or of every model's profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm.postestimation.collection import tables

if TYPE_CHECKING:
    from jaxglmm.many.record import FittedModels


def confint(fits: FittedModels, level: float, method: str, which: Any) -> pd.DataFrame:
    """See ``Fits.confint``."""
    _arguments.level(level)
    if not _arguments.is_among(method, ("percentile", "basic", "profile")):
        raise NotApplicableError(
            f"confint(method={_arguments.shown(method)}): there are 'percentile', "
            "'basic' and 'profile'"
        )
    if method == "profile":
        from jaxglmm.postestimation.profile.intervals import intervals

        return intervals(fits, level, which)
    return tables.limits(fits, level, method)
