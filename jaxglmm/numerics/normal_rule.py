"""Gauss-Hermite rules: expectations over standard normal variables as sums."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

LEAST = 1e-300  # weight of a node, below which it is left out


@lru_cache
def normal_rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (nodes,) of E f(z), z ~ N(0, 1); the weights' sum is one."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    for kept in (z, w):
        kept.setflags(write=False)
    return z, w


def product_rule(nodes: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (nodes^q, q) and log weights (nodes^q,) of q independent ones."""
    z, w = normal_rule(nodes)
    grid = np.array(list(itertools.product(z, repeat=q))).reshape(-1, q)
    weights = np.array([np.prod(x) for x in itertools.product(w, repeat=q)])
    kept = weights > LEAST
    return grid[kept], np.log(weights[kept])
