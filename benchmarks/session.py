"""A long session: many models of many shapes in one process, and what it holds then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg

LEVELS = (*range(8, 17), *range(18, 34, 2), *range(36, 68, 4))  # no two of one size
FORMULAS = (
    ("number ~ x + (1 | g)", "gaussian"),
    ("number ~ x + (x | g)", "gaussian"),
    ("count ~ x + (1 | g)", "poisson"),
    ("yes ~ x + (x | g)", "binomial"),
)
EACH, ROWS = 3, 8  # data sets of a shape, rows of a level
SUMMARISED = 3  # of every so many fits the summary is asked for


def data() -> pd.DataFrame:
    """Responses of three kinds in 64 levels, in three versions."""
    rng = np.random.default_rng(12)
    g = np.repeat(np.arange(max(LEVELS)), ROWS)
    parts = []
    for version in range(EACH):
        x, noise = rng.normal(size=(2, len(g)))
        b = rng.normal(size=(2, max(LEVELS))) * [[0.7], [0.4]]
        eta = 0.4 + 0.3 * x + b[0][g] + b[1][g] * x
        part = {"version": version, "g": g, "x": x, "number": eta + noise}
        part["count"] = rng.poisson(np.exp(eta))
        part["yes"] = (rng.uniform(size=len(g)) < 1 / (1 + np.exp(-eta))).astype(int)
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def jaxglmm_many_shapes(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """All models, the log-likelihood summed; a second time would take as long."""

    def run() -> float:
        total, count = 0.0, 0
        for version, whole in frame.groupby("version"):
            del version
            for levels in LEVELS:
                some = whole[whole["g"] < levels]
                for formula, family in FORMULAS:
                    fit = fitted(formula, some, family)
                    total += fit.log_likelihood
                    if count % SUMMARISED == 0:
                        str(fit.summary())
                    count += 1
        return total

    run.once = True  # pyright: ignore[reportFunctionMemberAccess]
    return run


def formulas() -> Iterator[str]:
    """Formulas of one kind, no two of one shape: columns, a factor, random effects."""
    parts = ("(1 | g)", "(x | g)", "(x || g)", "(a | g)", "(1 | g) + (0 + a | g)")
    extra = ("", " + b", " + b + c", " + b * c", " + poly(b, 2)", " + f", " + f + b")
    yield from (f"{{y}} ~ x + a{e} + {p}" for e in extra for p in parts)


def jaxglmm_another(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """A formula that has not been fitted in this process, and its summary."""
    rng = np.random.default_rng(3)
    frame = frame.query("version == 0").reset_index(drop=True)
    for name in "abc":
        frame[name] = rng.normal(size=len(frame))
    frame["f"] = rng.choice(list("pqrst"), size=len(frame))
    y = "number" if problem.family == "gaussian" else "count"
    str(fitted(f"{y} ~ x + (1 | g)", frame, problem.family).summary())  # of the kind
    times: list[float] = []

    def run() -> float:
        for formula in formulas():
            start = time.perf_counter()
            fit = fitted(formula.format(y=y), frame, problem.family)
            str(fit.summary())
            times.append(time.perf_counter() - start)
        return fit.log_likelihood

    run.times = times  # pyright: ignore[reportFunctionMemberAccess]
    return run


def fitted(formula: str, frame: pd.DataFrame, family: str) -> Any:
    """As a user would fit it."""
    if family == "gaussian":
        return jg.lmm(formula, frame)
    return jg.glmm(formula, frame, family=family, method=jg.Laplace())


LINES: tuple[dict[str, Any], ...] = (
    {
        "name": "many-shapes",
        "title": "300 models of 100 shapes in one process, every third summarised",
        "goal": 600.0,
        "work": "many_shapes",
        "memory_goal": 1.5,
        "patience": 1800.0,
        "data": data,
        "formula": "number ~ x + (1 | g)",
    },
    {
        "name": "session",
        "title": "a first session: twelve models, profile, bootstrap; fresh process",
        "goal": 9.0,
        "work": "fresh_session",
        "engines": ("jaxglmm", "lme4"),
        "data": data,
        "formula": "see first_session.py",
    },
    {
        "name": "session-cached",
        "title": "the same, programs of an earlier process on disk",
        "goal": 2.5,
        "work": "fresh_session_cached",
        "data": data,
        "formula": "see first_session.py",
    },
    {
        "name": "import",
        "title": "import up to jaxglmm.lmm, numpy and jax apart",
        "goal": 0.15,
        "work": "fresh_import",
        "data": data,
        "formula": "",
    },
    {
        "name": "another",
        "title": "another formula of a kind seen before: fit and summary, linear",
        "goal": 0.05,
        "work": "another",
        "data": data,
        "formula": "number ~ x + a + ... + (x | g)",
        "note": "no two calls of one shape",
    },
    {
        "name": "another-counts",
        "title": "the same, Poisson",
        "goal": 0.05,
        "work": "another",
        "family": "poisson",
        "data": data,
        "formula": "count ~ x + a + ... + (x | g)",
        "note": "no two calls of one shape",
    },
)
