"""Running variational Bayes: the best Gaussian, its mixture over nodes, its draws."""

from __future__ import annotations

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm import _status
from jaxglmm._errors import NotApplicableError
from jaxglmm.density.posterior import PosteriorModel
from jaxglmm.density.smoothed import NODES as GH_NODES
from jaxglmm.estimate import mean_field, skewed, variational
from jaxglmm.estimate import posterior_mode as _map
from jaxglmm.estimate.generalised import zeros
from jaxglmm.estimate.methods import VB
from jaxglmm.estimate.proposal import standard_normal, uniform
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.posterior.engine import PosteriorEngine
from jaxglmm.posterior.outcome import Outcome
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.trees import tree_at

TOLERANCE = 1e-8
NODE_TOLERANCE = 1e-5
STEPS = 200
MOST_NESTED = 10  # variance parameters that are integrated over nodes by default
CHUNK = 256  # draws of a node at once


def run_vb(engine: PosteriorEngine, method: VB) -> Outcome:
    """The Gaussian of a method's family."""
    several = engine.posterior.problem.predictors
    if several.K > 1 and method.family != "stochastic":
        raise NotApplicableError(
            "variational Bayes takes expectations over one normal linear predictor a "
            f"row; this model has {several.K}: {', '.join(several.names)}. Use "
            "method='nested-laplace', 'map', 'nuts' or jg.VB(family='stochastic')"
        )
    if not np.isfinite(engine.belief.constant) or (
        engine.design.p
        and np.linalg.matrix_rank(engine.belief.precision) < engine.design.p
    ):
        raise NotApplicableError(
            "variational Bayes needs proper priors for all coefficients; a prior with "
            "sd=inf is flat. Give it an sd, or use method='nested-laplace'"
        )
    if method.family == "mean-field":
        return _mean_field(engine, method)
    if method.family == "stochastic":
        from jaxglmm.posterior.stochastic import run_stochastic

        return run_stochastic(engine, method)
    return _structured(engine, method)


def _structured(engine: PosteriorEngine, method: VB) -> Outcome:
    began = time.perf_counter()
    found = _fit(
        engine.posterior,
        engine.eta,
        engine.phi,
        np.float64(TOLERANCE),
        np.int64(STEPS),
        GH_NODES,
    )
    r = len(found.q.y)
    nested = method.nested
    if nested is None:
        nested = r <= MOST_NESTED
    nested = bool(nested and r)
    T = skewed.star(r) if nested else np.zeros((1, r))
    nodes = variational.at_nodes(
        engine.posterior,
        found,
        T,
        np.float64(NODE_TOLERANCE),
        np.int64(STEPS),
        k=GH_NODES,
    )
    law = Mixture(nodes, T)
    fitted = time.perf_counter()
    x, u, y_effects, weights = draw(engine.posterior, law, method.draws, method.seed)
    done = time.perf_counter()
    gap = float(found.gap)
    return Outcome(
        method,
        None,
        None,
        x,
        u,
        elbo=law.log_evidence,
        log_evidence=None,
        status=_status.CONVERGED if gap <= TOLERANCE else _status.MAX_STEPS,
        facts={
            "steps": int(found.steps),
            "nested": nested or not r,
            "node_steps": np.asarray(nodes.steps).tolist(),
            "decrement": gap,
            "point_elbo": float(found.elbo),
            "y_effects": y_effects,
            "moments": moments(engine.posterior, nodes, weights),
        },
        seconds={"fit": fitted - began, "draws": done - fitted},
    )


@partial(jit, static_argnames="k")
def _fit(
    posterior: PosteriorModel, eta, phi, tol, max_steps, k: int
) -> variational.VariationalFound:
    x = _map.starting_point(posterior, eta, phi)
    u = zeros(posterior.problem)
    return variational.fit_from(posterior, x, u, tol, max_steps, k=k)


class Mixture:
    """Gaussians at nodes of y, and the law of y between them.

    nodes: the best Gaussian at each of T (m, r), its leading axis; the nodes lie on
    the axes of the bound's curvature, where the bound tells the skewness of y.
    """

    def __init__(self, nodes: variational.VariationalFound, T: np.ndarray):
        self.nodes, self.T = nodes, T
        self.y = np.asarray(nodes.q.y)
        A, log_det = variational.axes(nodes.H[0])
        self.A, r = np.asarray(A), T.shape[1]
        elbo = np.asarray(nodes.elbo)
        self.axes, volume = None, r * HALF_LOG_2PI
        if len(T) > 1:
            self.axes = skewed.of_star(elbo, r)
            volume = float(self.axes.log_volume.sum())
        self.log_evidence = float(elbo[0] + volume + log_det)

    def draws(self, S: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """y (S, r), and the node (S,) that is next to each."""
        r = self.T.shape[1]
        if not r:
            return np.zeros((S, 0)), np.zeros(S, int)
        if self.axes is None:
            t = standard_normal(r, S, seed + 7)
        else:
            t = self.axes.quantiles(uniform(r, S, seed + 7))
        t = t[np.random.default_rng(seed).permutation(S)]
        apart = np.sum((t[:, None] - self.T) ** 2, axis=2)
        return self.y[0] + t @ self.A.T, np.argmin(apart, axis=1)


def moments(
    posterior: PosteriorModel, nodes: variational.VariationalFound, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (p,) and covariance (p, p) of beta under the mixture of weights w."""
    beta, C = jax.device_get(_beta_moments(posterior, nodes))
    mean = w @ beta
    apart = beta - mean
    return mean, np.einsum("k,kij->ij", w, C) + (w[:, None] * apart).T @ apart


@jit
def _beta_moments(posterior: PosteriorModel, found: variational.VariationalFound):
    posterior = posterior.folded()

    def node(f: variational.VariationalFound):
        _, lam, _ = posterior.parameters(jnp.concatenate([f.q.beta, f.q.y]))
        normal, _ = variational.precision(posterior, lam, f.q.weights)
        return f.q.beta, jnp.linalg.inv(normal.Q)

    return jax.lax.map(node, found)


def draw(
    posterior: PosteriorModel, law: Mixture, S: int, seed: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """x (S, k), u (S, q, J) a factor, y (S, r) that u belongs to, weights of nodes.

    Each draw takes y by its law, and beta and u from the Gaussian of the node next
    to it.
    """
    y, own = law.draws(S, seed)
    m = len(law.T)
    weights = np.bincount(own, minlength=m) / S
    order = np.argsort(own, kind="stable")
    chunk, of_chunk, at = _chunks(own[order], m, S)
    p = posterior.problem.p
    rng = np.random.default_rng(seed)
    z = tuple(
        rng.standard_normal((len(of_chunk), q, chunk, J))
        for q, J in zip(
            posterior.problem.sides, posterior.problem.rows.sizes, strict=True
        )
    )
    e = rng.standard_normal((len(of_chunk), p, chunk))
    beta, u = jax.device_get(_draw(posterior, law.nodes, of_chunk, z, e))
    if m == 1:  # one chunk, in any order: nothing is copied
        beta, u = beta[0].T, tuple(np.moveaxis(a[0], 1, 0) for a in u)
    else:
        place = np.empty(S, int)
        place[order] = np.arange(S)
        where = at[0][place], at[1][place]
        beta = np.swapaxes(beta, 1, 2)[where]
        u = tuple(np.moveaxis(a, 2, 1)[where] for a in u)
    return np.concatenate([beta, y], axis=1), u, law.y[own], weights


def _chunks(
    node: np.ndarray, m: int, S: int
) -> tuple[int, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Draws in chunks of one node each, as many chunks whatever the counts.

    node: (S,) sorted. Returns draws a chunk, each chunk's node, and where the S draws
    are: (chunk, place in it).
    """
    chunk = S if m == 1 else min(CHUNK, S)
    counts = np.bincount(node, minlength=m)
    own = -(-counts // chunk)
    of_chunk = np.zeros(-(-S // chunk) + (m if m > 1 else 0), int)
    of_chunk[: own.sum()] = np.repeat(np.arange(m), own)
    first = np.cumsum(own) - own
    place = np.arange(S) - (np.cumsum(counts) - counts)[node]
    return chunk, of_chunk, (first[node] + place // chunk, place % chunk)


@jit
def _draw(
    posterior: PosteriorModel, found: variational.VariationalFound, of_chunk, z, e
):
    posterior = posterior.folded()

    def chunk(args):
        i, z, e = args
        f = jax.tree.map(lambda x: x[i], found)
        _, lam, _ = posterior.parameters(jnp.concatenate([f.q.beta, f.q.y]))
        normal, _ = variational.precision(posterior, lam, f.q.weights)
        u, beta = normal.draw(z, e)
        moved = tuple(a + b for a, b in zip(f.q.u, u, strict=True))
        return f.q.beta[:, None] + beta, moved

    return jax.lax.map(chunk, (of_chunk, z, e))


def _mean_field(engine: PosteriorEngine, method: VB) -> Outcome:
    """Independent Gaussians for the user's coefficients, effects, log sds."""
    scales, precision, size = _scales(engine)
    began = time.perf_counter()
    posterior, R = engine.posterior, engine.data.R
    # a mean field depends on its coordinates: these are the user's columns, scaled
    X = (R / size).T @ np.asarray(posterior.problem.X)
    problem = tree_at(lambda q: q.X, posterior.problem, jnp.asarray(X))
    p, K = problem.p, len(scales.sd)
    x0 = jax.device_get(jit(_map.starting_point)(posterior, engine.eta, engine.phi))
    start = mean_field.Factored(
        jnp.asarray(size * np.linalg.solve(R, x0[:p])),
        zeros(problem),
        jnp.asarray(x0[p : p + K]),
        jnp.full(p, 0.01),
        tuple(0.01 + x for x in zeros(problem)),
        jnp.full(K, 0.02),
        jnp.asarray(np.inf),
        jnp.asarray(0),
    )
    q = mean_field.fit_mean_field(
        problem,
        scales,
        jnp.asarray(precision),
        jnp.asarray(engine.phi),
        start,
        jnp.asarray(1e-12),
        jnp.asarray(500),
    )
    q = jax.device_get(q)
    S, rng = method.draws, np.random.default_rng(method.seed)
    beta = q.beta + np.sqrt(q.var_beta) * rng.standard_normal((S, p))
    beta = beta / size @ R.T
    zeta = q.zeta + np.sqrt(q.var_zeta) * rng.standard_normal((S, K))
    b = [
        m[:, 0] + np.sqrt(v[:, 0]) * rng.standard_normal((S, *m[:, 0].shape))
        for m, v in zip(q.b, q.var_b, strict=True)
    ]
    # effects are drawn as b; u = b / lambda(zeta of the draw)
    pairs = zip(scales.index, scales.T, strict=True)
    lam = [np.exp(zeta[:, list(i)]) * T for i, T in pairs]
    u = tuple(x / a[:, :, None] for x, a in zip(b, lam, strict=True))
    done = time.perf_counter()
    return Outcome(
        method,
        None,
        None,
        np.concatenate([beta, zeta], axis=1),
        u,
        status=_status.CONVERGED if float(q.gap) <= 1e-12 else _status.MAX_STEPS,
        facts={"steps": int(q.steps), "decrement": float(q.gap)},
        seconds={"fit": done - began},
    )


def _scales(
    engine: PosteriorEngine,
) -> tuple[mean_field.Scales, np.ndarray, np.ndarray]:
    """Scales, prior precisions of the scaled coefficients, sizes of the columns.

    The closed forms of the mean field need log-normal sds and independent priors.
    """
    from jaxglmm.model.priors.distributions import LogNormal

    belief = engine.belief
    for term, block in zip(engine.design.terms, belief.blocks, strict=True):
        if block.covariance.has_own:
            raise NotApplicableError(
                f"VB(family='mean-field'): {term.structure}(... | {term.label}) has a "
                "covariance of its own; use family='structured'"
            )
        if block.correlations is not None:
            raise NotApplicableError(
                f"VB(family='mean-field'): ({term.label}) has correlated effects; "
                "write (x || g), or use family='structured'"
            )
        if not all(isinstance(s, LogNormal) and s.mean == 0 for s in block.sds):
            raise NotApplicableError(
                "VB(family='mean-field') needs jg.LogNormal(0, sd) priors of the "
                "standard deviations, such as jg.Priors.statsmodels()"
            )
    resolved = engine.resolved
    sds = np.array([prior.sd for prior in resolved.coefficients])
    means = np.array([prior.mean for prior in resolved.coefficients])
    if engine.family.n_phi or means.any() or resolved.center.any():
        raise NotApplicableError(
            "VB(family='mean-field') is for families without a dispersion parameter "
            "and independent coefficients with prior mean zero: "
            "jg.Priors(..., centered=False), such as jg.Priors.statsmodels(). Or use "
            "family='structured'"
        )
    size = np.sqrt(np.mean(engine.design.X**2, axis=0))
    size = np.where(size > 0, size, 1.0)
    index, T, real, sd, count = [], [], [], [], []
    place = {}
    for block in belief.blocks:
        for i, prior in enumerate(block.sds):
            place[block.factor, block.start + i] = len(sd)
            sd.append(prior.sd)
            count.append(0.0)
    for f, (factor, J) in enumerate(
        zip(engine.factors, engine.posterior.problem.rows.sizes, strict=True)
    ):
        own = tuple(place[f, i] for i in range(factor.q))
        index.append(own)
        T.append(np.diag(factor.T).copy())
        here = np.zeros((factor.q, 1, J))
        here[:, :, : factor.n_levels] = 1.0
        real.append(here)
        for k in own:
            count[k] = float(factor.n_levels)
    scales = mean_field.Scales(
        tuple(index),
        tuple(jnp.asarray(a) for a in T),
        tuple(jnp.asarray(a) for a in real),
        jnp.asarray(count),
        jnp.asarray(np.array(sd, float)),
    )
    return scales, 1 / (sds * size) ** 2, size
