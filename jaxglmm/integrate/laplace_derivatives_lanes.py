"""Laplace's approximation next to the modes of many lanes, one grouping factor.

``laplace_derivatives`` with the lanes last: the formulas and the names are those of
that module; every matrix of a level is a list of arrays (J, L), every matrix of a lane
a list of arrays (L,) or an array that ends in L. No LAPACK.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxglmm._typing import Array, Bool, Float
from jaxglmm.integrate import exact_one_factor as crit
from jaxglmm.integrate.laplace_derivatives import LEAST_INFO
from jaxglmm.integrate.row_terms import RowTerms, has_joint, row_terms
from jaxglmm.integrate.row_terms import constant as _constant
from jaxglmm.integrate.row_weights import positive_weights, step_weights
from jaxglmm.integrate.rows_lanes import LaneRows, lanes, levels
from jaxglmm.model.covariances.base import AbstractCovariance
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import Module, field


def terms(d: LaneRows, eta: Array, phi: Array, hessian: str, second: bool) -> RowTerms:
    """The log density of the rows; second: with ``ddl``."""
    apart = d.apart if d.has_separable_term else None
    joint = second and has_joint(d)
    return row_terms(d, eta, phi, hessian, lanes, second, apart, joint)


def constant(d: LaneRows) -> Float[Array, " L"]:
    """-2 times what ``RowTerms.l`` leaves out of the log-likelihood."""
    return _constant(d, lanes)


class Split(Module):
    """Where beta, theta and phi are in psi (k, L)."""

    p: int = field(static=True)
    covariance: AbstractCovariance = field(static=True)
    n_phi: int = field(static=True)

    @property
    def m(self) -> int:
        """Number of thetas."""
        return self.covariance.m

    def __call__(self, psi: Array) -> tuple[list[Array], list[Array], Array]:
        """beta and theta as lists of (L,), phi (r, L)."""
        p, m = self.p, self.m
        return list(psi[:p]), list(psi[p : p + m]), psi[p + m :]


class LanePoint(Module):
    """What is known at (psi, u), lanes last; see ``laplace_derivatives.Point``.

    value, nu: (L,); score, scale: (k, L); curvature: (k, k, L); level: (J, L); valid:
    (L,); step, mode, t: (q, J, L); slopes: (q, p + r, J, L); M: Cholesky factors.
    """

    value: Array
    score: Array
    curvature: Array
    scale: Array
    nu: Array
    level: Array
    valid: Bool[Array, " L"]
    step: Array
    mode: Array
    t: Array
    slopes: Array
    Lam: small.Matrix
    J: small.Matrix | None
    A: small.Matrix
    M: small.Matrix
    eta: Array
    rows: RowTerms


Evaluate = Callable[[Array, Array, Array], LanePoint]


def evaluate(
    d: LaneRows,
    split: Split,
    psi: Float[Array, "k L"],
    u: Float[Array, "q J L"],
    exact: Array,
    hessian: str = "observed",
    curved: bool = True,
) -> LanePoint:
    """Everything at (psi, u); without the curvature where ``curved`` is False."""
    q, p = d.q, d.p
    beta, theta, phi = split(psi)
    covariance = split.covariance
    Lam, J = crit.lambdas(theta, covariance), covariance.jacobian(theta)
    eta = d.predictor(beta, small.apply(Lam, list(u)))
    r = terms(d, eta, phi, hessian, curved)
    model = d.predictors
    w, valid = r.w, jnp.ones(u.shape[-1], bool)
    if not d.family.has_canonical_link:
        valid = exact | ~jnp.any(model.below(w), axis=(0, 1))
        if model.K > 1:  # M may be positive where blocks of rows are not
            own = small.log_diagonal(_factor(d.blocks(w), Lam))
            valid = valid | jnp.isfinite(jnp.sum(own, axis=0))
        w = jnp.where(valid, w, step_weights(d, eta, phi, w))
    A = d.blocks(w)
    C = _factor(A, Lam)
    t = d.collect(r.s)
    h = [a - b for a, b in zip(list(u), _transposed(Lam, t), strict=True)]
    z = small.forward(C, h)
    delta = [-x for x in small.backward(C, z)]
    nu = sum(jnp.sum(x * x, axis=0) for x in z)
    move = small.apply(Lam, delta)

    inside = A if r.v is None else d.blocks(r.v)
    root = C if r.v is None else _factor(inside, Lam)
    N = _inner_inverse(root, Lam)
    lev = d.quadratic(N)
    a = model.carried(r.w1 if r.v1 is None else r.v1, lev)
    Za = d.collect(a)
    m = _through(C, Lam, Za)
    c = [x - y for x, y in zip(Za, small.apply(A, m), strict=True)]
    t = [x - y for x, y in zip(t, small.apply(A, move), strict=True)]
    back = [2 * x - y for x, y in zip(move, m, strict=True)]
    B = d.across(w)

    squares = sum(jnp.sum(x * x, axis=0) for x in u)
    log_det = 2 * jnp.sum(small.log_diagonal(root), axis=0)
    value = -2 * lanes(r.l) + squares - nu + log_det
    value = value + jnp.sum(small.dot(move, Za), axis=0)
    if r.apart is not None:
        value = value - 2 * r.apart
    pull = a - 2 * r.s
    first = [
        total + jnp.sum(small.dot([B[i][x] for i in range(q)], back), 0)
        for x, total in enumerate(d.along(pull))
    ]
    last, by_phi = [], []
    for j, dw in enumerate(r.dw if r.v is None else r.dv):
        by_phi.append(d.collect(-r.ds[j]))
        own = lanes(-2 * r.dl[j] + model.paired(lev, dw))
        if r.dapart:
            own = own - 2 * r.dapart[j]
        last.append(own + jnp.sum(small.dot(by_phi[j], back), axis=0))
    S = _projected(inside, N)
    G = crit._symmetric(
        q,
        lambda i, j: jnp.sum(
            S[i][j] - t[i] * t[j] + 0.5 * (c[i] * t[j] + t[i] * c[j]), axis=0
        ),
    )
    slope = crit.pulled(J, crit.slopes(G, Lam, covariance))
    score = jnp.stack([*first, *slope, *last])
    curvature, scale = score, score
    if curved:
        outer = _outer(d, eta, phi, r, w, Lam, A, C, B, by_phi)
        curvature, scale = _curvature(d, split, r, Lam, J, outer, t, G)
    return LanePoint(
        value,
        score,
        curvature,
        scale,
        nu,
        sum(x * x for x in u) - 2 * levels(r.l),
        valid,
        jnp.stack(delta),
        u + jnp.stack(delta),
        jnp.stack(t),
        jnp.stack([jnp.stack([*B[i], *(x[i] for x in by_phi)]) for i in range(q)])
        if p + len(last)
        else jnp.zeros((q, 0, *u.shape[1:])),
        Lam,
        J,
        A,
        C,
        eta,
        r,
    )


class _Outer(Module):
    """Of M's weights: N, S = A - A N A, T = B - A N B and Q = X'WX - B'N B.

    B and Q have phi's columns behind beta's where its information is known.
    """

    S: small.Matrix
    T: small.Matrix
    Q: small.Matrix


def _outer(
    d: LaneRows,
    eta: Array,
    phi: Array,
    r: RowTerms,
    w: Array,
    Lam: small.Matrix,
    A: small.Matrix,
    C: small.Matrix,
    B: small.Matrix,
    by_phi: list[list[Array]],
) -> _Outer:
    """What the curvature is made of, by weights that make it positive.

    As in ``laplace_derivatives.evaluate``: of several predictors the observed ones of
    a lane stay where Q is positive, whatever the rows'.
    """
    model = d.predictors
    crossed = model.K > 1 and len(r.info) > 0
    whole = d.gram(jnp.abs(w) if model.K == 1 else w)
    seen = A, *_with_phi(d, whole, B, by_phi, r)
    if d.family.is_log_concave and not crossed:
        return _projection(Lam, C, *seen)
    lost = jnp.any(model.below(w), axis=(0, 1))

    def better() -> tuple[small.Matrix, small.Matrix, small.Matrix]:
        new = jnp.where(lost, positive_weights(d, eta, phi, w), w)
        whole = d.gram(jnp.abs(new) if model.K == 1 else new)
        own = _with_phi(d, whole, d.across(new), by_phi, r, lost if crossed else None)
        return d.blocks(new), *own

    if model.K == 1:
        A, *own = lax.cond(jnp.any(lost), better, lambda: seen)
        return _projection(Lam, _factor(A, Lam), A, *own)
    found = _projection(Lam, C, *seen)
    if not found.Q:
        return found
    size = small.log_diagonal(small.cholesky(found.Q))
    lost = (lost | crossed) & ~jnp.isfinite(size)

    def other() -> _Outer:
        A, *own = better()
        return _projection(Lam, _factor(A, Lam), A, *own)

    return lax.cond(jnp.any(lost), other, lambda: found)


def _with_phi(
    d: LaneRows,
    whole: small.Matrix,
    B: small.Matrix,
    by_phi: list[list[Array]],
    r: RowTerms,
    alone: Array | None = None,
) -> tuple[small.Matrix, small.Matrix]:
    """B and X'WX with columns of phi, by_phi: Z' of minus ds; alone: lanes without."""
    if not r.info:
        return B, whole
    p, n_phi, q = len(whole), len(r.info), len(B)
    across = [[-x for x in d.along(own)] if p else [] for own in r.ds]
    own = [
        [x + LEAST_INFO * (i == j) for j, x in enumerate(row)]
        for i, row in enumerate(r.info)
    ]
    beside = by_phi
    if alone is not None:
        across = [[jnp.where(alone, 0.0, x) for x in row] for row in across]
        beside = [[jnp.where(alone, 0.0, x) for x in row] for row in by_phi]
        found = [row[i] for i, row in enumerate(r.info)]
        sizes = [jnp.maximum(x, 0.05 + 0.1 * jnp.abs(x)) for x in found]
        own = [
            [jnp.where(alone, sizes[i] * (i == j), x) for j, x in enumerate(row)]
            for i, row in enumerate(own)
        ]
    top = [[*whole[a], *(across[j][a] for j in range(n_phi))] for a in range(p)]
    low = [[*across[j], *own[j]] for j in range(n_phi)]
    return [[*B[i], *(x[i] for x in beside)] for i in range(q)], [*top, *low]


def _projection(
    Lam: small.Matrix,
    C: small.Matrix,
    A: small.Matrix,
    B: small.Matrix,
    whole: small.Matrix,
) -> _Outer:
    N = _inner_inverse(C, Lam)
    q, p = len(A), len(whole)
    NB = small.matmul(N, B)
    T = small.subtract(B, small.matmul(A, NB)) if p else B
    Q: small.Matrix = [[0.0] * p for _ in range(p)]
    for a in range(p):
        for b in range(a + 1):
            inner = small.dot([B[i][a] for i in range(q)], [NB[i][b] for i in range(q)])
            Q[a][b] = Q[b][a] = whole[a][b] - jnp.sum(inner, axis=0)
    return _Outer(_projected(A, N), T, Q)


def _curvature(
    d: LaneRows,
    split: Split,
    r: RowTerms,
    Lam: small.Matrix,
    J: small.Matrix | None,
    outer: _Outer,
    t: list[Array],
    G: small.Matrix,
) -> tuple[Array, Array]:
    """A positive semidefinite stand-in for the Hessian, and its diagonal scale."""
    q, p, m = d.q, len(outer.Q), split.m
    S, T, Q = outer.S, outer.T, outer.Q
    E = crit.directions(Lam, split.covariance, J)
    St = {}
    for i in range(q):
        for j in range(i + 1):
            for k in range(q):
                for h in range(k + 1):
                    found = jnp.sum(S[i][j] * t[k] * t[h], axis=0)
                    for x in {(i, j), (j, i)}:
                        for y in {(k, h), (h, k)}:
                            St[(*x, *y)] = found
    edge = crit.boundary(G, split.covariance, J, crit.positive_part)
    info = [
        [crit._twice(E[max(a, b)], E[min(a, b)], St, q) for b in range(m)]
        for a in range(m)
    ]
    Tt = [
        [[jnp.sum(T[i][x] * t[j], axis=0) for j in range(q)] for x in range(p)]
        for i in range(q)
    ]
    cross = [
        [
            2**0.5 * crit._contract(E[a], lambda i, j, x=x: Tt[i][x][j], q)
            for a in range(m)
        ]
        for x in range(p)
    ]
    k = d.p + m + split.n_phi
    zero = jnp.zeros(t[0].shape[-1])
    H: small.Matrix = [[zero] * k for _ in range(k)]
    theta = range(d.p, d.p + m)
    at = [a if a < d.p else a + m for a in range(p)]  # phi stands behind theta
    for a in range(p):
        for b in range(p):
            H[at[a]][at[b]] = 2 * Q[a][b]
        for b in range(m):
            H[at[a]][theta[b]] = H[theta[b]][at[a]] = cross[a][b]
    for a in range(m):
        for b in range(m):
            H[theta[a]][theta[b]] = info[a][b] + edge[a][b]
    diagonal = [2 * Q[a][a] for a in range(p)]
    diagonal[d.p : d.p] = [1 + info[a][a] for a in range(m)]
    p = d.p
    for j, own in enumerate(r.ddl):
        ddl = -2 * own
        H[p + m + j][p + m + j] = jnp.maximum(ddl, 0.1 + 0.1 * jnp.abs(ddl))
        diagonal.append(H[p + m + j][p + m + j])
    return jnp.stack([jnp.stack(row) for row in H]), jnp.stack(diagonal)


def _factor(A: small.Matrix, Lam: small.Matrix) -> small.Matrix:
    AL = small.matmul(A, Lam)
    return small.cholesky(
        small.plus_identity(small.symmetric(small.transpose(Lam), AL))
    )


def _inner_inverse(C: small.Matrix, Lam: small.Matrix) -> small.Matrix:
    """N = Lambda M^-1 Lambda'."""
    W = small.forward_matrix(C, small.transpose(Lam))
    return small.symmetric(small.transpose(W), W)


def _projected(A: small.Matrix, N: small.Matrix) -> small.Matrix:
    """S = A - A N A."""
    return small.subtract(A, small.symmetric(small.matmul(A, N), A))


def _transposed(Lam: small.Matrix, v: list[Array]) -> list[Array]:
    return small.apply(small.transpose(Lam), v)


def _through(C: small.Matrix, Lam: small.Matrix, v: list[Array]) -> list[Array]:
    """Lambda M^-1 Lambda'v."""
    return small.apply(Lam, small.solve(C, _transposed(Lam, v)))


def moved(split: Split, at: LanePoint, change: Float[Array, "k L"]) -> Array:
    """The modes where psi has changed, to first order, (q, J, L)."""
    q = len(at.mode)
    dbeta, dtheta, dphi = split(change)
    changes = dtheta if at.J is None else small.apply(at.J, dtheta)
    dLam = crit.lower(changes, split.covariance)
    along = [*dbeta, *dphi]
    pulled = small.apply(at.A, small.apply(dLam, list(at.mode)))
    for i in range(q):
        for x, slope in zip(along, at.slopes[i], strict=True):
            pulled[i] = pulled[i] + slope * x
    right = [
        x - y
        for x, y in zip(
            _transposed(at.Lam, pulled), _transposed(dLam, list(at.t)), strict=True
        )
    ]
    return at.mode - jnp.stack(small.solve(at.M, right))
