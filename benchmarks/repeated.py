"""Repeated measures: residual structures, from a small trial to a million rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg

TRIALS = 1000


def trial(subjects: int, visits: int, missing: float) -> pd.DataFrame:
    """Two arms; visits that are missing at random."""
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(subjects), visits)
    visit = np.tile(np.arange(visits), subjects)
    arm = np.repeat(rng.integers(0, 2, subjects), visits)
    base = np.repeat(rng.normal(size=subjects), visits)
    root = np.tril(0.2 * rng.normal(size=(visits, visits)))
    root += np.diag(np.linspace(1, 2, visits))
    errors = rng.normal(size=(subjects, visits)) @ root.T
    y = errors.ravel() + 0.3 * base + 0.1 * arm * visit
    frame = {"y": y, "base": base, "s": subject}
    frame |= {"arm": pd.Categorical(arm), "v": pd.Categorical(visit)}
    return pd.DataFrame(frame)[rng.random(len(y)) >= missing]


def series(groups: int, times: int) -> pd.DataFrame:
    """AR(1) errors of many groups."""
    rng = np.random.default_rng(2)
    errors = np.empty((groups, times))
    errors[:, 0] = rng.normal(size=groups)
    for k in range(1, times):
        errors[:, k] = 0.6 * errors[:, k - 1] + 0.8 * rng.normal(size=groups)
    x = rng.normal(size=groups * times)
    return pd.DataFrame(
        {
            "y": 1 + 0.5 * x + errors.ravel(),
            "x": x,
            "g": np.repeat(np.arange(groups), times),
            "t": np.tile(np.arange(times), groups),
        }
    )


def jaxglmm_mmrm(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """The call, and the table of coefficients with its degrees of freedom."""
    ddf = "kenward-roger" if problem.name.endswith("kr") else "satterthwaite"

    def run() -> float:
        fit = jg.mmrm(problem.formula, frame, ddf=ddf)
        fit.coefficient_table()
        return fit.log_likelihood

    return run


def jaxglmm_trials(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """Many responses of one trial."""
    plain, residual = "y ~ base + arm * v", "us(v | s)"
    Y = jg.lmm(plain, frame, residual=residual).simulate(TRIALS, seed=1).T

    def run() -> float:
        fits = jg.fit_many(plain, frame, responses=Y, residual=residual)
        return float(np.mean(fits.log_likelihood))

    return run


FORMULA = "y ~ base + arm * v + us(v | s)"
LINES: tuple[dict[str, Any], ...] = (
    {
        "name": "mmrm-kr",
        "title": "MMRM: 200 subjects by 4 visits, us, Kenward-Roger",
        "goal": 0.01,
        "work": "mmrm",
        "data": partial(trial, 200, 4, 0.3),
        "formula": FORMULA,
    },
    {
        "name": "mmrm-large",
        "title": "MMRM: 10,000 subjects by 12 visits, us, Satterthwaite",
        "goal": 1.0,
        "work": "mmrm",
        "data": partial(trial, 10_000, 12, 0.15),
        "formula": FORMULA,
    },
    {
        "name": "residual-ar1",
        "title": "AR(1) residuals, 1,000,000 rows, 20,000 groups",
        "goal": 1.5,
        "work": "mmrm",
        "data": partial(series, 20_000, 50),
        "formula": "y ~ x + ar1(t | g)",
    },
    {
        "name": "mmrm-many",
        "title": "1,000 trials of 200 subjects by 4 visits, us, Satterthwaite",
        "goal": 2.0,
        "work": "trials",
        "data": partial(trial, 200, 4, 0.3),
        "formula": FORMULA,
        "fits": TRIALS,
    },
)
