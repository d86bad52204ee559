"""Dependent columns: the same verdict from a sample, the Gram matrix and the QR."""

import numpy as np
import pytest
from doors import dependent_columns, rank


def matrix(rng, n, *, rare=False):
    """An intercept, covariates of many sizes, one column that is mostly zero."""
    X = np.column_stack(
        [np.ones(n), rng.normal(size=(n, 4)) * [1e-6, 1, 1e6, 1] + [0, 0, 0, 1e6]]
    )
    last = np.zeros(n)
    last[: 3 if rare else n // 2] = 1.0
    return np.column_stack([X, last])


@pytest.mark.parametrize("n", [7, 100, 20_000, 50_000])
@pytest.mark.parametrize("rare", [False, True])
def test_full_rank(rng, n, rare):
    assert dependent_columns(matrix(rng, n, rare=rare)).tolist() == []


@pytest.mark.parametrize("n", [100, 50_000])
def test_dependent(rng, n):
    X = matrix(rng, n)
    X = np.column_stack(
        [X[:, :3], X[:, 1] - 1e-6 * X[:, 2], X[:, 3:], 5 * X[:, 0], X[:, 3] + X[:, 4]]
    )
    assert dependent_columns(X).tolist() == [3, 7, 8]


def test_a_sample_is_enough_where_it_can_be(rng, monkeypatch):
    def refuse(*_):
        raise AssertionError("looked at all rows")

    monkeypatch.setattr(rank, "_clearly_full", refuse)
    monkeypatch.setattr(rank, "_triangle", refuse)
    assert dependent_columns(matrix(rng, 50_000)).tolist() == []
    with pytest.raises(AssertionError, match="all rows"):
        dependent_columns(matrix(rng, 50_000, rare=True))


def test_a_sample_is_not_fooled(rng):
    """Independent only by rounding in most rows, dependent overall."""
    X = matrix(rng, 50_000)
    copy = X[:, 1] * (1 + 1e-12)
    assert dependent_columns(np.column_stack([X, copy])).tolist() == [6]


def test_order_and_extremes(rng):
    x = rng.normal(size=50)
    cases = [
        (np.column_stack([x, np.ones(50), x + 1]), [2]),
        (np.column_stack([2 * np.ones(50), np.ones(50), x]), [1]),
        (np.column_stack([1e200 * x, 1e-200 * x**2]), []),
        (np.column_stack([1e200 * x, 1e-200 * x]), [1]),
        (np.zeros((50, 2)), [0, 1]),
        (np.empty((50, 0)), []),
        (rng.normal(size=(3, 5)), [3, 4]),
    ]
    for X, expected in cases:
        assert dependent_columns(X).tolist() == expected
