"""What is asked after a fit: means, levels left out, folds, power, tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg
from benchmarks import data as sets

LEVELS, EACH = 1000, 5
SLEEP = "Reaction ~ Days + (Days | Subject)"
SIZES = (10, 20, 30, 40, 50)
TABLED = (
    "Reaction ~ 1 + (1 | Subject)",
    "Reaction ~ Days + (1 | Subject)",
    SLEEP,
    "Reaction ~ Days + (Days || Subject)",
    "Reaction ~ Days + (1 | Subject) + (1 | Days)",
)


def cells() -> pd.DataFrame:
    """480 rows of 3 x 4 cells in 40 groups."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(40), 12)
    y = rng.normal(size=480) + rng.normal(size=40)[g]
    a, b = np.tile(list("abc"), 160), np.tile(np.repeat(list("wxyz"), 3), 40)
    return pd.DataFrame({"y": y, "g": g, "a": a, "b": b})


def levels() -> pd.DataFrame:
    """Five rows of each of 1,000 levels, with a slope that differs."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(LEVELS), EACH)
    x, e = rng.normal(size=(2, len(g)))
    b = rng.normal(size=(2, LEVELS)) * [[0.8], [0.4]]
    y = 1 + 0.5 * x + b[0][g] + b[1][g] * x + e
    return pd.DataFrame({"y": y, "x": x, "g": g})


def jaxglmm_cell_means(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """Means of all cells and Tukey's comparisons of their 66 pairs, tables made."""
    fit = jg.lmm(problem.formula, frame)

    def run() -> float:
        means = fit.means("a * b")
        means.table, means.pairs().table
        return fit.log_likelihood

    return run


def jaxglmm_levels_out(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """The model without each level, variances estimated anew, as a table."""
    fit = jg.lmm(problem.formula, frame)

    def run() -> float:
        found = fit.influence("g")
        return fit.log_likelihood + 0.0 * float(found.cook[0])

    return run


def jaxglmm_folds(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """Ten folds of the levels of the grouping factor."""
    fit = jg.lmm(problem.formula, frame)

    def run() -> float:
        fit.cross_validate(by="Subject", k=10)
        return fit.log_likelihood

    return run


def jaxglmm_power(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """Power by 1,000 simulations with Satterthwaite's degrees of freedom."""
    fit = jg.lmm(problem.formula, frame)

    def run() -> float:
        fit.power("Days", n_simulations=1000, progress=False)
        return fit.log_likelihood

    return run


def jaxglmm_power_curve(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """The same at five numbers of levels."""
    fit = jg.lmm(problem.formula, frame)

    def run() -> float:
        options = {"n_simulations": 1000, "progress": False}
        jg.power_curve(fit, "Days", "Subject", SIZES, **options)
        return fit.log_likelihood

    return run


def jaxglmm_fit_table(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """Five fits side by side, as text."""
    fits = [jg.lmm(formula, frame) for formula in TABLED]

    def run() -> float:
        str(jg.table(*fits))
        return fits[2].log_likelihood

    return run


_SLEEP = {"data": sets.sleepstudy, "formula": SLEEP, "response": "Reaction"}
_LEVELS = {"data": levels, "goal": 0.2, "work": "levels_out"}

LINES: tuple[dict[str, Any], ...] = (
    {
        "name": "cell-means",
        "title": "means of 12 cells and all their pairs, Satterthwaite and Tukey",
        "goal": 0.005,
        "work": "cell_means",
        "data": cells,
        "formula": "y ~ a * b + (1 | g)",
    },
    {
        "name": "levels-out",
        "title": "1,000 levels left out in turn, (1 | g)",
        "formula": "y ~ x + (1 | g)",
        **_LEVELS,
    },
    {
        "name": "levels-out-slope",
        "title": "1,000 levels left out in turn, (x | g)",
        "formula": "y ~ x + (x | g)",
        **_LEVELS,
    },
    {
        "name": "folds",
        "title": "sleepstudy, cross-validation in ten folds of subjects",
        "goal": 0.1,
        "work": "folds",
        **_SLEEP,
    },
    {
        "name": "power",
        "title": "sleepstudy, power by 1,000 simulations",
        "goal": 1.0,
        "work": "power",
        **_SLEEP,
    },
    {
        "name": "power-curve",
        "title": "sleepstudy, power at five sizes, 1,000 simulations each",
        "goal": 5.0,
        "work": "power_curve",
        **_SLEEP,
    },
    {
        "name": "table",
        "title": "sleepstudy, five fits side by side as text",
        "goal": 0.05,
        "work": "fit_table",
        **_SLEEP,
    },
)
