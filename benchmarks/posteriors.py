"""Posteriors: priors of statsmodels, so that all methods answer the same question.

The log-likelihood of a line is the log marginal likelihood, or the bound on it. A line
of NUTS is the time for one effective draw of the coefficient that mixes worst: its
first call holds all compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import jaxglmm as jg

if TYPE_CHECKING:
    from benchmarks.problem import Problem

METHODS = {
    "vb": jg.VB(nested=False),
    "vb-nested": jg.VB(nested=True),
    "nested-laplace": jg.NestedLaplace(draws=4000),
    "nested-laplace-1-node": jg.NestedLaplace(draws=4000, nodes=1),
    "nuts": jg.NUTS(draws=1000, chains=4),
    "nuts-1-node": jg.NUTS(draws=1000, chains=4, nodes=1),
}

Run = Callable[[], "float | None"]


# Data ---------------------------------------------------------------------------------


def cbpp() -> pd.DataFrame:
    """56 counts of 15 herds."""
    return jg.datasets.load("cbpp")


def verbagg() -> pd.DataFrame:
    """7,584 answers of 316 persons to 24 items."""
    frame = jg.datasets.load("VerbAgg")
    return frame.assign(y=(frame["r2"] == "Y").astype(int))


def herds(frame: pd.DataFrame, D: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Parameters from the prior (D, 5), and counts of the model of cbpp (56, D)."""
    rng = np.random.default_rng(31)
    periods = (frame["period"].to_numpy()[:, None] == ["2", "3", "4"]).astype(float)
    beta = np.column_stack([rng.normal(-1, 1, D), rng.normal(size=(D, 3))])
    sd = np.abs(rng.normal(size=D))
    codes = pd.factorize(frame["herd"])[0]
    b = sd[:, None] * rng.normal(size=(D, codes.max() + 1))
    eta = beta[:, :1] + beta[:, 1:] @ periods.T + b[:, codes]
    y = rng.binomial(frame["size"].to_numpy(int), 1 / (1 + np.exp(-eta)))
    return np.column_stack([beta, sd]), y.T


# Adapters -----------------------------------------------------------------------------


def method_of(problem: Problem) -> Any:
    """The method that a problem's name ends in."""
    return METHODS[problem.name.partition("-")[2]]


def jaxglmm_posterior(problem: Problem, frame: pd.DataFrame) -> Run:
    """The method alone: from a design to draws."""
    from jaxglmm.posterior.run import run as posterior_run

    method, priors = method_of(problem), jg.Priors.statsmodels()
    prepared = jg.glmm(
        problem.formula,
        frame,
        family=problem.family,
        method=jg.MAP(draws=16),
        priors=priors,
    )

    def run() -> float | None:
        out = posterior_run(prepared.density, method)
        return out.log_evidence if out.elbo is None else out.elbo

    return run


def jaxglmm_effective(problem: Problem, frame: pd.DataFrame) -> Run:
    """Seconds a draw that counts."""
    from jaxglmm.numerics.mcmc_diagnostics import bulk_ess
    from jaxglmm.posterior.run import run as posterior_run

    method, priors = method_of(problem), jg.Priors.statsmodels()
    options = {"family": problem.family, "priors": priors}
    design = jg.glmm(problem.formula, frame, method=jg.VB(draws=16), **options)

    def run() -> None:
        out = posterior_run(design.density, method)
        own = out.x.reshape(out.chains, -1, out.x.shape[1])
        least = min(bulk_ess(own[:, :, k]) for k in range(own.shape[2]))
        run.scale = 1 / least  # pyright: ignore[reportFunctionMemberAccess]

    return run


def jaxglmm_calibration(problem: Problem, frame: pd.DataFrame) -> Run:
    """The least p-value of uniform ranks, where others have a log-likelihood."""
    from scipy.stats import kstest

    truth, Y = herds(frame)
    priors = jg.Priors(
        coefficients=1.0,
        intercept=jg.Normal(-1, 1),
        sd=jg.HalfNormal(1),
        centered=False,
    )

    def run() -> float:
        fits = jg.fit_many(
            problem.formula,
            frame,
            responses=Y,
            family="binomial",
            trials="size",
            method=jg.NestedLaplace(draws=400),
            priors=priors,
            progress=False,
        )
        return min(kstest(r, "uniform").pvalue for r in fits.ranks(truth).T)

    return run


def jaxglmm_mean_field(problem: Problem, frame: pd.DataFrame) -> Run:
    """``fit_vb`` of compat's class."""
    from jaxglmm.compat.statsmodels import BinomialBayesMixedGLM

    model = _components(BinomialBayesMixedGLM, frame)
    return lambda: _bound(model, model.fit_vb())


def statsmodels_mean_field(problem: Problem, frame: pd.DataFrame) -> Run:
    """``fit_vb`` of the original."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    model = _components(BinomialBayesMixedGLM, frame)
    return lambda: _bound(model, model.fit_vb())


def _components(maker: Any, frame: pd.DataFrame) -> Any:
    formulas = {"id": "0 + C(id)", "item": "0 + C(item)"}
    return maker.from_formula(
        "y ~ Anger + Gender + btype + situ", formulas, frame, vcp_p=1, fe_p=2
    )


def _bound(model: Any, result: Any) -> float:
    sd = np.concatenate([result.fe_sd, result.vcp_sd, result.vc_sd])
    return float(model.vb_elbo(result.params, sd))


# Lines --------------------------------------------------------------------------------

CBPP = {
    "data": cbpp,
    "formula": "cbind(incidence, size - incidence) ~ period + (1 | herd)",
    "family": "binomial",
}
VERBAGG = {
    "data": verbagg,
    "formula": "y ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
    "family": "binomial",
}
LINES: tuple[dict[str, Any], ...] = (
    {
        "name": "verbagg-vb",
        "title": "VerbAgg, variational Bayes, 4,000 draws",
        "goal": 0.06,
        "work": "posterior",
        **VERBAGG,
    },
    {
        "name": "verbagg-vb-nested",
        "title": "the same, variance parameters integrated",
        "goal": 0.25,
        "work": "posterior",
        **VERBAGG,
    },
    {
        "name": "verbagg-fit-vb",
        "title": "VerbAgg, compat's fit_vb at statsmodels' objective",
        "goal": 0.1,
        "work": "mean_field",
        "slow": ("statsmodels",),
        **VERBAGG,
    },
    {
        "name": "verbagg-nested-laplace",
        "title": "VerbAgg, nested Laplace, 4,000 draws",
        "goal": 5.0,
        "work": "posterior",
        **VERBAGG,
    },
    {
        "name": "cbpp-nested-laplace",
        "title": "cbpp, nested Laplace, 4,000 draws, on 9-node quadrature",
        "goal": 0.04,
        "work": "posterior",
        **CBPP,
    },
    {
        "name": "cbpp-nested-laplace-1-node",
        "title": "the same on Laplace's approximation",
        "goal": 0.04,
        "work": "posterior",
        **CBPP,
    },
    {
        "name": "cbpp-nuts",
        "title": "cbpp, NUTS on 9-node quadrature, time for an effective draw",
        "goal": 1 / 15_000,
        "work": "effective",
        "note": "goal of the first call: 3.3 ms",
        **CBPP,
    },
    {
        "name": "cbpp-nuts-1-node",
        "title": "the same on Laplace's approximation",
        "goal": 1 / 15_000,
        "work": "effective",
        "note": "goal of the first call: 3.3 ms",
        **CBPP,
    },
    {
        "name": "calibration",
        "title": "1,000 data sets from the prior, fitted, ranks of the truth",
        "goal": 60.0,
        "work": "calibration",
        "fits": 1000,
        "note": "in place of the log-likelihood: least p-value of uniform ranks",
        **{**CBPP, "formula": "y ~ period + (1 | herd)"},
    },
)
