"""Rows of large models: columns of Z that are columns of X are held once."""

import numpy as np
import pytest
from doors import TermColumns, Unstructured, build_rows
from doors import rows_of_design as module

N = 1_201


def design(origin=0.0):
    """X of (1, x, w), codes of levels of very different size."""
    rng = np.random.default_rng(4)
    g = np.where(rng.uniform(size=N) < 0.6, 0, rng.integers(0, 12, N)).astype(np.int32)
    x, w = origin + rng.normal(size=N), rng.normal(size=N)
    return np.column_stack([np.ones(N), x, w]), g


@pytest.mark.parametrize(
    ("taken", "first"),
    [((0,), 0), ((0, 1), 0), ((0, 1, 2), 0), ((1,), None), ((0, 2), None)],
)
@pytest.mark.parametrize("origin", [0.0, 50.0])
def test_slopes_whose_means_are_fixed_effects(taken, first, origin, monkeypatch):
    X, g = design(origin)
    terms = [TermColumns("g", g, X[:, list(taken)], 12, Unstructured(len(taken)))]
    apart = build_rows(X, terms)
    assert not np.shares_memory(apart.rows.z[0], apart.X)
    monkeypatch.setattr(module, "LARGE_ROWS", 1_000)
    once = build_rows(X, terms)
    z, values = once.rows.z[0], once.factors[0].values
    assert np.shares_memory(z, once.X) == (first is not None)
    if first is not None:
        np.testing.assert_array_equal(z, once.X[first : first + len(taken)])
        assert values is None or np.shares_memory(values, once.X)
    np.testing.assert_allclose(z, apart.rows.z[0], atol=2 * module.SAME)
    np.testing.assert_array_equal(z[:, N:], 0.0)
    assert z.ctypes.data % 64 == 0  # goes to the device without a copy


def test_a_column_that_is_nearly_the_same_stays_its_own(monkeypatch):
    monkeypatch.setattr(module, "LARGE_ROWS", 1_000)
    X, g = design()
    near = X[:, :2].copy()
    near[-1, 1] += 1e-6
    once = build_rows(X, [TermColumns("g", g, near, 12, Unstructured(near.shape[1]))])
    assert not np.shares_memory(once.rows.z[0], once.X)
