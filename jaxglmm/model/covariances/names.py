"""Names of standard deviations and correlations, as every table has them.

``sd_Days|Subject``: the column, then the term's label. Of a correlation,
``cor_Days.(Intercept)|Subject``, the later column is first. Nothing else builds or
reads these words.
"""

from __future__ import annotations

from typing import Literal

SD, COR = "sd", "cor"
Kind = Literal["sd", "cor"]


def sd(column: str, label: str) -> str:
    """The standard deviation of a column's effects."""
    return f"{SD}_{column}|{label}"


def correlation(later: str, earlier: str, label: str) -> str:
    """The correlation of two columns' effects."""
    return f"{COR}_{later}.{earlier}|{label}"


def kind(name: str) -> Kind | None:
    """Which of the two a name is; None for all other parameters."""
    if "|" not in name:
        return None
    for known in (SD, COR):
        if name.startswith(f"{known}_"):
            return known
    return None
