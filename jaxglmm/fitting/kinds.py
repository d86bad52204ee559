"""Which class a fit is made of: a record of this room, or a face, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Kinds = Callable[[str], Any]  # "linear", "generalised", ... -> a class


def record(kind: str) -> Any:
    """The record of a kind, imported when it is asked for."""
    if kind == "linear":
        from jaxglmm.fitting.fitted_model import FittedModel

        return FittedModel
    if kind == "generalised":
        from jaxglmm.fitting.fitted_generalised import FittedGeneralised

        return FittedGeneralised
    raise ValueError(f"no record of the kind {kind!r}")
