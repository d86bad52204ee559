"""What a Bayesian method found, in its engine's coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.estimate.methods import BayesMethod
from jaxglmm.integrate.base import AbstractMarginal


@dataclass
class Outcome:
    """What a method found, in the engine's coordinates.

    x: (S, k) draws of equal weight; u: (S, q, J) a factor, or None where there are too
    many; chains: number of chains (S = chains x draws); mean, sd: (k,) of x; effects:
    (mean, sd) of the spherical effects where draws of them are not kept.
    raw: proposals before resampling, with ``weights``; log_lik, log_prior: (S,).
    """

    method: BayesMethod
    marginal: AbstractMarginal | None
    mode: _map.Mode | None
    x: np.ndarray
    u: tuple[np.ndarray, ...] | None
    chains: int = 1
    weights: np.ndarray | None = None
    raw: Any = None
    log_lik: np.ndarray | None = None
    log_prior: np.ndarray | None = None
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    elbo: float | None = None
    khat: float | None = None
    ess: float | None = None
    sample_stats: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    status: int = _status.CONVERGED
