"""Products of columns far from zero are told from their factors at any origin."""

import numpy as np
import pytest
from doors import drop_dependent

ORIGINS = (0.0, 1.7e9, -2.5e10)


@pytest.mark.parametrize("origin", ORIGINS)
def test_products_with_a_far_covariate(origin):
    rng = np.random.default_rng(3)
    s, x, b = np.tile(np.arange(10) * 6.0, 20), rng.normal(size=200), np.arange(200) % 2
    s = s + origin
    columns = {"(Intercept)": np.ones(200), "s": s, "x": x, "b": b}
    columns |= {"s:x": s * x, "s:b": s * b, "x:b": x * b, "s:x:b": s * x * b}
    X = np.column_stack(list(columns.values()))
    assert drop_dependent(X, tuple(columns))[3] == ()


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.filterwarnings("ignore:the fixed effects are rank deficient")
def test_products_that_do_depend_are_dropped(origin):
    """Of a constant within the rows of b, and of an empty cell."""
    s = np.where(np.arange(200) % 2, 30.0, np.arange(200) % 7) + origin
    b = 1.0 * (np.arange(200) % 2)
    names = ("(Intercept)", "s", "b", "s:b")
    X = np.column_stack([np.ones(200), s, b, s * b])
    assert drop_dependent(X, names)[3] == ("s:b",)
    X = np.column_stack([np.ones(200), s, 0 * b, 0 * s])
    assert drop_dependent(X, names)[3] == ("b", "s:b")
