"""Rows of a mixture with zeros as functions of dispersion parameters, by formulas.

l = log(p + (1 - p) f) at zeros and log((1 - p) f) elsewhere, from the derivatives of
B = log f in eta and phi (``ByPhi``). With zeta the logit of p, r = p / (p + (1 - p) f)
at zeros and 0 elsewhere, q = 1 - r, v = r q, t = v (q - r) and d_i = [i = zeta] - B_i,

    l_i = q B_i + [i = zeta] (r - p),       l_ij = v d_i d_j + q B_ij,
    l_ijk = t d_i d_j d_k - v (d_i B_jk + d_j B_ik + d_k B_ij) + q B_ijk,

less the derivatives of log(1 + exp(zeta)) along zeta alone.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.model.families._by_phi import ByPhi
from jaxglmm.runtime.arrays import jnp, nn

Parts = tuple[Array, Array, Array, Array]  # a value and its first three derivatives


def with_zeros(
    zero: Array, zeta: Array, parts: Parts, K: int, has_zeros: bool
) -> Parts:
    """l with its derivatives in all K predictors, the second of which is zeta.

    parts: B with its derivatives in those of the base; has_zeros: whether f has.
    """
    B = parts[0]
    one, two, three = (_wider(part, k) for k, part in enumerate(parts) if k)
    if has_zeros:
        r = jnp.where(zero, nn.sigmoid(zeta - B), 0.0)
        q = jnp.where(zero, nn.sigmoid(B - zeta), 1.0)
        at_zero = jnp.logaddexp(zeta, B)
    else:
        r, at_zero = jnp.where(zero, jnp.ones_like(zeta), 0.0), zeta
        q = 1.0 - r
    v = r * q
    t = v * (q - r)
    p, u = nn.sigmoid(zeta), nn.sigmoid(-zeta)
    value = jnp.where(zero, at_zero, B) - nn.softplus(zeta)
    at = np.eye(K)[1].reshape(-1, *(1,) * zeta.ndim)
    d = at - one  # of zeta - B
    pairs, both = d[:, None] * d, at[:, None] * at
    first = q * one + at * (r - p)
    second = v * pairs + q * two - both * (p * u)
    mixed = (
        d[:, None, None] * two
        + d[None, :, None] * two[:, None]
        + d[None, None] * two[:, :, None]
    )
    third = t * pairs[:, :, None] * d - v * mixed + q * three
    third = third - both[:, :, None] * at * (p * u * (u - p))
    return value, first, second, third


def zeros_by_phi(zero: Array, zeta: Array, base: ByPhi) -> ByPhi:
    """The mixture's rows.

    Args:
        zero: whether y is zero.
        zeta: logit of the probability of an added zero.
        base: of the response where it is none; it has zeros too.
    """
    B, b, w, w1 = base.plain
    p, u = nn.sigmoid(zeta), nn.sigmoid(-zeta)
    gap = zeta - B
    r = jnp.where(zero, nn.sigmoid(gap), 0.0)
    q = jnp.where(zero, nn.sigmoid(-gap), 1.0)
    l = jnp.where(zero, jnp.logaddexp(zeta, B), B) - nn.softplus(zeta)
    v = r * q
    t = v * (q - r)
    ends = p * u
    d, bb, bbb = -b, -w, -w1  # d_i and B_ij, B_ijk along eta
    vd = v * d
    ee, ez, zz = vd * d + q * bb, vd, v - ends
    # along zeta B does not move
    eee = t * d * d * d - 3 * vd * bb + q * bbb
    eez = t * d * d - v * bb
    ezz = t * d
    zzz = t - ends * (u - p)
    dl, ds, dw = [], [], []
    for a, ea, wa in zip(base.dl, base.ds, base.dw, strict=True):
        dl.append(q * a)
        ds.append(jnp.stack([q * ea - vd * a, -v * a]))
        # B_eea = -wa; d_a = -a
        eea = -t * d * d * a - v * (2 * d * ea - a * bb) - q * wa
        eza = -t * d * a - v * ea
        zza = -t * a
        dw.append(_square(-eea, -eza, -zza))
    info = tuple(
        tuple(q * found - v * base.dl[i] * base.dl[j] for j, found in enumerate(row))
        for i, row in enumerate(base.info)
    )
    third = jnp.stack([_square(-eee, -eez, -ezz), _square(-eez, -ezz, -zzz)])
    plain = l, jnp.stack([q * b, r - p]), _square(-ee, -ez, -zz), third
    return ByPhi(plain, tuple(dl), tuple(ds), tuple(dw), info)


def _square(a: Array, b: Array, c: Array) -> Array:
    """The symmetric block of two predictors."""
    return jnp.stack([jnp.stack([a, b]), jnp.stack([b, c])])


def _wider(x: Array, order: int) -> Array:
    """Zeros in the place of the predictor of zeros, the second, along these axes."""
    for axis in range(order):
        head, tail = _cut(x, axis, 0, 1), _cut(x, axis, 1, None)
        x = jnp.concatenate([head, jnp.zeros_like(head), tail], axis=axis)
    return x


def _cut(x: Array, axis: int, start: int, stop: int | None) -> Array:
    return x[(*[slice(None)] * axis, slice(start, stop))]
