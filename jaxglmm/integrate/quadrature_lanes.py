"""Adaptive Gauss-Hermite quadrature of many lanes.

``integrate.quadrature`` with the lanes last: the nodes are visited one after the other;
the gradient is the one written out there.
"""

from __future__ import annotations

import equinox as eqx
import numpy as np

from jaxglmm._typing import Array
from jaxglmm.integrate import laplace_derivatives_lanes as pt
from jaxglmm.integrate.laplace_derivatives_lanes import Point, Split
from jaxglmm.integrate.quadrature import _inverse_transposed, product_rule
from jaxglmm.integrate.rows_lanes import LaneRows, lanes, levels
from jaxglmm.numerics import small_matrices as small
from jaxglmm.runtime.arrays import grad_by_level, jnp, lax


class _Sums(eqx.Module):
    """Sums over nodes, each level relative to its largest term so far, lanes last."""

    top: Array
    mass: Array
    s: Array
    l: Array
    kappa: Array
    outer: Array
    tu: Array


def improve(
    d: LaneRows,
    split: Split,
    psi: Array,
    at: Point,
    u: Array,
    nodes: int,
    hessian: str,
) -> tuple[Array, Array]:
    """Value (L,) and score (k, L); u must be the mode."""
    q, p = d.q, d.p
    _, _, phi = split(psi)
    root, A, r, Lam = at.M, at.A, at.rows, at.Lam
    shape = (q, q, *u.shape[1:])
    C = _wide(_inverse_transposed(root), shape)
    M = _wide(small.matmul(root, small.transpose(root)), shape)
    sums = _visit(d, at.eta, phi, Lam, u, C, nodes, hessian)
    share = 1 / sums.mass
    kappa, outer, tu = (x * share for x in (sums.kappa, sums.outer, sums.tu))
    logs = sums.top + jnp.log(sums.mass)

    def bend(m: Array) -> Array:
        inner = small.cholesky(small.rows(m))
        inverse = _wide(_inverse_transposed(inner), shape)
        return jnp.sum(outer * inverse, axis=(0, 1)) - small.log_diagonal(inner)

    M_bar = grad_by_level(bend, M)
    M_bar = (M_bar + jnp.swapaxes(M_bar, 0, 1)) / 2
    bar = small.rows(M_bar)
    LM = small.matmul(Lam, bar)
    lev = pt._quadratic(d, small.matmul(LM, small.transpose(Lam)))
    a = r.w1 * lev
    Za = [levels(d.z(i) * a) for i in range(q)]
    pull = [x + y for x, y in zip(kappa, pt._transposed(Lam, Za), strict=True)]
    y = small.solve(root, pull)
    through = small.apply(Lam, y)
    s = sums.s * share[None]
    first = [lanes(x * (s + a)) for x in d.X]
    if r.dl is not None:
        assert r.dw is not None
        own = jnp.sum(sums.l * share, axis=0) + lanes(lev * r.dw)
        first.append(own if r.dapart is None else own + r.dapart)
    carried = [
        jnp.sum(small.dot(list(at.slopes[:, x]), through), axis=0)
        for x in range(at.slopes.shape[1])
    ]
    first = [x - c for x, c in zip(first, carried, strict=True)]
    bent = small.matmul(small.matmul(A, Lam), bar)
    Am = small.apply(A, through)
    slope = [
        [
            jnp.sum(
                tu[i, j] + 2 * bent[i][j] + (Za[i] - Am[i]) * u[j] + at.t[i] * y[j],
                axis=0,
            )
            for j in range(q)
        ]
        for i in range(q)
    ]
    entries = split.covariance.entries
    along = pt.crit.pulled(at.J, [slope[i][j] for i, j in entries])
    score = jnp.stack([*first[:p], *along, *first[p:]])
    half_det = jnp.sum(small.log_diagonal(root), axis=0)
    ahead = sum(jnp.sum(x * y, axis=0) for x, y in zip(pull, at.step, strict=True))
    value = jnp.sum(logs, axis=0) - half_det + ahead
    value = -2 * (value if r.apart is None else value + r.apart)
    return value, -2 * score


def _wide(M: small.Matrix, shape: tuple[int, ...]) -> Array:
    return jnp.stack(
        [jnp.stack([jnp.broadcast_to(x, shape[2:]) for x in row]) for row in M]
    )


def _visit(
    d: LaneRows,
    eta: Array,
    phi: Array,
    Lam: small.Matrix,
    u: Array,
    C: Array,
    nodes: int,
    hessian: str,
) -> _Sums:
    """All nodes, one after the other."""
    q = len(u)
    grid, log_w = product_rule(nodes, q)
    log_w = log_w + 0.5 * np.sum(grid**2, axis=1)
    start = _Sums(
        jnp.full(u.shape[1:], -jnp.inf),
        jnp.zeros(u.shape[1:]),
        jnp.zeros_like(eta),
        jnp.zeros(u.shape[1:]),
        jnp.zeros_like(u),
        jnp.zeros_like(C),
        jnp.zeros_like(C),
    )

    def visit(sums: _Sums, node: tuple[Array, Array]) -> tuple[_Sums, None]:
        z, log_weight = node
        shift = jnp.sum(C * z[None, :, None, None], axis=1)
        step = small.apply(Lam, list(shift))
        there = u + shift
        here = eta
        for i in range(q):
            here = here + d.z(i) * jnp.asarray(step[i])[None]
        r = pt.terms(d, here, phi, hessian, False)
        term = log_weight + levels(r.l) - jnp.sum(there**2, axis=0) / 2
        top = jnp.maximum(sums.top, term)
        safe = jnp.where(jnp.isfinite(top), top, 0.0)
        new, old = jnp.exp(term - safe), jnp.exp(sums.top - safe)
        new = jnp.where(jnp.isfinite(term), new, 0.0)
        old = jnp.where(jnp.isfinite(sums.top), old, 0.0)
        s = jnp.where(new[None] > 0, r.s, 0.0)
        t = jnp.stack([levels(d.z(i) * s) for i in range(q)])
        kappa = jnp.stack(pt._transposed(Lam, list(t))) - there
        l = sums.l
        if r.dl is not None:
            l = l * old + levels(jnp.where(new[None] > 0, r.dl, 0.0)) * new
        return (
            _Sums(
                top,
                sums.mass * old + new,
                sums.s * old[None] + s * new[None],
                l,
                sums.kappa * old + kappa * new,
                sums.outer * old + kappa[:, None] * z[None, :, None, None] * new,
                sums.tu * old + t[:, None] * there[None] * new,
            ),
            None,
        )

    out, _ = lax.scan(visit, start, (jnp.asarray(grid), jnp.asarray(log_w)))
    return out
