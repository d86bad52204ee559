"""The profiled criterion of many lanes at once, with score and average information.

The formulas are those of ``integrate.exact`` for one factor, with every sum over levels
taken over types of levels (``level_types``). With P = I - A N and the residual
moments of a type,

    s_1 = sum_g Z_g'(y - X beta),  s_2 = sum_g Z_g'(y - X beta)(y - X beta)'Z_g,

t_g = Z_g'V^-1(y - X beta) has the moments t_1 = P s_1 and t_2 = P s_2 P'. The
derivative of Sigma in theta_a is a symmetric E_a, the same for all levels, so that
score, average information and the exact Hessian are contractions of the E_a with a few
tables of sums over types:

    sum t_g't_g'..                         t_2            (q, q)
    sum v_a'S v_b,  v_a = E_a t_g          S x t_2        (q, q, q, q)
    sum T_X'v_a                            T_X x t_1      (q, p, q)

Everything is a list of arrays (L,): straight-line code, no LAPACK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxglmm._typing import Array, Float
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module
from jaxglmm.structure.level_types import Groups, Sums, entries, total, weighted


class OneFactorMarginal(Module):
    """What the criterion is made of at one theta; entries are (C, L) or (L,).

    J: how the entries of Lambda move with theta, None where they are the same.
    """

    Lam: small.Matrix
    J: small.Matrix | None
    S: small.Matrix
    TX: small.Matrix
    t1: small.Vector
    t2: small.Matrix
    LQ: small.Matrix
    beta: small.Vector
    r2: Float[Array, " L"]
    log_det: Float[Array, " L"]


def lower(values: Sequence[Array], covariance: AbstractCovariance) -> small.Matrix:
    """Lambda, or a change of it, from its entries."""
    place, q = dict(zip(covariance.entries, values, strict=True)), covariance.q
    return [[place.get((i, j), 0.0) for j in range(q)] for i in range(q)]


def lambdas(theta: Sequence[Array], covariance: AbstractCovariance) -> small.Matrix:
    """Lambda from theta."""
    return lower(covariance.values(theta), covariance)


def pulled(J: small.Matrix | None, g: list[Any]) -> list[Any]:
    """What is linear in the entries of Lambda, over theta: J'g."""
    return g if J is None else small.apply(small.transpose(J), g)


def pulled_square(J: small.Matrix | None, H: small.Matrix) -> small.Matrix:
    """J'H J."""
    return H if J is None else small.symmetric(small.transpose(J), small.matmul(H, J))


def marginal(
    g: Groups, r: Sums, theta: list[Array], covariance: AbstractCovariance
) -> OneFactorMarginal:
    """Integrate u out and profile beta."""
    q, p = g.q, g.p
    Lam, J = lambdas(theta, covariance), covariance.jacobian(theta)
    A, X, XX = entries(g.A), entries(g.X), entries(g.XX)
    L = small.cholesky(
        small.plus_identity(small.symmetric(small.transpose(Lam), small.matmul(A, Lam)))
    )
    W = small.forward_matrix(L, small.transpose(Lam))
    N = small.symmetric(small.transpose(W), W)
    AN = small.matmul(A, N)
    S = small.subtract(A, small.symmetric(AN, A))
    P = [[1.0 * (i == j) - AN[i][j] for j in range(q)] for i in range(q)]
    NX = small.matmul(N, X)
    log_det = 2 * total(weighted(g.count, small.log_diagonal(L)))

    y, yy = list(r.y), entries(r.yy)
    Q: list[list[Any]] = [[0.0] * p for _ in range(p)]
    columns, mapped = small.transpose(X), small.transpose(NX)
    for a in range(p):
        for b in range(a + 1):
            product = weighted(g.count, small.dot(columns[a], mapped[b]))
            Q[a][b] = Q[b][a] = XX[a][b] - total(product)
    c = [r.Xy[a] - total(small.dot(mapped[a], y)) for a in range(p)]
    LQ = small.cholesky(Q)
    half = small.forward(LQ, c)
    beta = small.backward(LQ, half)
    explained = sum(
        (1 if i == j else 2) * N[i][j] * yy[i][j]
        for i in range(q)
        for j in range(i + 1)
    )
    r2 = r.rr - total(explained)
    for h in half:
        r2 = r2 - h * h

    s1, s2 = _moments(g, X, y, yy, beta)
    t2 = small.symmetric(small.matmul(P, s2), small.transpose(P))
    return OneFactorMarginal(
        Lam, J, S, small.matmul(P, X), small.apply(P, s1), t2, LQ, beta, r2, log_det
    )


def _moments(
    g: Groups, X: small.Matrix, y: small.Vector, yy: small.Matrix, beta: small.Vector
) -> tuple[small.Vector, small.Matrix]:
    """First and second moments of Z_g'(y - X beta) over the levels of a type."""
    if not beta:
        return y, yy
    q = g.q
    fitted = small.apply(X, beta)
    s1 = [a - weighted(g.count, b) for a, b in zip(y, fitted, strict=True)]
    s2: list[list[Any]] = [[0.0] * q for _ in range(q)]
    for i in range(q):
        for j in range(i + 1):
            s2[i][j] = s2[j][i] = yy[i][j] - s1[i] * fitted[j] - fitted[i] * y[j]
    return s1, s2


def degrees(g: Groups, reml: bool) -> Array:
    """N = n - p for REML, n for ML."""
    return g.n - g.p if reml else g.n


def value(g: Groups, at: OneFactorMarginal, reml: bool) -> Array:
    """The profiled criterion (L,), internal scale, without the constants."""
    N = degrees(g, reml)
    out = at.log_det + N * (1 + LOG_2PI + jnp.log(at.r2 / N))
    if reml and at.LQ:
        out = out + 2 * small.log_diagonal(at.LQ)
    return out


class Tables(Module):
    """Sums over types of which all derivatives are contractions, and G."""

    G: small.Matrix
    t2: small.Matrix
    St: dict[tuple[int, int, int, int], Array]
    Tt: list[list[list[Array]]]
    s2: Float[Array, " L"]


def tables(g: Groups, at: OneFactorMarginal, reml: bool) -> Tables:
    """The sums over types at one point."""
    q, p = g.q, g.p
    s2 = at.r2 / degrees(g, reml)
    t2 = _symmetric(q, lambda i, j: total(at.t2[i][j]))
    half = _whitened(at)
    G = _symmetric(
        q,
        lambda i, j: (
            total(weighted(g.count, at.S[i][j]))
            - (
                total(weighted(g.count, small.dot(half[i], half[j])))
                if reml and p
                else 0.0
            )
            - t2[i][j] / s2
        ),
    )
    St = {}
    for i in range(q):
        for j in range(i + 1):
            for k in range(q):
                for h in range(k + 1):
                    found = total(at.S[i][j] * at.t2[k][h])
                    for a, b in {(i, j), (j, i)}:
                        for c, d in {(k, h), (h, k)}:
                            St[a, b, c, d] = found
    Tt = [
        [[total(half[i][x] * at.t1[j]) for j in range(q)] for x in range(p)]
        for i in range(q)
    ]
    return Tables(G, t2, St, Tt, s2)


def _whitened(at: OneFactorMarginal) -> small.Matrix:
    """T_X L_Q'^-1, (q, p): its products are T_X Q^-1 T_X'."""
    return [small.forward(at.LQ, row) for row in at.TX] if at.LQ else [[]] * len(at.S)


def _symmetric(q: int, entry) -> small.Matrix:
    out: small.Matrix = [[0.0] * q for _ in range(q)]
    for i in range(q):
        for j in range(i + 1):
            out[i][j] = out[j][i] = entry(i, j)
    return out


def directions(
    Lam: small.Matrix, covariance: AbstractCovariance, J: small.Matrix | None
) -> list[small.Matrix]:
    """dSigma / dtheta_a.

    E = e_i lambda_j' + lambda_j e_i' for an entry (i, j) of Lambda, pulled to theta.
    """
    q, out = len(Lam), []
    for i, j in covariance.entries:
        E: small.Matrix = [[0.0] * q for _ in range(q)]
        for r in range(j, q):
            x = Lam[r][j]
            if isinstance(x, float):
                continue
            if r == i:
                E[i][i] = 2 * x
            else:
                E[i][r] = E[r][i] = x
        out.append(E)
    if J is None:
        return out
    mixed = [[pulled(J, [E[i][k] for E in out]) for k in range(q)] for i in range(q)]
    return [
        [[mixed[i][k][a] for k in range(q)] for i in range(q)]
        for a in range(covariance.m)
    ]


def slopes(
    G: small.Matrix, Lam: small.Matrix, covariance: AbstractCovariance
) -> list[Array]:
    """dd/dLambda_ij = 2 (G Lambda)_ij."""
    columns = small.transpose(Lam)
    return [2 * small.dot(G[i], columns[j]) for i, j in covariance.entries]


def score(
    t: Tables, at: OneFactorMarginal, covariance: AbstractCovariance
) -> list[Array]:
    """dd/dtheta_a."""
    return pulled(at.J, slopes(t.G, at.Lam, covariance))


def information(
    g: Groups, t: Tables, E: list[small.Matrix]
) -> tuple[small.Matrix, list[Array]]:
    """Average information at fixed sigma (m, m), and sum t'v_a / sigma^2 (m,)."""
    m, q, p = len(E), g.q, g.p
    F = [
        [_contract(E[a], lambda i, j, x=x: t.Tt[i][x][j], q) for x in range(p)]
        for a in range(m)
    ]
    tv = [_contract(E[a], lambda i, j: t.t2[i][j], q) / t.s2 for a in range(m)]
    info: small.Matrix = [[0.0] * m for _ in range(m)]
    for a in range(m):
        for b in range(a + 1):
            found = _twice(E[a], E[b], t.St, q)
            if p:
                found = found - small.dot(F[a], F[b])
            info[a][b] = info[b][a] = found / t.s2
    return info, tv


def _contract(E: small.Matrix, entry, q: int) -> Array:
    """sum_ij E_ij entry(i, j)."""
    flat = [(E[i][j], entry(i, j)) for i in range(q) for j in range(q)]
    return small.dot([a for a, _ in flat], [b for _, b in flat])


def _twice(E: small.Matrix, F: small.Matrix, table: dict, q: int) -> Array:
    """tr(E S F t) from the table of S_ij t_kh: sum E_ri S_ij F_jk t_kr."""
    left, right = [], []
    for i in range(q):
        for j in range(q):
            inner_left, inner_right = [], []
            for r in range(q):
                for k in range(q):
                    if not (_nil(E[r][i]) or _nil(F[j][k])):
                        inner_left.append(E[r][i] * F[j][k])
                        inner_right.append(table[i, j, k, r])
            left += inner_left
            right += inner_right
    return small.dot(left, right)


def _nil(x: small.Entry) -> bool:
    return isinstance(x, float) and x == 0.0


def boundary(
    G: small.Matrix, covariance: AbstractCovariance, J: small.Matrix | None, part
) -> small.Matrix:
    """2 part(G)_ii' where j = j' among the entries, pulled to theta."""
    G, entries = part(G), covariance.entries
    edge = [[2 * G[i][k] if j == h else 0.0 for k, h in entries] for i, j in entries]
    return pulled_square(J, edge)


def positive_part(G: small.Matrix) -> small.Matrix:
    """Nearest positive semidefinite matrix; by Jacobi rotations beyond 2 x 2."""
    q = len(G)
    if q == 1:
        return [[jnp.maximum(G[0][0], 0)]]
    if q == 2:
        middle, half, off = (G[0][0] + G[1][1]) / 2, (G[0][0] - G[1][1]) / 2, G[1][0]
        radius = jnp.sqrt(half * half + off * off) + 1e-300
        one, two = jnp.maximum(middle + radius, 0), jnp.maximum(middle - radius, 0)
        h, w = (one + two) / 2, (one - two) / (2 * radius)
        return [[h + w * half, w * off], [w * off, h - w * half]]
    values, vectors = jacobi(G)
    kept = [jnp.maximum(v, 0) for v in values]
    return _symmetric(
        q,
        lambda i, j: sum(vectors[i][k] * kept[k] * vectors[j][k] for k in range(q)),
    )


SWEEPS = 4  # of cyclic Jacobi: the curvature is a stand-in, 1e-6 of it is enough


def jacobi(G: small.Matrix) -> tuple[list[Array], small.Matrix]:
    """Eigenvalues and eigenvectors (columns), by ``SWEEPS`` cyclic sweeps."""
    q = len(G)
    stacked = jnp.stack([jnp.stack(row) for row in G])
    eye = jnp.zeros_like(stacked) + jnp.eye(q)[:, :, None]

    def sweep(_, state):
        A, V = [list(map(list, x)) for x in state]
        for i in range(q):
            for j in range(i + 1, q):
                c, s = _rotation(A[i][i], A[j][j], A[i][j])
                for k in range(q):
                    A[k][i], A[k][j] = (
                        c * A[k][i] - s * A[k][j],
                        s * A[k][i] + c * A[k][j],
                    )
                for k in range(q):
                    A[i][k], A[j][k] = (
                        c * A[i][k] - s * A[j][k],
                        s * A[i][k] + c * A[j][k],
                    )
                for k in range(q):
                    V[k][i], V[k][j] = (
                        c * V[k][i] - s * V[k][j],
                        s * V[k][i] + c * V[k][j],
                    )
        return tuple(jnp.stack([jnp.stack(row) for row in x]) for x in (A, V))

    from jax import lax

    A, V = lax.fori_loop(0, SWEEPS, sweep, (stacked, eye))
    return [A[i, i] for i in range(q)], small.rows(V)


def _rotation(a: Array, b: Array, off: Array) -> tuple[Array, Array]:
    """Cosine and sine that make the off-diagonal entry of [[a, off], [off, b]] zero."""
    safe = jnp.where(off == 0, 1.0, off)
    ratio = (b - a) / (2 * safe)
    t = jnp.where(ratio >= 0, 1.0, -1.0) / (
        jnp.abs(ratio) + jnp.sqrt(1 + ratio * ratio)
    )
    t = jnp.where(off == 0, 0.0, t)
    c = 1 / jnp.sqrt(1 + t * t)
    return c, t * c
