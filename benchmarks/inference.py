"""What is asked after a fit: degrees of freedom of many coefficients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg

ROWS, LEVELS = 6000, 200
KEPT = ("df_satterthwaite", "satterthwaite_parts")


def data(coefficients: int) -> pd.DataFrame:
    """A factor of as many levels as coefficients, in rows of 200 groups."""
    rng = np.random.default_rng(1)
    g, s = rng.integers(0, LEVELS, ROWS), rng.integers(0, coefficients, ROWS)
    y = rng.normal(size=ROWS) + rng.normal(size=LEVELS)[g]
    return pd.DataFrame({"y": y, "g": g, "s": [f"s{k:03d}" for k in s]})


def jaxglmm_df(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """Satterthwaite's degrees of freedom of all coefficients of one fit."""
    fit = jg.lmm(problem.formula, frame)

    def run() -> float:
        fresh = copy.copy(fit)
        for name in KEPT:  # what it may know already
            fresh.__dict__.pop(name, None)
        fresh.df_satterthwaite  # noqa: B018
        return fresh.log_likelihood

    return run


LINES: tuple[dict[str, Any], ...] = tuple(
    {
        "name": f"df-{k}",
        "title": f"Satterthwaite's degrees of freedom of {k} coefficients",
        "goal": goal,
        "work": "df",
        "data": partial(data, k),
        "formula": "y ~ s + (1 | g)",
    }
    for k, goal in ((200, 0.2), (500, 2.0))
)
