"""Text to parts: what a formula means, before any data."""

import pytest
from doors import expand_dot, parse, read_terms

from jaxglmm import FormulaError

# formula -> [(label, grouping parts, columns, covariance)]
RANDOM = {
    "y ~ x + (1 | g)": [("g", ("g",), ["(Intercept)"], "us")],
    "y ~ x + (1 + x | g)": [("g", ("g",), ["(Intercept)", "x"], "us")],
    "y ~ (x|g)": [("g", ("g",), ["(Intercept)", "x"], "us")],
    "y ~ (0 + x | g)": [("g", ("g",), ["x"], "us")],
    "y ~ (x - 1 | g)": [("g", ("g",), ["x"], "us")],
    "y ~ (-1 + x | g)": [("g", ("g",), ["x"], "us")],
    "y ~ (x || g)": [
        ("g", ("g",), ["(Intercept)"], "us"),
        ("g.1", ("g",), ["x"], "us"),
    ],
    "y ~ (a*x || g)": [
        ("g", ("g",), ["(Intercept)"], "us"),
        ("g.1", ("g",), ["a"], "us"),
        ("g.2", ("g",), ["x"], "us"),
        ("g.3", ("g",), ["a:x"], "us"),
    ],
    "y ~ (1 || g)": [("g", ("g",), ["(Intercept)"], "us")],
    "y ~ (1 | a/b)": [
        ("b:a", ("b", "a"), ["(Intercept)"], "us"),
        ("a", ("a",), ["(Intercept)"], "us"),
    ],
    "y ~ (1 | a/b/c)": [
        ("c:(b:a)", ("c", "b", "a"), ["(Intercept)"], "us"),
        ("b:a", ("b", "a"), ["(Intercept)"], "us"),
        ("a", ("a",), ["(Intercept)"], "us"),
    ],
    "y ~ (1 | a:b)": [("a:b", ("a", "b"), ["(Intercept)"], "us")],
    "y ~ (1 | a:b/c)": [
        ("c:(a:b)", ("c", "a", "b"), ["(Intercept)"], "us"),
        ("a:b", ("a", "b"), ["(Intercept)"], "us"),
    ],
    "y ~ (x | g + h)": [
        ("g", ("g",), ["(Intercept)", "x"], "us"),
        ("h", ("h",), ["(Intercept)", "x"], "us"),
    ],
    "y ~ (x || a/b)": [
        ("b:a", ("b", "a"), ["(Intercept)"], "us"),
        ("a", ("a",), ["(Intercept)"], "us"),
        ("b:a.1", ("b", "a"), ["x"], "us"),
        ("a.1", ("a",), ["x"], "us"),
    ],
    "y ~ (a | g) + (b | g)": [
        ("g", ("g",), ["(Intercept)", "a"], "us"),
        ("g.1", ("g",), ["(Intercept)", "b"], "us"),
    ],
    "y ~ x + ((1 | g) + (0 + x | g))": [
        ("g", ("g",), ["(Intercept)"], "us"),
        ("g.1", ("g",), ["x"], "us"),
    ],
    "y ~ diag(x | g)": [("g", ("g",), ["(Intercept)", "x"], "diag")],
    "y ~ us(x | g)": [("g", ("g",), ["(Intercept)", "x"], "us")],
    "y ~ (1 | factor(g))": [("g", ("g",), ["(Intercept)"], "us")],
    "y ~ (1 | `my group`)": [("my group", ("my group",), ["(Intercept)"], "us")],
    "y ~ (poly(x, 2) | (g))": [("g", ("g",), ["(Intercept)", "poly(x, 2)"], "us")],
    "y ~ x + z": [],
}

# formula -> (fixed terms, offsets)
FIXED = {
    "y ~ 1": (["(Intercept)"], []),
    "y ~ (1 | g)": (["(Intercept)"], []),
    "y ~ 0 + (1 | g)": ([], []),
    "y ~ x": (["(Intercept)", "x"], []),
    "y ~ 0 + x": (["x"], []),
    "y ~ x - 1": (["x"], []),
    "y ~ x + (1 | g) - 1": (["x"], []),
    "y ~ x + -1": (["x"], []),
    "y ~ a*x": (["(Intercept)", "a", "x", "a:x"], []),
    "y ~ a:x + (1|g) + z": (["(Intercept)", "z", "a:x"], []),
    "y ~ (a + b)**2": (["(Intercept)", "a", "b", "a:b"], []),
    "y ~ (a + b)^2": (["(Intercept)", "a", "b", "a:b"], []),
    "y ~ a*b - a:b": (["(Intercept)", "a", "b"], []),
    "y ~ a/x": (["(Intercept)", "a", "a:x"], []),
    "y ~ x + offset(log(z)) + (1 | g)": (["(Intercept)", "x"], ["log(z)"]),
    "y ~ offset(z) + x + offset(w)": (["(Intercept)", "x"], ["z", "w"]),
    "y ~ poly(x, 2) + I(x**2)": (["(Intercept)", "poly(x, 2)", "I(x ** 2)"], []),
    "y ~ `my col` + x": (["(Intercept)", "my col", "x"], []),
    "y ~ I((x > 1) | (z > 1))": (["(Intercept)", "I((x > 1) | (z > 1))"], []),
    'y ~ C(a, Treatment("b+c|d"))': (
        ["(Intercept)", "C(a, Treatment('b+c|d'))"],
        [],
    ),
    'y ~ Q("my col")': (["(Intercept)", "my col"], []),
    "y ~ as.factor(g)": (["(Intercept)", "factor(g)"], []),
    "log(y + 1) ~ x": (["(Intercept)", "x"], []),
}

# formula -> a part of the message
BAD = {
    "y ~ x + 1 | g": "need parentheses",
    "y ~ 1 | g": "need parentheses",
    "y x": "not a formula",
    "~ x": "needs a response",
    "y ~ x ~ z": "not a formula",
    "y ~": "nothing after '~'",
    "": "not a formula",
    "y ~ x +": "nothing after '+'",
    "y ~ (x": "not closed",
    "y ~ x)": "unbalanced",
    "y ~ `x": "backtick",
    "y ~ x - (1 | g)": "cannot be subtracted",
    "y ~ x - offset(z)": "cannot be subtracted",
    "y ~ x*(1 | g)": "can only be added",
    "y ~ x:(1 | g)": "can only be added",
    "y ~ (x | g | h)": "one bar",
    "y ~ (x | | g | h)": "one bar",
    "y ~ (| g)": "one bar",
    "y ~ (x |)": "one bar",
    "y ~ (0 | g)": "has no columns",
    "y ~ (1 | a*b)": "(1 | a) + (1 | b) + (1 | a:b)",
    "y ~ (1 | a - b)": "only names",
    "y ~ (1 | log(g))": "must be the name of a column",
    "y ~ (1 | 3)": "must be the name of a column",
    "y ~ (1 | a/(b + c))": "must be the name of a column",
    "y ~ ar1(t + 0 | g, rho=1)": "it has het=",
    "y ~ ou(t | g, d=2)": "ou() has no option",
    "y ~ us(x | g, hom=True)": "homcs() has one in all",
    "y ~ rr(f | g, d=0)": "d is a whole number",
    "y ~ toep(x || g)": "one bar inside toep",
    "y ~ diag(x || g)": "one bar inside diag",
    "y ~ ((1 | h) | g)": "inside another",
    "y ~ (1 | g) + x + (1 | g)": "the random term (1 | g) appears twice",
    "y ~ x:2": "I(2 * ...)",
    "y ~ 2*x": "cannot read",
    "y ~ x + * z": "cannot read",
    "y ~ x + 'text'": "cannot read",
    "y ~ as.integer(x)": "dot in their name",
}


@pytest.mark.parametrize("formula", RANDOM)
def test_random_terms(formula):
    found = [
        (p.label, p.grouping.parts, [t.name for t in p.terms], p.covariance)
        for p in parse(formula).random
    ]
    assert found == RANDOM[formula]


@pytest.mark.parametrize("formula", FIXED)
def test_fixed_terms(formula):
    parsed = parse(formula)
    terms, offsets = FIXED[formula]
    assert [t.name for t in read_terms(parsed.fixed)] == terms
    assert list(parsed.offsets) == offsets


@pytest.mark.parametrize("formula", BAD)
def test_messages(formula):
    with pytest.raises(FormulaError) as caught:
        read_terms(parse(formula).fixed)
    assert BAD[formula] in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_not_text():
    with pytest.raises(FormulaError, match="must be text, not int"):
        parse(3)


def test_dot():
    assert expand_dot(". - x", ["x", "my col"]) == "(x + `my col`) - x"
    assert not parse("y ~ np.log(x) + 1.5 * x").has_dot
    assert parse("y ~ .^2 + (1 | g)").has_dot
    with pytest.raises(FormulaError, match="there are none"):
        expand_dot(".", [])
