"""Rows outside all draws: strictly, in the number, the verdict and the marks."""

import numpy as np
from doors import _outliers
from doors import simulated_residuals as simulated


def ties(rng, shape):
    return simulated.Ties.drawn(rng, shape)


def test_beyond_all_others_is_counted_by_hand():
    rng = np.random.default_rng(0)
    Y = np.concatenate([rng.integers(0, 3, (30, 20)), rng.integers(0, 90, (30, 20))], 1)
    found = simulated.beyond_others(Y)
    for i in range(30):
        others = np.delete(Y, i, axis=0)
        by_hand = (others.max(0) < Y[i]) | (others.min(0) > Y[i])
        np.testing.assert_array_equal(found[i], by_hand)


def test_equal_values_are_not_outside():
    """Half of the draws of a rare event equal the data: ranks at random are no fact."""
    rng = np.random.default_rng(1)
    Y = rng.binomial(1, 0.3, (100, 50)).astype(float)
    y = Y[0].copy()
    used = np.ones(50, bool)
    residuals = simulated.judged(y, Y, used, ties(rng, (101, 50)))
    assert residuals.outside == 0
    assert residuals.outliers.statistic == 0
    assert residuals.outliers.p_value == 1
    y[:7] = 5.0
    residuals = simulated.judged(y, Y, used, ties(rng, (101, 50)))
    assert residuals.outside == residuals.outliers.statistic == 7
    assert residuals.beyond[:7].all()
    assert residuals.outliers.p_value < 0.05
    assert _outliers(residuals.outliers).startswith("more rows outside all draws")


def test_continuous_rows_have_their_share():
    """Two in n + 1 of each row, and p-values of the model are not too small."""
    rng = np.random.default_rng(2)
    used = np.ones(40, bool)
    counts, p = [], []
    for _ in range(200):
        Y = rng.normal(size=(40, 40))
        found = simulated.judged(Y[0], Y[1:], used, ties(rng, (40, 40)))
        counts.append(found.outside)
        p.append(found.outliers.p_value)
    assert abs(np.mean(counts) - 40 * 2 / 40) < 0.4
    for level in (0.05, 0.2):
        assert np.mean(np.array(p) <= level) < level + 3 * np.sqrt(level / 200)
