"""Names of standard deviations and correlations, as every table has them.

``sd_Days|Subject``: the column, then the term's label. Of a correlation,
``cor_Days.(Intercept)|Subject``, the later column is first. What a structure has one of
goes by its word, ``sd_ar1|Subject`` and ``cor_ar1|Subject``. Nothing else builds or
reads these words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

SD, COR, RANGE, NU = "sd", "cor", "range", "nu"
Kind = Literal["sd", "cor", "range", "nu"]


def sd(column: str, label: str) -> str:
    """The standard deviation of a column's effects."""
    return f"{SD}_{column}|{label}"


def correlation(later: str, earlier: str, label: str) -> str:
    """The correlation of two columns' effects."""
    return f"{COR}_{later}.{earlier}|{label}"


def parameter(kind: str, words: Sequence[str], label: str) -> str:
    """Any of them: ``cor_ar1|g``, ``range_ou|g``, ``cor_toep.2|g`` of two steps."""
    return f"{kind}_{'.'.join(words)}|{label}"


def kind(name: str) -> Kind | None:
    """Which of them a name is; None for all other parameters."""
    if "|" not in name:
        return None
    for known in (SD, COR, RANGE, NU):
        if name.startswith(f"{known}_"):
            return known
    return None
