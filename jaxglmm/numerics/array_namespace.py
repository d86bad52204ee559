"""Elementwise functions for NumPy and JAX arrays alike: the answer is of the same kind.

The same formula serves the likelihood (JAX, traced) and results (NumPy, in double
precision whatever JAX's setting). NumPy's are silent about overflow, since the answer
says it; those of SciPy are imported when used.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from jaxglmm.runtime.arrays import is_host, jnp, nn, special

_DEVICE = SimpleNamespace(
    arctan2=jnp.arctan2,
    exp=jnp.exp,
    expit=nn.sigmoid,
    expm1=jnp.expm1,
    log=jnp.log,
    log1p=jnp.log1p,
    ndtr=special.ndtr,
    ndtri=special.ndtri,
    ones_like=jnp.ones_like,
    reciprocal=jnp.reciprocal,
    sqrt=jnp.sqrt,
    stack=jnp.stack,
    tan=jnp.tan,
    total=lambda x: jnp.sum(x, axis=0),
    where=jnp.where,
)


def _expit(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), which does not overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def _total(x: np.ndarray) -> np.ndarray:
    """Sums along the first axis."""
    return np.sum(x, axis=0)


class _Host:
    def __getattr__(self, name: str) -> Any:
        if name == "expit":
            function = _expit
        elif name == "total":
            function = _total
        elif name in ("ndtr", "ndtri"):
            from scipy import special  # slow to import

            function = getattr(special, name)
        else:
            function = getattr(np, name)

        def quiet(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*(np.asarray(a, np.float64) for a in arguments))

        return quiet


_HOST = _Host()


def functions(x: Any) -> Any:
    """The functions for this kind of number."""
    return _DEVICE if isinstance(x, jax.Array) or is_host() else _HOST


def exp(x: Any) -> Any:
    """e^x."""
    return functions(x).exp(x)
