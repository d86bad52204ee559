"""New data through a recipe: same columns, remembered state, unseen levels."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from doors import design_from_formula, recipe_from_dict
from formula.frames import table

from jaxglmm import DataError, FormulaError

FORMULAS = [
    "y ~ x + (1 | g)",
    "y ~ a * x + t + (x || g) + (1 | h/b)",
    "y ~ 0 + a + (0 + a | g)",
    "y ~ scale(x) + center(z) + (scale(x) | g)",
    "y ~ poly(x, 2) * b + (poly(x, 2) | h)",
    "y ~ bs(x, df=4, extrapolation='clip') + cr(z, df=3, constraints='center')",
    "y ~ ns(x, df=3) + offset(log(z))",
    "y ~ C(a, Sum) * C(g) + (1 | g:h)",
    "y ~ C(a, levels=['r', 'p', 'q'])",
    "y ~ g + x + (x | g) + (1 | t:a) + t",
    "y ~ . - w - x + (1 | g)",
    "y ~ I(x > 0) + np.log(z) + x.clip(0, 1)",
]


def rebuilt(recipe):
    """The recipe after a trip through JSON."""
    return recipe_from_dict(json.loads(json.dumps(recipe.to_dict())))


@pytest.mark.parametrize("formula", FORMULAS)
def test_rows_of_the_fit_come_back(formula):
    data = table()
    design = design_from_formula(formula, data)
    rows = np.r_[50:60, 0:5]
    for recipe in (
        design.recipe,
        pickle.loads(pickle.dumps(design.recipe)),
        rebuilt(design.recipe),
    ):
        new = recipe.new_rows(data.drop(columns="y").iloc[rows])
        np.testing.assert_allclose(new.X, design.X[rows], rtol=1e-13, atol=1e-13)
        offset = np.zeros(60) if design.offset is None else design.offset
        np.testing.assert_allclose(new.offset, offset[rows])
        for s, t in zip(design.terms, new.terms, strict=True):
            np.testing.assert_array_equal(t.codes, s.codes[rows])
            np.testing.assert_allclose(t.values, s.values[rows], atol=1e-13)
            assert (t.label, t.names, t.covariance) == (s.label, s.names, s.covariance)
            assert t.levels.tolist() == s.levels.tolist()
            assert t.levels.dtype == s.levels.dtype
        assert list(new.index) == list(rows)


@pytest.mark.parametrize("formula", FORMULAS)
def test_sum_coding_after_json(formula):
    design = design_from_formula(formula, table())
    saved = json.loads(json.dumps(design.recipe.to_dict()))
    with pytest.raises(FormulaError, match=r"variables=design.variables"):
        recipe_from_dict(saved).sum_coded()
    plain = {name: np.asarray(v) for name, v in design.variables.items()}
    recipe = recipe_from_dict(saved, variables=plain)
    np.testing.assert_allclose(
        recipe.sum_coded(), design.recipe.sum_coded(), rtol=1e-13, atol=1e-13
    )


def test_state_is_that_of_the_fit():
    data = table()
    design = design_from_formula("y ~ scale(x) + poly(z, 2)", data)
    one = design.recipe.new_rows({"x": [1.0], "z": [1.5]})
    expected = (1.0 - data.x.mean()) / data.x.std()
    np.testing.assert_allclose(one.X[0, 1], expected)
    two = design.recipe.new_rows({"x": [1.0, 9.0], "z": [1.5, 1.9]})
    np.testing.assert_array_equal(two.X[0], one.X[0])


def test_labels_change_type():
    data = table()
    design = design_from_formula("y ~ C(g) + t + (1 | g) + (1 | h:g)", data)
    for change in (str, float, "category"):
        new = data.assign(g=data.g.astype(change), t=data.t.astype(str))
        rows = design.recipe.new_rows(new)
        np.testing.assert_array_equal(rows.X, design.X)
        for s, t in zip(design.terms, rows.terms, strict=True):
            np.testing.assert_array_equal(t.codes, s.codes)


def test_unseen_levels():
    data = table()
    recipe = design_from_formula("y ~ a + (1 | g) + (1 | h/b)", data).recipe
    new = data[["a", "g", "h", "b"]].head(3).copy()
    new.loc[0, "g"] = 999
    new["h"] = new.h.astype(object)
    new.loc[1, "h"] = None
    rows = recipe.new_rows(new)
    codes = {t.label: t.codes.tolist() for t in rows.terms}
    assert codes["g"][0] == -1
    assert codes["g"][1] >= 0
    assert codes["h"][1] == -1
    assert codes["b:h"][1] == -1
    assert codes["b:h"][2] >= 0
    with pytest.raises(DataError, match="'g' has levels '999' that were not in"):
        recipe.new_rows(new, new_levels="error")
    with pytest.raises(DataError, match="'zero' or 'error'"):
        recipe.new_rows(new, new_levels="skip")
    new.loc[2, "a"] = "new"
    with pytest.raises(DataError, match=r"'a' has levels 'new' .* known are 'p', 'q'"):
        recipe.new_rows(new)


def test_a_combination_that_did_not_occur():
    frame = pd.DataFrame({"y": [1.0, 2, 3], "a": ["p", "q", "q"], "b": ["u", "u", "v"]})
    recipe = design_from_formula("y ~ 1 + (1 | a:b)", frame).recipe
    codes = recipe.new_rows({"a": ["p", "q"], "b": ["v", "v"]}).terms[0].codes
    assert codes.tolist() == [-1, 2]


def test_missing_values_stay_in_their_row():
    data = table()
    recipe = design_from_formula("y ~ a + x + log(z) + (x | g)", data).recipe
    new = data.head(4).astype({"a": object})
    new.loc[0, "x"] = np.nan
    new.loc[1, "a"] = None
    rows = recipe.new_rows(new)
    assert np.isnan(rows.X).any(axis=1).tolist() == [True, True, False, False]
    assert np.isnan(rows.terms[0].values).any(axis=1).tolist() == [True] + [False] * 3


def test_random_columns_are_optional():
    data = table()
    recipe = design_from_formula("y ~ x + (z | g)", data).recipe
    rows = recipe.new_rows({"x": [1.0, 2.0]}, random=False)
    assert rows.X.tolist() == [[1, 1], [1, 2]]
    assert rows.terms == ()
    with pytest.raises(DataError, match="new data lack the columns 'g', 'z'"):
        recipe.new_rows({"x": [1.0, 2.0]})
    with pytest.raises(DataError, match=r"lack the column 'x'; did you mean 'X'\?"):
        recipe.new_rows({"X": [1.0]}, random=False)


def test_offsets():
    data = table()
    named = design_from_formula("y ~ x + offset(z)", data, offset="w").recipe
    np.testing.assert_allclose(named.new_rows(data).offset, data.z + data.w)
    np.testing.assert_allclose(
        named.new_rows(data, offset=data.x).offset, data.z + data.x
    )
    given = design_from_formula("y ~ x", data, offset=data.w.to_numpy()).recipe
    with pytest.raises(DataError, match="offset of the fit was an array"):
        given.new_rows(data)
    np.testing.assert_allclose(given.new_rows(data, offset=data.w).offset, data.w)
    with pytest.raises(DataError, match="offset has 2 values for 60 rows"):
        given.new_rows(data, offset=[1.0, 2.0])


def test_numbers_that_became_text():
    recipe = design_from_formula("y ~ x + z", table()).recipe
    with pytest.raises(DataError, match="'x' was numeric in the fit, but is text now"):
        recipe.new_rows({"x": ["a", "b"], "z": [1.0, 2.0]})
    rows = recipe.new_rows({"x": [None, None], "z": [1.0, 2.0]})
    assert np.isnan(rows.X[:, 1]).all()


def test_splines_say_where_they_end():
    recipe = design_from_formula("y ~ bs(x, df=4)", table()).recipe
    with pytest.raises(FormulaError, match="evaluating 'bs"):
        recipe.new_rows({"x": [99.0]})


def test_functions_and_files():
    data = table()
    context = {"double": lambda x: 2 * x, "cut": 0.5}
    design = design_from_formula("y ~ double(x) + I(x > cut)", data, context=context)
    recipe = pickle.loads(pickle.dumps(design.recipe))  # the lambda stays behind
    with pytest.raises(FormulaError, match="'double'"):
        recipe.new_rows(data)
    saved = json.loads(json.dumps(design.recipe.to_dict()))
    recipe = recipe_from_dict(saved, context={"double": context["double"]})
    np.testing.assert_array_equal(recipe.new_rows(data).X, design.X)
    with pytest.raises(DataError, match="kind 'formula', version 99"):
        recipe_from_dict(saved | {"version": 99})


def test_the_design_travels():
    data = table().astype({"h": "category"})
    design = design_from_formula("y ~ a * x + (x | g) + (1 | h)", data)
    copy = pickle.loads(pickle.dumps(design))
    np.testing.assert_array_equal(copy.recipe.new_rows(data).X, design.X)
    assert copy.variables["h"].tolist() == data.h.tolist()
    assert set(copy.variables) == {"y", "a", "x", "g", "h"}
