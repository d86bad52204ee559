"""Adaptive Gauss-Hermite quadrature: one grouping factor, up to three columns.

Around the mode u^_g of a level, with M_g = L_gL_g' its curvature, C_g = L_g'^-1, and
product nodes z_k of weights w_k (probabilists', sum one),

    log L_g = log sum_k exp(log w_k + z_k'z_k / 2 + l_g(u_gk) - u_gk'u_gk / 2) +
    log|C_g|,  u_gk = u^_g + C_g z_k

One node is Laplace's approximation (Pinheiro and Bates 1995). Sums of logarithms, never
products of likelihoods.

The gradient is written out. With pi_k the share of a node in its level, t_k = Z's_k,
kappa_k = Lambda't_k - u_k, what a change of u^ and of C does is

    p = sum_k pi_k kappa_k,   K = sum_k pi_k kappa_k z_k',

M- the derivative of tr(K'C) + log|C| in M, A- = Lambda M- Lambda', a = w1 z'A-z (the
move of the weights with eta at the mode) and y = M^-1 (p + Lambda'Z'a) (that of the
mode), the gradient of the log-likelihood is

    beta:    X'(sum_k pi_k s_k + a) - B'Lambda y
    Lambda:  sum_k pi_k t_k u_k' + Z'a u^' + 2 A Lambda M- + t y' - A Lambda y u^'

with t, A, B as in ``laplace_derivatives``; it is exact where u is the mode. Elsewhere
the value is corrected by (p + Lambda'Z'a)'delta, what the nodes gain by moving to the
mode: with few of them that is of first order, and a step would be judged by it.
"""

from __future__ import annotations

import itertools

import equinox as eqx
import numpy as np

from jaxglmm._typing import Array, Float
from jaxglmm.integrate.laplace_derivatives import Point, Terms
from jaxglmm.model.covariances.base import pack, pulled
from jaxglmm.model.generalised_problem import GeneralisedProblem
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.blocks import BlocksFactor
from jaxglmm.numerics.system import scale
from jaxglmm.runtime.arrays import grad_by_level, jnp, lax

AUTO = {1: (5, 10, 20, 40, 80), 2: (5, 10, 20, 40), 3: (5, 10, 20)}


def product_rule(nodes: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (nodes^q, q) and log weights (nodes^q,) for the standard normal."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    grid = np.array(list(itertools.product(z, repeat=q)))
    weights = np.array([np.prod(x) for x in itertools.product(w, repeat=q)])
    kept = weights > 1e-300
    return grid[kept], np.log(weights[kept])


def rules(q: int) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
    """The rules of ``AUTO``, one below the other.

    Returns their nodes a dimension, where each begins and the last ends, all nodes
    (N, q) and all log weights (N,).
    """
    counts = AUTO[q]
    tables = [product_rule(nodes, q) for nodes in counts]
    ends = np.cumsum([0, *(len(grid) for grid, _ in tables)])
    grid = np.concatenate([grid for grid, _ in tables])
    return counts, ends, grid, np.concatenate([w for _, w in tables])


class _Sums(eqx.Module):
    """Sums over nodes, each level relative to its largest term so far.

    top: the largest log term; mass: sum of exp(term - top); s: by row; l: by level, one
    a dispersion parameter; kappa (q, J); outer: kappa z' (q, q, J); tu: t u' (q, q, J).
    """

    top: Array
    mass: Array
    s: Array
    l: tuple[Array, ...]
    kappa: Array
    outer: Array
    tu: Array


def improve(
    problem: GeneralisedProblem,
    terms: Terms,
    psi: Float[Array, " k"],
    at: Point,
    u: tuple[Array],
    nodes: int,
    rule: Array | None = None,
) -> Point:
    """Value and score by quadrature in place of Laplace's; u must be the mode.

    problem: folded; at: the point at (psi, u), whose curvature is kept; rule: which of
    ``rules``, in place of nodes.
    """
    rows, p, lam = problem.rows, problem.p, at.lam
    phi = problem.split(psi)[2]
    r, factor = at.rows, at.factor
    assert isinstance(factor, BlocksFactor)
    assert r is not None  # rows of a point that quadrature is at are kept
    A, root = small.rows(factor.system.A), factor.L
    C = small.stack(_inverse_transposed(root), u[0][0, 0])
    M = small.stack(small.matmul(root, small.transpose(root)), u[0][0, 0])
    sums = _visit(problem, terms, at.eta, phi, lam[0], u[0][:, 0], C, nodes, rule)
    share = 1 / sums.mass
    kappa, outer, tu = (x * share for x in (sums.kappa, sums.outer, sums.tu))
    logs = sums.top + jnp.log(sums.mass)

    def bend(m: Array) -> Array:
        root = small.cholesky(small.rows(m))
        inverse = small.stack(_inverse_transposed(root), m[0, 0])
        return jnp.sum(outer * inverse, axis=(0, 1)) - small.log_diagonal(root)

    M_bar = grad_by_level(bend, M)
    M_bar = (M_bar + jnp.swapaxes(M_bar, 0, 1)) / 2
    L = small.lower(lam[0])
    A_bar = small.matmul(L, small.matmul(small.rows(M_bar), small.transpose(L)))
    lev = rows.quadratic(A_bar)
    a = problem.predictors.carried(r.w1, lev)
    (Za,), (t,) = rows.collect(a[None]), at.t
    pull = kappa[:, None] + scale((lam[0].T,), (Za,))[0]
    y = jnp.stack(small.solve(root, list(pull)))
    through = scale(lam, (y,))[0]
    carried = jnp.sum(at.slopes[0] * through, axis=(0, 2))
    s = sums.s * rows._at(0, share)
    first = problem.predictors.total(problem.X, s + a)
    for j, dw in enumerate(r.dw):
        own = jnp.sum(sums.l[j] * share) + jnp.sum(lev * dw)
        first = jnp.append(first, own)
    first = first - carried
    AL = small.matmul(A, L)
    bent = small.stack(small.matmul(AL, small.rows(M_bar)), u[0][0, 0])
    (Am,) = factor.system.normal((through,))
    along = tu + 2 * bent + (Za - Am) * u[0][:, 0][None] + t * y[:, 0][None]
    slope = jnp.sum(along, axis=-1)
    by_theta = pulled(at.J, pack([slope], problem.covariances))
    score = jnp.concatenate([first[:p], by_theta, first[p:]])
    half_det = jnp.sum(small.log_diagonal(root))
    ahead = jnp.sum(pull * at.step[0])  # value where the mode is, to first order
    value = -2 * (jnp.sum(logs) - half_det + ahead)
    return eqx.tree_at(lambda x: (x.value, x.score), at, (value, -2 * score))


def _inverse_transposed(root: small.Matrix) -> small.Matrix:
    """L'^-1, upper triangular."""
    q = len(root)
    one = jnp.ones_like(root[0][0])
    columns = [
        small.backward(root, [one if i == j else 0.0 for i in range(q)])
        for j in range(q)
    ]
    return small.transpose(columns)


def _visit(
    problem: GeneralisedProblem,
    terms: Terms,
    eta: Array,
    phi: Array,
    lam: Array,
    u: Float[Array, "q J"],
    C: Float[Array, "q q J"],
    nodes: int,
    rule: Array | None,
) -> _Sums:
    """The sums over all nodes, one after the other."""
    rows, q = problem.rows, len(u)
    if rule is None:
        grid, log_w = product_rule(nodes, q)
        begin, end = 0, len(grid)
    else:
        _, ends, grid, log_w = rules(q)
        begin, end = jnp.asarray(ends)[rule], jnp.asarray(ends)[rule + 1]
    log_w = jnp.asarray(log_w + 0.5 * np.sum(grid**2, axis=1))
    grid = jnp.asarray(grid)
    J = u.shape[1]
    start = _Sums(
        jnp.full(J, -jnp.inf),
        jnp.zeros(J),
        jnp.zeros_like(eta),
        tuple(jnp.zeros(J) for _ in range(problem.family.n_phi)),
        jnp.zeros((q, J)),
        jnp.zeros((q, q, J)),
        jnp.zeros((q, q, J)),
    )
    LC = small.stack(small.matmul(small.lower(lam), small.rows(C)), u[0])

    def visit(k: Array, sums: _Sums) -> _Sums:
        z, log_weight = grid[k], log_w[k]
        shift = jnp.sum(C * z[None, :, None], axis=1)
        step = jnp.sum(LC * z[None, :, None], axis=1)
        there = u + shift
        r = terms(eta + rows.spread((step[:, None],)), phi)
        term = log_weight + rows.level_sum(r.l) - jnp.sum(there**2, axis=0) / 2
        top = jnp.maximum(sums.top, term)
        safe = jnp.where(jnp.isfinite(top), top, 0.0)
        new, old = jnp.exp(term - safe), jnp.exp(sums.top - safe)
        new = jnp.where(jnp.isfinite(term), new, 0.0)
        old = jnp.where(jnp.isfinite(sums.top), old, 0.0)
        share = rows._at(0, new)
        s = jnp.where(share > 0, r.s, 0.0)
        (t,) = rows.collect(s[None])
        t = t[:, 0]
        kappa = scale((lam.T,), (t[:, None],))[0][:, 0] - there
        return _Sums(
            top,
            sums.mass * old + new,
            sums.s * rows._at(0, old) + s * share,
            tuple(
                x * old + rows.level_sum(jnp.where(share > 0, y, 0.0)) * new
                for x, y in zip(sums.l, r.dl, strict=True)
            ),
            sums.kappa * old + kappa * new,
            sums.outer * old + kappa[:, None] * z[None, :, None] * new,
            sums.tu * old + t[:, None] * there[None] * new,
        )

    return lax.fori_loop(begin, end, visit, start)
