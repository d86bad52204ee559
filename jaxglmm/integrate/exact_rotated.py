"""The profiled criterion of many lanes whose rows are independent, and its derivatives.

The variances are proportional to 1 - h + h s_i, h = t / (1 + t) the share of the random
effect, so that neither end, without effects or without residuals, is far away. With
w_i = 1 / (1 - h + h s_i), S = diag(s - 1), P = W - W X Q^-1 X'W and Q = X'W X the
criterion d(h) has

    d'  = tr(P S) - y'P S P y / sigma^2                      (tr(W S) for ML)
    d'' = 2 y'P S P S P y / sigma^2 - tr(P S P S) - (y'P S P y / sigma^2)^2 / N

and h = sin^2 x, x = arctan(theta), makes both ends stationary. P y = w (y - X beta), so
all of it comes from the moments of the rows with the weights w, s w^2 and s^2 w^3:
products of a few rows of the design with the weights of all lanes. The formulas are
those of ``exact_one_factor`` for levels of one row.
"""

from __future__ import annotations

from jaxglmm._typing import Array, Float
from jaxglmm.numerics import small_matrices as small
from jaxglmm.numerics.special import LOG_2PI
from jaxglmm.runtime.arrays import jnp
from jaxglmm.runtime.trees import Module
from jaxglmm.structure.rotated_design import RotatedDesign


class RotatedMarginal(Module):
    """The criterion at one x; all (L,), sigma^2 that of the scale of w.

    h: share; value: without constants; score: in x; info: average information at fixed
    sigma; bend: second derivative of V's part beside that; trace: tr(P V_1 P V_1), V_1
    = dV / dx, without X for ML; tv: y'P V_1 P y / sigma^2; K: -L^-1 dQ/dx L'^-1, Q =
    L L'.
    """

    h: Float[Array, " L"]
    LQ: small.Matrix
    beta: small.Vector
    sigma2: Float[Array, " L"]
    value: Float[Array, " L"]
    score: Float[Array, " L"]
    info: Float[Array, " L"]
    bend: Float[Array, " L"]
    trace: Float[Array, " L"]
    tv: Float[Array, " L"]
    K: small.Matrix

    @property
    def curvature(self) -> Float[Array, " L"]:
        """The second derivative in x, at fixed sigma."""
        return 2 * self.info - self.trace + self.bend


def marginal(
    d: RotatedDesign,
    E: Float[Array, "n L"],
    EE: Float[Array, "n L"],
    x: Float[Array, " L"],
    N: float,
    reml: bool,
) -> RotatedMarginal:
    """Profile beta and sigma; EE: squares of the responses E."""
    s, h = d.s[:, None] - 1, jnp.sin(x) ** 2
    slope, bent = jnp.sin(2 * x), 2 * jnp.cos(2 * x)  # of h in x
    w = 1 / (1 + h * s)
    v = s * w
    log_det, tr1, tr2 = -_total(jnp.log(w)), _total(v), _total(v * v)
    A0, c0, y0 = _moments(d, w, E, EE)
    w = w * v
    A1, c1, y1 = _moments(d, w, E, EE)
    A2, c2, y2 = _moments(d, w * v, E, EE)
    LQ = small.cholesky(A0)
    half = small.forward(LQ, c0)
    beta = small.backward(LQ, half)
    r2 = y0 - small.dot(half, half)
    fitted = small.apply(A1, beta)
    left = small.forward(LQ, _difference(c1, fitted))
    q1 = y1 - 2 * small.dot(beta, c1) + small.dot(beta, fitted)
    q2 = y2 - 2 * small.dot(beta, c2) + small.dot(beta, small.apply(A2, beta))
    q2 = q2 - small.dot(left, left)
    p, B1 = range(len(beta)), _between(LQ, A1)
    if reml and beta:
        B2 = _between(LQ, A2)
        tr1 = tr1 - sum(B1[a][a] for a in p)
        tr2 = tr2 - 2 * sum(B2[a][a] for a in p) + sum(small.dot(r, r) for r in B1)
        log_det = log_det + 2 * small.log_diagonal(LQ)
    sigma2 = r2 / N
    in_h = tr1 - q1 / sigma2
    return RotatedMarginal(
        h,
        LQ,
        beta,
        sigma2,
        log_det + N * (1 + LOG_2PI + jnp.log(sigma2)),
        in_h * slope,
        slope**2 * q2 / sigma2,
        in_h * bent,
        slope**2 * tr2,
        slope * q1 / sigma2,
        [[slope * x for x in row] for row in B1],
    )


def at_places(
    d: RotatedDesign,
    E: Float[Array, "n L"],
    EE: Float[Array, "n L"],
    N: float,
    reml: bool,
) -> Float[Array, "G L"]:
    """The criterion at the places of the design, less a constant."""
    p, G = len(d.X), len(d.t)
    r2, log_det = d.W @ EE, d.log_det
    if p:
        half = jnp.einsum("gab,gbl->gal", d.root, (d.WX @ E).reshape(G, p, -1))
        r2 = r2 - jnp.sum(half * half, axis=1)
        log_det = log_det + d.log_det_Q if reml else log_det
    return log_det[:, None] + N * jnp.log(r2)


def _difference(a: small.Vector, b: small.Vector) -> small.Vector:
    """a - b."""
    return [x - y for x, y in zip(a, b, strict=True)]


def _total(x: Array) -> Array:
    return jnp.sum(x, axis=0)


def _moments(d: RotatedDesign, w: Array, E: Array, EE: Array):
    """Sums over the rows of w x x', w x y and w y^2."""
    p = len(d.X)
    flat, c = d.XX @ w, d.X @ (w * E)
    A = [
        [flat[max(a, b) * (max(a, b) + 1) // 2 + min(a, b)] for b in range(p)]
        for a in range(p)
    ]
    return A, [c[a] for a in range(p)], _total(w * EE)


def _between(L: small.Matrix, A: small.Matrix) -> small.Matrix:
    """L^-1 A L'^-1."""
    return small.forward_matrix(L, small.transpose(small.forward_matrix(L, A)))
