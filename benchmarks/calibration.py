"""Whether posteriors are right: parameters from the prior, data from them, ranks.

Simulation-based calibration (Talts, Betancourt, Simpson, Vehtari and Gelman 2018): the
rank of each true parameter among the draws of its posterior is uniform where the
posterior is the right one. A line's log-likelihood is the least p-value of Kolmogorov's
and Smirnov's test over the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import jaxglmm as jg

GROUPS, EACH = 12, 8
CUTS = 3  # thresholds
PRIOR = {
    "coefficients": 0.7,
    "intercept": jg.Normal(0.3, 0.7),
    "sd": jg.HalfNormal(0.7),
    "centered": False,
}


@dataclass(frozen=True)
class Drawn:
    """Models drawn from their prior.

    truth: (D, k), in the order of a posterior's names; Y: (n, D); options: of
    ``fit_many``.
    """

    frame: pd.DataFrame
    truth: np.ndarray
    Y: np.ndarray
    options: dict[str, Any]

    def posteriors(self, draws: int = 300) -> Any:
        """By nested Laplace, one data set after the other."""
        return jg.fit_many(
            "y ~ x + (1 | g)",
            self.frame,
            responses=self.Y,
            method=jg.NestedLaplace(draws=draws),
            progress=False,
            **self.options,
        )


def design(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """A covariate and groups, and the codes of these."""
    g = np.repeat(np.arange(GROUPS), EACH)
    x = rng.normal(size=len(g))
    return pd.DataFrame({"x": x - x.mean(), "g": [f"g{k}" for k in g]}), g


def counts(D: int, seed: int, hurdle: bool = False) -> Drawn:
    """Negative binomial counts with zeros of their own, or a hurdle before counts."""
    rng = np.random.default_rng(seed)
    frame, g = design(rng)
    x = frame["x"].to_numpy()[:, None]
    b0, zi = rng.normal(0.3, 0.7, (2, D))
    b1, sd = rng.normal(0.0, 0.7, D), np.abs(rng.normal(0.0, 0.7, D))
    size = np.exp(rng.normal(1.0, 0.5, D))
    mu = np.exp(b0 + b1 * x + (sd * rng.normal(size=(GROUPS, D)))[g])
    y = _negative_binomial(rng, mu, size)
    if hurdle:  # drawn again until they are positive
        while (again := y == 0).any():
            y = np.where(again, _negative_binomial(rng, mu, size), y)
    y = np.where(rng.random(y.shape) < 1 / (1 + np.exp(-zi)), 0, y)
    priors = jg.Priors(dispersion=jg.LogNormal(1.0, 0.5), **PRIOR)
    options = {
        "family": "truncated_nbinom2" if hurdle else "nbinom2",
        "zi": "~ 1",
        "priors": priors,
    }
    return Drawn(frame, np.column_stack([b0, b1, zi, sd, size]), y, options)


def _negative_binomial(
    rng: np.random.Generator, mu: np.ndarray, size: np.ndarray
) -> np.ndarray:
    return rng.poisson(np.minimum(mu * rng.gamma(size, 1 / size, mu.shape), 1e9))


def categories(D: int, seed: int) -> Drawn:
    """Ordered categories; all occur, or the data set is not drawn."""
    rng = np.random.default_rng(seed)
    frame, g = design(rng)
    x = frame["x"].to_numpy()
    truth, Y = [], []
    while len(truth) < D:
        theta = np.sort(rng.normal(0.0, 1.0, CUTS))
        b1, sd = rng.normal(0.0, 0.7), abs(rng.normal(0.0, 0.7))
        latent = b1 * x + sd * rng.normal(size=GROUPS)[g] + rng.logistic(size=len(g))
        y = np.searchsorted(theta, latent)
        if len(np.unique(y)) > CUTS:  # a choice by the data leaves posteriors right
            Y.append(y)
            truth.append([b1, sd, *theta])
    options = {
        "family": jg.Cumulative(levels=list(range(CUTS + 1))),
        "priors": jg.Priors(
            coefficients=0.7, sd=jg.HalfNormal(0.7), thresholds=1.0, centered=False
        ),
    }
    return Drawn(frame, np.array(truth), np.array(Y).T.astype(float), options)


KINDS: dict[str, Callable[[int, int], Drawn]] = {
    "zinb": counts,
    "hurdle": lambda D, seed: counts(D, seed, hurdle=True),
    "ordinal": categories,
}


def least(ranks: np.ndarray) -> float:
    """The least p-value over the parameters; ranks: (D, k) in 0 to 1.

    Of the ranks, which sees posteriors beside the truth, and of their distance from the
    middle, which sees those that are too narrow or too wide.
    """
    from scipy.stats import kstest

    known = ranks[~np.isnan(ranks).any(axis=1)]
    both = np.concatenate([known, np.abs(2 * known - 1)], axis=1)
    return min(float(kstest(r, "uniform").pvalue) for r in both.T)


# Lines --------------------------------------------------------------------------------

MANY = 100  # data sets of a line


def jaxglmm_ranks(problem: Any, frame: pd.DataFrame) -> Callable[[], float]:
    """The least p-value, where others have a log-likelihood."""
    drawn = KINDS[problem.name.partition("-")[2]](MANY, 7)

    def run() -> float:
        return least(drawn.posteriors().ranks(drawn.truth))

    run.once = True  # pyright: ignore[reportFunctionMemberAccess]
    return run


LINES: tuple[dict[str, Any], ...] = tuple(
    {
        "name": f"calibration-{kind}",
        "title": f"{MANY} {what} from the prior, ranks of the truth",
        "goal": 60.0,
        "data": pd.DataFrame,
        "formula": "y ~ x + (1 | g)",
        "work": "ranks",
        "fits": MANY,
        "note": "in place of the log-likelihood: least p-value of uniform ranks",
    }
    for kind, what in (
        ("zinb", "zero-inflated counts"),
        ("hurdle", "hurdle models"),
        ("ordinal", "ordinal models"),
    )
)
