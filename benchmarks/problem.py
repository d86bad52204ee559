"""What a line of the table is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Problem:
    """One line of the table.

    work: what is timed, a name in ``engines.py``: ``fit`` is the whole call from
        formula and frame, ``refit`` and ``alone`` the fit alone, ``fresh`` a process
        from import to summary
    family, nodes, weights: of generalised models; nodes of quadrature, column name
    fixed, random: the model once more for engines without formulas
    goal: seconds that the warm call may take; goal_gpu: on an H200
    fits: models that it fits, where these are many
    memory_goal: GiB that the process may hold at most; patience: seconds after which it
        is given up, where that is more than usual
    engines: who is asked; ``slow`` only with ``--slow``
    """

    name: str
    title: str
    goal: float
    data: Callable[[], pd.DataFrame]
    formula: str
    work: str = "fit"
    reml: bool = True
    response: str = "y"
    fixed: tuple[str, ...] = ()
    random: tuple[tuple[str, tuple[str, ...]], ...] = ()
    engines: tuple[str, ...] = ("jaxglmm",)
    slow: tuple[str, ...] = ()
    note: str = ""
    family: str = "gaussian"
    nodes: int = 1
    weights: str | None = None
    fits: int = 0
    goal_gpu: float | None = None
    memory_goal: float | None = None
    patience: float = 0.0
