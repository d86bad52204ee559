"""The linear predictor at which a row's density is largest, by search."""

from __future__ import annotations

from typing import Any

from jaxglmm._typing import Array
from jaxglmm.runtime.arrays import jnp, lax
from jaxglmm.runtime.trees import filter_jit


@filter_jit
def best_eta(family: Any, y, start, phi, trials) -> Array:
    """The eta of the largest density, row by row, by golden section around ``start``.

    The bracket is as wide as the link says (``Link.search``), or relative; a density
    that still rises at its end (a count of zero) has lost nothing worth counting there.
    """
    ratio = 0.6180339887498949
    link = family.link
    if link.positive or link.even:
        low, high = start * 1e-4, start * 4.0
    else:
        width = 4.0 * (1.0 + jnp.std(start)) if link.search is None else link.search
        low, high = start - width, start + width

    def loss(eta):
        return -family.log_density(y, eta, phi, trials)

    def step(_, state):
        low, high = state
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        left = loss(a) <= loss(b)
        return jnp.where(left, low, a), jnp.where(left, b, high)

    low, high = lax.fori_loop(0, 100, step, (low, high))
    ends = jnp.stack([(low + high) / 2, start])
    best = jnp.argmin(jnp.stack([loss(e) for e in ends]), axis=0)
    return jnp.take_along_axis(ends, best[None], axis=0)[0]
