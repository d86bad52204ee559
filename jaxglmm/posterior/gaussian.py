"""Draws of the Gaussian at the mode, with skewness: ``MAP``."""

from __future__ import annotations

import numpy as np

from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.estimate import proposal as _proposal
from jaxglmm.estimate.methods import BayesMethod
from jaxglmm.estimate.skewed import Frame, SkewGaussian, points
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.numerics import pareto_smoothing as pareto
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.posterior.evaluate import evaluate
from jaxglmm.posterior.outcome import Outcome

AXIS_STEPS = 30  # Newton steps for points along the axes, far from the mode
LOST = 0.01  # share of draws that count under which skewness is left out
ASTRAY = 0.1  # decrement of the modes of u above which a value counts for nothing


def run_gaussian(
    engine: PosteriorEngine,
    method: BayesMethod,
    marginal: AbstractMarginal,
    mode: _map.Mode,
) -> Outcome:
    """Draws of the Gaussian at the mode, corrected for skewness along its axes.

    The log evidence is Laplace's, of the Gaussian alone.
    """
    k, S = len(mode.x), method.draws
    uniform = _proposal.uniform(k, S, method.seed) if k else np.zeros((S, 0))
    law = _around(engine, marginal, mode, S)
    x, density = law.draws(uniform)
    found = evaluate(engine, marginal, mode, x, method.seed + 1)
    smoothed = pareto.smooth(found.log_lik + found.log_prior - density)
    if not smoothed.ess >= LOST * S:  # the axes lead astray: no skewness, then
        x, density = law.symmetric().draws(uniform)
        found = evaluate(engine, marginal, mode, x, method.seed + 1)
        smoothed = pareto.smooth(found.log_lik + found.log_prior - density)
    _, log_det = np.linalg.slogdet(mode.H)
    evidence = -float(mode.value) + k * HALF_LOG_2PI - log_det / 2
    return Outcome(
        method,
        marginal,
        mode,
        x,
        found.u,
        log_lik=found.log_lik,
        log_prior=found.log_prior,
        log_evidence=float(evidence),
        khat=smoothed.khat,
        ess=smoothed.ess,
        facts={"importance_weights": smoothed.weights},
    )


def _around(
    engine: PosteriorEngine, marginal: AbstractMarginal, mode: _map.Mode, S: int
) -> SkewGaussian:
    """The law of a mode's surroundings; S: draws that will be evaluated after."""
    frame = Frame.at(mode.x, mode.H, engine.posterior.problem.p)
    at = points(frame)
    if not len(at):
        return SkewGaussian.fitted(frame, np.zeros(0))
    found = evaluate(
        engine, marginal, mode, at, 0, steps=AXIS_STEPS, keep=False, like=S
    )
    known = found.nu <= ASTRAY
    values = np.where(known, found.log_lik + found.log_prior, np.nan)
    return SkewGaussian.fitted(frame, values)
