"""Data sets of the problems, made from fixed seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import jaxglmm as jg
from jaxglmm.datasets.read import read

TEST_DATA = Path(__file__).parent.parent / "tests" / "data"


def sleepstudy() -> pd.DataFrame:
    """180 reaction times, 18 subjects."""
    return jg.datasets.load("sleepstudy")


def insteval() -> pd.DataFrame:
    """73,421 ratings of 1,128 lecturers by 2,972 students in 14 departments."""
    return read(TEST_DATA, "InstEval")


def many_groups(groups: int = 125_066, size: int = 4) -> pd.DataFrame:
    """500,264 rows in 125,066 groups of four, random intercept and slope."""
    rng = np.random.default_rng(11)
    n = groups * size
    g = np.repeat(np.arange(groups), size)
    x1, x2 = rng.normal(size=(2, n))
    factor = np.array([[0.8, 0.0], [0.2, 0.5]])
    b = rng.normal(size=(groups, 2)) @ factor.T
    y = 1.0 + 0.5 * x1 - 0.3 * x2 + b[g, 0] + b[g, 1] * x1 + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x1": x1, "x2": x2, "g": g})


def crossed(n: int = 100_000, users: int = 10_000, items: int = 1_000) -> pd.DataFrame:
    """100,000 rows, 10,000 users by 1,000 items, at random."""
    rng = np.random.default_rng(1)
    u, i = rng.integers(0, users, n), rng.integers(0, items, n)
    x = rng.normal(size=n)
    mean = -0.5 + 0.3 * x + 0.7 * rng.normal(size=users)[u]
    mean += 0.5 * rng.normal(size=items)[i]
    y = mean + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "u": u.astype(str), "i": i.astype(str)})


def many_slopes(n: int = 30_000, groups: int = 300, slopes: int = 7) -> pd.DataFrame:
    """30,000 rows in 300 groups, an intercept and seven slopes, all correlated."""
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(groups), n // groups)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, slopes))])
    factor = np.tril(rng.normal(size=(slopes + 1, slopes + 1)) * 0.2)
    np.fill_diagonal(factor, np.linspace(1.0, 0.4, slopes + 1))
    b = rng.normal(size=(groups, slopes + 1)) @ factor.T
    y = X @ np.linspace(1.0, -1.0, slopes + 1) + (X * b[g]).sum(axis=1)
    frame = pd.DataFrame(X[:, 1:], columns=[f"x{k + 1}" for k in range(slopes)])
    return frame.assign(y=y + rng.normal(size=n), g=g)


def million(n: int = 1_000_000) -> pd.DataFrame:
    """A million rows: numbers, a category, integer and text grouping factors."""
    rng = np.random.default_rng(3)
    x1, x2, noise = rng.normal(size=(3, n))
    g, h = rng.integers(0, 50_000, n), rng.integers(0, 1_000, n)
    f = rng.integers(0, 5, n)
    y = 1.0 + 0.5 * x1 + rng.normal(size=50_000)[g] + rng.normal(size=1_000)[h] + noise
    labels = np.array([f"store {k:04d}" for k in range(1_000)])
    return pd.DataFrame(
        {
            "y": y,
            "x1": x1,
            "x2": x2,
            "f": pd.Categorical.from_codes(f, list("abcde")),
            "g": g,
            "h": pd.Categorical.from_codes(h, labels),
        }
    )


def cbpp() -> pd.DataFrame:
    """56 counts of sick animals in 15 herds, as proportions with their sizes."""
    frame = jg.datasets.load("cbpp")
    return frame.assign(proportion=frame["incidence"] / frame["size"])


def ohio() -> pd.DataFrame:
    """537 children, wheezing or not at four ages."""
    return jg.datasets.load("ohio")


def verbagg() -> pd.DataFrame:
    """7,584 answers of 316 persons to 24 items; the response as 0 and 1."""
    frame = jg.datasets.load("VerbAgg")
    return frame.assign(r2=(frame["r2"].astype(str) == "Y").astype(float))


def crossed_binary() -> pd.DataFrame:
    """``crossed`` with answers yes and no."""
    frame = crossed()
    rng = np.random.default_rng(2)
    users, items = frame["u"].astype(int), frame["i"].astype(int)
    eta = -0.5 + 0.3 * frame["x"] + 0.7 * rng.normal(size=10_000)[users]
    eta += 0.5 * rng.normal(size=1_000)[items]
    yes = rng.uniform(size=len(frame)) < 1 / (1 + np.exp(-eta))
    return frame.assign(y=yes.astype(float))


def million_counts(n: int = 1_000_000, groups: int = 50_000) -> pd.DataFrame:
    """A million counts, random intercept and slope of 50,000 groups."""
    rng = np.random.default_rng(5)
    g, x = rng.integers(0, groups, n), rng.normal(size=n)
    factor = np.array([[0.5, 0.0], [0.1, 0.3]])
    b = rng.normal(size=(groups, 2)) @ factor.T
    y = rng.poisson(np.exp(0.3 + 0.2 * x + b[g, 0] + b[g, 1] * x))
    return pd.DataFrame({"y": y.astype(float), "x": x, "g": g})
