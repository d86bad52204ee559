"""One small adapter a program: a problem and its data to something that can be timed.

An adapter ``<engine>_<work>(problem, frame)`` returns a function of no arguments that
does the work and returns the log-likelihood (None where there is none). Nothing is
tuned: every program runs as a user would call it.
"""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks import (
    batches,
    calibration,
    components,
    doors,
    inference,
    posteriors,
    questions,
    repeated,
    session,
    structured,
)
from benchmarks.problem import Problem

Run = Callable[[], "float | None"]

BOOTSTRAP = 10_000


def available(engine: str) -> bool:
    """Whether the program is there, without importing it."""
    if engine == "lme4" or engine in components.PACKAGES:
        return shutil.which("Rscript") is not None
    return importlib.util.find_spec(engine) is not None


def adapter(engine: str, work: str) -> Callable[[Problem, pd.DataFrame], Run]:
    """The function of this module that makes the work."""
    name = f"{engine}_{work}"
    rooms = (
        vars(module)
        for module in (
            batches,
            calibration,
            components,
            doors,
            inference,
            posteriors,
            questions,
            repeated,
            session,
            structured,
        )
    )
    return next((room[name] for room in rooms if name in room), None) or globals()[name]


# jaxglmm ----------------------------------------------------------------------------


def jaxglmm_fit(problem: Problem, frame: pd.DataFrame) -> Run:
    from jaxglmm.api.models import lmm

    if problem.family != "gaussian":
        return _jaxglmm_generalised(problem, frame)

    def run():
        fit = lmm(problem.formula, frame, reml=problem.reml)
        if problem.name == "sleepstudy":
            fit.p_values  # noqa: B018 - Satterthwaite is computed when asked for
        return fit.log_likelihood

    return run


def _jaxglmm_generalised(problem: Problem, frame: pd.DataFrame) -> Run:
    import jaxglmm as jg

    def run():
        fit = jg.glmm(problem.formula, frame, **_generalised(problem))
        if problem.name == "cbpp-call":
            fit.p_values  # noqa: B018 - the Hessian is computed when asked for
        return fit.log_likelihood

    return run


def _generalised(problem: Problem) -> dict:
    import jaxglmm as jg

    method = jg.AGQ(problem.nodes) if problem.nodes > 1 else jg.Laplace()
    return {"family": problem.family, "weights": problem.weights, "method": method}


def jaxglmm_alone(problem: Problem, frame: pd.DataFrame) -> Run:
    """The compiled fit, from arrays on the device to arrays on the host."""
    import jaxglmm as jg

    engine = jg.glmm(problem.formula, frame, **_generalised(problem)).engine
    return lambda: -float(engine.fit().criterion) / 2


def jaxglmm_refit(problem: Problem, frame: pd.DataFrame) -> Run:
    import jaxglmm as jg

    fit = jg.lmm(problem.formula, frame, reml=problem.reml)
    y = frame[problem.response].to_numpy()
    return lambda: fit.refit(y).log_likelihood


def jaxglmm_bootstrap(problem: Problem, frame: pd.DataFrame) -> Run:
    import jaxglmm as jg

    fit = jg.lmm(problem.formula, frame, reml=problem.reml)
    return lambda: float(np.mean(fit.bootstrap(BOOTSTRAP, seed=1).log_likelihood))


def jaxglmm_build(problem: Problem, frame: pd.DataFrame) -> Run:
    from jaxglmm.formula import design_from_formula
    from jaxglmm.model.assemble import moments

    def run():
        moments(design_from_formula(problem.formula, frame))

    return run


# Peers ------------------------------------------------------------------------------


def glmm_fit(problem: Problem, frame: pd.DataFrame) -> Run:
    import glmm

    if problem.family != "gaussian":
        return glmm_alone(problem, frame)
    df = problem.name == "sleepstudy"

    def run():
        fit = glmm.fit(frame, problem.formula, reml=problem.reml, satterthwaite=df)
        return fit.loglik

    return run


def glmm_refit(problem: Problem, frame: pd.DataFrame) -> Run:
    import glmm

    def run():
        fit = glmm.fit(frame, problem.formula, reml=problem.reml, satterthwaite=False)
        return fit.loglik

    return run


def glmm_alone(problem: Problem, frame: pd.DataFrame) -> Run:
    import glmm

    options = {"family": problem.family, "nagq": problem.nodes}
    if problem.weights:
        options["weights"] = frame[problem.weights].to_numpy(float)
    return lambda: glmm.fit(frame, problem.formula, **options).loglik


def glmm_bootstrap(problem: Problem, frame: pd.DataFrame) -> Run:
    import glmm

    import jaxglmm as jg

    responses = jg.lmm(problem.formula, frame).simulate(BOOTSTRAP, seed=1)
    columns = {c: frame[c] for c in frame}

    def run():
        total = 0.0
        for y in responses:
            new = {**columns, problem.response: y}
            total += glmm.fit(new, problem.formula, satterthwaite=False).loglik
        return total / len(responses)

    return run


def mixedlm_fit(problem: Problem, frame: pd.DataFrame) -> Run:
    import mixedlm

    def run():
        fit = mixedlm.lmer(problem.formula, frame, REML=problem.reml)
        return float(fit.logLik().value)

    return run


def mixedlm_refit(problem: Problem, frame: pd.DataFrame) -> Run:
    import mixedlm

    fit = mixedlm.lmer(problem.formula, frame, REML=problem.reml)
    y = frame[problem.response].to_numpy(float)
    return lambda: float(fit.refit(y).logLik().value)


def pystatistics_fit(problem: Problem, frame: pd.DataFrame) -> Run:
    from pystatistics.mixed import lmm

    y = frame[problem.response].to_numpy(float)
    X, groups = fixed_matrix(problem, frame), group_labels(problem, frame)
    slopes = {t for _, terms in problem.random for t in terms if t != "1"}
    options = {
        "random_effects": {g: list(terms) for g, terms in problem.random},
        "random_data": {t: frame[t].to_numpy(float) for t in slopes},
        "reml": problem.reml,
        "compute_satterthwaite": problem.name == "sleepstudy",
    }
    return lambda: float(lmm(y, X, groups, **options).log_likelihood)


def statsmodels_fit(problem: Problem, frame: pd.DataFrame) -> Run:
    import statsmodels.formula.api as smf

    ((group, terms),) = problem.random
    formula = f"{problem.response} ~ {' + '.join(problem.fixed)}"
    re_formula = f"~ {' + '.join(terms)}"

    def run():
        model = smf.mixedlm(formula, frame, groups=frame[group], re_formula=re_formula)
        return float(model.fit(reml=problem.reml).llf)

    return run


def gpboost_fit(problem: Problem, frame: pd.DataFrame) -> Run:
    """Random intercepts by maximum likelihood (it has no REML)."""
    import gpboost

    kinds = {"gaussian": "gaussian", "binomial": "bernoulli_logit"}
    likelihood = kinds[problem.family]

    y = frame[problem.response].to_numpy(float)
    X = fixed_matrix(problem, frame)
    labels = np.column_stack(list(group_labels(problem, frame).values()))

    def run():
        model = gpboost.GPModel(group_data=labels, likelihood=likelihood)
        model.fit(y=y, X=X)
        return -float(model.get_current_neg_log_likelihood())

    return run


def fixed_matrix(problem: Problem, frame: pd.DataFrame) -> np.ndarray:
    """X with an intercept, treatment contrasts for factors."""
    columns = pd.get_dummies(frame[list(problem.fixed)], drop_first=True)
    return np.column_stack([np.ones(len(frame)), columns.to_numpy(float)])


def group_labels(problem: Problem, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Labels of each grouping factor as text."""
    return {g: frame[g].astype(str).to_numpy() for g, _ in problem.random}


def quiet() -> None:
    """Peers warn a lot; what they found is in the table."""
    warnings.simplefilter("ignore")
