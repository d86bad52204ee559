"""Draws of responses on the host, where NumPy's own have an end."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGE = 1e15  # a mean from which Poisson counts are normal ones


def poisson(rng: np.random.Generator, mean: Any) -> np.ndarray:
    """Poisson counts as floats, also where a draw of a posterior has a huge mean.

    NumPy's end at 2^63. From 1e15 on counts and rounded normal numbers differ by less
    than their rounding; a mean of infinity stays one.
    """
    mean = np.asarray(mean, float)
    large = mean > LARGE
    out = rng.poisson(np.where(large, 0.0, mean)).astype(np.float64)
    if large.any():
        top = mean[large]
        spread = np.where(np.isfinite(top), np.sqrt(top), 0.0)
        out[large] = np.rint(top + spread * rng.standard_normal(len(top)))
    return out
