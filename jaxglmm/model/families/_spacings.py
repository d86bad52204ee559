"""Rows of cumulative models as functions of the spacings of their thresholds."""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families._base import Rows, signed
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.model.families._interval import INTERVALS, Ends, upper
from jaxglmm.model.links import CLogLog, Link, LogLog
from jaxglmm.runtime.arrays import jnp

FEW = 16  # thresholds among which a row's own are chosen one by one
EULER = 0.5772156649015329  # mean of Gumbel's distribution


def combined(A: np.ndarray, d: Array) -> Array:
    """A d, (L, ...) from d (r, ...)."""
    wide = A.reshape(*A.shape, *(1,) * (d.ndim - 1))
    return jnp.sum(wide * d, axis=1)


def log_gaps(D: np.ndarray, a: Array) -> Array:
    """log(D exp(a)), D (L - 1, r) of numbers from zero on."""
    if D.shape[0] == D.shape[1] and (np.eye(len(D)) == D).all():
        return a
    return jnp.log(combined(D, jnp.exp(a)))


def at_row(t: Array | np.ndarray, k: Rows) -> Array:
    """t[k] of each row, t (L,) or (L, lanes); k beyond the ends counts as the end.

    A choice among few is quicker than to look up, which goes row by row.
    """
    if len(t) > FEW:
        i = jnp.clip(k, 0, len(t) - 1).astype(int)
        t = jnp.asarray(t)
        return t[i] if t.ndim == 1 else t[i, np.arange(t.shape[1])]
    out = t[0]
    for j in range(1, len(t)):
        out = jnp.where(k >= j, t[j], out)
    return out


def by_spacings(
    link: Link, located: bool, ends: Ends, y: Rows, a: Array, A: np.ndarray
) -> ByPhi:
    """By the two ends of a row's category, which are linear in c and exp(d).

    With p_k = F^(k)(a) / P and s, w, w1 the derivatives of l = log P in eta, which
    moves both ends down: l_a = p_1, s_a = -(p_2 + p_1 s), and those in b follow
    from a sum. The second derivatives leave out l_a a'' + l_b b'', which is zero in
    all where the likelihood is greatest.
    """
    y = y.real
    l, s, w, w1 = signed(INTERVALS[link.name](ends, 3))
    p1, one, two = upper(link, ends, l)
    p2, p3 = p1 * one, p1 * two
    l_a, s_a = p1, -(p2 + p1 * s)
    w_a = -(p3 + p2 * s - s_a * s + p1 * w)
    below = ends.below
    l_b, s_b, w_b = (jnp.where(below, x, 0.0) for x in (-s - l_a, w - s_a, -w1 - w_a))
    aa = p1 * p1 - p2
    ab = jnp.where(below, s_a - aa, 0.0)
    bb = s_b - ab
    moves = [(1.0, 1.0)] if located else []
    for k, size in enumerate(jnp.exp(a)):
        own = np.asarray(A[:, k])
        moves.append((size * at_row(own, y), size * at_row(own, y - 1)))
    r = range(len(moves))
    info = [
        [
            aa * (moves[i][0] * moves[j][0])
            + ab * (moves[i][0] * moves[j][1] + moves[i][1] * moves[j][0])
            + bb * (moves[i][1] * moves[j][1])
            for j in range(i + 1)
        ]
        for i in r
    ]
    return ByPhi(
        (l, s, w, w1),
        tuple(l_a * u + l_b * v for u, v in moves),
        tuple(s_a * u + s_b * v for u, v in moves),
        tuple(w_a * u + w_b * v for u, v in moves),
        tuple(tuple(info[max(i, j)][min(i, j)] for j in r) for i in r),
    )


def drawn_between(link: Link, under: np.ndarray, over: np.ndarray) -> np.ndarray:
    """The latent error less its mean from F and 1 - F of it (cauchit: it has none)."""
    mirrored = {"cloglog": LogLog(), "loglog": CLogLog()}.get(link.name, link)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.asarray(link.link(under), float)
        above = -np.asarray(mirrored.link(over), float)
    drawn = np.where(under < 0.5, below, above)
    return drawn - {"cloglog": -EULER, "loglog": EULER}.get(link.name, 0.0)
