"""Structures over many times, and levels with a known covariance between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg

GROUPS, TIMES = 1000, 100
PERSONS, TRAITS = 2000, 10_000
SPECIES, ROWS = 1000, 5000


def counts_over_time() -> pd.DataFrame:
    """Counts of 1,000 groups at 100 times, effects an AR(1) of 0.7."""
    rng = np.random.default_rng(1)
    b = np.zeros((GROUPS, TIMES))
    b[:, 0] = rng.normal(size=GROUPS)
    for t in range(1, TIMES):
        b[:, t] = 0.7 * b[:, t - 1] + np.sqrt(1 - 0.49) * rng.normal(size=GROUPS)
    x = rng.normal(size=b.size)
    count = rng.poisson(np.exp(0.3 + 0.4 * x + 0.6 * b.ravel()))
    g, t = np.repeat(np.arange(GROUPS), TIMES), np.tile(np.arange(TIMES), GROUPS)
    frame = pd.DataFrame({"y": count, "x": x, "g": g, "time": t})
    return frame.astype({"g": "category", "time": "category"})


def persons() -> pd.DataFrame:
    """2,000 persons with a covariate, one row each."""
    rng = np.random.default_rng(2)
    id = [f"p{k:04d}" for k in range(PERSONS)]
    return pd.DataFrame({"id": id, "x": rng.normal(size=PERSONS)})


def kinship(frame: pd.DataFrame) -> pd.DataFrame:
    """From 6,000 markers, half of it; the other half unrelated."""
    markers = np.random.default_rng(3).normal(size=(PERSONS, 3 * PERSONS))
    K = 0.5 * markers @ markers.T / (3 * PERSONS) + 0.5 * np.eye(PERSONS)
    return pd.DataFrame(K, frame["id"], frame["id"])


def jaxglmm_traits(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """10,000 traits of related persons, the decomposition among it."""
    K, rng = kinship(frame), np.random.default_rng(4)
    b = np.linalg.cholesky(K.to_numpy()) @ rng.normal(size=(PERSONS, TRAITS))
    Y = 0.7 * b + 0.6 * rng.normal(size=b.shape)

    def run() -> float:
        fits = jg.fit_many(problem.formula, frame, responses=Y, known={"id": K})
        return float(fits.log_likelihood.mean())

    return run


def tree(rng: np.random.Generator, tips: int) -> str:
    """A random binary tree in Newick's format, tips s0, s1, ... at one depth."""
    nodes = [(f"s{k}", 0.0) for k in range(tips)]
    height = 0.0
    while len(nodes) > 1:
        height += rng.exponential(1.0 / len(nodes))
        (a, first), (b, second) = (
            nodes.pop(int(rng.integers(len(nodes)))) for _ in range(2)
        )
        text = f"({a}:{height - first:.8f},{b}:{height - second:.8f})"
        nodes.append((text, height))
    return nodes[0][0] + ";"


def species() -> pd.DataFrame:
    """5,000 counts of 1,000 species; the tree's covariance in ``attrs``."""
    rng = np.random.default_rng(5)
    C = jg.phylogeny(tree(rng, SPECIES), correlation=True)
    b = np.linalg.cholesky(C.to_numpy()) @ rng.normal(size=SPECIES)
    code = rng.integers(0, SPECIES, ROWS)
    x = rng.normal(size=ROWS)
    count = rng.poisson(np.exp(0.5 + 0.3 * x + 0.6 * b[code]))
    frame = pd.DataFrame({"y": count, "x": x, "phylo": C.index.to_numpy()[code]})
    frame.attrs["C"] = C
    return frame


def jaxglmm_phylogeny(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """A Poisson model of the species, the whole call."""
    known = {"phylo": frame.attrs["C"]}

    def run() -> float:
        return jg.glmm(
            problem.formula, frame, family=problem.family, known=known
        ).log_likelihood

    return run


LINES: tuple[dict[str, Any], ...] = (
    {
        "name": "ar1-counts",
        "title": "AR(1) effects, Poisson, 1,000 groups of 100 times",
        "goal": 2.0,
        "data": counts_over_time,
        "formula": "y ~ x + ar1(0 + time | g)",
        "family": "poisson",
        "reml": False,
    },
    {
        "name": "kinship",
        "title": "10,000 traits of 2,000 related persons, with the decomposition",
        "goal": 3.0,
        "work": "traits",
        "data": persons,
        "formula": "y ~ x + (1 | id)",
        "fits": TRAITS,
    },
    {
        "name": "phylogeny",
        "title": "phylogeny of 1,000 species, Poisson, 5,000 rows",
        "goal": 5.0,
        "work": "phylogeny",
        "data": species,
        "formula": "y ~ x + (1 | phylo)",
        "family": "poisson",
        "reml": False,
    },
)
