"""Running NUTS: warm-up and draws in segments, a progress bar, blackjax's reports."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm.estimate import map as _map
from jaxglmm.estimate import sample
from jaxglmm.estimate.laplace import LaplaceMarginal
from jaxglmm.estimate.methods import NUTS
from jaxglmm.results.posterior.engine import PosteriorEngine
from jaxglmm.results.posterior.run import Outcome, evaluate

SEGMENT = 100  # draws of a compiled call
START = 0.7  # sd of the starting positions, in posterior standard deviations
FIRST_STEP = 0.1  # a tenth of what dual averaging first tries


def run_nuts(
    engine: PosteriorEngine,
    method: NUTS,
    marginal: LaplaceMarginal,
    mode: _map.Mode,
) -> Outcome:
    """Chains from around the mode."""
    density = method.density if mode.u else "marginal"
    k = len(mode.x)
    size = k + (sum(u.size for u in mode.u) if density == "joint" else 0)
    rng = np.random.default_rng(method.seed)
    positions = START * rng.standard_normal((method.chains, size))
    options = {"density": density, "target": method.target}
    chains = sample.begin(
        marginal,
        engine.posterior,
        mode,
        jnp.asarray(positions),
        jnp.asarray(FIRST_STEP),
        **options,
    )
    key = jax.random.key(method.seed)
    length = min(SEGMENT, method.draws)
    warm, kept = -(-method.warmup // length), -(-method.draws // length)
    parts = []
    for i in _progress(range(warm + kept), method.progress):
        keys = jax.random.split(jax.random.fold_in(key, i), (method.chains, length))
        chains, part = sample.advance(
            marginal,
            engine.posterior,
            mode,
            chains,
            keys,
            jnp.asarray(i < warm),
            **options,
        )
        if i >= warm:
            parts.append(jax.device_get(part))
    joined = jax.tree.map(
        lambda *x: np.concatenate(x, axis=1)[:, : method.draws], *parts
    )
    return _outcome(engine, method, marginal, mode, joined, density)


def _outcome(
    engine: PosteriorEngine,
    method: NUTS,
    marginal: LaplaceMarginal,
    mode: _map.Mode,
    joined: sample.Segment,
    density: sample.Density,
) -> Outcome:
    flat = joined.position.reshape(-1, joined.position.shape[-1])
    x, u = jax.device_get(
        sample.positions_to_parameters(engine.posterior, mode, flat, density)
    )
    log_lik = log_prior = None
    if density == "marginal":
        found = evaluate(engine, marginal, mode, x, method.seed + 1)
        u, log_lik, log_prior = found.u, found.log_lik, found.log_prior
    stats = {
        "lp": joined.log_density - float(mode.value),
        "acceptance_rate": joined.acceptance,
        "diverging": joined.diverging,
        "energy": joined.energy,
        "n_steps": joined.n_steps,
        "tree_depth": joined.tree_depth,
        "step_size": joined.step_size,
    }
    return Outcome(
        method,
        marginal if density == "marginal" else None,
        mode,
        x,
        u,
        chains=method.chains,
        log_lik=log_lik,
        log_prior=log_prior,
        sample_stats=stats,
    )


def _progress(segments: range, shown: bool) -> Any:
    if not shown:
        return segments
    from tqdm.auto import tqdm

    return tqdm(segments, desc="NUTS", unit="segment")
