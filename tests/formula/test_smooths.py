"""Smooths: formulas, bases against the papers' definitions, designs, new data."""

import numpy as np
import pandas as pd
import pytest
from doors import formula, learned, read_smooth, taken_apart
from doors import smooth_bases as bases

from jaxglmm import DataError, FormulaError

RNG = np.random.default_rng(4)
X = np.sort(RNG.uniform(0, 1, 80))


@pytest.mark.parametrize("kind", ["tp", "cr", "ps"])
def test_penalties_are_of_the_second_derivative(kind):
    """Straight lines are free; cr's penalty is the integral of f''^2."""
    state, S = bases.learn(kind, X[:, None], 10, "s(x)")
    B = bases.columns(state, X[:, None])
    assert B.shape == (80, 10)
    for y in (np.ones(80), X):
        theta = np.linalg.lstsq(B, y, rcond=None)[0]
        assert B @ theta == pytest.approx(y, abs=1e-8)
        assert theta @ S @ theta == pytest.approx(0, abs=1e-8 * np.abs(S).max())
    value = np.linalg.eigvalsh(S)
    assert (value > 1e-9 * value[-1]).sum() == 8
    if kind == "cr":
        theta = RNG.normal(size=10)
        knots = np.asarray(state["knots"])
        fine = np.linspace(knots[0], knots[-1], 200_001)
        f = bases.columns(state, fine[:, None]) @ theta
        h = (fine[1] - fine[0]) / state["size"]
        second = np.diff(f, 2) / h**2
        assert theta @ S @ theta == pytest.approx(np.sum(second**2) * h, rel=1e-3)
        at = bases.columns(state, knots[:, None]) @ theta
        assert at == pytest.approx(theta, abs=1e-12)


@pytest.mark.parametrize("kind", ["tp", "cr", "ps"])
@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_units_and_origins(kind, scale, shift):
    """The space of curves is the same."""
    term = read_smooth(f"s(x, bs='{kind}')")
    (one,) = learned(term, X[:, None], None, None)
    moved = scale * X + shift
    (other,) = learned(term, moved[:, None], None, None)
    F, Z = one.columns(X[:, None], None)
    F2, Z2 = other.columns(moved[:, None], None)
    assert np.abs(F2) == pytest.approx(np.abs(F), rel=1e-4, abs=1e-6)
    assert pytest.approx(Z @ Z.T, rel=1e-3, abs=1e-5) == Z2 @ Z2.T


@pytest.mark.parametrize("kind", ["tp", "cr", "ps"])
def test_straight_beyond_the_data(kind):
    state, _ = bases.learn(kind, X[:, None], 8, "s(x)")
    B = bases.columns(state, np.array([[2.0], [2.5], [3.0], [-1.0], [-1.5], [-2.0]]))
    # of tp only the free part is straight far out; its bends die with the constraint
    if kind != "tp":
        assert B[0] - 2 * B[1] + B[2] == pytest.approx(0, abs=1e-8)
        assert B[3] - 2 * B[4] + B[5] == pytest.approx(0, abs=1e-8)
    else:
        assert np.isfinite(B).all()


@pytest.mark.parametrize("text", ["s(x)", "s(x, z)", "te(x, z)", "te(x, z, k=c(4, 6))"])
def test_centred_and_penalised(text):
    """Columns sum to zero; random ones times their covariance are the penalty."""
    term = read_smooth(text)
    x = RNG.uniform(size=(120, len(term.variables)))
    (smooth,) = learned(term, x, None, None)
    F, Z = smooth.columns(x, None)
    assert F.sum(axis=0) == pytest.approx(0, abs=1e-8)
    assert Z.sum(axis=0) == pytest.approx(0, abs=1e-6)
    whole = np.concatenate([F, Z], axis=1)
    assert np.linalg.matrix_rank(whole) == whole.shape[1]


def test_the_formula_is_taken_apart():
    plain, terms = taken_apart("y ~ f + s(x, by=f, k=5) + te(u, v) + s(g, bs='re')")
    assert plain == "y ~ f + (1 | g)"
    assert [t.label for t in terms] == ["s(x)", "te(u,v)"]
    assert (terms[0].by, terms[0].k) == ("f", (5,))
    assert taken_apart("y ~ s(x)")[0] == "y ~ 1"
    assert taken_apart("y ~ tes(x) + (1 | s)") == ("y ~ tes(x) + (1 | s)", ())
    assert taken_apart("y ~ s(x)", {"s": len}) == ("y ~ s(x)", ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y ~ f * s(x)", "can only be added"),
        ("y ~ f - s(x)", "cannot be subtracted"),
        ("y ~ s(x) + s(x)", "appears twice"),
        ("y ~ s(x, bs='zz')", "is not one of 'tp', 'cr', 'ps'"),
        ("y ~ s(x, k=2)", "from 3 to"),
        ("y ~ s(x, m=2)", "not m="),
        ("y ~ s()", "has variables and by="),
        ("y ~ te(x)", "take s()"),
        ("y ~ s(log(x))", "compute it as a column first"),
        ("y ~ s(w)", "no column 'w'"),
    ],
)
def test_what_cannot_be_read(text, message):
    data = {"y": X, "x": X, "f": ["a", "b"] * 40}
    with pytest.raises(FormulaError) as caught:
        formula.design_from_formula(text, data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.tile([1.0, 2, 3, 4], 20), "4 different values are fewer than the k=10"),
        (np.ones(80), "has one value"),
        (np.array(["a", "b"] * 40), "is not numeric"),
        (np.where(X > 0.5, np.inf, X), "infinite"),
    ],
)
def test_data_that_cannot_be_smoothed(x, message):
    with pytest.raises(DataError) as caught:
        formula.design_from_formula("y ~ s(x)", {"y": X, "x": x})
    assert message in str(caught.value)


def test_new_rows_are_those_of_the_fit():
    data = pd.DataFrame({"y": X, "x": X, "z": RNG.normal(size=80), "u": X**2})
    data["f"] = ["a", "b"] * 40
    data.loc[3, "x"] = np.nan
    with pytest.warns(UserWarning, match="1 of 80 rows"):
        design = formula.design_from_formula("y ~ f + s(x, by=f) + te(z, u)", data)
    assert design.n == 79
    recipe = formula.recipe_from_dict(design.recipe.to_dict())
    for one in (design.recipe, recipe):
        new = one.new_rows(data.drop(index=3))
        assert pytest.approx(design.X, abs=1e-9) == new.X
        for a, b in zip(new.terms, design.terms, strict=True):
            assert a.label == b.label
            assert a.values == pytest.approx(b.values, abs=1e-9)
    with pytest.raises(DataError, match="not in the data of the fit"):
        design.recipe.new_rows(data.assign(f="c").drop(index=3))
    with pytest.raises(DataError, match="lack the column 'z'"):
        design.recipe.new_rows(data.drop(columns="z"))
