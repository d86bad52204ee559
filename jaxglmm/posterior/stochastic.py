"""Running variational Bayes by stochastic gradients."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm import _arguments, _status
from jaxglmm.estimate import stochastic
from jaxglmm.estimate.methods import VB
from jaxglmm.integrate.base import Laplace
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.posterior.mode import mode_of
from jaxglmm.posterior.outcome import Outcome

RATES = (0.05, 0.02, 0.008, 0.003, 0.001)
STEPS = 1000  # of a stage
PAIRS = 4  # antithetic draws of a step
CHUNK = 64
SETTLED = 0.05  # gain of the last stage, in nats, that counts as none


def run_stochastic(engine: PosteriorEngine, method: VB) -> Outcome:
    """Adam from the mode of the marginal posterior, at falling rates."""
    began = time.perf_counter()
    mode = mode_of(engine, Laplace())
    frame = stochastic.frame_of(jnp.asarray(mode.x), jnp.asarray(mode.H))
    guide = stochastic.begin(jnp.asarray(mode.x), jax.tree.map(jnp.asarray, mode.u))
    found = time.perf_counter()
    key = jax.random.key(_arguments.key_seed(method.seed))
    bounds = []
    for k, rate in enumerate(RATES):
        guide = stochastic.climb(
            engine.posterior,
            frame,
            guide,
            np.float64(rate),
            jax.random.fold_in(key, k),
            pairs=PAIRS,
            steps=STEPS,
        )
        if k >= len(RATES) - 2:
            x, u, log_p, entropy = jax.device_get(
                stochastic.draws(
                    engine.posterior, frame, guide, key, S=method.draws, chunk=CHUNK
                )
            )
            bounds.append(log_p + entropy)
    fitted = time.perf_counter()
    # the same draws serve both stages: their difference is known better than each
    gain = bounds[1] - bounds[0]
    error = float(np.std(gain) / np.sqrt(len(gain)))
    settled = abs(float(np.mean(gain))) < SETTLED + 3 * error
    return Outcome(
        method,
        None,
        None,
        x,
        tuple(v[:, :, 0] for v in u),
        elbo=float(np.mean(bounds[1])),
        status=_status.CONVERGED if settled else _status.MAX_STEPS,
        facts={
            "steps": STEPS * len(RATES),
            "decrement": float(np.mean(gain)),
            "elbo_error": float(np.std(bounds[1]) / np.sqrt(len(gain))),
        },
        seconds={"mode": found - began, "fit": fitted - found},
    )
