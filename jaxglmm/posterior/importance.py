"""Running nested Laplace: proposals around the mode, weighed, followed where need be.

Where the posterior is skewed or has a long tail (a variance that may be zero), a t
around its mode misses part of it, which Pareto k-hat tells. Then further draws come
from a proposal fitted to those so far, and all are weighed by the mixture of all
proposals (adaptive multiple importance sampling: Cornuet, Marin, Mira and Robert 2012):
nothing that was evaluated is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.estimate.methods import NestedLaplace
from jaxglmm.estimate.posterior_mode import Mode
from jaxglmm.estimate.proposal import SplitT, log_mixture
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.numerics import pareto_smoothing as pareto
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.posterior.evaluate import EvaluatedPosterior, evaluate
from jaxglmm.posterior.mode import NOWHERE
from jaxglmm.posterior.outcome import Outcome

SKEWED = 0.5  # Pareto k-hat from which proposals follow the draws
FEW = 0.1  # effective draws of those asked for under which they do, too
STAGES = 4
LOST = 0.05  # weighted decrement of the modes from which more steps are taken
FAR_STEPS = 4  # Newton steps for modes of u far from the posterior's mode


def run_importance(
    engine: PosteriorEngine,
    method: NestedLaplace,
    marginal: AbstractMarginal,
    mode: Mode,
) -> Outcome:
    """Draws, weights and what they say of themselves."""
    S = method.draws
    sample = _Sample(engine, marginal, mode, method.seed + 1)
    sample.add(SplitT.around(mode.x, mode.H), S, method.seed)
    while _misses(sample.smoothed, S) and len(sample.proposals) < STAGES:
        proposal = SplitT.fitted(sample.x, sample.smoothed.weights)
        sample.add(proposal, S, method.seed + 101 * len(sample.proposals), FAR_STEPS)
    smoothed, found = sample.smoothed, sample.found
    if not np.isfinite(smoothed.log_mean):
        raise ModelError(NOWHERE)
    rng = np.random.default_rng(method.seed)
    index = pareto.resample(smoothed.weights, rng.uniform(), S)
    return Outcome(
        method,
        marginal,
        mode,
        sample.x[index],
        None if found.u is None else tuple(a[index] for a in found.u),
        weights=smoothed.weights,
        raw=Proposals(sample.x, found.u, sample.log_ratio),
        log_lik=found.log_lik[index],
        log_prior=found.log_prior[index],
        log_evidence=smoothed.log_mean,
        log_evidence_error=smoothed.error,
        khat=smoothed.khat,
        ess=min(smoothed.ess, float(S)),
        facts={
            "lost": sample.lost,
            "moved": float(np.mean(found.moved)),
            "stages": len(sample.proposals),
        },
    )


@dataclass(frozen=True)
class Proposals:
    """Proposals before resampling. x: (N, k); u: as in ``Outcome``; log_ratio: (N,)."""

    x: np.ndarray
    u: tuple[np.ndarray, ...] | None
    log_ratio: np.ndarray


def _misses(smoothed: pareto.Smoothed, S: int) -> bool:
    """Whether the proposals so far miss part of the posterior, and show where it is."""
    poor = smoothed.khat > SKEWED or smoothed.ess < FEW * S
    return poor and bool(np.isfinite(smoothed.log_mean))


class _Sample:
    """Draws of all proposals so far, and their weights.

    x: (N, k); found: their densities and random effects; log_ratio: (N,) log of the
    posterior over the mixture of proposals, as many draws of each.
    """

    def __init__(
        self, engine: PosteriorEngine, marginal: AbstractMarginal, mode: Mode, seed: int
    ):
        self.engine, self.marginal, self.mode, self.seed = engine, marginal, mode, seed
        self.proposals: list[SplitT] = []
        self.x: np.ndarray
        self.found: EvaluatedPosterior
        self.log_ratio: np.ndarray
        self.smoothed: pareto.Smoothed

    @property
    def lost(self) -> float:
        """Weighted decrement of the modes of u."""
        w = self.smoothed.weights
        return float(np.sum(np.where(w > 0, w * self.found.nu, 0.0)))

    def add(
        self, proposal: SplitT, S: int, seed: int, steps: int | None = None
    ) -> None:
        """S draws more."""
        x = proposal.draws(S, seed)
        before = self.found if self.proposals else None
        self.proposals.append(proposal)
        self.x = x if before is None else np.concatenate([self.x, x])
        self._weigh(before, self._evaluate(x, steps))
        if steps is None and not self.lost <= LOST:
            self._weigh(before, self._evaluate(x, FAR_STEPS))

    def _evaluate(self, x: np.ndarray, steps: int | None) -> EvaluatedPosterior:
        n = len(self.proposals) - 1
        return evaluate(self.engine, self.marginal, self.mode, x, self.seed + n, steps)

    def _weigh(
        self, before: EvaluatedPosterior | None, new: EvaluatedPosterior
    ) -> None:
        self.found = new if before is None else _joined(before, new)
        log_target = self.found.log_lik + self.found.log_prior
        self.log_ratio = log_target - log_mixture(self.proposals, self.x)
        self.smoothed = pareto.smooth(self.log_ratio)


def _joined(one: EvaluatedPosterior, two: EvaluatedPosterior) -> EvaluatedPosterior:
    """Two sets of draws as one; random effects where both have them."""
    u = None
    if one.u is not None and two.u is not None:
        u = tuple(np.concatenate(pair) for pair in zip(one.u, two.u, strict=True))

    def both(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name), getattr(two, name)])

    names = ("log_lik", "log_prior", "nu", "moved", "levels")
    return EvaluatedPosterior(u=u, **{name: both(name) for name in names})
