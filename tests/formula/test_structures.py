"""Words of structures in two dialects, positions by numbers, what is refused."""

import numpy as np
import pandas as pd
import pytest
from doors import FormulaRecipe, design_from_formula, parse

from jaxglmm import DataError, FormulaError, ModelError, lmm

rng = np.random.default_rng(1)
N = 60
DATA = pd.DataFrame(
    {
        "y": rng.normal(size=N),
        "t": np.tile([0.0, 1.5, 2.0], N // 3),
        "k": np.tile([1, 2, 5], N // 3),
        "x2": np.tile([1.0, 1.0, 0.5], N // 3),
        "f": pd.Categorical(np.tile(list("abc"), N // 3)),
        "g": np.repeat(np.arange(N // 6), 6),
        "one": "all",
    }
)


def term(text, data=DATA):
    (found,) = design_from_formula(f"y ~ {text}", data).terms
    return found


@pytest.mark.parametrize(
    ("text", "covariance", "columns"),
    [
        ("ar1(0 + f | g)", "ar1", "f[a] f[b] f[c]"),
        ("ar1(f | g)", "ar1", "f[a] f[b] f[c]"),
        ("ar1(1 + f | g)", "ar1", "(Intercept) f[T.b] f[T.c]"),
        ("ar1(f | g, het = TRUE)", "hetar1", "f[a] f[b] f[c]"),
        ("ar1(f | g, het=False)", "ar1", "f[a] f[b] f[c]"),
        ("cs(f | g, hom=True)", "homcs", "(Intercept) f[T.b] f[T.c]"),
        ("diag(0 + f | g, hom=True)", "homdiag", "f[a] f[b] f[c]"),
        ("toep(f | g, hom=TRUE)", "homtoep", "f[a] f[b] f[c]"),
        ("rr(0 + f | g)", "rr(2)", "f[a] f[b] f[c]"),
        ("rr(f + 0 | g, d = 1)", "rr(1)", "f[a] f[b] f[c]"),
        ("ar1(0 + k | g)", "ar1", "k[1] k[2] k[3] k[4] k[5]"),
        ("ou(t | g)", "ou(0.0;1.5;2.0)", "t[0] t[1.5] t[2]"),
        ("ou(numFactor(t) + 0 | g)", "ou(0.0;1.5;2.0)", "t[0] t[1.5] t[2]"),
        (
            "exp(0 + t + x2 | one)",
            "exp(0.0 1.0;1.5 1.0;2.0 0.5)",
            "t,x2[0,1] t,x2[1.5,1] t,x2[2,0.5]",
        ),
        ("cs(1 + t | g)", "cs", "(Intercept) t"),
    ],
)
def test_two_dialects(text, covariance, columns):
    found = term(text)
    assert found.covariance == covariance
    assert list(found.names) == columns.split()
    assert found.values.shape == (N, len(found.names))


def test_positions_are_indicators():
    found = term("ou(t | g)")
    np.testing.assert_array_equal(found.values[:3], np.eye(3))
    assert term("ar1(0 + k | g)").values[:3].argmax(axis=1).tolist() == [0, 1, 4]


def test_the_function_exp_is_no_structure():
    design = design_from_formula("y ~ exp(t) + (1 | g)", DATA)
    assert design.x_names == ("(Intercept)", "exp(t)")
    assert parse("y ~ exp(t) + (1 | g)").random[0].covariance == "us"


def test_new_rows_say_where_they_are():
    design = design_from_formula("y ~ ou(t | g)", DATA)
    recipe = FormulaRecipe.from_dict(design.recipe.to_dict())
    rows = recipe.new_rows(pd.DataFrame({"t": [1.5, 0.7], "g": [0, 1]}))
    (found,) = rows.terms
    assert found.covariance == design.terms[0].covariance
    np.testing.assert_array_equal(found.values, [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(rows.take(slice(1, 2)).terms[0].at, [[0.7]])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("ou(f | g)", FormulaError, "needs times or coordinates"),
        ("ou(t + x2 | g)", FormulaError, "exp() is the same for coordinates"),
        ("ar1(t | g)", DataError, "1.5 is no whole number"),
        ("ar1(1000 * k | g)", FormulaError, ""),
        ("ar1(I(1000 * k) | g)", DataError, "at most 400"),
        ("(1 | one)", ModelError, "only 1 level"),
        ("us(0 + f | one)", ModelError, "only 1 level"),
    ],
)
def test_what_cannot_be_placed(text, error, message):
    with pytest.raises(error) as caught:
        term(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("word", ["homcs", "homdiag", "homtoep"])
def test_what_is_the_residual_itself(word):
    """One row an effect, one variance in all: the residual's is not told from it."""
    once = DATA.drop_duplicates(["f", "g"])
    with pytest.raises(ModelError, match="one a row: its variance cannot be told"):
        lmm(f"y ~ {word}(0 + f | g)", once)
