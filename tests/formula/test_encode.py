"""Columns of X: equal to formulaic's; names, terms and levels as users see them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from doors import design_from_formula
from formula.frames import table
from formulaic import model_matrix

MATRICES = [
    "x",
    "0 + x",
    "a",
    "0 + a",
    "a:b",
    "0 + a:b",
    "a:x",
    "0 + a:x",
    "a*b",
    "a*x",
    "x*z",
    "a*b*x",
    "x + a:x",
    "b + a:b",
    "0 + b + a:b",
    "a:b:x",
    "a*b - a",
    "(a + b + x)**2",
    "a/b",
    "x/a",
    "a %in% b",
    "C(g)",
    "C(a, Sum)",
    "C(a, contr.sum) * x",
    "0 + C(a, contr.sum)",
    "C(a, contr.helmert)",
    "C(a, contr.poly)",
    "C(a, contr.diff)",
    "C(a, Treatment('q'))",
    "C(a, contr.treatment(base='r'))",
    "C(a, levels=['r', 'q', 'p'])",
    "poly(x, 2)",
    "poly(x, 2, raw=True):a",
    "bs(x, df=4)",
    "bs(x, df=4):a",
    "scale(x) * a",
    "center(z)",
    "np.log(z) + log10(z + 1) + exp(x)",
    "I(x**2) + x",
    "I(x * z):b",
]


@pytest.mark.parametrize("fixed", MATRICES)
def test_equals_formulaic(fixed):
    data = table()
    design = design_from_formula(f"y ~ {fixed}", data)
    theirs = model_matrix(fixed, data)
    names = ["(Intercept)" if c == "Intercept" else c for c in theirs.columns]
    assert list(design.x_names) == names
    np.testing.assert_allclose(design.X, theirs.to_numpy(float), rtol=0, atol=1e-12)
    assert [j for t in design.fixed_terms for j in t.columns] == list(range(design.p))


def test_ours_beside_formulaic():
    data = table()
    X = design_from_formula("y ~ sqrt(z) + t + ns(x, df=3)", data)
    assert X.x_names[:3] == ("(Intercept)", "sqrt(z)", "t[T.True]")
    np.testing.assert_array_equal(X.X[:, 2], data.t)
    assert X.p == 6
    assert X.dropped_columns == ()
    # a natural spline holds the straight line
    fit = np.linalg.lstsq(X.X[:, [0, 3, 4, 5]], data.x.to_numpy(), rcond=None)
    assert fit[1][0] < 1e-20
    named = design_from_formula("y ~ poly(x, 2, raw=TRUE) + factor(g)", data)
    assert named.x_names[1:4] == (
        "poly(x, 2, raw=TRUE)[0]",
        "poly(x, 2, raw=TRUE)[1]",
        "factor(g)[T.301]",
    )


def test_terms_know_their_variables():
    design = design_from_formula(
        "y ~ a * log(z) + `m n`", table().assign(**{"m n": 1.5 ** np.arange(60)})
    )
    found = {t.name: (set(t.variables), t.columns) for t in design.fixed_terms}
    assert found == {
        "(Intercept)": (set(), (0,)),
        "a": ({"a"}, (1, 2)),
        "log(z)": ({"z"}, (3,)),
        "m n": ({"m n"}, (4,)),
        "a:log(z)": ({"a", "z"}, (5, 6)),
    }


def test_terms_know_which_variables_are_factors():
    design = design_from_formula("y ~ C(g) * x + a + (1 | h)", table())
    found = {t.name: set(t.factors) for t in design.fixed_terms}
    assert found == {
        "(Intercept)": set(),
        "C(g)": {"g"},
        "x": set(),
        "a": {"a"},
        "C(g):x": {"g"},
    }
    assert list(design.variables) == ["y", "g", "x", "a", "h"]


def test_levels():
    data = table()
    data["o"] = pd.Categorical(data.a, categories=["r", "unused", "p", "q"])
    design = design_from_formula("y ~ o + (0 + o | g)", data)
    assert design.x_names == ("(Intercept)", "o[T.p]", "o[T.q]")
    assert design.terms[0].names == ("o[r]", "o[p]", "o[q]")
    # a level that only rows with missing values have is gone as well
    data.loc[data.a == "p", "x"] = np.nan
    with pytest.warns(UserWarning, match="dropped"):
        design = design_from_formula("y ~ x + o", data)
    assert design.x_names == ("(Intercept)", "x", "o[T.q]")


def test_dot():
    data = table()[["y", "x", "a", "g", "w"]]
    design = design_from_formula("y ~ . + (1 | g)", data, weights="w")
    assert design.x_names == ("(Intercept)", "x", "a[T.q]", "a[T.r]")
    squares = design_from_formula("log(y + 9) ~ .^2", data[["y", "x", "w"]])
    assert squares.x_names == ("(Intercept)", "x", "w", "x:w")


def test_sum_coded():
    data = table()
    design = design_from_formula("y ~ a * x + C(b, Treatment('v'))", data)
    X = design.recipe.sum_coded()
    theirs = model_matrix("C(a, Sum) * x + C(b, Sum)", data)
    order = [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(X, theirs.to_numpy(float)[:, order], atol=1e-14)


def test_functions_of_the_caller():
    def double(x):
        return 2 * x

    data = table()
    design = design_from_formula(
        "y ~ double(x) + I(x > cut)", data, context={"double": double, "cut": 0.5}
    )
    np.testing.assert_array_equal(design.X[:, 1], 2 * data.x)
    assert design.x_names[2] == "I(x > cut)[T.True]"
    assert set(design.recipe.encoder.context) == {"double", "cut"}


def test_series_methods_and_frames():
    data = table()
    design = design_from_formula("y ~ x.clip(0, 1) + a.str.upper()", data)
    np.testing.assert_array_equal(design.X[:, 1], data.x.clip(0, 1))
    assert design.x_names[2:] == ("a.str.upper()[T.Q]", "a.str.upper()[T.R]")
    both = {"both": lambda x: pd.DataFrame({"s": np.sin(x), "c": np.cos(x)})}
    design = design_from_formula("y ~ both(x)", data, context=both)
    assert design.x_names[1:] == ("both(x)[s]", "both(x)[c]")


def test_rank():
    data = table()
    data["x2"] = 2 * data.x + 3
    data["zero"] = 0.0
    data["c"] = 7.0
    with pytest.warns(UserWarning, match="dropped 3 columns that depend on") as seen:
        design = design_from_formula("y ~ x + x2 + zero + c + z", data)
    assert "'x2', 'zero', 'c'" in str(seen[0].message)
    assert seen[0].filename == __file__
    assert design.x_names == ("(Intercept)", "x", "z")
    assert design.dropped_columns == ("x2", "zero", "c")
    assert [t.columns for t in design.fixed_terms] == [(0,), (1,), (), (), (), (2,)]
    assert design.recipe.sum_coded().shape == (60, 6)
    np.testing.assert_array_equal(design.recipe.new_rows(data).X, design.X)


SCALES = {
    "tiny": lambda x, e: (1e-6 * x, 1e-6 * e),
    "huge": lambda x, e: (1e6 * x, 1e-6 * e),
    "offset": lambda x, e: (1e6 + x, 1e6 + 1e-3 * e),
    "far offset": lambda x, e: (1e6 + x, 1e9 + 1e-2 * e),
    "close": lambda x, e: (x, x + 1e-5 * e),
}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("fixed", ["u + v", "0 + a + u + v", "x * u + v"])
def test_rank_keeps_what_is_independent(case, fixed, rng):
    data = table(200)
    data["u"], data["v"] = SCALES[case](rng.normal(size=200), rng.normal(size=200))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        design_from_formula(f"y ~ {fixed}", data)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
def test_rank_finds_what_is_dependent(scale, shift, rng):
    data = table(200)
    data["u"] = shift + scale * rng.normal(size=200)
    data["v"] = 3 * data.u - data.x * scale + 5
    with pytest.warns(UserWarning, match="depends on others: 'v'"):
        design_from_formula("y ~ x + u + v + z", data)


def test_empty_cells():
    data = table()
    data = data[~((data.a == "q") & (data.b == "v"))]
    with pytest.warns(UserWarning, match=r"a\[T.q\]:b\[T.v\]"):
        design = design_from_formula("y ~ a*b", data)
    assert design.p == 5
