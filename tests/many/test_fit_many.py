"""``fit_many`` is a loop of ``lmm``: same optimum, same flags, whatever the others."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from doors import _status

import jaxglmm as jg

FORMULA = "y ~ x + (x | g)"
J, ROWS, D = 10, 6, 200
N = J * ROWS
BAD = range(0, D, 10)  # one in ten


@functools.cache
def frame():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "g": np.repeat([f"g{k}" for k in range(J)], ROWS),
            "x": np.tile(np.linspace(-1, 1, ROWS), J),
            "z": rng.normal(size=N),
            "f": rng.permutation(np.repeat(["a", "b", "c"], N // 3)),
        }
    )


@functools.cache
def responses():
    """200 data sets, variances from nothing to large; one in ten is bad."""
    rng = np.random.default_rng(2)
    data = frame()
    codes = pd.factorize(data["g"])[0]
    x = data["x"].to_numpy()[:, None]
    sd = rng.choice([0.0, 0.2, 1.0, 5.0], size=(2, D))
    b = rng.normal(size=(J, 2, D)) * sd
    Y = 3 + x + b[codes, 0] + b[codes, 1] * x + rng.normal(size=(N, D))
    Y *= 10.0 ** rng.integers(-3, 4, D)  # units
    Y += rng.choice([0.0, 1e3], D)  # origins
    Y[:, 0] = 7.0
    Y[3, 10] = np.inf
    Y[:, 20] = 1 + 2 * data["x"]
    Y[:, 30] = np.nan
    Y[5:, 40] = np.nan
    Y[::ROWS, 50] = np.nan  # a row less a level: not bad, but different
    Y[ROWS:, 60] = np.nan  # one level
    return Y


WHY = {
    0: _status.CONSTANT,
    10: _status.BAD_VALUES,
    20: _status.EXACT,
    30: _status.TOO_FEW,
    40: _status.TOO_FEW,
    60: _status.TOO_FEW,
}


@functools.cache
def together(reml=True):
    with pytest.warns(jg.ConvergenceWarning, match=r"6 too few|See \.status"):
        return jg.fit_many(
            FORMULA, frame(), responses=responses(), method="reml" if reml else "ml"
        )


def alone(k, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        try:
            return jg.lmm(FORMULA, frame().assign(y=responses()[:, k]), **options)
        except jg.JaxGLMMError:
            return None


def assert_same(fits, k, fit, rtol=1e-8):
    """Everything that is kept of data set k."""
    at = [fits.coefficient_names.index(name) for name in fit.coefficient_names]
    pairs = {
        "coefficients": (fits.coefficients[k, at], fit.coefficients),
        "se": (fits.se[k, at], fit.se),
        "df": (fits.df[k, at], fit.df_satterthwaite),
        "p": (fits.p_values[k, at], fit.p_values),
        "sigma": (fits.sigma[k], fit.sigma),
        "log_likelihood": (fits.log_likelihood[k], fit.log_likelihood),
        "theta": (fits.theta[k], fit.theta),
        "sd": (
            fits.sd[k],
            np.concatenate([v.sd.to_numpy() for v in fit.varcorr.values()]),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        size = np.max(np.abs(theirs), initial=1e-3)
        np.testing.assert_allclose(
            ours, theirs, rtol=rtol, atol=rtol * size, err_msg=f"{name} of {k}"
        )
    assert fits.singular[k] == fit.is_singular, k
    assert fits.converged[k] == fit.converged, k
    assert fits.status[k] == fit.estimates.status, k


@pytest.mark.parametrize("reml", [True, False])
def test_two_hundred_data_sets(reml):
    fits = together(reml)
    assert fits.singular.mean() > 0.2  # hostile enough
    for k in range(D) if reml else range(0, D, 7):
        fit = alone(k, reml=reml)
        if fit is None:
            assert fits.status[k] == WHY[k]
            assert np.isnan(fits.coefficients[k]).all()
            assert np.isnan(fits.log_likelihood[k])
        else:
            assert_same(fits, k, fit)
    assert {k: s for k, s in WHY.items() if fits.status[k] != s} == {}


def test_neighbours_do_not_matter():
    """Other order, other company: the same up to rounding of vectors and their ends."""
    fits = together()
    rng = np.random.default_rng(3)
    order = rng.permutation(D)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.ConvergenceWarning)
        other = jg.fit_many(FORMULA, frame(), responses=responses()[:, order])
        good = np.setdiff1d(np.arange(D), list(BAD))
        clean = jg.fit_many(FORMULA, frame(), responses=responses()[:, good])
    for name in ("coefficients", "se", "df", "theta", "sigma", "log_likelihood"):
        a, b = getattr(fits, name), getattr(other, name)
        np.testing.assert_allclose(b, a[order], rtol=1e-11, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            getattr(clean, name), a[good], rtol=1e-11, atol=1e-12
        )
    assert set(clean.status) <= {_status.CONVERGED, _status.MAX_STEPS}
    assert clean.converged.mean() > 0.98


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ 1 + (1 | g)",
        "y ~ x + z + f + (1 | g)",
        "y ~ x + (x || g)",
        "y ~ z + (1 | g) + (0 + x | g)",
        "y ~ 0 + x + (0 + x | g)",
    ],
)
def test_formulas(formula):
    columns = slice(61, 70)
    fits = jg.fit_many(formula, frame(), responses=responses()[:, columns])
    for k, y in enumerate(responses()[:, columns].T):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.SingularFitWarning)
            assert_same(fits, k, jg.lmm(formula, frame().assign(y=y)))


@pytest.mark.parametrize("own", [False, True])
def test_weights_and_offsets(own):
    rng = np.random.default_rng(4)
    Y = responses()[:, 61:67]
    shape = Y.shape if own else (N,)
    w, o = rng.uniform(0.5, 2, size=shape), rng.normal(size=shape)
    w[4] = 0.0
    fits = jg.fit_many(FORMULA, frame(), responses=Y, weights=w, offset=o)
    for k, y in enumerate(Y.T):
        mine = {
            "weights": w[:, k] if own else w,
            "offset": o[:, k] if own else o,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.SingularFitWarning)
            assert_same(fits, k, jg.lmm(FORMULA, frame().assign(y=y), **mine))


def crossed():
    rng = np.random.default_rng(6)
    data = frame().assign(h=np.tile(np.arange(ROWS), J))
    Y = rng.normal(size=(J, 5))[pd.factorize(data["g"])[0]] + rng.normal(size=(N, 5))
    Y = Y + rng.normal(size=(ROWS, 5))[data["h"]]
    Y[2, 1] = np.nan
    Y[:, 3] = 0.0
    return data, Y


def test_crossed_factors():
    data, Y = crossed()
    formula = "y ~ x + (1 | g) + (1 | h)"
    with pytest.warns(jg.ConvergenceWarning, match="1 constant response"):
        fits = jg.fit_many(formula, data, responses=Y)
    assert fits.status.tolist() == [0, 0, 0, _status.CONSTANT, 0]
    for k in (0, 1, 2, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jg.JaxGLMMWarning)
            assert_same(fits, k, jg.lmm(formula, data.assign(y=Y[:, k])))


# Many data sets -----------------------------------------------------------------------


@functools.cache
def long_table():
    """Ragged: other levels, other numbers of rows, a level of f that some lack."""
    rng = np.random.default_rng(9)
    parts = []
    for e in range(12):
        levels = rng.integers(4, 12)
        sizes = rng.integers(3, 9, size=levels)
        g = np.repeat(rng.permutation(40)[:levels], sizes)
        n = len(g)
        x = rng.normal(size=n)
        effect = rng.normal(size=40)
        f = rng.choice(["a", "b", "c"], n) if e % 4 else rng.choice(["a", "b"], n)
        y = 2 + x + effect[g] + rng.normal(size=n)
        part = pd.DataFrame({"e": f"e{e:02d}", "g": g, "x": x, "f": f, "y": y})
        parts.append(part)
    table = pd.concat(parts)
    table.loc[table["e"] == "e03", "y"] = 1.5
    table.loc[table["e"] == "e05", "y"] = np.nan
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def test_by():
    table = long_table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        fits = jg.fit_many("y ~ x + f + (1 | g)", table, by="e")
        assert fits.labels.tolist() == [f"e{e:02d}" for e in range(12)]
        bad = {"e03": _status.CONSTANT, "e05": _status.TOO_FEW}
        for k, label in enumerate(fits.labels):
            if label in bad:
                assert fits.status[k] == bad[label]
                continue
            assert_same(
                fits, k, jg.lmm("y ~ x + f + (1 | g)", table[table["e"] == label])
            )
    lacking = list(fits.labels).index("e04")
    column = fits.coefficient_names.index("f[T.c]")
    assert np.isnan(fits.coefficients[lacking, column])
    with pytest.warns(jg.RankDeficientWarning, match="f"):
        fit = fits["e04"]
    assert fit.coefficient_names == ("(Intercept)", "x", "f[T.b]")
    assert fit.predict(table[table["e"] == "e04"].head(2)).shape == (2,)


def test_a_list_of_tables_and_weights_by_name():
    rng = np.random.default_rng(2)
    tables = [
        part.assign(w=rng.uniform(0.5, 2, len(part)), o=rng.normal(size=len(part)))
        for label, part in long_table().groupby("e")
        if label in ("e00", "e01", "e02")
    ]
    tables[1].loc[tables[1].index[0], "w"] = 0.0
    options = {"weights": "w", "offset": "o"}
    fits = jg.fit_many("y ~ x + (1 | g)", tables, **options)
    assert fits.labels is None
    for k, part in enumerate(tables):
        used = part[part["w"] > 0]
        assert_same(fits, k, jg.lmm("y ~ x + (1 | g)", used, **options))


def test_by_several_columns():
    table = long_table().assign(half=lambda t: np.where(t["x"] > 0, "hi", "lo"))
    table = table[table["e"].isin(["e00", "e01"])]
    fits = jg.fit_many("y ~ x + (1 | g)", table, by=["e", "half"])
    assert fits.labels.tolist() == [
        ("e00", "hi"),
        ("e00", "lo"),
        ("e01", "hi"),
        ("e01", "lo"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        mine = (table["e"] == "e01") & (table["half"] == "hi")
        assert_same(fits, 2, jg.lmm("y ~ x + (1 | g)", table[mine]))


def test_crossed_data_sets_in_a_loop():
    data, Y = crossed()
    tables = [data.assign(y=Y[:, k]) for k in (0, 3, 4)]
    with pytest.warns(jg.ConvergenceWarning, match="constant"):
        fits = jg.fit_many("y ~ x + (1 | g) + (1 | h)", tables)
    assert fits.status.tolist() == [0, _status.CONSTANT, 0]


# What comes in ------------------------------------------------------------------------


def test_responses_of_any_make(tmp_path):
    from scipy.sparse import csr_matrix

    Y = responses()[:, 61:64]
    plain = jg.fit_many(FORMULA, frame(), responses=Y)
    assert plain.labels is None
    named = pd.DataFrame(Y, columns=["one", "two", "three"])
    mapped = np.memmap(tmp_path / "Y", np.float64, "w+", shape=Y.shape)
    mapped[:] = Y
    for given in (named, mapped, csr_matrix(Y), dict(named), list(Y)):
        fits = jg.fit_many(FORMULA, frame(), responses=given)
        np.testing.assert_allclose(fits.theta, plain.theta, rtol=1e-9, atol=1e-9)
    fits = jg.fit_many(FORMULA, frame(), responses=named)
    assert fits.labels.tolist() == ["one", "two", "three"]
    with pytest.raises(KeyError, match="no data set 'four'"):
        fits["four"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        assert fits["two"].sigma == pytest.approx(fits.sigma[1], rel=1e-10)
    one = jg.fit_many(FORMULA, frame(), responses=Y[:, 0])
    np.testing.assert_allclose(one.theta, plain.theta[:1], rtol=1e-9, atol=1e-9)


def test_rows_with_missing_predictors_are_dropped_once():
    data = frame().copy()
    data.loc[5, "x"] = np.nan
    Y = responses()[:, 61:64]
    with pytest.warns(jg.MissingRowsWarning, match="1 of 60 rows"):
        fits = jg.fit_many(FORMULA, data, responses=Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        for k in range(3):
            assert_same(fits, k, jg.lmm(FORMULA, data.assign(y=Y[:, k])))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"responses": None}, jg.DataError, "needs to know what the data sets are"),
        ({"by": "g"}, jg.DataError, "two ways to say"),
        ({"responses": np.zeros((3, N))}, jg.DataError, "pass its transpose"),
        ({"responses": np.zeros((7, 3))}, jg.DataError, "one row for each"),
        ({"responses": np.zeros((N, 0))}, jg.DataError, "nothing to fit"),
        ({"responses": np.full((N, 2), "a")}, jg.DataError, "must be numeric"),
        ({"weights": np.ones((N, 5))}, jg.DataError, "one each"),
        ({"trials": 3}, jg.DataError, "family='binomial'"),
        ({"formula": "log(y) ~ x + (1 | g)"}, jg.FormulaError, "Transform"),
        ({"formula": "y ~ x"}, jg.ModelError, "no random effects"),
        ({"formula": "y ~ q + (1 | g)"}, jg.FormulaError, "no column 'q'"),
        ({"method": "laplace"}, jg.ModelError, "'reml'"),
        ({"tol": -1}, jg.ModelError, "positive"),
        ({"devices": "abacus"}, jg.ModelError, "is not one of"),
    ],
)
def test_what_cannot_be_done_is_refused(change, error, text):
    options = {"formula": FORMULA, "data": frame(), "responses": responses()[:, 61:63]}
    options |= change
    if change.get("by"):
        options["responses"] = responses()[:, 61:63]
    with pytest.raises(error, match=text):
        jg.fit_many(options.pop("formula"), options.pop("data"), **options)


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        ([], {}, "empty list"),
        ([{"y": [1.0]}], {"by": "y"}, "list of tables already"),
        ([{"y": [1.0]}], {"weights": np.ones(1)}, "name of a column"),
        ([{"y": [1.0]}, {"x": [1.0]}], {}, "no column in common"),
    ],
)
def test_lists_that_are_refused(data, options, text):
    with pytest.raises(jg.DataError, match=text):
        jg.fit_many("y ~ 1 + (1 | g)", data, **options)


def test_progress(capsys):
    jg.fit_many(FORMULA, frame(), responses=responses()[:, 61:64], progress=True)
    assert "3/3" in capsys.readouterr().err
    jg.fit_many(FORMULA, frame(), responses=responses()[:, 61:64])
    assert capsys.readouterr().err == ""


def test_residual_degrees_of_freedom():
    fits = jg.fit_many(
        FORMULA, frame(), responses=responses()[:, 61:64], satterthwaite=False
    )
    assert (fits.df == N - 2).all()


def test_results_are_numpy_in_double_precision():
    fits = together()
    for name in ("coefficients", "se", "theta", "log_likelihood"):
        assert type(getattr(fits, name)) is np.ndarray
        assert getattr(fits, name).dtype == np.float64
