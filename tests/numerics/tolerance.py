"""How close two computations of one number must be, by precision, in one place."""

import numpy as np


def tolerance(dtype, digits_lost: float = 0.0) -> float:
    """Relative; ``digits_lost``: known loss, as the traces at the floor of Lambda."""
    base = {np.dtype("float64"): 1e-11, np.dtype("float32"): 2e-4}[np.dtype(dtype)]
    return base * 10**digits_lost


def assert_close(actual, expected, what: str = "", digits_lost: float = 0.0) -> None:
    """Largest difference against the largest expected entry (at least one)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: {actual.shape} {expected.shape}"
    if expected.size == 0:
        return
    size = max(1.0, np.abs(expected).max())
    worst = np.abs(actual - expected).max() / size
    limit = tolerance(actual.dtype, digits_lost)
    assert worst <= limit, f"{what}: off by {worst:.2g} relative, {limit:.2g} allowed"
