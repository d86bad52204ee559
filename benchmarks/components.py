"""Zero inflation, dispersion and categories, beside R's glmmTMB and ordinal."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg
from benchmarks import data

PACKAGES = ("glmmTMB", "ordinal")  # of R
Run = Callable[[], "float | None"]


# Data ---------------------------------------------------------------------------------


def wine() -> pd.DataFrame:
    """72 ratings of wine by nine judges, five categories."""
    return pd.read_csv(data.TEST_DATA / "wine_rating.csv.gz")


def salamanders() -> pd.DataFrame:
    """644 counts of salamanders at 23 sites."""
    return jg.datasets.load("Salamanders")


def owls() -> pd.DataFrame:
    """599 counts of calls of owls in 27 nests."""
    return jg.datasets.load("Owls")


def items(persons: int = 10_000, many: int = 100, n: int = 100_000) -> pd.DataFrame:
    """100,000 answers of 10,000 persons to 100 items, five categories."""
    rng = np.random.default_rng(21)
    p, i = rng.integers(0, persons, n), rng.integers(0, many, n)
    x = rng.normal(size=n)
    latent = 0.5 * x + rng.normal(size=persons)[p] + 0.7 * rng.normal(size=many)[i]
    latent = latent + rng.logistic(size=n)
    y = np.digitize(latent, [-2.0, -0.7, 0.7, 2.0]) + 1
    return pd.DataFrame({"y": y, "x": x, "p": p.astype(str), "i": i.astype(str)})


def zeros(groups: int = 20_000, each: int = 25) -> pd.DataFrame:
    """500,000 counts in 20,000 groups, a slope in the mean, a fifth of added zeros."""
    rng = np.random.default_rng(22)
    g = np.repeat(np.arange(groups), each)
    x = rng.normal(size=len(g))
    b = rng.normal(size=(groups, 2)) * [0.6, 0.3]
    mu = np.exp(0.7 + 0.3 * x + b[g, 0] + b[g, 1] * x)
    y = rng.poisson(mu * rng.gamma(2.0, 0.5, len(g)))
    return pd.DataFrame({"y": np.where(rng.random(len(g)) < 0.2, 0, y), "x": x, "g": g})


def cells(donors: int = 20, n: int = 300) -> pd.DataFrame:
    """300 cells of 20 donors, half of them treated, with library sizes."""
    rng = np.random.default_rng(23)
    donor = np.sort(rng.permutation(np.arange(n) % donors))
    return pd.DataFrame(
        {
            "donor": donor.astype(str),
            "treated": (donor % 2).astype(float),
            "logdepth": rng.normal(0, 0.4, n),
        }
    )


def counts(frame: pd.DataFrame, D: int = 5_000) -> np.ndarray:
    """(300, D) counts with zeros of their own."""
    rng = np.random.default_rng(24)
    codes = pd.factorize(frame["donor"])[0]
    eta = rng.normal(0.8, 0.7, D) + 0.4 * rng.normal(size=(codes.max() + 1, D))[codes]
    eta = eta + frame["logdepth"].to_numpy()[:, None]
    mu = np.exp(eta) * rng.gamma(2.0, 0.5, eta.shape)
    return np.where(rng.random(eta.shape) < 0.2, 0, rng.poisson(mu))


def ratings(frame: pd.DataFrame, D: int = 10_000) -> np.ndarray:
    """(72, D) ratings drawn from the model of wine."""
    fit = jg.clmm("rating ~ temp + contact + (1 | judge)", frame)
    return np.ascontiguousarray(fit.simulate(D, seed=1).T.astype(float))


def strata(groups: int = 125_000, each: int = 4) -> pd.DataFrame:
    """500,000 rows in 125,000 groups, residuals of three standard deviations."""
    rng = np.random.default_rng(25)
    g = np.repeat(np.arange(groups), each)
    f = rng.integers(0, 3, len(g))
    x = rng.normal(size=len(g))
    e = rng.normal(size=len(g)) * np.array([0.5, 1.0, 1.6])[f]
    y = 1.0 + 0.5 * x + 0.7 * rng.normal(size=groups)[g] + e
    letters = pd.Categorical(np.array(list("abc"))[f])
    return pd.DataFrame({"y": y, "x": x, "g": g, "f": letters})


# Lines --------------------------------------------------------------------------------

ZERO = {"reml": False, "work": "component"}
WINE = {"data": wine, "formula": "rating ~ temp + contact + (1 | judge)", **ZERO}
LINES: tuple[dict[str, Any], ...] = (
    {
        "name": "salamanders-zi",
        "title": "Salamanders, nbinom2, zi ~ mined, fit and summary",
        "goal": 0.03,
        "data": salamanders,
        "formula": "count ~ spp * mined + (1 | site)",
        "engines": ("jaxglmm", "glmmTMB"),
        "note": "goal: a thirtieth of glmmTMB",
        **ZERO,
    },
    {
        "name": "owls-zi",
        "title": "Owls, nbinom1, zi ~ 1, fit and summary",
        "goal": 0.03,
        "data": owls,
        "formula": "SiblingNegotiation ~ FoodTreatment * SexParent + (1 | Nest)",
        "engines": ("jaxglmm", "glmmTMB"),
        "note": "goal: a thirtieth of glmmTMB",
        **ZERO,
    },
    {
        "name": "wine",
        "title": "wine, ordinal, Laplace, fit and summary",
        "goal": 0.005,
        "engines": ("jaxglmm", "ordinal"),
        **WINE,
    },
    {
        "name": "wine-10",
        "title": "the same by 10 nodes",
        "goal": 0.02,
        "nodes": 10,
        "engines": ("jaxglmm", "ordinal"),
        **WINE,
    },
    {
        "name": "items",
        "title": "ordinal, 100,000 rows, 10,000 persons by 100 items",
        "goal": 2.0,
        "data": items,
        "formula": "y ~ x + (1 | p) + (1 | i)",
        "slow": ("ordinal",),
        **ZERO,
    },
    {
        "name": "zinb",
        "title": "zinb, 500,000 rows, 20,000 groups, (x | g)",
        "goal": 3.0,
        "data": zeros,
        "formula": "y ~ x + (x | g)",
        "slow": ("glmmTMB",),
        **ZERO,
    },
    {
        "name": "dispersion",
        "title": "Gaussian, dispersion by a factor, 500,000 rows, 125,000 groups",
        "goal": 1.0,
        "data": strata,
        "formula": "y ~ x + (1 | g)",
        "slow": ("glmmTMB",),
        "note": "goal: twice the model without",
        **ZERO,
    },
    {
        "name": "batch-zinb",
        "title": "5,000 genes x 300 cells x 20 donors, zinb with offsets",
        "goal": 15.0,
        "data": cells,
        "formula": "y ~ treated + (1 | donor)",
        "fits": 5_000,
        **ZERO,
    },
    {
        "name": "batch-wine",
        "title": "10,000 x wine, ordinal, whole call with standard errors",
        "goal": 2.0,
        "fits": 10_000,
        "note": "goal: 5,000 fits/s",
        **WINE,
    },
)
OPTIONS: dict[str, dict[str, Any]] = {
    "salamanders-zi": {"family": "nbinom2", "zi": "~ mined"},
    "owls-zi": {
        "family": "nbinom1",
        "zi": "~ 1",
        "offset": "logBroodSize",
    },
    "zinb": {"family": "nbinom2", "zi": "~ 1"},
    "dispersion": {"family": "gaussian", "dispersion": "~ f", "reml": True},
    "batch-zinb": {"family": "nbinom2", "zi": "~ 1", "offset": "logdepth"},
}
CALLS = {  # in R; d is the table
    "salamanders-zi": "glmmTMB(count ~ spp * mined + (1 | site), d, family = nbinom2, "
    "ziformula = ~ mined)",
    "owls-zi": "glmmTMB(SiblingNegotiation ~ FoodTreatment * SexParent + (1 | Nest), "
    "d, family = nbinom1, ziformula = ~ 1, offset = logBroodSize)",
    "wine": "clmm(factor(rating) ~ temp + contact + (1 | judge), data = d)",
    "wine-10": "clmm(factor(rating) ~ temp + contact + (1 | judge), data = d, "
    "nAGQ = 10)",
    "items": "clmm(factor(y) ~ x + (1 | p) + (1 | i), data = d)",
    "zinb": "glmmTMB(y ~ x + (x | g), d, family = nbinom2, ziformula = ~ 1)",
    "dispersion": "glmmTMB(y ~ x + (1 | g), d, dispformula = ~ f, REML = TRUE)",
}


def jaxglmm_component(problem: Any, frame: pd.DataFrame) -> Run:
    """The whole call, and the summary of one model."""
    options = dict(OPTIONS.get(problem.name, {"family": jg.Cumulative()}))
    if problem.fits:
        draw = ratings if problem.name == "batch-wine" else counts
        options["responses"] = draw(frame)
        few = slice(100)

        def many() -> float:
            fits = jg.fit_many(problem.formula, frame, **options)
            return float(np.nanmean(fits.log_likelihood[few]))

        return many
    if problem.nodes > 1:
        options["method"] = jg.AGQ(problem.nodes)

    def run() -> float:
        fit = jg.glmm(problem.formula, frame, **options)
        fit.summary()
        return fit.log_likelihood

    return run


def in_r(problem: Any, engine: str, budget: float) -> dict[str, Any]:
    """A package of R, timed inside R."""
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "data.csv"
        problem.data().to_csv(csv, index=False)
        script = Path(__file__).parent / "components.R"
        given = [str(csv), engine, CALLS[problem.name], str(budget)]
        command = ["Rscript", str(script), *given]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])
