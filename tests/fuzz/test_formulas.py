"""Formulas drawn from a grammar, and formulas that are none.

The first are designs whose columns span what the terms span when every factor is all of
its indicators, worked out here without the package. The second are refused by this
package's own exceptions, whatever stands in them.
"""

import warnings

import numpy as np
import pytest
from doors import design_from_formula
from fuzz.disguises import N, plain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxglmm as jg

fuzz = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
COLUMNS = plain(0)


def number(function):
    return lambda d: function(d)[:, None]


def indicators(name):
    def columns(d):
        return (d[name][:, None] == np.unique(d[name])).astype(float)

    return columns


def orthogonal(d):
    return np.linalg.qr(d["k"][:, None] ** np.arange(3))[0][:, 1:]


ATOMS = {
    "x": number(lambda d: d["x"]),
    "k": number(lambda d: d["k"]),
    "log(p)": number(lambda d: np.log(d["p"])),
    "I(x**2)": number(lambda d: d["x"] ** 2),
    "I(k / 2 - x)": number(lambda d: d["k"] / 2 - d["x"]),
    "np.exp(x)": number(lambda d: np.exp(d["x"])),
    "`p`": number(lambda d: d["p"]),
    "f": indicators("f"),
    "h": indicators("h"),
    "C(f)": indicators("f"),
    "C(f, Sum)": indicators("f"),
    "C(h, Treatment('h2'))": indicators("h"),
    "poly(k, 2)": orthogonal,
    "scale(x)": number(lambda d: d["x"] - d["x"].mean()),
}
FACTORS = {"f", "h", "C(f)", "C(f, Sum)", "C(h, Treatment('h2'))"}
atoms = st.sampled_from(sorted(ATOMS))


@st.composite
def terms(draw):
    """A term as text, and the sets of atoms that it stands for."""
    kind = draw(st.sampled_from(["one", "one", "colon", "star", "square"]))
    a, b = draw(st.lists(atoms, min_size=2, max_size=2, unique=True))
    if kind == "one":
        return a, [{a}]
    if kind == "colon":
        return f"{a}:{b}", [{a, b}]
    if kind == "star":
        return f"{a} * {b}", [{a}, {b}, {a, b}]
    return f"({a} + {b})**2", [{a}, {b}, {a, b}]


def products(parts):
    out = np.ones((N, 1))
    for part in parts:
        out = (out[:, :, None] * part[:, None]).reshape(N, -1)
    return out


def spanned(sets, intercept):
    """All columns of the terms; without an intercept the first factor has all levels.

    A product of a factor with terms that are not there spans its own indicators, and
    one whose marginal terms are there adds to them: the span is that of all products.
    """
    columns = [np.ones((N, 1))] if intercept else []
    columns += [products([ATOMS[a](COLUMNS) for a in sorted(own)]) for own in sets]
    return np.concatenate(columns, axis=1) if columns else np.zeros((N, 0))


def projection(X):
    size = np.sqrt(np.mean(X**2, axis=0))
    U, s, _ = np.linalg.svd(X / np.where(size > 0, size, 1), full_matrices=False)
    U = U[:, s > 1e-9 * max(s.max(initial=0), 1)]
    return U @ U.T, U.shape[1]


@pytest.mark.slow
@settings(fuzz, max_examples=500)
@given(st.lists(terms(), min_size=1, max_size=3), st.sampled_from(["", "0 + ", "1 + "]))
def test_columns_span_what_the_terms_span(chosen, first):
    text = "y ~ " + first + " + ".join(t for t, _ in chosen) + " + (1 | g)"
    sets = [own for _, more in chosen for own in more]
    intercept = first != "0 + "
    X = spanned(sets, intercept)
    expected, rank = projection(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        try:
            design = design_from_formula(text, COLUMNS)
        except jg.ModelError:
            assert rank >= N - 1  # nothing is left for the residuals
            return
    found, own = projection(design.X)
    # the package drops dependent columns and tells so
    assert own == design.X.shape[1]
    # a column that only repeats one of another origin may be lost to rounding
    assert own == rank, (text, own, rank)
    np.testing.assert_allclose(found, expected, atol=1e-6)


PIECES = [
    "y", "~", "+", "-", "*", ":", "/", "|", "||", "(", ")", "[", "]", "{", "}", "1",
    "0", "x", "f", "g", "h", "k", "zz", "`", "``", "`x`", "'", '"', ",", "=", "==",
    "<", "**", "^", "%in%", "log(", "C(", "I(", "poly(", "offset(", "cbind(", "bs(",
    ".", "..", "$", "\\", "\n", "\t", "\x00", "#", ";", "@", "!", "?", "lambda",
    "if", "else", "for", "in", "None", "True", "nan", "inf", "1e400", "10**10**10",
    "__import__", "x.y", "x[0]", "é", "µ", "²", "\u202e", "\ud800", "😀", "(1 | g)",
    "(x | g)", "(x || g)", "(1 | g/h)", "(0 + f | g)", "ar1(x | g)", "f'{x}'",
    "x := 3", "*x", "**x", "~ y", " ",
]  # fmt: skip


@pytest.mark.slow
@settings(fuzz, max_examples=900)
@given(
    st.lists(st.sampled_from(PIECES), max_size=12),
    st.sampled_from(["", "y ~ ", "y ~ x + (1 | g) + ", "y ~ (1 | g) + log("]),
    st.sampled_from(["", " "]),
)
def test_what_is_no_formula_is_refused(pieces, before, between):
    refused_or_designed(before + between.join(pieces))


@pytest.mark.slow
@settings(fuzz, max_examples=300)
@given(st.text(max_size=40), st.sampled_from(["", "y ~ ", "y ~ x + (1 | g) + "]))
def test_any_text(text, before):
    refused_or_designed(before + text)


def refused_or_designed(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        try:
            design = design_from_formula(text, COLUMNS)
        except jg.JaxGLMMError as error:
            message = str(error)
        else:
            message = ""
    if message:
        assert "\x1b" not in message  # no colours of a terminal
        return
    assert design.X.shape[0] == len(design.y) <= N
    assert np.isfinite(design.X).all()
    assert np.isfinite(design.y).all()


@pytest.mark.parametrize("given_", [None, 3, b"y ~ x", ["y ~ x"], {}, object()])
def test_a_formula_is_a_text(given_):
    with pytest.raises(jg.JaxGLMMError):
        jg.lmm(given_, COLUMNS)


@pytest.mark.parametrize(
    "text",
    [
        "y ~ " + "(" * 5000 + "x" + ")" * 5000,
        "y ~ " + " + ".join(["x"] * 20000) + " + (1 | g)",
        "y ~ (" + " + ".join(["x", "k", "p", "f", "h"] * 4) + ")**20 + (1 | g)",
        "y ~ " + "-" * 3000 + "x",
        "y ~ I(" + "+".join(["x"] * 5000) + ") + (1 | g)",
        "y ~ " + ":".join(["f"] * 3000) + " + (1 | g)",
        "y ~ x + (1 | " + ":".join(["g"] * 2000) + ")",
        "y ~ I(9**9**9**9) + (1 | g)",
        "y ~ I('a' * 10**9) + (1 | g)",
        "y ~ x" * 3000,
    ],
    ids=range(10),
)
def test_formulas_without_measure(text):
    """Nesting, lengths and powers: an answer, or a refusal, in no time."""
    refused_or_designed(text)
