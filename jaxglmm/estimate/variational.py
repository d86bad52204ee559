"""Gaussian variational Bayes as smoothed PIRLS: coefficients and effects together.

    q(beta, u) = N(mu, P^-1),  P = blockdiag(P_beta, I) + K'DK,  K = [X, Z Lambda]

At the optimum D_i = E[-l_i''] under q and mu solves Newton's equations with scores
E[l_i'] (Opper and Archambeau 2009): the working model of Laplace's method with its
derivatives averaged over the current Gaussian, so the same structured factorisations
serve, and a family needs nothing but its derivatives in eta (``density.smoothed``).
The variance of each row's predictor needs P^-1 on the pattern of the design alone.

What is left, y (log standard deviations, correlations, dispersion), is found in the
same pass by Newton's method with the average information of the working model, for
dL/dSigma = (t t' - Z'PZ) / 2 with t = Z'E[l']: the score of a linear mixed model. At
fixed y the bound with all its constants is

    L(y) = sum_i E l_i - (u'u + (beta - m)'P_beta (beta - m)) / 2 + sum_i D_i tv_i / 2
           - (log|M| + log|Q|) / 2 + log|P_beta| / 2 + log p(y)

and ``nested`` integrates exp L(y) over Gauss-Hermite nodes in the eigen-coordinates of
its curvature: a mixture of Gaussians.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from jaxglmm._typing import Array, Count, Float, Scalar
from jaxglmm.density.posterior import PosteriorModel
from jaxglmm.density.smoothed import NODES, Expected, Rule, expected
from jaxglmm.integrate.exact import boundary, directions
from jaxglmm.integrate.laplace_derivatives import inner_levels, predictor
from jaxglmm.model.covariances.base import (
    jacobian,
    pack,
    pulled,
)
from jaxglmm.model.predictors import gram, total
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics import spd
from jaxglmm.numerics.bordered import Bordered, bordered
from jaxglmm.numerics.normal_rule import product_rule
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.numerics.system import (
    Effects,
    Lambdas,
    inner_all,
    scale,
    scale_transposed,
)
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.trees import Module, tree_at

FAR = 1.0  # longest step in a coordinate of y
LEAST = 0.1  # curvature of thresholds that may be less


class GaussianPosterior(Module):
    """q: mean (beta, u), precision by the rows' weights, and y.

    weights: (n,) D; y: (k - p,) coordinates of variances and dispersion.
    """

    beta: Float[Array, " p"]
    u: Effects
    weights: Float[Array, " n"]
    y: Float[Array, " r"]


class VariationalFound(Module):
    """q at the optimum; tv: (n,) variances of predictors; elbo; H: (r, r) curvature.

    H: of -L(y), by average information; gap: what the last step thought was left.
    """

    q: GaussianPosterior
    tv: Float[Array, " n"]
    elbo: Scalar
    H: Float[Array, "r r"]
    gap: Scalar
    steps: Count


def rows_expected(
    posterior: PosteriorModel,
    tm: Array,
    tv: Array,
    phi: Array,
    rule: Rule,
    k: int,
    valued: bool = True,
) -> Expected:
    """Expectations with the rows' weights; nothing from rows of weight zero."""
    problem = posterior.problem
    e = expected(
        problem.family, problem.y, tm, tv, phi, problem.trials, rule, k, valued
    )
    used, v = problem.weights > 0, problem.weights
    return jax.tree.map(lambda x: jnp.where(used, v * x, 0.0), e)


def precision(
    posterior: PosteriorModel, lam: Lambdas, w: Float[Array, " n"]
) -> tuple[Bordered, Float[Array, " n"]]:
    """P at weights w, factored, and the variance of each row's predictor."""
    problem = posterior.problem
    rows, X = problem.rows, problem.X
    _, prior = posterior.belief.normal()
    found = bordered(rows.weigh(w), lam, rows.collect(w * X), gram(X, w), prior)
    factor = found.factor
    tv = rows.leverages(factor, factor.selected())
    if not problem.p:
        return found, tv
    # what V leaves of the row of X, in coordinates where its covariance is I
    F = scale(lam, found.U)
    rest = jnp.stack(
        [
            X[j] - rows.spread(tuple(f[:, j : j + 1] for f in F))
            for j in range(problem.p)
        ]
    )
    half = spd.forward(found.L, rest.reshape(problem.p, -1))
    return found, tv + jnp.sum(half * half, axis=0).reshape(tv.shape)


def bound_at(
    posterior: PosteriorModel,
    q: GaussianPosterior,
    normal: Bordered,
    tv: Float[Array, " n"],
    rule: Rule = "exact",
    k: int = NODES,
) -> Scalar:
    """L for a q whose precision is factored."""
    problem, belief = posterior.problem, posterior.belief
    _, lam, phi = posterior.parameters(jnp.concatenate([q.beta, q.y]))
    tm = predictor(problem, q.beta, scale(lam, q.u))
    e = rows_expected(posterior, tm, tv, phi, rule, k)
    base = problem.family.log_base(problem.y, problem.trials)
    base = jnp.where(problem.weights > 0, problem.weights * base, 0.0)
    mean, prior = belief.normal()
    rest = q.beta - mean
    quadratic = rest @ prior @ rest + sum(jnp.sum(x * x) for x in q.u)
    log_prior = spd.log_det(spd.cholesky(prior)) if problem.p else 0.0
    inside = jnp.sum(e.value + base) - quadratic / 2 + jnp.sum(q.weights * tv) / 2
    return inside - normal.log_det() / 2 + log_prior / 2 + belief.log_prior_rest(q.y)


def elbo(
    q: GaussianPosterior,
    posterior: PosteriorModel,
    rule: Rule = "exact",
    k: int = NODES,
) -> Scalar:
    """The evidence lower bound of q, y a point, with all constants; differentiable.

    Args:
        q: any mean, any weights not negative (they say the covariance), any y.
        posterior: model, data and prior; the prior of beta normal.
        rule: of the rows' expectations, see ``density.smoothed``.
        k: nodes of Gauss-Hermite.

    Returns:
        A lower bound of log p(y_rows, y): exact for Gaussian rows at the optimum.
    """
    _, lam, _ = posterior.parameters(jnp.concatenate([q.beta, q.y]))
    normal, tv = precision(posterior, lam, q.weights)
    return bound_at(posterior, q, normal, tv, rule, k)


class _State(Module):
    beta: Array
    u: Effects
    y: Array
    tv: Array
    weights: Array
    H: Array
    gap: Scalar
    steps: Count


def maximise(
    posterior: PosteriorModel,
    start: GaussianPosterior,
    tv: Float[Array, " n"],
    tol: Scalar | float,
    max_steps: Count | int,
    rule: Rule = "exact",
    k: int = NODES,
    fixed: bool = False,
) -> VariationalFound:
    """The best q from ``start``; fixed: y stays where it is."""
    problem, belief = posterior.problem, posterior.belief
    mean, prior = belief.normal()

    def body(s: _State) -> _State:
        _, lam, phi = posterior.parameters(jnp.concatenate([s.beta, s.y]))
        tm = predictor(problem, s.beta, scale(lam, s.u))
        e = rows_expected(posterior, tm, s.tv, phi, rule, k, valued=False)
        normal, tv = precision(posterior, lam, e.weight)
        t = problem.rows.collect(e.slope[None])
        r = tuple(a - b for a, b in zip(scale_transposed(lam, t), s.u, strict=True))
        left = total(problem.X, e.slope) - prior @ (s.beta - mean)
        du, db = normal.solve(r, left[:, None])
        db = db[:, 0]
        gain = left @ db + sum(jnp.sum(a * c) for a, c in zip(r, du, strict=True))
        change = predictor(problem, db, scale(lam, du)) - problem.offset
        size = jnp.max(jnp.where(problem.weights > 0, jnp.abs(change), 0.0))
        # far off, weights change by more than a step may assume; near the mode they do
        # not
        step = jnp.where(size < 1e-2, 1.0, jnp.log1p(size) / jnp.maximum(size, 1e-300))
        beta = s.beta + step * db
        u = tuple(a + step * c for a, c in zip(s.u, du, strict=True))
        y, H, decrement = s.y, s.H, 0.0
        if not fixed:
            g, H = _slope(posterior, s, normal, u, tm, rule, k)
            follow = None  # thresholds move together, and effects with them
            if problem.family.n_phi and not problem.family.phi_apart:
                follow = _following(posterior, s, normal, tm, phi, rule, k)
                g, H = _joint(g, H, follow, du, db)
            move = jnp.linalg.solve(H, g)
            decrement = jnp.abs(g @ move)
            move = jnp.clip(move, -FAR, FAR)
            y = s.y - move
            if follow is not None:
                by = move[-problem.family.n_phi :]
                beta = beta - follow.db @ by
                u = tuple(
                    a - jnp.einsum("qrj,r->qj", x, by)[:, None]
                    for a, x in zip(u, follow.du, strict=True)
                )
        # a predictor without a variance does not hold the others up
        moved = jnp.max(jnp.abs(tv - s.tv) / (1e-3 + tv))
        return _State(
            beta,
            u,
            y,
            tv,
            e.weight,
            H,
            gain + decrement + moved**2,
            s.steps + 1,
        )

    init = _State(
        start.beta,
        start.u,
        start.y,
        tv,
        start.weights,
        jnp.eye(len(start.y)),
        jnp.asarray(jnp.inf),
        jnp.asarray(0),
    )
    s = lax.while_loop(lambda s: (s.steps < max_steps) & ~(s.gap <= tol), body, init)
    _, lam, _ = posterior.parameters(jnp.concatenate([s.beta, s.y]))
    normal, tv = precision(posterior, lam, s.weights)
    q = GaussianPosterior(s.beta, s.u, s.weights, s.y)
    value = bound_at(posterior, q, normal, tv, rule, k)
    return VariationalFound(q, tv, value, s.H, s.gap, s.steps)


def _slope(
    posterior: PosteriorModel,
    s: _State,
    normal: Bordered,
    u: Effects,
    tm: Array,
    rule: Rule,
    k: int,
) -> tuple[Float[Array, " r"], Float[Array, "r r"]]:
    """Gradient of -L in y and its positive curvature."""
    problem, belief = posterior.problem, posterior.belief
    factor = normal.factor
    lam = factor.lam
    # Sigma^-1 b, which is Z'E[l'] at the optimum and stays of its size on the way
    t = tuple(_solve_transposed(a, x) for a, x in zip(lam, u, strict=True))
    inverse = spd.inverse(normal.L) if problem.p else normal.L
    # sums of the blocks of Z'PZ: what V leaves, less what the coefficients take
    S = tuple(
        a - _levels(T, inverse) for a, T in zip(factor.traces(), normal.T, strict=True)
    )
    G = tuple(a - inner_levels(b, b) for a, b in zip(S, t, strict=True))
    own = problem.covariances
    D = jacobian(belief.rest(s.y)[: problem.m], own)
    score = 2 * pulled(D, pack([g @ x for g, x in zip(G, lam, strict=True)], own))
    v = directions(problem, lam, t, D)
    cross = inner_all(normal.T, v)
    info = factor.gram(v) - (cross.T @ spd.solve(normal.L, cross) if problem.p else 0.0)
    info = info + boundary(G, own, D)
    score_phi, info_phi = _dispersion(posterior, s, tm, rule, k)
    whole = jnp.concatenate([score, score_phi]) / 2
    info = jax.scipy.linalg.block_diag(info / 2, info_phi)
    log_prior = belief.log_prior_rest
    J = jax.jacfwd(belief.rest)(s.y)
    E = jax.hessian(lambda y: whole @ belief.rest(y) - log_prior(y))(s.y)
    H = J.T @ info @ J + jnp.diag(jnp.maximum(jnp.diagonal(E), 0.0))
    g = J.T @ whole - jax.grad(log_prior)(s.y)
    ridge = 1e-6 * jnp.max(jnp.diagonal(H)) + 1e-12
    return g, H + ridge * jnp.eye(len(H))


def _solve_transposed(
    lam: Float[Array, "q q"], u: Float[Array, "q K J"]
) -> Float[Array, "q K J"]:
    """Lambda'^-1 u."""
    if len(lam) == 1:
        return u / lam[0, 0]
    if len(lam) <= small.UNROLL:
        return jnp.stack(small.backward(small.lower(lam), list(u)))
    flat = solve_triangular(lam, u.reshape(len(lam), -1), lower=True, trans=1)
    return flat.reshape(u.shape)


def _levels(T: Float[Array, "q p J"], C: Float[Array, "p p"]) -> Float[Array, "q q"]:
    """sum_g T_g C T_g'."""
    return jnp.einsum("ipg,pr,jrg->ij", T, C, T)


def _dispersion(
    posterior: PosteriorModel, s: _State, tm: Array, rule: Rule, k: int
) -> tuple[Array, Array]:
    """-2 d/dphi of the rows' expectations, and -d2/dphi2 kept positive."""
    problem = posterior.problem
    if not problem.family.n_phi:
        return jnp.zeros(0), jnp.zeros((0, 0))
    _, _, phi = posterior.parameters(jnp.concatenate([s.beta, s.y]))

    def rows(phi: Array) -> Scalar:
        return -jnp.sum(rows_expected(posterior, tm, s.tv, phi, rule, k).value)

    slope, H = jax.grad(rows)(phi), jax.hessian(rows)(phi)
    if not problem.family.phi_apart:
        return 2 * slope, H
    floor = 0.1 + 0.1 * jnp.abs(H)
    eye = jnp.eye(len(phi), dtype=bool)
    return 2 * slope, jnp.where(eye, jnp.maximum(H, floor), 0.0)


class _Following(Module):
    """c, b: derivatives of scores of effects and beta in phi; du, db: P^-1 (c, b)."""

    c: Effects
    b: Float[Array, "p r"]
    du: Effects
    db: Float[Array, "p r"]


def _following(
    posterior: PosteriorModel,
    s: _State,
    normal: Bordered,
    tm: Array,
    phi: Array,
    rule: Rule,
    k: int,
) -> _Following:
    problem = posterior.problem

    def slopes(phi: Array) -> Array:
        return rows_expected(posterior, tm, s.tv, phi, rule, k, valued=False).slope

    S = jnp.moveaxis(jax.jacfwd(slopes)(phi), -1, 0)
    c = scale_transposed(normal.factor.lam, problem.rows.collect(S))
    b = jnp.stack([total(problem.X, one) for one in S], axis=1)
    return _Following(c, b, *normal.solve(c, b))


def _joint(
    g: Array, H: Array, follow: _Following, du: Effects, db: Array
) -> tuple[Array, Array]:
    """Gradient and Hessian of -L in y, coefficients and effects following phi."""
    r = follow.b.shape[1]
    taken = follow.b.T @ follow.db
    moved = follow.b.T @ db
    if du:
        taken = taken + inner_all(follow.c, follow.du)
        moved = moved + inner_all(follow.c, du)[:, 0]
    values, vectors = jnp.linalg.eigh(H[-r:, -r:] - taken)
    rest = (vectors * jnp.maximum(jnp.abs(values), LEAST)) @ vectors.T
    return g.at[-r:].add(-moved), H.at[-r:, -r:].set(rest)


def begin(
    posterior: PosteriorModel, x: Float[Array, " k"], u: Effects
) -> GaussianPosterior:
    """A q to start from: means as given, weights of a GLM there."""
    p = posterior.problem.p
    return GaussianPosterior(x[:p], u, jnp.zeros_like(posterior.problem.y), x[p:])


START_VARIANCE = 0.1  # of the predictors before anything is known


def fit_from(
    posterior: PosteriorModel,
    x: Float[Array, " k"],
    u: Effects,
    tol: Scalar,
    max_steps: Count,
    rule: Rule = "exact",
    k: int = NODES,
) -> VariationalFound:
    """The best q from x = (beta, y) and effects u."""
    posterior = posterior.folded()
    tv = jnp.full_like(posterior.problem.y, START_VARIANCE)
    return maximise(posterior, begin(posterior, x, u), tv, tol, max_steps, rule, k)


fit = partial(jit, static_argnames=("rule", "k"))(fit_from)


class Nodes(Module):
    """A mixture over nodes of y: ``VariationalFound`` with a leading axis, and weights.

    log_evidence: log of the integral of exp L(y).
    """

    found: VariationalFound
    weights: Float[Array, " m"]
    log_evidence: Scalar


@partial(jit, static_argnames=("rule", "k"))
def at_nodes(
    posterior: PosteriorModel,
    found: VariationalFound,
    T: Float[Array, "m r"],
    tol: Scalar,
    max_steps: Count,
    rule: Rule = "exact",
    k: int = NODES,
) -> VariationalFound:
    """The best q at nodes T of y, in standard deviations along ``axes`` from found's.

    A leading axis over the nodes; H is that of ``found`` at all of them.
    """
    return _at_nodes(posterior.folded(), found, T, tol, max_steps, rule, k)


def _at_nodes(posterior, found, T, tol, max_steps, rule, k) -> VariationalFound:
    r = len(found.q.y)
    A, _ = axes(found.H)

    def node(t: Array) -> VariationalFound:
        start = tree_at(lambda q: q.y, found.q, found.q.y + A @ t)
        return maximise(posterior, start, found.tv, tol, max_steps, rule, k, fixed=True)

    all_nodes = lax.map(node, jnp.asarray(T))
    curvature = jnp.broadcast_to(found.H, (len(T), r, r))  # fixed nodes have none
    return tree_at(lambda f: f.H, all_nodes, curvature)


def axes(H: Float[Array, "r r"]) -> tuple[Float[Array, "r r"], Scalar]:
    """A with A A' = H^-1, its columns orthogonal, and the log of its determinant.

    The largest component of a column is positive.
    """
    values, vectors = jnp.linalg.eigh(H)
    if len(H):
        largest = jnp.argmax(jnp.abs(vectors), axis=0)
        at = jnp.take_along_axis(vectors, largest[None], axis=0)
        vectors = jnp.where(at < 0, -vectors, vectors)
    return vectors / jnp.sqrt(values), -jnp.sum(jnp.log(values)) / 2


@partial(jit, static_argnames=("count", "rule", "k"))
def nested(
    posterior: PosteriorModel,
    found: VariationalFound,
    tol: Scalar,
    max_steps: Count,
    count: int,
    rule: Rule = "exact",
    k: int = NODES,
) -> Nodes:
    """Integrate exp L(y) over count nodes in each direction of y."""
    r = len(found.q.y)
    T, log_w = product_rule(count, r)
    all_nodes = _at_nodes(posterior.folded(), found, T, tol, max_steps, rule, k)
    log_terms = all_nodes.elbo + jnp.sum(T**2, axis=1) / 2 + log_w
    _, log_det = axes(found.H)
    total = jax.scipy.special.logsumexp(log_terms)
    volume = r * HALF_LOG_2PI + log_det
    return Nodes(all_nodes, jnp.exp(log_terms - total), total + volume)
