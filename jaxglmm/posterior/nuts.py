"""Running NUTS: warm-up and draws in segments, a progress bar, blackjax's reports."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm import _arguments
from jaxglmm.estimate import nuts as sample
from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.estimate.methods import NUTS
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.posterior.evaluate import evaluate
from jaxglmm.posterior.outcome import Outcome
from jaxglmm.runtime.executors import executor, threads
from jaxglmm.runtime.progress import bar

SEGMENT = 100  # draws of a compiled call
START = 0.7  # sd of the starting positions, in posterior standard deviations
FIRST_STEP = 0.1  # a tenth of what dual averaging first tries


def run_nuts(
    engine: PosteriorEngine,
    method: NUTS,
    marginal: AbstractMarginal,
    mode: _map.Mode,
) -> Outcome:
    """Chains from around the mode."""
    density: sample.Density = method.density if mode.u else "marginal"
    white = sample.whiten(engine.posterior, mode, density=density)
    length = min(SEGMENT, method.draws)
    warm, kept = -(-method.warmup // length), -(-method.draws // length)
    parts = []
    runs = _Runs(engine, method, marginal, white, density, length)
    with (
        executor(len(runs.groups)) as pool,
        bar(warm + kept, method.progress, "segment", "NUTS") as shown,
    ):
        for i in range(warm + kept):
            part = runs.advance(i, i < warm, pool)
            if i >= warm:
                parts.append(part)
            shown.update()
    joined = jax.tree.map(
        lambda *x: np.concatenate(x, axis=1)[:, : method.draws], *parts
    )
    return _outcome(engine, method, marginal, mode, white, joined, density)


class _Runs:
    """Chains in one or two threads: two where nothing of LAPACK runs in them.

    Chains do not depend on each other, so the draws are the same either way.
    """

    def __init__(
        self,
        engine: PosteriorEngine,
        method: NUTS,
        marginal: AbstractMarginal,
        white: sample.White,
        density: sample.Density,
        length: int,
    ):
        self.engine, self.method, self.marginal = engine, method, marginal
        self.white, self.length = white, length
        self.options: dict[str, Any] = {"density": density, "target": method.target}
        self.key = jax.random.key(_arguments.key_seed(method.seed))
        C, d = method.chains, _size(white, density)
        positions = START * np.random.default_rng(method.seed).standard_normal((C, d))
        even = C % threads() == 0 and sample.may_thread(engine.posterior)
        self.groups = np.split(np.arange(C), threads() if even else 1)
        self.chains = [
            sample.begin(
                marginal,
                engine.posterior,
                white,
                jnp.asarray(positions[own]),
                jnp.asarray(FIRST_STEP),
                **self.options,
            )
            for own in self.groups
        ]

    def advance(self, i: int, tune: bool, pool: Executor) -> sample.Segment:
        """Segment i of every chain, on the host."""
        shape = (self.method.chains, self.length)
        keys = jax.random.split(jax.random.fold_in(self.key, i), shape)

        def one(g: int) -> Any:
            self.chains[g], part = sample.advance(
                self.marginal,
                self.engine.posterior,
                self.white,
                self.chains[g],
                keys[self.groups[g]],
                jnp.asarray(tune),
                **self.options,
            )
            try:
                return jax.device_get(part)
            except BaseException:  # interrupted: a process that ends while XLA
                jax.block_until_ready(part)  # is still at work ends by a fault
                raise

        # of the first segment one group compiles, for all
        run = map if i == 0 else pool.map
        return jax.tree.map(
            lambda *x: np.concatenate(x), *run(one, range(len(self.groups)))
        )


def _size(white: sample.White, density: sample.Density) -> int:
    """Dimension of a position."""
    k = len(white.R)
    return k + (sum(u.size for u in white.mode.u) if density == "joint" else 0)


def _outcome(
    engine: PosteriorEngine,
    method: NUTS,
    marginal: AbstractMarginal,
    mode: _map.Mode,
    white: sample.White,
    joined: sample.Segment,
    density: sample.Density,
) -> Outcome:
    flat = joined.position.reshape(-1, joined.position.shape[-1])
    x, u = jax.device_get(sample.positions_to_parameters(white, flat, density=density))
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
