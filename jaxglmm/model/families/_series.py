"""Sums of series by rows: few terms near the largest, or many fixed ones.

A normaliser is a sum over 0, 1, 2, ... of exp(e_j), e concave. Near zero its terms are
summed one by one. Far from zero the sum is the integral, and so is the trapezoidal rule
with steps of sd / ``FINE``, for smooth functions to exp(-2 (pi FINE)^2) (Trefethen and
Weideman 2014): some forty terms whatever the size. Nodes are constants, so derivatives
pass through the terms alone.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._typing import Array
from jaxglmm.runtime.arrays import detached, jnp

FINE = 1.6  # steps of one standard deviation
REACH = 20  # steps to either side
STEPS = np.arange(-REACH, REACH + 1.0)


def column(nodes: np.ndarray, ndim: int) -> np.ndarray:
    """Nodes (N,) as a first axis before ``ndim`` others."""
    return nodes.reshape(-1, *(1,) * ndim)


def around(centre: Array, sd: Array) -> tuple[Array, Array]:
    """Nodes (41, ...) around centres, whole numbers where sd is small, and the step."""
    step = jnp.maximum(1.0, detached(sd) / FINE)
    middle = jnp.round(detached(centre))
    return middle + column(STEPS, jnp.ndim(middle)) * step, step


def log_sum(e: Array) -> Array:
    """log of the sum of exp(e) along the first axis."""
    top = jnp.max(detached(e), axis=0)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return top + jnp.log(jnp.sum(jnp.exp(e - top), axis=0))
