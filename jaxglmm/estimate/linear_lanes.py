"""Many linear mixed models with one grouping factor: start, search, boundary, report.

One compiled program takes the cross-products of L lanes to everything that is reported
of them. The steps are those of a single fit (``estimate.start``,
``estimate.maximise``, ``estimate.information``), written with the lanes last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxglmm import _status
from jaxglmm._typing import Array, Float, Int
from jaxglmm.estimate.maximise import INDIFFERENT, NEAR_ZERO
from jaxglmm.estimate.start import LEAST, MOST
from jaxglmm.integrate import exact_one_factor as crit
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.numerics import newton_lanes as search
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module
from jaxglmm.structure import per_dataset_design as own
from jaxglmm.structure import shared_design as shared
from jaxglmm.structure.level_types import Groups, Sums, entries, total, weighted

NEARLY = 1e3  # times the tolerance: decrements by the exact Hessian are noisier
UNSURE = 1e-7  # a pivot of the Hessian this small leaves the df to the host


class LinearReport(Module):
    """L fits in the lanes' internal coordinates.

    theta: (m, L); beta, se, df: (p, L), the latter two of the rows of ``back`` (see
    ``fit``); sigma2, criterion, decrement: (L,); df_sigma: (L,) degrees of freedom of
    the residual variance; status, steps: (L,); unsure: (L,) where df needs care.
    """

    theta: Float[Array, "m L"]
    beta: Float[Array, "p L"]
    se: Float[Array, "p L"]
    df: Float[Array, "p L"]
    sigma2: Float[Array, " L"]
    criterion: Float[Array, " L"]
    decrement: Float[Array, " L"]
    df_sigma: Float[Array, " L"]
    status: Int[Array, " L"]
    steps: Int[Array, " L"]
    unsure: Int[Array, " L"]


@dataclass(frozen=True)
class SharedFit:
    """Program for responses of one design: Y (n, L) -> (facts, ``LinearReport``)."""

    covariance: AbstractCovariance
    reml: bool

    def __call__(self, common: Any, Y: Array) -> Any:
        """common: (rows, groups, back, tol, max_steps)."""
        rows, groups, back, tol, max_steps = common
        ready = shared.prepare(rows, Y)
        found = fit(
            groups, ready.sums, back, tol, max_steps, self.covariance, self.reml
        )
        return ready.facts, found


@dataclass(frozen=True)
class OwnFit:
    """Program for lanes with designs of their own.

    (Y, W), (n, L) each, where ``rows`` is given, or their products -> facts, the
    way back (R^-1, T^-1, log|X'WX|) and ``LinearReport``.
    """

    covariance: AbstractCovariance
    spans: own.Spans
    reml: bool

    def __call__(self, common: Any, lanes: Any) -> Any:
        """common: (rows or None, R^-1, tol, max_steps)."""
        rows, R_inverse, tol, max_steps = common
        raw = lanes if rows is None else own.weigh(rows, *lanes)
        local = own.localise(raw, self.spans)
        back = local.back
        if len(back):
            back = jnp.einsum("ab,bcl->acl", R_inverse, back)
        found = fit(
            local.groups, local.sums, back, tol, max_steps, self.covariance, self.reml
        )
        ways = local.back, local.T_inverse, local.log_det
        return own.DesignFacts.of(raw), ways, found


def start(g: Groups, r: Sums, covariance: AbstractCovariance) -> Float[Array, "m L"]:
    """theta by MINQUE(0), as in ``estimate.start``."""
    q, p = g.q, g.p
    A, X = entries(g.A), entries(g.X)
    own = [total(r.yy[i, i]) for i in range(q)]
    trace = []
    grams = [
        [
            [total(weighted(g.count, X[i][a] * X[i][b])) for b in range(p)]
            for a in range(p)
        ]
        for i in range(q)
    ]
    C: list[list[Any]] = [[0.0] * (q + 1) for _ in range(q + 1)]
    for i in range(q):
        for j in range(i + 1):
            square = weighted(g.count, A[i][j] * A[i][j])
            mixed = sum((X[i][a] * A[i][j] * X[j][a] for a in range(p)), 0.0)
            entry = (
                total(square) - 2 * total(weighted(g.count, mixed))
                if p
                else total(square)
            )
            for a in range(p):
                for b in range(p):
                    entry = entry + grams[i][a][b] * grams[j][a][b]
            C[i][j] = C[j][i] = entry
        t = total(weighted(g.count, A[i][i]))
        for a in range(p):
            t = t - grams[i][a][a]
        trace.append(t)
    for i in range(q):
        C[q][i] = C[i][q] = trace[i]
    C[q][q] = g.n - p
    ridge = 1 + 1e-10
    C = [
        [x * ridge if i == j else x for j, x in enumerate(row)]
        for i, row in enumerate(C)
    ]
    gamma = small.solve(small.cholesky(C), [*own, r.rr])
    base = jnp.maximum(gamma[q], 1e-3 * r.rr / g.n)
    sd = []
    for i in range(q):
        x = jnp.sqrt(jnp.clip(gamma[i] / base, LEAST**2, MOST**2))
        sd.append(jnp.where(jnp.isfinite(x), x, 1.0))
    return jnp.stack(covariance.start(sd))


def _derivatives(
    g: Groups, r: Sums, theta: Array, covariance: AbstractCovariance, reml: bool
):
    at = crit.marginal(g, r, list(theta), covariance)
    t = crit.tables(g, at, reml)
    E = crit.directions(at.Lam, covariance, at.J)
    info, tv = crit.information(g, t, E)
    N = crit.degrees(g, reml)
    edge = crit.boundary(t.G, covariance, at.J, crit.positive_part)
    m = covariance.m
    profiled = [[info[a][b] - tv[a] * tv[b] / N for b in range(m)] for a in range(m)]
    H = jnp.stack(
        [jnp.stack([profiled[a][b] + edge[a][b] for b in range(m)]) for a in range(m)]
    )
    D = jnp.stack([1 + profiled[a][a] for a in range(m)])
    return crit.value(g, at, reml), jnp.stack(crit.score(t, at, covariance)), H, D


def fit(
    g: Groups,
    r: Sums,
    back: Float[Array, "p p l"],
    tol: Array,
    max_steps: Array,
    covariance: AbstractCovariance,
    reml: bool,
) -> LinearReport:
    """Fit L lanes.

    back: rows are the contrasts whose standard errors and degrees of freedom are
    reported, in internal coordinates.
    """
    theta = start(g, r, covariance)
    found = search.minimise(
        lambda x: _derivatives(g, r, x, covariance, reml), theta, tol, max_steps
    )

    def value(x: Array) -> Array:
        return crit.value(g, crit.marginal(g, r, list(x), covariance), reml)

    theta = pinned(value, found.x, jnp.array(covariance.is_scale)[:, None])
    at = crit.marginal(g, r, list(theta), covariance)
    inferred = _inference(g, theta, at, back, covariance, reml)
    sigma2 = at.r2 / crit.degrees(g, reml)
    values = theta, at.beta, sigma2, crit.value(g, at, reml)
    return reported(found, *values, inferred, tol)


class Inferred(Module):
    """Of L lanes, see ``LinearReport``; left: Newton decrement by the exact Hessian."""

    df: Float[Array, "p L"]
    se: Float[Array, "p L"]
    df_sigma: Float[Array, " L"]
    unsure: Array
    left: Float[Array, " L"]


def reported(
    found: search.LanesMinimum,
    theta: Array,
    beta: small.Vector,
    sigma2: Array,
    criterion: Array,
    inferred: Inferred,
    tol: Array,
) -> LinearReport:
    """What was found, with a status that has seen the exact Hessian."""
    status = jnp.where(found.status == search.RUNNING, _status.MAX_STEPS, found.status)
    left = inferred.left
    short = (status == _status.CONVERGED) & (left > NEARLY * tol)
    return LinearReport(
        theta,
        jnp.stack(beta) if beta else jnp.zeros((0, theta.shape[1])),
        inferred.se,
        inferred.df,
        sigma2,
        criterion,
        jnp.where(short, left, found.decrement),
        inferred.df_sigma,
        jnp.where(short, _status.STALLED, status),
        found.steps,
        inferred.unsure,
    )


def pinned(value: Callable[[Array], Array], theta: Array, scales: Any) -> Array:
    """Diagonals next to zero are zero where the criterion does not mind.

    scales: which of theta (m, L) are diagonals.
    """
    near = jnp.where(scales & (jnp.abs(theta) < NEAR_ZERO), 0.0, theta)
    here, there = lax.map(value, jnp.stack([theta, near]))
    cost = INDIFFERENT * jnp.maximum(1.0, jnp.abs(here))
    return jnp.where(there <= here + cost, near, theta)


def _inference(
    g: Groups,
    theta: Array,
    at: crit.OneFactorMarginal,
    back: Array,
    covariance: AbstractCovariance,
    reml: bool,
) -> Inferred:
    """Satterthwaite's degrees of freedom and standard errors of the rows of ``back``.

    The Hessian over (theta, log sigma^2) is exact: with P_0 = V^-1 - V^-1XQ^-1X'V^-1,

        H_ab = 2 AI_ab - tr(P_0V_aP_0V_b) + 2 G_ii'[j = j'] + sum_e d_e Lambda_e,ab,

    the last of a Lambda that is not linear in theta alone, d_e the slope in an entry;
    the trace without X where the criterion is ML; d vcov / d theta_a = sigma^2
    Q^-1 K_a Q^-1, K_a = sum T_X'E_aT_X.
    """
    q, p, m = g.q, g.p, covariance.m
    t = crit.tables(g, at, reml)
    E = crit.directions(at.Lam, covariance, at.J)
    info, tv = crit.information(g, t, E)
    half = [small.forward(at.LQ, row) for row in at.TX] if p else [[] for _ in range(q)]
    K = [_projected(g, half, E[a]) for a in range(m)]
    trace = _traces(g, at, half, E, K, reml)
    edge = crit.boundary(t.G, covariance, at.J, lambda G: G)
    bend = covariance.bend(list(theta), crit.slopes(t.G, at.Lam, covariance))
    if bend is not None:
        edge = [[edge[a][b] + bend[a][b] for b in range(m)] for a in range(m)]
    N = crit.degrees(g, reml)
    H = [
        [2 * info[a][b] - trace[a][b] + edge[a][b] for b in range(m)] + [tv[a]]
        for a in range(m)
    ]
    H.append([*tv, N + 0.0 * tv[0]])
    return satterthwaite(H, K, at.LQ, t.s2, back, crit.score(t, at, covariance))


def satterthwaite(
    H: small.Matrix,
    K: list[small.Matrix],
    LQ: small.Matrix,
    s2: Array,
    back: Float[Array, "p p l"],
    score: small.Vector,
) -> Inferred:
    """Degrees of freedom and standard errors of the rows of ``back``.

    Then the degrees of freedom of the residual variance, where they are not to be
    trusted, and the Newton decrement: what is left to gain where the average
    information is no guide.

    H: the Hessian over (theta, log sigma^2); K: -L^-1 dQ/dtheta L'^-1, Q = L L', L =
    ``LQ``.
    """
    p, m = len(LQ), len(K)
    L = small.cholesky(H)
    pivots = jnp.stack([L[a][a] ** 2 / jnp.abs(H[a][a]) for a in range(m + 1)])
    unsure = ~(jnp.min(pivots, axis=0) > UNSURE)
    se, df = [], []
    for row in back:
        h = small.forward(LQ, list(row))
        C = s2 * small.dot(h, h)
        grad = [
            s2 * small.dot(h, [small.dot(K[a][x], h) for x in range(p)])
            for a in range(m)
        ]
        z = small.forward(L, [*grad, C])
        se.append(jnp.sqrt(C))
        df.append(C * C / small.dot(z, z))
    unit = [0.0] * m + [1.0 + 0.0 * s2]
    z = small.forward(L, unit)
    df_sigma = 1 / small.dot(z, z)
    z = small.forward(L, [*score, 0.0 * s2])
    left = jnp.where(unsure, 0.0, small.dot(z, z))
    empty = jnp.zeros((0, len(s2)))
    return Inferred(
        jnp.stack(df) if df else empty,
        jnp.stack(se) if se else empty,
        df_sigma,
        unsure.astype(int),
        left,
    )


def _projected(g: Groups, half: small.Matrix, E: small.Matrix) -> small.Matrix:
    """sum T'E T over levels, T = T_X L_Q'^-1, (p, p)."""
    p, q = g.p, g.q
    ET = [
        [small.dot(E[i], [half[r][x] for r in range(q)]) for x in range(p)]
        for i in range(q)
    ]
    out: small.Matrix = [[0.0] * p for _ in range(p)]
    for x in range(p):
        for y in range(x + 1):
            product = small.dot(
                [half[i][x] for i in range(q)], [ET[i][y] for i in range(q)]
            )
            out[x][y] = out[y][x] = total(weighted(g.count, product))
    return out


def _traces(
    g: Groups,
    at: crit.OneFactorMarginal,
    half: small.Matrix,
    E: list[small.Matrix],
    K: list[small.Matrix],
    reml: bool,
) -> small.Matrix:
    """tr(P_0V_aP_0V_b), or tr(V^-1V_aV^-1V_b) for ML."""
    q, p, m = g.q, g.p, len(E)
    with_X = reml and p > 0
    R = at.S
    if with_X:
        R = [
            [at.S[i][j] - 2 * small.dot(half[i], half[j]) for j in range(q)]
            for i in range(q)
        ]
    table = {}
    for i in range(q):
        for j in range(q):
            for k in range(q):
                for h in range(q):
                    table[i, j, k, h] = total(weighted(g.count, at.S[i][j] * R[k][h]))
    out: small.Matrix = [[0.0] * m for _ in range(m)]
    for a in range(m):
        for b in range(a + 1):
            found = crit._twice(E[a], E[b], table, q)
            if with_X:
                for x in range(p):
                    found = found + small.dot(K[a][x], K[b][x])
            out[a][b] = out[b][a] = found
    return out
