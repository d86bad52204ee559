"""Formulas of the statsmodels classes: patsy's names, order, values and refusals."""

import pickle

import numpy as np
import pandas as pd
import pytest
from doors import learn, variables
from doors import patsy_parse as parse

from jaxglmm import DataError, FormulaError
from jaxglmm.compat.statsmodels import BinomialBayesMixedGLM, MixedLM

N = 24


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "y": rng.normal(size=N),
            "x": rng.normal(size=N),
            "z": rng.normal(size=N),
            "f": list("abcd") * 6,
            "b": [True, False, True] * 8,
            "i": [1, 2, 3] * 8,
            "o": pd.Series([1.5, 2, 3] * 8, dtype=object),
            "when": pd.date_range("2020-01-01", periods=3).tolist() * 8,
            "s": pd.Series(list("pq") * 12, dtype="string"),
            "cat": pd.Categorical(list("uv") * 12, categories=["v", "u", "zz"]),
            "small": np.array([100, 120, 127] * 8, np.int8),
            "g": np.repeat(np.arange(6), 4),
            "took": pd.to_timedelta([1, 2, 3] * 8, unit="D"),
        }
    )
    frame["a b"] = frame.x
    return frame


def names(formula, data, **context):
    return learn(parse(formula).right, data, {"np": np, "pd": pd, **context})[0].names


NAMES = [  # as patsy 1.0.3 gives them
    ("b", "Intercept b[T.True]"),
    ("0 + b", "b[False] b[True]"),
    ("0 + x:b", "x:b[False] x:b[True]"),
    ("x>0", "Intercept|x > 0[T.True]"),
    ("0 + I(x>0)", "I(x > 0)[False]|I(x > 0)[True]"),
    ("x % 2 + x//2", "Intercept|x % 2|x // 2"),
    ("s", "Intercept s[T.q]"),
    ("o", "Intercept o[T.2] o[T.3]"),
    ("cat", "Intercept cat[T.u] cat[T.zz]"),
    (
        "when",
        "Intercept|when[T.Timestamp('2020-01-02 00:00:00')]"
        "|when[T.Timestamp('2020-01-03 00:00:00')]",
    ),
    ('Q( "a b")', 'Intercept|Q("a b")'),
    (
        "C(f,Treatment)",
        "Intercept|" + "|".join(f"C(f, Treatment)[T.{k}]" for k in "bcd"),
    ),
    (
        'C(f,Treatment (reference = "b"))',
        "Intercept|"
        + "|".join(f'C(f, Treatment(reference="b"))[T.{k}]' for k in "acd"),
    ),
    (
        "C(f, Treatment(-1))",
        "Intercept|" + "|".join(f"C(f, Treatment(-1))[T.{k}]" for k in "abc"),
    ),
    (
        "C(i, Treatment(1))",  # a level comes before a position
        "Intercept|C(i, Treatment(1))[T.2]|C(i, Treatment(1))[T.3]",
    ),
    ("0+C(f,Sum)", "|".join(f"C(f, Sum)[{k}]" for k in ("mean", "S.a", "S.b", "S.c"))),
    (
        "C(f,Sum('b'))",
        "Intercept|" + "|".join(f"C(f, Sum('b'))[S.{k}]" for k in "acd"),
    ),
    ("C(f,Diff)", "Intercept|" + "|".join(f"C(f, Diff)[D.{k}]" for k in "abc")),
    (
        "C(f,Poly)",
        "Intercept|C(f, Poly).Linear|C(f, Poly).Quadratic|C(f, Poly).Cubic",
    ),
    (
        "0 + C(f, Helmert)",
        "|".join(f"C(f, Helmert)[H.{k}]" for k in ("intercept", "b", "c", "d")),
    ),
    ("bs(z,df=4)", "Intercept|" + "|".join(f"bs(z, df=4)[{k}]" for k in range(4))),
    ("cr(z,df=3) - 1", "|".join(f"cr(z, df=3)[{k}]" for k in range(3))),
    (
        "f.map({'a':1,'b':2,'c':3,'d':4})",
        "Intercept|f.map({'a': 1, 'b': 2, 'c': 3, 'd': 4})",
    ),
    ("I(x**2+-1)", "Intercept|I(x ** 2 + -1)"),
    # order: terms without numbers first, then by the sets of numbers
    ("x + b", "Intercept b[T.True] x"),
    ("x*b", "Intercept b[T.True] x x:b[T.True]"),
    ("x:b + z", "Intercept x:b[False] x:b[True] z"),
    ("0 + x + b", "b[False] b[True] x"),
    (
        "(x + z + b)**2",
        "Intercept b[T.True] x x:b[T.True] z z:b[T.True] x:z",
    ),
    ("x*b*z - x:b:z", "Intercept b[T.True] x x:b[T.True] z b[T.True]:z x:z"),
    ("z + x:z + x + b:x", "Intercept z x:z x b[T.True]:x"),
    ("x/b", "Intercept x x:b[T.True]"),
    (
        "(s + b)/x",
        "Intercept s[T.q] b[T.True] s[p]:b[False]:x s[q]:b[False]:x "
        "s[p]:b[True]:x s[q]:b[True]:x",
    ),
]


@pytest.mark.parametrize(("formula", "expected"), NAMES, ids=[row[0] for row in NAMES])
def test_names_and_order_are_patsys(data, formula, expected):
    wanted = expected.split("|") if "|" in expected else expected.split(" ")
    assert names(formula, data) == wanted


FORMULAS = [
    *(row[0] for row in NAMES),
    "te(cr(x, df=3), cr(z, df=4)) - 1",
    "te(cr(x, df=3), cc(z, df=4), constraints='center')",
    "bs(x, 5, include_intercept=True) - 1",
    "scale(x) + standardize(z) + center(x)",
    "scale(x, ddof=1) + scale(z, rescale=False)",
    "C(f, Poly(scores=[1, 2, 4, 8])) : b - 1",
    "C(f, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]]) * x",
    "C(f, levels=['d', 'c', 'b', 'a'])",
    "np.log(x**2 + 1) + np.where(x > 0, 'p', 'n') + f.isin(['a', 'b'])",
    "pd.cut(x, 3) + pd.qcut(z, 2, labels=False)",
    "np.column_stack([x, z])",
]


def same_as_patsy(formula, frame):
    patsy = pytest.importorskip("patsy")
    theirs = patsy.dmatrix(formula, frame, return_type="dataframe")
    made, ours = learn(parse(formula).right, frame, {"np": np, "pd": pd})
    assert made.names == list(theirs.columns)
    np.testing.assert_allclose(ours, theirs.to_numpy(float), atol=1e-9)
    np.testing.assert_allclose(made.apply(frame), ours)
    _, sparse = learn(parse(formula).right, frame, {"np": np, "pd": pd}, sparse=True)
    np.testing.assert_allclose(sparse.toarray(), ours, atol=1e-12)


@pytest.mark.extras
@pytest.mark.parametrize("formula", FORMULAS)
def test_values_are_patsys(data, formula):
    same_as_patsy(formula, data)


@pytest.mark.extras
@pytest.mark.parametrize("seed", range(50))
def test_random_formulas_are_patsys(data, seed):
    rng = np.random.default_rng(seed)
    atoms = ["x", "z", "i", "f", "b", "s", "C(i)", "C(f, Sum)", "I(x > 0)", "center(z)"]

    def piece(depth):
        if depth == 0 or rng.random() < 0.3:
            return str(rng.choice(atoms))
        mark = rng.choice(
            [" + ", " * ", ":", " / ", " - "], p=[0.4, 0.25, 0.2, 0.1, 0.05]
        )
        return f"({piece(depth - 1)}{mark}{piece(depth - 1)})"

    start = rng.choice(["", "0 + ", "1 + ", "-1 + "])
    end = rng.choice(["", " - 1", " + 0", " + x"])
    same_as_patsy(start + " + ".join(piece(2) for _ in range(3)) + end, data)


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("x +", "ends where a term is expected"),
        ("2*x", "arithmetic stands in I"),
        ("1:x", "an intercept has no interactions"),
        ("-x", r"I\(-x\)"),
        ("x ** z", "whole number"),
        ("(x + z", "not closed"),
        ("x ~ z ~ b", "more than one '~'"),
        ("x ? z", "cannot read '\\?'"),
        ("x z", "cannot read the expression 'x z'"),
        ("class", r'Q\("class"\)'),
        ("C(f, Treatment('zz'))", "no level 'zz'; there are 'a', 'b'"),
        ("C(f, Treatment(9))", "out of range"),
        ("C(f, levels=['a'])", "'b', 'c', 'd'"),
        ("took", "durations"),
        ("xx", "no column 'xx' in the data; did you mean 'x'"),
        ("nosuch(x)", "'nosuch' in 'nosuch\\(x\\)' is neither"),
        ("x[:3]", "gives 3 values for 24 rows"),
        ("x[::-1]", "row labels"),
    ],
)
def test_refusals_say_what_to_do(data, formula, text):
    with pytest.raises((FormulaError, DataError), match=text) as caught:
        names(formula, data)
    assert "\x1b" not in str(caught.value)


def test_the_callers_functions_come_before_patsys_names(data):
    assert names("log(x)", data) == ["Intercept", "log(x)"]

    def log(values):
        return values * 0 + 7

    made, X = learn(parse("log(x) + scale(z)").right, data, {"log": log, "scale": 3})
    assert (X[:, 1] == 7).all()
    assert X[:, 2].std() == pytest.approx(1)  # no function: patsy's is meant
    assert made.names == ["Intercept", "log(x)", "scale(z)"]


def test_small_integers_do_not_wrap(data):
    _, X = learn(parse("I(small**2)").right, data, {})
    assert X[:3, 1].tolist() == [10_000, 14_400, 16_129]


def test_what_was_learned_serves_new_data_and_is_pickled(data):
    formula = "scale(x) + C(f, Sum) + bs(z, 4) + np.exp(x)"
    made, X = learn(parse(formula).right, data, {"np": np})
    again = pickle.loads(pickle.dumps(made))
    few = data.iloc[[5, 2, 11]]
    np.testing.assert_allclose(again.apply(few), X[[5, 2, 11]])
    gone = few.assign(f=[None, "a", "b"], x=[1.0, np.nan, 2.0])
    assert np.isnan(again.apply(gone)).any(axis=1).tolist() == [True, True, False]
    with pytest.raises(DataError, match=r"'zzz'.*known are 'a', 'b'"):
        made.apply(few.assign(f="zzz"))


def test_variables_are_named_through_quotes():
    assert {"y", "a b", "w"} <= variables('y ~ Q("a b") + np.log(w)')


# In the models ------------------------------------------------------------------------


def test_positions_are_statsmodels(data):
    m = MixedLM.from_formula("y ~ x + b + C(s)", data, groups="g")
    wanted = ["Intercept", "b[T.True]", "C(s)[T.q]", "x"]
    assert m.exog_names == wanted
    m = MixedLM.from_formula("y ~ x", data, groups="g", re_formula="~x + b")
    assert m.data.exog_re_names == ["g", "b[T.True]", "x"]
    m = MixedLM.from_formula(
        "y ~ x", data, groups="g", vc_formula={"late": "0 + b", "C": "0 + C(b):x"}
    )
    assert m.exog_vc.colnames[1][0] == ["b[False]", "b[True]"]
    assert m.exog_vc.colnames[0][0] == ["C(b)[False]:x", "C(b)[True]:x"]
    bayes = BinomialBayesMixedGLM.from_formula(
        "I(y > 0) ~ x + s", {"g": "0 + C(g)", "late": "0 + b"}, data
    )
    assert bayes.fep_names == ["Intercept", "s[T.q]", "x"]
    assert bayes.vc_names[-2:] == ["b[False]", "b[True]"]
    assert bayes.endog_names == "I(y > 0)"


def test_users_text_is_the_key(data):
    m = MixedLM.from_formula(
        'Q("a b") ~ C(f, Treatment(reference="b"))',
        data,
        groups="g",
        re_formula='Q("a b")',
    )
    assert m.endog_names == 'Q("a b")'
    assert 'C(f, Treatment(reference="b"))[T.a]' in m.exog_names
    assert m.data.exog_re_names == ["g", 'Q("a b")']


def test_unseen_levels_of_factors_are_refused(data):
    m = MixedLM.from_formula("y ~ 0 + s", data, groups="g")
    beta = np.array([1.0, 2.0])
    assert m.predict(beta, pd.DataFrame({"s": ["q", "p"]})).tolist() == [2.0, 1.0]
    with pytest.raises(DataError, match="'zzz'"):
        m.predict(beta, pd.DataFrame({"s": ["p", "zzz"]}))
