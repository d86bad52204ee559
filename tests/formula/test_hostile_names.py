"""Names of columns are data: any name, anywhere, gives what a harmless one gives."""

import numpy as np
import pandas as pd
import pytest
from doors import design_from_formula, quoted

from jaxglmm import FormulaError

N = 60
RNG = np.random.default_rng(8)
V = RNG.uniform(0.5, 2.0, N)
BASE = {"y": RNG.normal(size=N), "z": RNG.uniform(1, 2, N), "g": np.arange(N) % 6}
LEVELS = np.arange(N) % 5

NAMES = [
    "body\xa0mass",
    "Body\nmass",
    "tab\tbed",
    "class",
    "lambda",
    "if",
    "None",
    "µg",
    "µg/L",
    "area_m²",
    "x₁",
    "ﬁsh",
    "cafe\u0301",
    "total.fruits",
    "log",
    "np",
    "I",
    "1",
    "0",
    "-1",
    "",
    "a`b",
    "``",
    "log(z)",
    "z:g",
    "it's",
    'say "x"',
    "(Intercept)",
    "x | g",
    "a) + (1 | g",
    "~",
    ".",
    "#",
    "\\",
    "\x00",
    "💥",
    "__class__",
    "name_0",
    "x`+I(0*touched())+`x",
    "__import__('pathlib')",
    "{0.__class__}",
    "%s%n",
]
# Those that can be written without backticks, as R writes them.
BARE = [
    *("class", "lambda", "if", "µg", "area_m²", "x₁", "ﬁsh", "cafe\u0301", "log"),
    *("total.fruits", "np", "I", "a.b.c", "import", "_x", "T"),
]


def formulas(v):
    """Every place a name can stand in, as text."""
    return {
        "right": f"y ~ {v} + z",
        "function": f"y ~ log({v}) + scale({v}):z + poly({v}, 2)",
        "expression": f"y ~ I({v}**2 + 1) + np.exp(-{v}) + I({v} > 1)",
        "factor": f"y ~ C({v}) + z",
        "left": f"{v} ~ z",
        "left, in a function": f"log({v} + 1) ~ z",
        "slope": f"y ~ z + (1 + {v} | g)",
        "slope, in a function": f"y ~ z + (log({v}) || g)",
        "group": f"y ~ z + (1 | {v})",
        "group, nested": f"y ~ z + (1 | g/{v})",
        "offset": f"y ~ z + offset({v})",
        "offset, in a function": f"y ~ z + offset(log({v}))",
        "dot": "y ~ .",
    }


def columns(name, place):
    coded = "group" in place or place == "factor"
    return {**BASE, name: LEVELS if coded else V}


def same(one, two):
    np.testing.assert_array_equal(one.y, two.y)
    np.testing.assert_array_equal(one.X, two.X)
    for a, b in zip(one.terms, two.terms, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.values, b.values)
    if two.offset is not None:
        np.testing.assert_array_equal(one.offset, two.offset)


HARMLESS = {
    place: design_from_formula(formula, columns("v", place))
    for place, formula in formulas("v").items()
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_name_in_backticks_in_every_place(name):
    for place, formula in formulas(quoted(name)).items():
        data = columns(name, place)
        design = design_from_formula(formula, data)
        same(design, HARMLESS[place])
        if place != "left":
            new = design.recipe.new_rows(data)
            np.testing.assert_allclose(new.X, design.X, rtol=1e-12)
            offset = 0.0 if design.offset is None else design.offset
            np.testing.assert_array_equal(new.offset, offset)
        again = type(design.recipe).from_dict(design.recipe.to_dict())
        np.testing.assert_array_equal(
            again.new_rows(data).X, design.recipe.new_rows(data).X
        )


@pytest.mark.parametrize("name", BARE)
def test_bare_names_in_every_place(name):
    for place, formula in formulas(name).items():
        same(design_from_formula(formula, columns(name, place)), HARMLESS[place])


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_weights_offset_and_trials_by_name(name):
    data = {**BASE, name: V}
    design = design_from_formula("y ~ z", data, weights=name, offset=name)
    np.testing.assert_array_equal(design.weights, V)
    np.testing.assert_array_equal(design.offset, V)
    data = {**BASE, "k": np.ones(N), name: 2 + LEVELS}
    q = quoted(name)
    for left, trials in (
        ("k", name),
        (f"cbind(k, {q} - k)", None),
        (f"k | trials({q})", None),
        (f"p(k, {q})", None),
    ):
        design = design_from_formula(
            f"{left} ~ z", data, trials=trials, family_kind="binomial"
        )
        np.testing.assert_array_equal(design.trials, 2 + LEVELS)
        np.testing.assert_array_equal(design.y, np.ones(N))


def test_dotted_names_of_r():
    data = {**BASE, "n.ok": 1 + LEVELS, "n.no": 1.0 + BASE["g"], "my.x": V}
    plain = {**BASE, "a": 1 + LEVELS, "b": 1.0 + BASE["g"], "x": V}
    for dotted, harmless in (
        ("cbind(n.ok, n.no) ~ log(my.x) + (1 | g)", "cbind(a, b) ~ log(x) + (1 | g)"),
        ("n.ok/n.no ~ factor(n.ok) + my.x:z", "a/b ~ factor(a) + x:z"),
        ("log(n.ok + 1) ~ I(my.x - my.x.mean())", "log(a + 1) ~ I(x - x.mean())"),
    ):
        kind = "binomial" if "cbind" in dotted else "numeric"
        one = design_from_formula(dotted, data, family_kind=kind)
        same(one, design_from_formula(harmless, plain, family_kind=kind))


def test_attributes_are_still_attributes():
    day = pd.Series(pd.date_range("2020-01-01", periods=N))
    design = design_from_formula("y ~ I(day.dt.day) + z", {**BASE, "day": day})
    np.testing.assert_array_equal(design.X[:, 1], day.dt.day)


def test_two_things_of_one_name_are_two_columns():
    data = {**BASE, "log(z)": V, "z:g": V**2, "g.1": LEVELS, "f": LEVELS.astype(str)}
    data["f[T.1]"] = V
    design = design_from_formula("y ~ log(z) + `log(z)` + z:g + `z:g`", data)
    assert len(set(design.x_names)) == design.X.shape[1] == 5
    place = {name: design.X[:, j] for j, name in enumerate(design.x_names)}
    np.testing.assert_array_equal(place["log(z)"], V)
    np.testing.assert_allclose(place["(log(z))"], np.log(BASE["z"]))
    np.testing.assert_array_equal(place["`z:g`"], V**2)
    np.testing.assert_array_equal(place["z:g"], BASE["z"] * BASE["g"])
    np.testing.assert_allclose(design.recipe.new_rows(data).X, design.X)
    names = design_from_formula("y ~ f + `f[T.1]`", data).x_names
    assert len(set(names)) == len(names)


def test_groups_of_one_name_are_two_groups():
    data = {**BASE, "a": LEVELS, "a:g": np.arange(N) % 4, "g.1": np.arange(N) % 3}
    design = design_from_formula("y ~ z + (1 | a:g) + (1 | `a:g`)", data)
    assert [t.n_levels for t in design.terms] == [30, 4]
    assert len({t.label for t in design.terms}) == 2
    design = design_from_formula("y ~ z + (1 | g) + (0 + z | g) + (1 | g.1)", data)
    assert [t.label for t in design.terms] == ["g", "g.2", "g.1"]


def test_the_same_letters_in_other_characters():
    formula = "y ~ log(\u03bcg) + cafe\u0301 + (1 | \u03bcg)"  # Greek mu, accent apart
    data = {**BASE, "\u00b5g": 1.0 + LEVELS, "caf\u00e9": V}  # micro sign, one letter
    design = design_from_formula(formula, data)
    assert design.recipe.columns == ("\u00b5g", "caf\u00e9")
    assert design.terms[0].n_levels == 5
    new = design.recipe.new_rows(data)
    np.testing.assert_array_equal(new.X, design.X)
    np.testing.assert_array_equal(new.terms[0].codes, design.terms[0].codes)
    with pytest.raises(FormulaError, match="each of the columns"):
        design_from_formula("y ~ \ufb01sh", {**BASE, "fish": V} | {"\uff46ish": V})


def test_a_name_runs_nothing():
    ran = []
    context = {"run": lambda: ran.append(1)}
    for name in (
        "x`+I(0*(run() or 0)*x)+`x",
        "x)+I(0*(run() or 0))+(x",
        "run()",
        "`run()`",
        "I(run())",
    ):
        data = {"y": BASE["y"], "x": V, name: V**2, "g": BASE["g"]}
        design = design_from_formula("y ~ . + (1 | g)", data, context=context)
        assert design.x_names == ("(Intercept)", "x", name)
        design.recipe.new_rows(data)
    assert not ran


def test_backticks_name_columns_and_not_functions():
    with pytest.raises(FormulaError, match="is a column, not a function"):
        design_from_formula("y ~ `log`(z)", BASE)
    with pytest.raises(FormulaError, match="is a column, not a function"):
        design_from_formula("y ~ I(`log`(z))", BASE)
    with pytest.raises(FormulaError, match="no column '__import__' in the data"):
        design_from_formula("y ~ I(`__import__` + z)", BASE)
