"""What a newcomer may type: every mistake has a message that names it and the remedy.

Nothing is silent and nothing is lost: a fit that did not converge is returned with its
status and one warning.
"""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import DataError, FormulaError, ModelError

N = 60
FORMULA = "y ~ x + (1 | g)"


def frame(**columns):
    """Six groups of ten rows; ``columns`` replace or add."""
    rng = np.random.default_rng(20260102)
    effects = np.repeat(rng.normal(size=6), 10)
    data = pd.DataFrame(
        {
            "g": np.repeat(list("abcdef"), 10),
            "x": rng.normal(size=N),
            "z": rng.normal(size=N),
            "f": np.tile(list("uvw"), 20),
            "w": rng.uniform(1, 2, N),
        }
    )
    data["y"] = effects + data.x + rng.normal(size=N)
    return data.assign(**columns)


DATA = frame()
Y = DATA.y.to_numpy()
X = np.column_stack([np.ones(N), DATA.x])
G = DATA.g.to_numpy()


def but(column, value, row=3):
    """The data with one value of one column changed."""
    changed = DATA[column].copy()
    changed[row] = value
    return frame(**{column: changed})


def ones_but(value):
    return np.r_[value, np.ones(N - 1)]


def formula(data=DATA, text=FORMULA, **options):
    return lambda: jg.lmm(text, data, **options)


def arrays(y=Y, design=X, groups=None, **options):
    groups = {"g": G} if groups is None else groups
    return lambda: jg.lmm(y, design, groups, **options)


REFUSED = {
    # data, by formula
    "infinite x": (formula(but("x", np.inf)), DataError, "'x' is infinite in 1 row"),
    "infinite y": (formula(but("y", -np.inf)), DataError, "'y' is infinite in 1 row"),
    "unknown x": (formula(text="y ~ xx + (1|g)"), FormulaError, "did you mean 'x'?"),
    "unknown y": (formula(text="Y ~ x + (1|g)"), FormulaError, "no column 'Y'"),
    "unknown g": (formula(text="y ~ x + (1|gg)"), FormulaError, "did you mean 'g'?"),
    "unknown slope": (formula(text="y ~ x + (q|g)"), FormulaError, "no column 'q'"),
    "one level": (formula(frame(g="a")), ModelError, "'g' has only 1 level ('a')"),
    "one level, fixed": (
        formula(frame(f="u"), "y ~ x + f + (1|g)"),
        ModelError,
        "factor 'f' has only one level ('u')",
    ),
    "levels as rows": (
        formula(frame(g=np.arange(N))),
        ModelError,
        "'g' has 60 levels for 60 rows",
    ),
    "effects as rows": (
        formula(DATA[::2], "y ~ x + (x + z + w + poly(x, 4) | g)"),
        ModelError,
        "6 x 8 = 48 random effects for 30 rows",
    ),
    "no rows": (formula(DATA[:0]), DataError, "the data have no rows"),
    "one row": (formula(DATA[:1]), ModelError, "a model needs more rows than columns"),
    "two rows": (formula(DATA[::30]), ModelError, "2 fixed effects and 2 rows leave"),
    "p > n": (
        formula(DATA[::9], "y ~ x*z*w + I(x^2) + (1|g)"),
        ModelError,
        "fixed-effect columns but only 7 rows",
    ),
    "all missing": (
        formula(frame(x=np.nan)),
        DataError,
        "no row is complete; missing values: x (60)",
    ),
    "missing refused": (
        formula(but("x", np.nan), missing="raise"),
        DataError,
        "1 of 60 rows have missing values: x (1)",
    ),
    "missing='omit'": (formula(missing="omit"), DataError, "must be 'drop' or 'raise'"),
    "column twice": (
        formula(pd.concat([DATA, DATA[["x"]]], axis=1)),
        DataError,
        "column 'x' appears 2 times",
    ),
    "constant y": (formula(frame(y=3.0)), ModelError, "the response is constant (3 in"),
    "exact y": (formula(frame(y=2 * DATA.x + 1)), ModelError, "reproduce the response"),
    "y in X": (formula(text="y ~ y + (1|g)"), ModelError, "also a predictor?"),
    "text y": (formula(text="f ~ x + (1|g)"), DataError, "response 'f' is not numeric"),
    "dates as y": (
        formula(frame(y=pd.Timestamp("2026-01-01"))),
        DataError,
        "response 'y' holds dates",
    ),
    "complex y": (formula(frame(y=Y + 1j)), DataError, "'y' is complex"),
    # weights and offset
    "short weights": (formula(weights=[1.0] * 5), DataError, "weights has 5 values"),
    "negative weights": (formula(weights=-DATA.w), DataError, "must not be negative"),
    "zero weights": (formula(weights=np.zeros(N)), DataError, "all weights are zero"),
    "infinite weights": (
        formula(weights=ones_but(np.inf)),
        DataError,
        "'weights' is infinite in 1 row",
    ),
    "weights by name": (formula(weights="ww"), DataError, "did you mean 'w'?"),
    "weights of text": (formula(weights="f"), DataError, "weights must be numeric"),
    "one weight": (formula(weights=2.0), DataError, "must be a column of values"),
    "short offset": (formula(offset=[1.0] * 5), DataError, "offset has 5 values"),
    "offset by name": (formula(offset="off"), DataError, "no such column"),
    "infinite offset": (
        formula(offset=ones_but(np.inf)),
        DataError,
        "'offset' is infinite in 1 row",
    ),
    # arguments
    "tol=0": (formula(tol=0), ModelError, "tol=0 must be a positive number"),
    "tol=nan": (formula(tol=np.nan), ModelError, "tol=nan must be a positive"),
    "tol='small'": (formula(tol="small"), ModelError, "tol='small' must be a positive"),
    "max_iter=0": (formula(max_iter=0), ModelError, "max_iter=0 must be a whole"),
    "max_iter=1.5": (formula(max_iter=1.5), ModelError, "max_iter=1.5 must be a whole"),
    "max_iter=inf": (formula(max_iter=np.inf), ModelError, "max_iter=inf must be a"),
    "reml='no'": (formula(reml="no"), ModelError, "reml='no' must be True (REML) or"),
    "method": (formula(method="em"), ModelError, "method 'em' is not one of 'reml'"),
    "no random": (formula(text="y ~ x"), ModelError, "Add a term such as (1 | group)"),
    "no data": (formula(None), FormulaError, "jg.lmm(formula, data)"),
    "data a list": (formula([1, 2]), DataError, "must be a table with named columns"),
    "swapped": (lambda: jg.lmm(DATA, FORMULA), FormulaError, "the formula comes first"),
    "a number": (lambda: jg.lmm(3, DATA), FormulaError, "there are two forms"),
    "nothing": (lambda: jg.lmm(None), FormulaError, "the first argument is None"),
    "no design": (lambda: jg.lmm(Y), FormulaError, "the design X is missing"),
    "both forms": (
        lambda: jg.lmm(FORMULA, DATA, {"g": G}),
        FormulaError,
        "groups belong to the form lmm(y, X, groups)",
    ),
    "correlated": (formula(correlated=False), FormulaError, "write (x || g)"),
    # arrays
    "X short": (arrays(design=X[:5]), DataError, "X has 5 rows, expected 60"),
    "groups short": (
        arrays(groups={"g": G[:5]}),
        DataError,
        "groups['g'] has 5 elements, expected 60",
    ),
    "no groups": (arrays(groups={}), DataError, "at least one grouping factor"),
    "groups missing": (lambda: jg.lmm(Y, X), DataError, "groups must be a dict"),
    "unknown factor": (
        arrays(random_effects={"h": ["1"]}),
        DataError,
        "random_effects: factor 'h' is not in groups; available: 'g'",
    ),
    "slope without data": (
        arrays(random_effects={"g": ["1", "t"]}),
        DataError,
        "slope 't' needs its values in random_data",
    ),
    "slope short": (
        arrays(random_effects={"g": ["1", "t"]}, random_data={"t": [1.0, 2.0]}),
        DataError,
        "random_data['t'] has 2 elements, expected 60",
    ),
    "no columns": (
        arrays(random_effects={"g": []}),
        DataError,
        "random_effects['g'] is empty",
    ),
    "random_effects a list": (
        arrays(random_effects=["1"]),
        DataError,
        "random_effects must be a dict",
    ),
    "correlated='no'": (
        arrays(correlated="no"),
        ModelError,
        "correlated='no' must be True or False",
    ),
    "correlated, unknown": (
        arrays(correlated={"h": False}),
        DataError,
        "correlated: factor 'h' is not in groups",
    ),
    "X infinite": (
        arrays(design=np.column_stack([X, ones_but(np.inf)])),
        DataError,
        "is infinite in 1 row (position 0)",
    ),
    "y infinite": (arrays(ones_but(np.inf)), DataError, "'y' is infinite in 1 row"),
    "y of text": (arrays(G), DataError, "response 'y' is not numeric"),
    "y of two columns": (arrays(X), DataError, "y must be one column, got shape"),
    "X of text": (arrays(design=G), DataError, "X is not numeric"),
    "X of three axes": (arrays(design=X[:, :, None]), DataError, "X must have 2 dim"),
    "nothing at all": (
        arrays(Y[:0], X[:0], {"g": G[:0]}),
        DataError,
        "need at least 3 observations, got 0",
    ),
    "arrays, p > n": (
        arrays(Y[::15], np.vander(Y[::15], 6), {"g": G[::15]}),
        ModelError,
        "6 fixed-effect columns but only 4 rows",
    ),
    "arrays, one level": (
        arrays(groups={"g": np.zeros(N)}),
        ModelError,
        "'g' has only 1 level (0.0)",
    ),
    "arrays, levels as rows": (
        arrays(groups={"g": np.arange(N)}),
        ModelError,
        "'g' has 60 levels for 60 rows",
    ),
    "arrays, weights short": (
        arrays(weights=[1.0]),
        DataError,
        "weights has 1 values for 60 rows",
    ),
    "arrays, weights negative": (
        arrays(weights=-np.ones(N)),
        DataError,
        "weights must not be negative",
    ),
    "arrays, weights by name": (
        arrays(weights="w"),
        DataError,
        "there is no table to look it up in",
    ),
    "arrays, offset short": (
        arrays(offset=[1.0]),
        DataError,
        "offset has 1 values for 60 rows",
    ),
    "arrays, constant y": (arrays(np.ones(N)), ModelError, "the response is constant"),
    "arrays, exact y": (arrays(X[:, 1] * 2), ModelError, "reproduce the response"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, error, text = REFUSED[name]
    with pytest.raises(error, match=re.escape(text)):
        call()


def fits(call):
    """The fit, and its warnings as (category, text)."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit = call()
    # of ours: collecting garbage may warn of somebody's file at any moment
    seen = [w for w in seen if issubclass(w.category, jg.JaxGLMMWarning)]
    assert all(w.filename == __file__ for w in seen), "warnings point at the caller"
    return fit, [(w.category, str(w.message)) for w in seen]


PLAIN, _ = fits(formula())


WARNED = {
    "duplicated column": (
        formula(frame(x2=2 * DATA.x), "y ~ x + x2 + (1|g)"),
        jg.RankDeficientWarning,
        "dropped 1 column that depends on others: 'x2'",
    ),
    "duplicated column of X": (
        arrays(design=np.column_stack([X, X[:, 1]])),
        jg.RankDeficientWarning,
        "depends on others: 'X2'",
    ),
    "constant slope": (
        formula(frame(c=1.0), "y ~ x + (c | g)"),
        jg.RankDeficientWarning,
        "term ((Intercept) + c | g): column 'c' depends on the columns before it",
    ),
    "missing x": (
        formula(but("x", np.nan)),
        jg.MissingRowsWarning,
        "1 of 60 rows were dropped because of missing values: x (1)",
    ),
    "missing group": (
        formula(but("g", None)),
        jg.MissingRowsWarning,
        "missing values: g (1)",
    ),
    "missing weight": (
        formula(weights=ones_but(np.nan)),
        jg.MissingRowsWarning,
        "missing values: weights (1)",
    ),
    "missing group of arrays": (
        arrays(groups={"g": np.r_[np.nan, np.arange(1, N) // 10]}),
        jg.MissingRowsWarning,
        "missing values: g",
    ),
    "one iteration": (
        formula(max_iter=1),
        jg.ConvergenceWarning,
        "Not converged: the optimiser stopped at max_iter=1",
    ),
    "same y in a level": (
        formula(frame(y=np.repeat(np.arange(6.0), 10)), "y ~ 1 + (1|g)"),
        jg.ConvergenceWarning,
        "fixed and random effects together reproduce the response",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_warned_once(name):
    call, category, text = WARNED[name]
    fit, seen = fits(call)
    assert [c for c, _ in seen] == [category]
    assert text in seen[0][1]
    assert np.isfinite(fit.coefficients).all()
    assert str(fit.summary())
    if category is jg.ConvergenceWarning:
        assert not fit.converged
        assert fit.status in seen[0][1]
        assert fit.warnings


FINE = {
    "boolean y": formula(frame(y=DATA.y > 0)),
    "groups of digits": formula(
        frame(g=np.repeat(["10", "2", "1", "3", "4", "5"], 10))
    ),
    "one row in a group": formula(but("g", "q")),
    "some weights zero": formula(weights=np.r_[np.zeros(10), np.ones(50)]),
    "two iterations more": formula(max_iter=200.0),
    "lists": arrays(list(Y), X.tolist(), {"g": list(G)}),
    "y as a column": arrays(Y[:, None]),
}


@pytest.mark.parametrize("name", FINE)
def test_fine(name):
    fit, seen = fits(FINE[name])
    assert seen == []
    assert fit.converged


def test_labels_do_not_matter():
    fit, _ = fits(FINE["groups of digits"])
    np.testing.assert_allclose(fit.coefficients, PLAIN.coefficients, rtol=1e-10)
    assert list(fit.ranef["g"].index) == ["1", "10", "2", "3", "4", "5"]


P_ZERO = {
    "y ~ 0 + (1 | g)": {},
    "y ~ 0 + (1 | g) + (1 | f)": {},
    "y ~ 0 + (1 | g) + (1 | f) ": {"reml": False},
}


@pytest.mark.parametrize("text", P_ZERO)
def test_no_fixed_effects(text):
    """Every part of a fit without fixed effects, one factor and crossed ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        fit = jg.lmm(text, DATA, **P_ZERO[text])
        again = fit.refit(DATA.y.to_numpy() + 0.1)
    assert fit.fixef == {}
    assert fit.df_satterthwaite.shape == fit.p_values.shape == (0,)
    assert all(np.isfinite(v).all() for v in fit.ranef_cov.values())
    assert len(fit.confint()) == len(fit.anova()) == len(fit.coefficient_table()) == 0
    assert str(fit.summary())
    assert len(fit.tidy("all")) == 1 + len(fit.design.terms) + sum(fit.ngroups.values())
    predicted, se = fit.predict(se=True).to_numpy().T[:2]
    np.testing.assert_allclose(predicted, fit.fitted_values)
    assert (se >= 0).all()
    assert again.nobs == N
    draws = fit.bootstrap(8, seed=1)
    assert draws.coefficients.shape == (8, 0)
    assert np.isfinite(draws.sd).all()


def test_random_data_without_a_term():
    with pytest.raises(ModelError, match="no random_effects say where it goes"):
        jg.lmm(DATA.y, X, {"g": DATA.g}, random_data={"t": DATA.x})
