"""Double precision inside, invisible outside.

Log-likelihoods of 1e5 are compared to 1e-9, so every computation runs in float64; but
the global flag belongs to the user and is never touched. Public entry points are
wrapped in ``double_precision`` and return NumPy: a float64 JAX array that leaves the
scope would turn into float32 at its next operation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def double_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` with 64-bit types, whatever the user's global setting."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wrapped
