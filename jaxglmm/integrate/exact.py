"""The exact marginal of a linear mixed model: u, and for REML beta, integrated out.

With V = I + Z Lambda Lambda' Z' (relative to sigma^2), Q = X'V^-1X, beta = Q^-1
X'V^-1y, r^2 = (y - X beta)'V^-1(y - X beta) and N = n - p (REML) or n (ML), minus twice
the log of the marginal density is

    d(theta, sigma) = log|M| + [REML: log|Q|] + N log(2 pi sigma^2) + r^2 / sigma^2

(Bates, Maechler, Bolker, Walker 2015). Score and average information follow from the
same few quantities for every structure. With t = Z'V^-1(y - X beta), T_X = Z'V^-1X and
S the sum of the diagonal blocks of Z'V^-1Z of one factor,

    dd = tr(G dSigma),  G = S - [REML: sum T_X Q^-1 T_X'] - sum t t' / sigma^2
    dd/dLambda_ij = 2 (G Lambda)_ij

    v_a = E_a t, E_a = e_i lambda_j' + lambda_j e_i' for a = (i, j)
    AI_ab = (v_a'Z'V^-1Zv_b - (T_X'v_a)'Q^-1(T_X'v_b)) / sigma^2

(Gilmour, Thompson, Cullis 1995, for components of the variance). Lambda -> Sigma is
quadratic, so the Hessian also holds 2 G_ii' [j = j']; its positive semidefinite part is
the whole curvature where a column of Lambda is zero, and makes Newton's method right
there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.model.covariances.base import (
    AbstractCovariance,
    Entry,
    jacobian,
    pack,
    pulled,
    slopes,
)
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics import spd
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.numerics.system import (
    AbstractFactor,
    Effects,
    Lambdas,
    at_least,
    inner,
    inner_all,
)
from jaxglmm.runtime.arrays import block_diag, jnp, put
from jaxglmm.runtime.trees import Module


class Marginal(Module):
    """What the marginal at one Lambda is made of.

    LQ: (p, p) Cholesky factor of Q; T: Z'V^-1[X y]; t: Z'V^-1(y - X beta), (q, 1, J) a
    factor; r2: residual sum of squares, penalised.
    """

    factor: AbstractFactor
    log_det: Scalar
    LQ: Float[Array, "p p"]
    beta: Float[Array, " p"]
    r2: Scalar
    T: Effects
    t: Effects


def marginal(problem: Problem, lam: Lambdas) -> Marginal:
    """Integrate u out and profile beta at one Lambda."""
    p = problem.p
    factor = problem.system.factor(lam)
    K, T = factor.project(problem.B, problem.RR)
    if p == 0:
        LQ, beta = jnp.zeros((0, 0), K.dtype), jnp.zeros(0, K.dtype)
        r2, t = K[0, 0], T
    else:
        LQ = spd.cholesky(K[:p, :p])
        half = spd.forward(LQ, K[:p, p])
        beta = spd.backward(LQ, half)
        r2 = K[p, p] - jnp.sum(half * half)
        t = tuple(
            x[:, p:, :] - jnp.sum(x[:, :p, :] * beta[None, :, None], 1, keepdims=True)
            for x in T
        )
    return Marginal(factor, factor.log_det(), LQ, beta, r2, T, t)


def degrees(problem: Problem, reml: bool) -> Scalar:
    """N = n - p for REML, n for ML."""
    return problem.n - problem.p if reml else problem.n


def _log_dets(at: Marginal, reml: bool) -> Scalar:
    return at.log_det + spd.log_det(at.LQ) if reml else at.log_det


def profiled(problem: Problem, lam: Lambdas, reml: bool) -> Scalar:
    """The criterion with sigma and beta profiled out (internal scale, no constants)."""
    return profiled_value(problem, marginal(problem, lam), reml)


def profiled_value(problem: Problem, at: Marginal, reml: bool) -> Scalar:
    """The same from what was computed at a Lambda."""
    N = degrees(problem, reml)
    return _log_dets(at, reml) + N * (1 + LOG_2PI + jnp.log(at.r2 / N))


def deviance(problem: Problem, lam: Lambdas, log_sigma2: Scalar, reml: bool) -> Scalar:
    """The criterion at a given sigma^2, beta profiled out (internal scale)."""
    return value_at(problem, marginal(problem, lam), log_sigma2, reml)


def value_at(problem: Problem, at: Marginal, log_sigma2: Scalar, reml: bool) -> Scalar:
    """The same from what was computed at a Lambda."""
    N = degrees(problem, reml)
    return (
        _log_dets(at, reml) + N * (LOG_2PI + log_sigma2) + at.r2 * jnp.exp(-log_sigma2)
    )


def score_matrices(
    problem: Problem, at: Marginal, sigma2: Scalar, reml: bool
) -> tuple[Float[Array, "q q"], ...]:
    """G of every factor: dd = tr(G dSigma)."""
    p = problem.p
    out = []
    for S, T, t in zip(at.factor.traces(), at.T, at.t, strict=True):
        G = S - jnp.sum(t * t[:, 0][None], axis=-1) / sigma2
        if reml and p > 0:
            X = T[:, :p]  # (q, p, J)
            half = jnp.swapaxes(spd.forward(at.LQ, jnp.swapaxes(X, 0, 1)), 0, 1)
            G = G - _outer(half)
        out.append(G)
    return tuple(out)


def _outer(x: Float[Array, "q p J"]) -> Float[Array, "q q"]:
    """Sum over p and J of x[i] x[j]."""
    q = len(x)
    if q <= 4:
        return jnp.sum(x[:, None] * x[None], axis=(2, 3))
    flat = x.reshape(q, -1)
    return flat @ flat.T


def _directions(
    lam: Float[Array, "q q"], entries: Sequence[Entry], t: Float[Array, "q 1 J"]
) -> Float[Array, "q m J"]:
    """v_a = E_a t for every free entry a = (i, j) of one factor."""
    q = len(lam)
    t = t[:, 0]
    u = [sum(lam[r, j] * t[r] for r in range(j, q)) for j in range(q)]
    rows = []
    for r in range(q):
        row = [
            (lam[r, j] * t[i] if r >= j else jnp.zeros_like(u[0]))
            + (u[j] if r == i else 0.0)
            for i, j in entries
        ]
        rows.append(jnp.stack(row))
    return jnp.stack(rows)


def _directions_wide(
    lam: Float[Array, "q q"], entries: Sequence[Entry], t: Float[Array, "q 1 J"]
) -> Float[Array, "q m J"]:
    """The same with arrays instead of unrolled sums, for many columns."""
    i, j = (jnp.asarray(index) for index in np.array(entries).T)
    t = t[:, 0]
    u = lam.T @ t
    picked = (jnp.arange(len(lam))[:, None] == i[None, :]).astype(lam.dtype)
    return picked[:, :, None] * u[j][None] + lam[:, j][:, :, None] * t[i][None]


def directions(
    problem: Problem, lam: Lambdas, t: Effects, J: Float[Array, "e m"] | None = None
) -> Effects:
    """v_a for the entries of all Lambdas (of theta with J); zero on other factors."""
    own = problem.covariances
    if J is None:
        makers = [_directions if len(x) <= 4 else _directions_wide for x in lam]
        each = zip(makers, lam, own, t, strict=True)
        found = [make(x, c.entries, s) for make, x, c, s in each]
    else:
        moved = slopes(J, own)
        found = [_along(x, D, s[:, 0]) for x, D, s in zip(lam, moved, t, strict=True)]
    m = sum(x.shape[1] for x in found)
    out, start = [], 0
    for v in found:
        stop = start + v.shape[1]
        whole = v.shape[1] == m
        out.append(v if whole else jnp.pad(v, ((0, 0), (start, m - stop), (0, 0))))
        start = stop
    return tuple(out)


def _along(
    lam: Float[Array, "q q"], D: Float[Array, "q q m"], t: Float[Array, "q J"]
) -> Float[Array, "q m J"]:
    """(dLambda Lambda' + Lambda dLambda') t."""
    first = jnp.einsum("ija,jg->iag", D, lam.T @ t)
    return first + jnp.tensordot(lam, jnp.einsum("jka,jg->kag", D, t), axes=1)


class Derivatives(Module):
    """The criterion with first derivatives and average information, at one point.

    Over the entries of Lambda, or theta. at: the criterion; G: one (q, q) a factor;
    score: (m,); info: (m, m) average information at fixed sigma, times one;
    tv: (m,) sum of t'v_a / sigma^2; boundary: (m, m), 2 G+.
    """

    at: Marginal
    G: tuple[Float[Array, "q q"], ...]
    score: Float[Array, " m"]
    info: Float[Array, "m m"]
    tv: Float[Array, " m"]
    boundary: Float[Array, "m m"]


def derivatives(
    problem: Problem,
    lam: Lambdas,
    sigma2: Scalar | None,
    reml: bool,
    J: Float[Array, "e m"] | None = None,
) -> Derivatives:
    """Score and average information at fixed sigma^2 (None: at its profiled value).

    J: how the entries move with theta; None for derivatives over the entries.
    """
    p = problem.p
    at = marginal(problem, kept_from_zero(lam))
    if sigma2 is None:
        sigma2 = at.r2 / degrees(problem, reml)
    G = score_matrices(problem, at, sigma2, reml)
    score = pulled(
        J, 2 * pack(products(G, lam, problem.covariances), problem.covariances)
    )
    v = directions(problem, lam, at.t, J)
    info = at.factor.gram(v)
    if p > 0:
        half = spd.forward(at.LQ, inner_all(tuple(x[:, :p] for x in at.T), v))
        info = info - spd.product(half.T, half)
    tv = sum(inner(x, s)[:, 0] for x, s in zip(v, at.t, strict=True)) / sigma2
    return Derivatives(
        at, G, score, info / sigma2, tv, boundary(G, problem.covariances, J)
    )


def products(
    G: Sequence[Array], lam: Lambdas, covariances: Sequence[AbstractCovariance]
) -> list[Float[Array, "q q"]]:
    """G Lambda of every factor."""
    each = zip(G, lam, covariances, strict=True)
    return [g * x[0, 0] if c.is_multiple else spd.product(g, x) for g, x, c in each]


def boundary(
    G: tuple[Float[Array, "q q"], ...],
    covariances: tuple[AbstractCovariance, ...],
    J: Float[Array, "e m"] | None = None,
) -> Float[Array, "m m"]:
    """2 (G+)_ii' where j = j', over the entries of each Lambda, or over theta."""
    if J is not None:
        each = zip(G, slopes(J, covariances), covariances, strict=True)
        return block_diag(*(_boundary_along(g, D, c) for g, D, c in each))
    blocks = []
    for g, pattern in zip(G, (c.entries for c in covariances), strict=True):
        if len(pattern) <= 6:
            half = spd.positive_part(g)
            entries = [
                2 * half[a, b] if j == k else jnp.zeros((), g.dtype)
                for a, j in pattern
                for b, k in pattern
            ]
            blocks.append(jnp.stack(entries).reshape(len(pattern), len(pattern)))
            continue
        i, j = (jnp.asarray(index) for index in zip(*pattern, strict=True))
        same = j[:, None] == j[None, :]
        blocks.append(jnp.where(same, 2 * spd.positive_part(g)[i][:, i], 0.0))
    if len(blocks) == 1:
        return blocks[0]
    m = sum(len(b) for b in blocks)
    out, start = jnp.zeros((m, m), blocks[0].dtype), 0
    for b in blocks:
        own = slice(start, start + len(b))
        out = put(out, (own, own), b)
        start += len(b)
    return out


def _boundary_along(
    g: Float[Array, "q q"], D: Float[Array, "q q m"], own: AbstractCovariance
) -> Float[Array, "m m"]:
    if own.is_multiple:
        return 2 * jnp.maximum(jnp.trace(g), 0.0)[None, None]
    half = jnp.tensordot(spd.positive_part(g), D, 1)
    return 2 * jnp.einsum("ija,ijb->ab", half, D)


def profiled_derivatives(
    problem: Problem, theta: Float[Array, " m"], reml: bool
) -> tuple[Scalar, Array, Array, Array]:
    """(criterion, score, curvature, scale) over theta for ``numerics.newton``."""
    lam = problem.lambdas(theta)
    J = jacobian(theta, problem.covariances)
    d = derivatives(problem, lam, None, reml, J)
    value = profiled_value(problem, d.at, reml)
    info = d.info - jnp.outer(d.tv, d.tv) / degrees(problem, reml)
    return value, d.score, info + d.boundary, 1 + spd.diagonal(info)


def kept_from_zero(lam: Lambdas) -> Lambdas:
    """Lambda for the traces: of several factors they divide by it, of one they do not.

    Only the matrices are taken there; the score is G times the true Lambda, so that it
    vanishes with a column.
    """
    return lam if len(lam) == 1 else at_least(lam)
