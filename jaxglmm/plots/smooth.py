"""A smooth curve through a cloud: local linear regression with tricube weights.

Cleveland (1979, JASA 74, 829) without the robustness steps. Above a few thousand points
the cloud is first reduced to means of bins of equal count, which the eye cannot tell.
"""

from __future__ import annotations

import numpy as np

BINS, GRID = 600, 80


def local_linear(
    x: np.ndarray, y: np.ndarray, span: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    """Curve at up to 80 points of the range of x.

    Args:
        x: (n,) positions.
        y: (n,) values.
        span: share of the points that has weight at each position.

    Returns:
        (g,) positions and (g,) values.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    count = np.ones(len(x))
    if len(x) > 2 * BINS:
        edges = np.linspace(0, len(x), BINS + 1).astype(int)[:-1]
        count = np.diff(np.append(edges, len(x))).astype(float)
        x, y = np.add.reduceat(x, edges) / count, np.add.reduceat(y, edges) / count
    at = np.linspace(x[0], x[-1], GRID)
    k = min(max(int(np.ceil(span * len(x))), 3), len(x))
    return at, np.array([_value(t, x, y, count, k) for t in at])


def _value(t: float, x, y, count, k: int) -> float:
    """The local line at t."""
    distance = np.abs(x - t)
    reach = np.partition(distance, k - 1)[k - 1] * (1 + 1e-9)
    if reach == 0:
        return float(np.average(y, weights=count * (distance == 0)))
    w = count * np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    total = w.sum()
    centre, mean = (w @ x) / total, (w @ y) / total
    dx = x - centre
    spread = w @ dx**2
    slope = (w @ (dx * y)) / spread if spread > 1e-12 * reach**2 * total else 0.0
    return float(mean + slope * (t - centre))
