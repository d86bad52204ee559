"""The choice of structure, and what the problem is made of."""

import dataclasses

import numpy as np
import pytest
from doors import DenseCoupling, SparseCoupling, TermColumns, assemble
from doors import moments_of_design as module
from integrate import oracle
from structure import designs

from jaxglmm import ModelError


@pytest.mark.parametrize("layout", designs.LAYOUTS, ids=str)
def test_choice_of_structure(layout):
    moments = designs.rows(layout).moments(layout.structure)
    assert type(moments.system).__name__ == layout.system


def test_choice_of_coupling(monkeypatch):
    rows = designs.rows(designs.BY_NAME["crossed-3"])
    assert isinstance(rows.moments("arrow").system.coupling, DenseCoupling)
    monkeypatch.setattr(module, "FILLED", 1.0)
    assert isinstance(rows.moments("arrow").system.coupling, SparseCoupling)
    monkeypatch.setattr(module, "MOST_PAIRS", 10)
    assert isinstance(rows.moments("arrow").system.coupling, DenseCoupling)


def test_partly_nested_factors_are_crossed():
    """a in b, but c across."""
    rows = designs.rows(designs.BY_NAME["nested-3"])
    assert type(rows.moments(None).system).__name__ == "Nested"
    a, b, c = rows.terms
    shuffled = dataclasses.replace(c, codes=np.roll(c.codes, 1))
    crossed = dataclasses.replace(rows, terms=[a, b, shuffled])
    assert type(crossed.moments(None).system).__name__ == "Arrow"


def test_too_much_for_a_dense_matrix_is_named(monkeypatch):
    monkeypatch.setattr(module, "MOST_DENSE", 5)
    rows = designs.rows(designs.BY_NAME["crossed-3"])
    with pytest.raises(ModelError, match=r"a \(18\) and b \(10\) and c \(8\)"):
        rows.moments(None)


@pytest.mark.parametrize("layout", designs.LAYOUTS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_right_hand_sides(layout, weighted):
    """Z'[X y] and [X y]'[X y], padded with zeros."""
    rows = designs.rows(layout, padded=True, weighted=weighted)
    moments = rows.moments(layout.structure)
    data = oracle.dense(moments, rows.y, rows.X)
    problem = assemble.problem(moments)
    right = np.column_stack([data.X, data.y])
    np.testing.assert_allclose(problem.RR, right.T @ right, atol=1e-9)
    for B, Z, f, size in zip(
        problem.B, data.Z, moments.factors, moments.sizes, strict=True
    ):
        assert B.shape == (f.q, right.shape[1], size)
        expected = np.einsum("nji,nr->irj", Z, right)
        np.testing.assert_allclose(B[..., : f.n_levels], expected, atol=1e-9)
        assert not B[..., f.n_levels :].any()
    assert problem.n == designs.N
    np.testing.assert_allclose(problem.RR[:-1, :-1], np.eye(problem.p), atol=1e-9)


def test_another_response(rng):
    rows = designs.rows(designs.BY_NAME["crossed"], weighted=True)
    other = dataclasses.replace(rows, y=rng.normal(size=designs.N) - 40)
    moments = rows.moments(None)
    found = assemble.problem(moments.respond(other.y))
    expected = assemble.problem(other.moments(None))
    np.testing.assert_allclose(found.RR, expected.RR, atol=1e-10)
    for a, b in zip(found.B, expected.B, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    for name in ("constant", "constant_reml"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name))


def test_rows_of_weight_zero_are_not_there():
    rows = designs.rows(designs.BY_NAME["slopes"], weighted=True)
    weights = rows.weights.copy()
    weights[::5] = 0.0
    some = weights > 0
    kept = designs.Rows(
        rows.y[some],
        rows.X[some],
        [
            TermColumns(
                t.factor, t.codes[some], t.values[some], t.n_levels, t.covariance
            )
            for t in rows.terms
        ],
        weights[some],
    )
    zero = dataclasses.replace(rows, weights=weights).moments(None)
    left = kept.moments(None)
    np.testing.assert_array_equal(zero.keep, some)
    assert zero.n == left.n == some.sum()
    assert zero.log_weights == left.log_weights
    for a, b in zip(assemble.problem(zero).B, assemble.problem(left).B, strict=True):
        np.testing.assert_array_equal(a, b)
