"""The exact marginal of a linear model by blocks of rows, with exact derivatives.

With P = V^-1 of a block, Q = X'PX, L = chol(Q), beta = Q^-1 X'Py, r = P(y - X beta),
B = PX L'^-1 and S = [REML: BB'] + rr', minus twice the log of the marginal density is

    d(theta) = sum log|V| + [REML: log|Q|] + N log 2 pi + (y - X beta)'r

    dd/da = <dV_a, P - S>
    d2d/dadb = <d2V_ab, P - S> - tr(dV_a P dV_b (P - 2 S))
               - [REML: tr(F_a F_b)] - 2 f_a'f_b,   F_a = B'dV_a B,  f_a = B'dV_a r

(Jennrich and Schluchter 1986; Lindstrom and Bates 1988). tr(dV_a P dV_b P), Fisher's
information by maximum likelihood, stands in for the Hessian where that has a negative
eigenvalue. Sums over the blocks of one pattern meet the derivatives once.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float, Scalar
from jaxglmm.model.marginal_problem import MarginalProblem, Stack
from jaxglmm.numerics import definite, spd
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.runtime.arrays import jnp, segment_sum
from jaxglmm.runtime.trees import Module


class Precision(Module):
    """Of one stack: P (K, T, T), zero where a pattern has no row; PR = P[X y]."""

    P: Float[Array, "K T T"]
    PR: Float[Array, "N T c"]


class BlockMarginal(Module):
    """What the marginal at one theta is made of; LQ: Cholesky factor of Q."""

    parts: tuple[Precision, ...]
    log_det: Scalar
    LQ: Float[Array, "p p"]
    beta: Float[Array, " p"]
    r2: Scalar


def precision(stack: Stack, V: Float[Array, "G T T"]) -> tuple[Array, Array]:
    """P and log |V| of every pattern."""
    mask = stack.mask
    both = mask[:, :, None] * mask[:, None, :]
    eye = jnp.eye(mask.shape[1])
    P, log_det = definite.inverse(V[stack.template] * both + eye * (1 - mask)[:, None])
    return P * both, log_det


def marginal(problem: MarginalProblem, covariances: list[Array]) -> BlockMarginal:
    """Profile beta at the covariances of every stack's templates."""
    parts, log_det = [], 0.0
    M: Array = jnp.zeros(())
    for stack, V in zip(problem.stacks, covariances, strict=True):
        P, log_dets = precision(stack, V)
        PR = P[stack.pattern] @ stack.rows
        parts.append(Precision(P, PR))
        log_det = log_det + stack.count @ log_dets
        c = stack.rows.shape[-1]
        M = M + stack.rows.reshape(-1, c).T @ PR.reshape(-1, c)
    p = problem.p
    if p == 0:
        LQ, beta, r2 = jnp.zeros((0, 0)), jnp.zeros(0), M[0, 0]
    else:
        LQ = spd.cholesky(M[:p, :p])
        half = spd.forward(LQ, M[:p, p])
        beta = spd.backward(LQ, half)
        r2 = M[p, p] - half @ half
    return BlockMarginal(tuple(parts), log_det, LQ, beta, r2)


def value_of(problem: MarginalProblem, at: BlockMarginal, reml: bool) -> Scalar:
    """The criterion on the internal scale, without the problem's constant."""
    rest = problem.n - problem.p if reml else problem.n
    d = at.log_det + rest * LOG_2PI + at.r2
    return d + spd.log_det(at.LQ) if reml and problem.p else d


class BlockDerivatives(Module):
    """The criterion at one theta.

    score (m,); hessian (m, m), exact; fisher (m, m); F: (m, p, p) L^-1 X'P dV_a P X
    L'^-1, so that dQ_a = -L F_a L'; f: (m, p) L^-1 X'P dV_a r, so that beta falls by
    L'^-1 f_a.
    """

    at: BlockMarginal
    value: Scalar
    score: Float[Array, " m"]
    hessian: Float[Array, "m m"]
    fisher: Float[Array, "m m"]
    F: Float[Array, "m p p"]
    f: Float[Array, "m p"]


def derivatives(
    problem: MarginalProblem, theta: Float[Array, " m"], reml: bool
) -> BlockDerivatives:
    """Value, score, Hessian and Fisher's information."""
    tables = [problem.tables(theta, stack) for stack in problem.stacks]
    at = marginal(problem, [V for V, _ in tables])
    p = problem.p
    score = hessian = fisher = C = jnp.zeros(())
    half = spd.forward(at.LQ, jnp.eye(p, dtype=at.LQ.dtype)) if p else at.LQ
    for stack, part, (_, dV) in zip(problem.stacks, at.parts, tables, strict=True):
        PX, Py = part.PR[..., :p], part.PR[..., p]
        r = Py - PX @ at.beta
        B = PX @ half.T
        BR = jnp.concatenate([B, r[..., None]], axis=-1)
        used = BR if reml else BR[..., p:]
        K = stack.mask.shape[0]
        own = used @ jnp.swapaxes(used, 1, 2)
        S = segment_sum(own, stack.pattern, K, indices_are_sorted=True)
        nP = stack.count[:, None, None] * part.P
        G = stack.group.shape[0]
        D = segment_sum(nP - S, stack.template, G, indices_are_sorted=True)
        score = score + jnp.einsum("agij,gij->a", dV, D)
        traces = _traces(stack, dV, part.P, (nP - 2 * S, nP))
        hessian = hessian + problem.bend(theta, stack, D) - traces[0]
        fisher = fisher + traces[1]
        C = C + _crossed(stack, dV, BR)
    F, f = C[:, :p, :p], C[:, :p, p]
    hessian = hessian - 2 * f @ f.T
    if reml:
        flat = F.reshape(len(F), -1)
        hessian = hessian - flat @ flat.T
    value = value_of(problem, at, reml)
    return BlockDerivatives(at, value, score, (hessian + hessian.T) / 2, fisher, F, f)


def _alike(stack: Stack) -> bool:
    """Whether blocks share templates, so that sums over them come first."""
    return stack.group.shape[0] < stack.mask.shape[0]


def _traces(
    stack: Stack, dV: Array, P: Array, others: tuple[Array, ...]
) -> list[Float[Array, "m m"]]:
    """Sum over patterns of tr(dV_a P dV_b Y), for several Y (K, T, T)."""
    G, T = stack.group.shape[0], stack.mask.shape[1]
    m = len(dV)
    if not _alike(stack):
        there = dV[:, stack.template]
        left = (P @ there).reshape(m, -1)
        return [left @ jnp.swapaxes(Y @ there, 2, 3).reshape(m, -1).T for Y in others]
    # per template the sum of P (x) Y, which is met by dV on both sides
    flat = P.reshape(-1, T * T)
    out = []
    for Y in others:
        total = 0.0
        for g in range(G):
            mine = flat * (stack.template == g)[:, None]
            tensor = (mine.T @ Y.reshape(-1, T * T)).reshape(T, T, T, T)  # t u v s
            # sum dV_a[s, t] P[t, u] dV_b[u, v] Y[v, s]
            left = jnp.tensordot(dV[:, g], jnp.transpose(tensor, (3, 0, 1, 2)), axes=2)
            total = total + left.reshape(m, -1) @ dV[:, g].reshape(m, -1).T
        out.append(total)
    return out


def _crossed(stack: Stack, dV: Array, BR: Float[Array, "N T c"]) -> Array:
    """Sum over blocks of [B r]'dV_a[B r], (m, c, c)."""
    T, c = BR.shape[1:]
    template = stack.template[stack.pattern]
    if not _alike(stack):
        mine = dV[:, template]
        return jnp.einsum("ntc,antu,nud->acd", BR, mine, BR, optimize=True)
    total = 0.0
    for g in range(stack.group.shape[0]):
        flat = (BR * (template == g)[:, None, None]).reshape(-1, T * c)
        gram = (flat.T @ flat).reshape(T, c, T, c)
        total = total + jnp.tensordot(dV[:, g], gram, axes=((1, 2), (0, 2)))
    return total
