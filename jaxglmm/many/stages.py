"""The stages of a run: which engine fits which data sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm.many.columns import KeptColumns
from jaxglmm.many.pieces import LanesEngine


@dataclass(frozen=True)
class Stage:
    """Data sets ``which`` by one engine, in so many threads."""

    engine: LanesEngine
    which: np.ndarray
    threads: int


@dataclass(frozen=True)
class Plan:
    """How all data sets are fitted.

    stages: engines and their data sets; missing: for responses with missing values,
    ``alone`` where there is none; alone: fits of their own; title, devices: for the
    summary.
    """

    stages: tuple[Stage, ...]
    missing: LanesEngine | None
    alone: LanesEngine
    columns: KeptColumns
    D: int
    title: str
    devices: str

    def __len__(self) -> int:
        return self.D
