"""Running a Bayesian method on an engine: from its record to draws and facts.

Everything comes back as NumPy in the engine's coordinates (``Outcome``); names and
units are the engine's and the fit's business.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError, NotApplicableError
from jaxglmm.estimate import importance as _nested
from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.estimate import proposal as _proposal
from jaxglmm.estimate.generalised import LaplaceMarginal
from jaxglmm.estimate.methods import MAP, NUTS, VB, BayesMethod, NestedLaplace
from jaxglmm.estimate.skewed import Frame, SkewGaussian, points
from jaxglmm.integrate import curve_lanes as _lanes
from jaxglmm.numerics import pareto_smoothing as pareto
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.runtime.executors import executor, threads
from jaxglmm.runtime.precision import double_precision

TOLERANCE = 1e-9
STEPS = 300
FEW_TRIALS = 100  # trials a group (counts: events) up to which Laplace is not trusted
WIDE = 2.0  # sd of a group's effects from which 9 nodes are too few
AT_ONCE = 4_000_000  # random effects x draws held at once
MOST_KEPT = 50_000_000  # random effects x draws that are kept
MOVES, MOVES_SMALL = 1, 2  # of Metropolis for u: groups in general, small ones
FLAT = 1e-10  # eigenvalue of the scaled Hessian, of the largest, that is none
LEAST_CURVED = 0.01  # what such a direction gets instead
MOST_STEPS = 10  # Newton steps for a mode, where they end with it
AXIS_STEPS = 30  # the same for points along the axes, far from the mode
LOST = 0.01  # share of draws that count under which skewness is left out
ASTRAY = 0.1  # decrement of the modes of u above which a value counts for nothing
NOWHERE = (
    "the posterior is not finite where the search for its mode ended. Look for "
    "covariates of extreme size and for fixed dispersions that the data contradict, or "
    "give the standard deviations tighter priors: jg.Priors(sd=jg.HalfNormal(1))"
)


@dataclass
class Outcome:
    """What a method found, in the engine's coordinates.

    x: (S, k) draws of equal weight; u: (S, q, J) a factor, or None where there are too
    many; chains: number of chains (S = chains x draws); mean, sd: (k,) of x; effects:
    (mean, sd) of the spherical effects where draws of them are not kept.
    raw: proposals before resampling, with ``weights``; log_lik, log_prior: (S,).
    """

    method: BayesMethod
    marginal: LaplaceMarginal | None
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


@double_precision
def run(engine: PosteriorEngine, method: BayesMethod) -> Outcome:
    """The posterior of an engine's model by a method."""
    if isinstance(method, VB):
        from jaxglmm.posterior.vb import run_vb

        return run_vb(engine, method)
    began = time.perf_counter()
    marginal, mode = find_mode(engine, method)
    found = time.perf_counter()
    if isinstance(method, NUTS):
        from jaxglmm.posterior.nuts import run_nuts

        out = run_nuts(engine, method, marginal, mode)
    elif isinstance(method, MAP):
        out = _gaussian(engine, method, marginal, mode)
    elif isinstance(method, NestedLaplace):
        from jaxglmm.posterior.importance import run_importance

        out = run_importance(engine, method, marginal, mode)
    else:
        raise NotApplicableError(f"{method!r} is not a method that is known here")
    done = time.perf_counter()
    out.seconds |= {"mode": found - began, "draws": done - found}
    out.facts |= {
        "steps": int(mode.steps),
        "decrement": float(mode.decrement),
        "nodes": marginal.nodes,
    }
    out.status = int(mode.status)
    return out


# The mode ----------------------------------------------------------------------------


def find_mode(
    engine: PosteriorEngine, method: BayesMethod
) -> tuple[LaplaceMarginal, _map.Mode]:
    """How u is integrated out, and the mode of the marginal posterior."""
    nodes = method.nodes
    automatic = nodes is None
    if nodes is None:
        nodes = 9 if small_binary_groups(engine) else 1
    marginal = check_nodes(engine, nodes)
    mode = mode_of(engine, marginal)
    if automatic and nodes > 1 and widest(engine, mode) > WIDE:
        marginal = LaplaceMarginal("observed", 25)
    return marginal, mode


def mode_of(engine: PosteriorEngine, marginal: LaplaceMarginal) -> _map.Mode:
    """The mode of the marginal posterior under one integrator."""
    found = _map.find_from_rows(
        marginal,
        engine.posterior,
        engine.eta,
        engine.phi,
        np.float64(TOLERANCE),
        np.int64(STEPS),
    )
    return curved(jax.device_get(found))


def curved(mode: _map.Mode) -> _map.Mode:
    """A mode whose Hessian is positive definite, its eigenvalues made so if need be.

    Where the search ended on a ridge or on a saddle, directions that do not curve up
    get a curvature from the others, so that draws can be made and weighed; the status
    says that this is no mode.

    Raises:
        ModelError: the Hessian is not finite.
    """
    H = np.asarray(mode.H)
    if not np.isfinite(H).all():
        raise ModelError(NOWHERE)
    if not len(H):
        return mode
    size = np.sqrt(np.maximum(np.abs(np.diagonal(H)), 1e-12))
    values, vectors = np.linalg.eigh(H / np.outer(size, size))
    least = FLAT * values.max()
    if values.min() > least:
        return mode
    values = np.maximum(np.abs(values), max(LEAST_CURVED, least))
    mended = (vectors * values) @ vectors.T * np.outer(size, size)
    status = int(mode.status) or _status.STALLED
    return eqx.tree_at(lambda m: (m.H, m.status), mode, (mended, np.asarray(status)))


def check_nodes(engine: PosteriorEngine, nodes: int) -> LaplaceMarginal:
    """Quadrature needs one grouping factor with at most three columns."""
    problem = engine.posterior.problem
    if nodes > 1 and (len(problem.sides) != 1 or problem.sides[0] > 3):
        raise NotApplicableError(
            f"nodes={nodes}: adaptive quadrature needs one grouping factor with at "
            "most three columns; this model has "
            f"{len(problem.sides)} factors with {problem.sides} columns. Use nodes=1 "
            "(Laplace)"
        )
    return LaplaceMarginal("observed", nodes)


def small_binary_groups(engine: PosteriorEngine) -> bool:
    """Whether Laplace's method is in doubt and quadrature cheap.

    One factor of one column, groups of few trials or few events.
    """
    problem, design = engine.posterior.problem, engine.design
    if problem.sides != (1,):
        return False
    codes, J = design.terms[0].codes, design.terms[0].n_levels
    worth = engine.family.worth(design.y, design.trials)
    if worth is None:
        return False
    return float(np.median(np.bincount(codes, worth, J))) < FEW_TRIALS


def widest(engine: PosteriorEngine, mode: _map.Mode) -> float:
    """Largest standard deviation of a term's effects on the predictor at the mode."""
    parts, _ = engine.split(np.asarray(mode.x))
    sds = [
        np.exp(y[: block.q])
        for block, y in zip(engine.belief.blocks, parts, strict=True)
    ]
    return float(max((s.max() for s in sds), default=0.0))


# Draws around the mode ---------------------------------------------------------------


def _gaussian(
    engine: PosteriorEngine,
    method: BayesMethod,
    marginal: LaplaceMarginal,
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
    engine: PosteriorEngine, marginal: LaplaceMarginal, mode: _map.Mode, S: int
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


@dataclass(frozen=True)
class Evaluated:
    """``nested.Evaluated`` as NumPy; u is None where there are too many effects."""

    log_lik: np.ndarray
    log_prior: np.ndarray
    u: tuple[np.ndarray, ...] | None
    nu: np.ndarray
    moved: np.ndarray
    levels: np.ndarray


def evaluate(
    engine: PosteriorEngine,
    marginal: LaplaceMarginal,
    mode: _map.Mode,
    x: np.ndarray,
    seed: int,
    steps: int | None = None,
    keep: bool = True,
    like: int | None = None,
) -> Evaluated:
    """Likelihood, prior and draws of u at every x, in blocks of equal size.

    like: number of points of another call, whose program serves this one as well.
    """
    posterior = engine.posterior
    S = len(x)
    lanes = bool(posterior.problem.sides) and _lanes.suits(posterior.problem)
    n_effects = sum(
        q * J
        for q, J in zip(
            posterior.problem.sides, posterior.problem.rows.sizes, strict=True
        )
    )
    size = like or S
    few = n_effects * size <= MOST_KEPT
    moved, keep = few and (keep or like is not None), few and keep
    chunk = _nested.chunk_size(posterior, size)
    block = _block(size, chunk, n_effects)
    padded = -(-S // block) * block
    rows = np.concatenate([x, np.broadcast_to(mode.x, (padded - S, x.shape[1]))])
    moves = MOVES_SMALL if marginal.beyond else MOVES
    if not lanes:
        steps = MOST_STEPS
    elif steps is None:
        steps = 1

    def one(start: int) -> Any:
        numbers = _nested.noise(
            posterior, block, moves if moved else 0, seed + start, chunk
        )
        found = _nested.evaluate(
            marginal,
            posterior,
            mode,
            rows[start : start + block],
            numbers,
            np.int64(steps),
            chunk=chunk,
        )
        host = jax.device_get(found)
        if keep:
            return host
        rest = (host.log_lik, host.log_prior, None, host.nu, host.moved, host.levels)
        return Evaluated(*rest)

    starts = range(0, padded, block)
    several = lanes and len(starts) > 1  # lanes: nothing of LAPACK runs in them
    with executor(None if several else 1) as pool:
        parts = list(pool.map(one, starts))
    u = None
    if keep:
        u = tuple(
            np.concatenate([p.u[f] for p in parts])[:S]
            for f in range(len(posterior.problem.sides))
        )
    names = ("log_lik", "log_prior", "nu", "moved", "levels")
    joined = {k: np.concatenate([getattr(p, k) for p in parts])[:S] for k in names}
    return Evaluated(u=u, **joined)


def _block(S: int, chunk: int, n_effects: int) -> int:
    """Draws a call: a multiple of ``chunk``, two calls at least, within memory."""
    size = -(-S // threads())
    size = min(size, max(chunk, AT_ONCE // max(n_effects, 1)))
    return max(-(-size // chunk) * chunk, chunk)
