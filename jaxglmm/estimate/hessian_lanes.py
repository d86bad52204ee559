"""The exact Hessian of Laplace's criterion at the modes of many lanes.

The criterion is d(psi) = F(psi, u(psi)) with F = 2h + log|M| and h_u = 0 at u(psi). Let
y = M^-1 F_u, fixed, and lift each direction of psi to the mode, U_a = -M^-1 h_ua. Then
the second derivative of the mode drops out:

    d_ab = second derivative of F - y'h_u along (e_a, U_a) and (e_b, U_b).

Along a direction the predictor of a row moves by x_a + z'c_a, c_a = E_a u + Lambda U_a
(E_a: of Lambda), so that all rows are summed once for all directions: with l = z'N z
and v = Lambda y the products of two moves have the weight

    kappa = 2 w + l w2 - (z'v) w1,

w2 the derivative of w1, and what is left is algebra of levels. Forward mode over the
score (``estimate.generalised_lanes``) does the same with a pass over the rows for each
direction; it is what this is tested against.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float
from jaxglmm.integrate import laplace_derivatives_lanes as pt
from jaxglmm.integrate.laplace_derivatives_lanes import LanePoint, Split
from jaxglmm.integrate.rows_lanes import LaneRows, lanes, levels
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import jnp, jvp_rows, lax


def hessian(
    d: LaneRows,
    split: Split,
    psi: Float[Array, "k L"],
    u: Float[Array, "q J L"],
    at: LanePoint,
    kind: str,
) -> Float[Array, "k k L"]:
    """Second derivatives of -2 log-likelihood at the modes u.

    at: ``point.evaluate`` there; kind: observed or expected, as there. For covariances
    whose theta are the entries of Lambda (``free``).
    """
    q, p, k = d.q, d.p, len(psi)
    _, _, phi = split(psi)
    Lam, A, C, r, eta = at.Lam, at.A, at.M, at.rows, at.eta

    def rows(eta: Array, phi: Array) -> pt.RowTerms:
        return pt.terms(d, eta, phi, kind, False)

    along = jvp_rows(lambda x: rows(x, phi), (eta,), (jnp.ones_like(eta),))[1]
    other = r.v is not None  # M of the criterion is not that of the mode
    w1, w2 = (r.v1, along.v1) if other else (r.w1, along.w1)
    assert w1 is not None
    assert w2 is not None
    inside = A if r.v is None else d.blocks(r.v)
    root = pt._factor(inside, Lam) if other else C
    N = pt._inner_inverse(root, Lam)
    lev = d.quadratic(N)
    Za = [levels(d.z(i) * w1 * lev) for i in range(q)]
    y = small.solve(C, pt._transposed(Lam, Za))
    v = small.apply(Lam, y)
    zv = sum(d.z(i) * jnp.asarray(v[i])[None] for i in range(q))
    kappa = 2 * r.w + lev * w2 - zv * r.w1

    zero = jnp.zeros(u.shape[1:])
    # Z' of kappa x_a, and of w1 x_a z z': what a move of psi alone does to the sums
    K = [[levels(d.z(i) * x * kappa) for x in d.X] for i in range(q)]
    W = {
        (i, j): [levels(d.z(i) * d.z(j) * x * w1) for x in d.X]
        for i in range(q)
        for j in range(i + 1)
    }
    whole = [[jnp.zeros(u.shape[-1])] * k for _ in range(k)]
    for x, row in enumerate(d.gram(kappa)):
        whole[x][:p] = row
    slopes = list(at.slopes)
    nothing = [zero] * split.m
    K = [[*row, *nothing] for row in K]
    W = {at: [*row, *nothing] for at, row in W.items()}
    if split.n_phi:
        own, cross, K_phi, W_phi = _dispersion(d, rows, r, along, eta, phi, lev, zv)
        whole[-1][-1] = own
        whole[-1][:p] = list(cross)
        K = [[*row, x] for row, x in zip(K, K_phi, strict=True)]
        W = {at: [*row, W_phi[at]] for at, row in W.items()}

    lifted = _lifted(split, Lam, A, C, list(at.t), slopes, list(u))
    U, c, slope = lifted
    KZ = d.blocks(kappa)
    Ad = _moved_blocks(d, W, w1, c)
    # once, and not again for each pair of directions
    U, c, slope, Ad = lax.optimization_barrier((U, c, slope, Ad))
    pull = small.apply(A, v)
    zeta = [a - 2 * t - b for a, t, b in zip(Za, at.t, pull, strict=True)]
    pairs = []
    for i in range(q):
        fixed = _fixed(split, lambda a, b, i=i: zeta[a] if b == i else zero, k, zero)
        turned = _fixed(split, lambda a, b, i=i: y[b] if a == i else zero, k, zero)
        pairs += [
            (jnp.stack(K[i]) + 0.5 * small.dot(KZ[i], c), c[i]),
            (U[i] + fixed, U[i]),
            (-turned, slope[i] + small.dot(A[i], c)),
        ]
    more, table = _determinant(split, Lam, inside, root, Ad, k, zero)
    pairs = lax.optimization_barrier(pairs + more)
    for a in range(k):  # all in one sum over levels compiles to slow code
        both = sum(x[a] * y[: a + 1] + x[: a + 1] * y[a] for x, y in pairs)
        for b, entry in enumerate(jnp.sum(both, axis=1)):
            whole[a][b] = whole[a][b] + entry
    for a, row in enumerate(table):
        for b, entry in enumerate(row):
            whole[p + a][p + b] = whole[p + a][p + b] + 2 * entry
    return jnp.stack(
        [jnp.stack([whole[max(a, b)][min(a, b)] for b in range(k)]) for a in range(k)]
    )


def _fixed(split: Split, entry, k: int, zero: Array) -> Array:
    """(k, J, L): entry(i, j) for theta_ij, zero for all else."""
    parts = [zero] * k
    for a, (i, j) in enumerate(split.covariance.entries):
        parts[split.p + a] = entry(i, j)
    return jnp.stack(parts)


def _lifted(
    split: Split,
    Lam: small.Matrix,
    A: small.Matrix,
    C: small.Matrix,
    t: list[Array],
    slopes: list[Array],
    u: list[Array],
) -> tuple[list[Array], list[Array], list[Array]]:
    """U, c and Z' of minus ds, q arrays (k, J, L) each."""
    q, p, m = len(u), split.p, split.m
    zero = jnp.zeros_like(u[0])
    own = [zero] * m
    slope = [jnp.stack([*s[:p], *own, *s[p:]]) for s in slopes]
    k = len(slope[0])
    Eu = [
        _fixed(split, lambda a, b, i=i: u[b] if a == i else zero, k, zero)
        for i in range(q)
    ]
    Et = [
        _fixed(split, lambda a, b, i=i: t[a] if b == i else zero, k, zero)
        for i in range(q)
    ]
    pulled = [a + b for a, b in zip(slope, small.apply(A, Eu), strict=True)]
    right = [a - b for a, b in zip(Et, pt._transposed(Lam, pulled), strict=True)]
    U = small.solve(C, right)
    c = [a + b for a, b in zip(Eu, small.apply(Lam, U), strict=True)]
    return U, c, slope


def _moved_blocks(d: LaneRows, W: dict, w1: Array, c: list[Array]) -> small.Matrix:
    """How Z'WZ of a level moves in each direction, (k, J, L) each."""
    q = d.q
    third = {
        (i, j, h): levels(d.z(i) * d.z(j) * d.z(h) * w1)
        for i in range(q)
        for j in range(i + 1)
        for h in range(j + 1)
    }

    def entry(i: int, j: int) -> Array:
        found = jnp.stack(W[i, j])
        for h in range(q):
            at = tuple(sorted((i, j, h), reverse=True))
            found = found + third[at] * c[h]
        return found

    return pt.crit._symmetric(q, entry)


def _determinant(
    split: Split,
    Lam: small.Matrix,
    A: small.Matrix,
    root: small.Matrix,
    Ad: small.Matrix,
    k: int,
    zero: Array,
) -> tuple[list[tuple[Array, Array]], small.Matrix]:
    """Half the second derivatives of log|M|, but for those of W twice.

    Pairs whose products are to be summed over levels, and what theta adds to itself.
    """
    q = len(A)
    one = jnp.ones_like(zero)
    unit = [[one if i == j else 0.0 for j in range(q)] for i in range(q)]
    inverse_root = small.forward_matrix(root, unit)  # R^-1
    inverse = small.symmetric(small.transpose(inverse_root), inverse_root)
    P = small.matmul(inverse, small.transpose(Lam))
    pairs = []
    for i in range(q):
        for j in range(q):
            entry = _fixed(
                split, lambda a, b, i=i, j=j: P[b][i] if a == j else zero, k, zero
            )
            pairs.append((2 * entry, Ad[i][j]))
    table = [
        [jnp.sum(A[i][g] * inverse[h][j], axis=0) for g, h in split.covariance.entries]
        for i, j in split.covariance.entries
    ]
    # R^-1 M_a R'^-1
    AL = small.matmul(A, Lam)
    E = [
        [
            _fixed(
                split,
                lambda a, b, i=i, j=j: AL[a][j] if b == i else zero,
                k,
                zero,
            )
            for j in range(q)
        ]
        for i in range(q)
    ]
    inner = small.symmetric(small.transpose(Lam), small.matmul(Ad, Lam))
    M = pt.crit._symmetric(q, lambda i, j: inner[i][j] + E[i][j] + E[j][i])
    left = small.forward_matrix(root, M)
    turned = small.forward_matrix(root, small.transpose(left))
    pairs += [(-0.5 * x, x) for row in turned for x in row]
    return pairs, table


def _dispersion(
    d: LaneRows,
    rows,
    r: pt.RowTerms,
    along: pt.RowTerms,
    eta: Array,
    phi: Array,
    lev: Array,
    zv: Array,
) -> tuple[Array, Array, list[Array], dict]:
    """The second derivatives with the dispersion parameter that rows have themselves.

    Twice in it (L,); with beta (p, L); Z' of what it does to a row's score (q); how it
    moves Z'WZ.
    """
    second = jvp_rows(lambda x: rows(eta, x), (phi,), (jnp.ones_like(phi),))[1]
    other = r.v is not None
    (dw,), (dw1,) = (r.dv, along.dv) if other else (r.dw, along.dw)
    (ddw,) = second.dv if other else second.dw
    (ds,), (plain_dw,) = r.ds, r.dw
    own = lanes(-2 * second.dl[0] + lev * ddw + zv * second.ds[0])
    if second.dapart:
        own = own - 2 * second.dapart[0]
    mixed = -2 * ds + lev * dw1 - zv * plain_dw
    W = {(i, j): levels(d.z(i) * d.z(j) * dw) for i in range(d.q) for j in range(i + 1)}
    cross = jnp.stack(d.along(mixed)) if d.p else jnp.zeros((0, eta.shape[-1]))
    return own, cross, [levels(d.z(i) * mixed) for i in range(d.q)], W
