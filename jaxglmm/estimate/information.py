"""Derivatives at the optimum of a linear mixed model, for inference.

Exact: forward mode over the analytic score, and Kenward and Roger's matrices from
blocks of Z'V^-1Z. All in the problem's internal coordinates; the degrees of freedom do
not depend on them, for they are invariant under linear maps of X, of the columns of Z
and of y.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.integrate import exact
from jaxglmm.model.covariances.base import jacobian, pack, pulled
from jaxglmm.model.linear_problem import Problem
from jaxglmm.numerics import spd
from jaxglmm.numerics.blocks import Blocks
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.numerics.system import (
    AbstractFactor,
    Effects,
    Lambdas,
    at_least,
    inner_all,
    scale,
    scale_transposed,
)
from jaxglmm.runtime.arrays import is_host, jnp, lax, linearize, put
from jaxglmm.runtime.compile import stored
from jaxglmm.runtime.trees import Module

FEW = 12  # columns up to which products of all pairs of entries are formed
MOST_DENSE = 3000  # random effects in all up to which Z'V^-1Z is formed in full
FAR = 1e-3  # smallest diagonal of Lambda where second derivatives divide by it


class Curvature(Module):
    """The Hessian of the criterion, and how the covariance of beta moves.

    hessian: of the criterion over (theta, log sigma^2); vcov: sigma^2 Q^-1 and its
    derivatives in the same parameters, (p, p) and (p, p, m + 1); value, score: of the
    criterion, internal and without constants.
    """

    hessian: Float[Array, "k k"]
    vcov: Float[Array, "p p"]
    dvcov: Float[Array, "p p k"]
    value: Scalar
    score: Float[Array, " k"]


def _gradient(
    problem: Problem, v: Float[Array, " k"], reml: bool
) -> tuple[Float[Array, " k"], Float[Array, "p p"], Scalar]:
    """Score over (theta, log sigma^2); the covariance of beta and the value there."""
    lam, sigma2 = problem.lambdas(v[:-1]), jnp.exp(v[-1])
    at = exact.marginal(problem, exact.kept_from_zero(lam))
    G = exact.score_matrices(problem, at, sigma2, reml)
    own = problem.covariances
    entries = 2 * pack(exact.products(G, lam, own), own)
    score = pulled(jacobian(v[:-1], own), entries)
    last = exact.degrees(problem, reml) - at.r2 / sigma2
    value = exact.value_at(problem, at, v[-1], reml)
    return jnp.append(score, last), sigma2 * spd.inverse(at.LQ), value


@stored(static=("reml",), fast=False, host=True)
def curvature(
    problem: Problem, theta: Float[Array, " m"], sigma2: Scalar, reml: bool
) -> Curvature:
    """What Satterthwaite's method needs (Kuznetsova et al. 2017), exactly.

    sigma2: NaN for the best one at theta.
    """
    at = exact.marginal(problem, exact.kept_from_zero(problem.lambdas(theta)))
    best = at.r2 / exact.degrees(problem, reml)
    v = jnp.append(theta, jnp.log(jnp.where(jnp.isnan(sigma2), best, sigma2)))
    eye = jnp.eye(len(v), dtype=v.dtype)

    def gradient(x: Array) -> tuple[Array, Array, Scalar]:
        return _gradient(problem, x, reml)

    # all at once where the algebra is unrolled; else one by one, for two batched LAPACK
    # calls must not run at the same time (see ``numerics.wide``)
    unrolled = isinstance(problem.system, Blocks) and problem.p <= spd.SMALL
    if unrolled and not is_host():

        def push(e: Array) -> tuple[Any, Array, Array]:
            there, (h, d, _) = jax.jvp(gradient, (v,), (e,))
            return there, h, d

        there, H, dvcov = jax.vmap(push, out_axes=(None, 0, 0))(eye)
    else:
        there, along = linearize(gradient, v)
        H, dvcov, _ = lax.map(along, eye)
    score, vcov, value = there
    return Curvature((H + H.T) / 2, vcov, jnp.moveaxis(dvcov, 0, -1), value, score)


class Components(Module):
    """Kenward and Roger's matrices over the parameters of V.

    C: (p, p) X'V^-1X; P: (r, p, p) its derivatives; Q: (r, r, p, p)
    X'V^-1V_rV^-1V_sV^-1X made symmetric; K: (r, r) tr(V^-1V_rV^-1V_s); R: (r, r, p, p)
    X'V^-1V_rsV^-1X. The last parameter is the residual variance.
    """

    C: Float[Array, "p p"]
    P: Float[Array, "r p p"]
    Q: Float[Array, "r r p p"]
    K: Float[Array, "r r"]
    R: Float[Array, "r r p p"]


Direction = tuple[int, Float[Array, "q q"]]  # the factor, dG of its levels


@stored(fast=False, host=True)
def components(
    problem: Problem,
    theta: Float[Array, " m"],
    sigma2: Scalar,
    slopes: tuple[Float[Array, "r q q"], ...],
    bends: tuple[Float[Array, "r r q q"] | None, ...],
) -> Components:
    """C, P, Q, K and R (Kenward and Roger 1997), without an n x n matrix.

    Everything with the residual component follows from V = sigma^2 I + sum of all
    Z G Z', hence V^-1 = sigma^2 V^-1V^-1 + V^-1(V - sigma^2 I)V^-1.

    slopes, bends: of each factor the derivatives of G = sigma^2 Sigma.
    """
    p = problem.p
    lam = problem.lambdas(theta)
    at = exact.marginal(problem, lam)
    basis = [(f, E[k]) for f, E in enumerate(slopes) for k in range(E.shape[0])]
    basis += [(f, sigma2 * x @ x.T) for f, x in enumerate(lam)]  # V itself
    R, own = len(basis), len(basis) - len(lam)
    gamma = np.repeat([0.0, 1.0], [own, len(lam)])
    T = [x[:, :p] / sigma2 for x in at.T]
    blocks = [(f, jnp.tensordot(E, T[f], axes=1)) for f, E in basis]  # (q, p, J)
    P = jnp.stack([-jnp.einsum("ipg,iqg->pq", T[f], w) for f, w in blocks])
    wide = _side_by_side(problem, blocks)
    gram = (at.factor.gram(wide) / sigma2).reshape(R, p, R, p)
    Q = jnp.transpose(gram, (0, 2, 1, 3))
    Q = (Q + jnp.swapaxes(Q, 2, 3)) / 2
    K, trace = _traces(problem, lam, at.factor, basis)
    K, trace = K / sigma2**2, trace / sigma2

    C = at.LQ @ at.LQ.T / sigma2
    P_last = -(C + jnp.tensordot(gamma, P, axes=1)) / sigma2
    Q_last = (-P - jnp.tensordot(gamma, Q, axes=1)) / sigma2
    Q_both = (-P_last - jnp.tensordot(gamma, Q_last, axes=1)) / sigma2
    K_last = (trace - K @ gamma) / sigma2
    trace_last = (problem.n - gamma @ trace) / sigma2  # tr V^-1
    K_both = (trace_last - gamma @ K_last) / sigma2

    Q = jnp.concatenate([Q, Q_last[None]], axis=0)
    column = jnp.concatenate([Q_last, Q_both[None]], axis=0)[:, None]
    kept = np.append(np.arange(own), R)
    K = jnp.block([[K, K_last[:, None]], [K_last[None], K_both]])
    return Components(
        C,
        jnp.concatenate([P, P_last[None]])[kept],
        jnp.concatenate([Q, column], axis=1)[kept][:, kept],
        K[kept][:, kept],
        _bent(T, slopes, bends),
    )


def _bent(
    T: list[Float[Array, "q p J"]],
    slopes: tuple[Float[Array, "r q q"], ...],
    bends: tuple[Float[Array, "r r q q"] | None, ...],
) -> Float[Array, "r r p p"]:
    """X'V^-1V_rsV^-1X, zero across factors and with the residual variance."""
    p = T[0].shape[1]
    r = sum(E.shape[0] for E in slopes) + 1
    out, start = jnp.zeros((r, r, p, p)), 0
    for x, E, bend in zip(T, slopes, bends, strict=True):
        own = slice(start, start + E.shape[0])
        if bend is not None:
            moved = jnp.tensordot(bend, x, axes=1)  # (r, r, q, p, J)
            out = put(out, (own, own), jnp.einsum("ipg,rsiqg->rspq", x, moved))
        start = own.stop
    return out


def _side_by_side(
    problem: Problem, blocks: list[tuple[int, Float[Array, "q p J"]]]
) -> Effects:
    """All E_r T_X as columns of one multi-vector."""
    out = []
    for f, B in enumerate(problem.B):
        q, _, J = B.shape
        zero = jnp.zeros((q, problem.p, J), B.dtype)
        out.append(jnp.concatenate([w if g == f else zero for g, w in blocks], axis=1))
    return tuple(out)


def _traces(
    problem: Problem,
    lam: Lambdas,
    factor: AbstractFactor,
    basis: list[Direction],
) -> tuple[Float[Array, "r r"], Float[Array, " r"]]:
    """tr(V^-1G_rV^-1G_s) and tr(V^-1G_r) for sigma = 1.

    One factor: from the blocks of Z'V^-1Z. Several, few random effects: from Z'V^-1Z
    in full. Many: K is minus the derivative of the traces in Sigma, taken along
    dLambda = Lambda Phi(Lambda^-1 E Lambda'^-1).
    """
    sides = problem.sides
    total = sum(b.shape[0] * b.shape[-1] for b in problem.B)
    if len(sides) == 1:
        return _traces_by_level(problem, factor, [E for _, E in basis])
    if total <= MOST_DENSE:
        return _traces_in_full(problem, factor, basis)
    lam = at_least(lam, FAR)

    def first(x: Lambdas) -> Array:
        S = problem.system.factor(x).traces()
        return jnp.stack([jnp.sum(S[f] * E) for f, E in basis])

    def change(r: int) -> Lambdas:
        f, E = basis[r]
        inverse = jnp.linalg.inv(lam[f])
        middle = inverse @ E @ inverse.T
        phi = jnp.tril(middle) - jnp.diag(jnp.diagonal(middle)) / 2
        return tuple(
            x @ phi if g == f else jnp.zeros_like(x) for g, x in enumerate(lam)
        )

    value, along = linearize(first, lam)
    changes = [change(r) for r in range(len(basis))]
    K = -lax.map(along, tuple(jnp.stack(x) for x in zip(*changes, strict=True)))
    return (K + K.T) / 2, value


def _traces_by_level(
    problem: Problem, factor: AbstractFactor, basis: list[Float[Array, "q q"]]
) -> tuple[Float[Array, "r r"], Float[Array, " r"]]:
    """One factor: tr(E_r S_g E_s S_g) summed over the levels g."""
    q, _, J = problem.B[0].shape
    eye = jnp.broadcast_to(jnp.eye(q)[:, :, None], (q, q, J))
    A = problem.system.normal((eye,))
    _, (S,) = factor.project(A, jnp.zeros((q, q)))
    E = jnp.stack(basis)
    trace = jnp.einsum("rab,ba->r", E, jnp.sum(S, axis=-1))
    if q <= FEW:
        pairs = S.reshape(q * q, J) @ S.reshape(q * q, J).T
        K = jnp.einsum("rab,scd,bcda->rs", E, E, pairs.reshape(q, q, q, q))
        return K, trace

    def level(total: Array, s: Array) -> tuple[Array, None]:
        x = E @ s
        flat = x.reshape(len(E), -1)
        return total + flat @ jnp.swapaxes(x, 1, 2).reshape(len(E), -1).T, None

    zero = jnp.zeros((len(E), len(E)), E.dtype)
    return lax.scan(level, zero, jnp.moveaxis(S, -1, 0))[0], trace


def _traces_in_full(
    problem: Problem, factor: AbstractFactor, basis: list[Direction]
) -> tuple[Float[Array, "r r"], Float[Array, " r"]]:
    identity, start = [], 0
    total = sum(b.shape[0] * b.shape[-1] for b in problem.B)
    spans = []
    for B in problem.B:
        q, J = B.shape[0], B.shape[-1]
        own = jnp.eye(J * q, dtype=B.dtype).reshape(J * q, J, q).transpose(2, 0, 1)
        identity.append(jnp.pad(own, ((0, 0), (start, total - start - J * q), (0, 0))))
        spans.append((start, q, J))
        start += q * J
    S = factor.gram(tuple(identity))
    placed = []
    for f, E in basis:  # E_r S: rows of factor f only
        begin, q, J = spans[f]
        rows = S[begin : begin + q * J].reshape(J, q, total)
        mixed = jnp.einsum("ab,gbt->gat", E, rows).reshape(-1, total)
        placed.append(put(jnp.zeros_like(S), slice(begin, begin + q * J), mixed))
    ES = jnp.stack(placed)
    K = jnp.einsum("rab,sba->rs", ES, ES)
    return K, jnp.einsum("raa->r", ES)


class Conditional(Module):
    """Covariances of the random effects given theta, for sigma = 1.

    D: diagonal blocks of Lambda M^-1 Lambda', (q, q, J) a factor; K: Lambda M^-1
    Lambda'Z'X, (q, p, J): the modes fall by K beta as beta rises.
    """

    D: tuple[Float[Array, "q q J"], ...]
    K: Effects


@stored(fast=False, host=True)
def conditional(problem: Problem, theta: Float[Array, " m"]) -> Conditional:
    """Covariances of the random effects given the parameters."""
    lam = problem.lambdas(theta)
    factor = problem.system.factor(lam)
    X = tuple(b[:, : problem.p] for b in problem.B)
    K = scale(lam, factor.backward(factor.forward(scale_transposed(lam, X))))
    D = tuple(
        jnp.einsum("ia,abg,jb->ijg", x, blocks, x)
        for x, blocks in zip(lam, factor.inverse_blocks(), strict=True)
    )
    return Conditional(D, K)


@jax.jit
def leverages(
    problem: Problem, theta: Float[Array, " m"], w: Effects
) -> tuple[Float[Array, " K"], Float[Array, "K p"]]:
    """w'Lambda M^-1 Lambda'w and w'K for several w at once, across all factors."""
    lam = problem.lambdas(theta)
    factor = problem.system.factor(lam)
    z = factor.forward(scale_transposed(lam, w))
    X = tuple(b[:, : problem.p] for b in problem.B)
    x = factor.forward(scale_transposed(lam, X))
    square = sum(jnp.sum(a * a, axis=(0, 2)) for a in z)
    return square, inner_all(z, x)


class Directional(Module):
    """The ML deviance at fixed sigma^2 and its derivatives along given directions.

    value; score (m,); info (m, m) average information; tv (m,), so that info with log
    sigma^2 is tv; r2_ratio: r^2 / sigma^2; G: (q, q) a factor.
    """

    value: Scalar
    score: Float[Array, " m"]
    info: Float[Array, "m m"]
    tv: Float[Array, " m"]
    r2_ratio: Scalar
    G: tuple[Float[Array, "q q"], ...]


@jax.jit
def along(
    problem: Problem,
    lam: Lambdas,
    sigma2: Scalar,
    changes: tuple[Float[Array, "m q q"], ...],
) -> Directional:
    """Derivatives along dSigma_a = changes[f][a], for any parametrisation of Sigma."""
    at = exact.marginal(problem, exact.kept_from_zero(lam))
    G = exact.score_matrices(problem, at, sigma2, reml=False)
    score = sum(jnp.einsum("ij,aij->a", g, c) for g, c in zip(G, changes, strict=True))
    v = tuple(
        jnp.einsum("aij,jg->iag", c, t[:, 0])
        for c, t in zip(changes, at.t, strict=True)
    )
    info = at.factor.gram(v)
    p = problem.p
    if p > 0:
        half = spd.forward(at.LQ, inner_all(tuple(x[:, :p] for x in at.T), v))
        info = info - half.T @ half
    tv = sum(jnp.einsum("iag,ig->a", x, t[:, 0]) for x, t in zip(v, at.t, strict=True))
    value = at.log_det + problem.n * (LOG_2PI + jnp.log(sigma2)) + at.r2 / sigma2
    return Directional(value, score, info / sigma2, tv / sigma2, at.r2 / sigma2, G)
