"""Linear models with a formula of the residual sd: glmmTMB's figures, a dense twin.

``reference/gaussian_dispersion.json``: glmmTMB 1.1.5, whose coefficients of the log
variance are halved here; without a residual it keeps one of 1e-4.
"""

import functools
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

HERE = Path(__file__).parent.parent
CASES = json.loads((HERE / "reference" / "gaussian_dispersion.json").read_text())


@functools.cache
def table(name):
    file = HERE / "data" / f"{name}.csv.gz"
    data = pd.read_csv(file) if file.exists() else jg.datasets.load(name)
    if name == "Orthodont":
        data["Sex"] = pd.Categorical(data["Sex"].astype(str), ["Male", "Female"])
    return data


@pytest.mark.parametrize("name", CASES)
def test_the_figures_are_glmmtmbs(name):
    case = CASES[name]
    silent = case["dispersion"] == "~0"
    fit = jg.lmm(
        case["formula"],
        table(case["data"]),
        reml=case["reml"],
        dispersion=case["dispersion"],
    )
    assert fit.converged
    assert fit.log_likelihood > case["loglik"] - 1e-7
    assert fit.log_likelihood < case["loglik"] + 1e-5
    se = np.array(case["se"])
    near = 1e-4 if silent else 1e-6
    assert np.abs(fit.coefficients - case["fixef"]).max() < near * se.min()
    np.testing.assert_allclose(fit.se, se, rtol=near)
    sd = next(iter(fit.varcorr.values())).sd
    np.testing.assert_allclose(sd, case["sd"], rtol=near)
    if not silent:
        found = np.array(list(fit.fixef["disp"].values()))
        assert np.abs((found - case["disp"]) / case["disp_se"]).max() < 1e-6
        own = fit.tidy().query("component == 'disp'")["std_error"]
        np.testing.assert_allclose(own, case["disp_se"], rtol=1e-6)


# Against a dense twin ---------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    J, T = 12, 6
    n = J * T
    g, x = np.repeat(np.arange(J), T), rng.normal(size=n)
    z, f = rng.uniform(-1, 1, size=n), np.tile(["a", "b", "c"], n // 3)
    w, h = rng.uniform(0.5, 2, size=n), np.tile(np.arange(T), J)
    effects = rng.normal(size=(J, 2))
    y = 1 + 0.5 * x + 2 * effects[g, 0] + 0.7 * effects[g, 1] * x
    y = y + 0.6 * rng.normal(size=T)[h] + rng.normal(size=n) * np.exp(0.3 + 0.7 * z)
    return pd.DataFrame(
        {"y": y, "x": x, "z": z, "f": f, "g": g, "h": h, "w": w, "o": 0.3 * z}
    )


def dense(fit, data, D, offset=0.0, weights=1.0):
    """The criterion and beta at the fit's variances, from V of all rows."""
    n, y = len(data), data["y"].to_numpy()
    X = np.column_stack([np.ones(n), data["x"]])
    phi = [v for k, v in fit.fixef.items() if k.startswith("disp~")]
    V = np.diag(np.exp(2 * (D @ phi + offset)) / weights)
    for name, term in fit.varcorr.items():
        columns = {"(Intercept)": np.ones(n), "x": data["x"].to_numpy()}
        z = np.column_stack([columns[c] for c in term.cov.columns])
        same = data[name].to_numpy()[:, None] == data[name].to_numpy()
        V = V + same * (z @ term.cov.to_numpy() @ z.T)
    P = np.linalg.inv(V)
    Q = X.T @ P @ X
    beta = np.linalg.solve(Q, X.T @ P @ y)
    r = y - X @ beta
    free = n - 2 if fit.reml else n
    value = np.linalg.slogdet(V)[1] + r @ P @ r + free * np.log(2 * np.pi)
    return value + (np.linalg.slogdet(Q)[1] if fit.reml else 0.0), beta


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("random", "dispersion", "weighted"),
    [
        ("+ (1 | g)", "~ z", False),
        ("+ (x | g)", "~ z + offset(o)", True),
        ("+ (1 | g) + (1 | h)", "~ 0 + z", False),
        ("", "~ z", True),
    ],
)
def test_the_likelihood_is_that_of_all_rows(rows, random, dispersion, weighted, reml):
    w = rows["w"].to_numpy() if weighted else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        fit = jg.lmm(
            f"y ~ x {random}",
            rows,
            dispersion=dispersion,
            reml=reml,
            weights="w" if weighted else None,
        )
    D = np.column_stack([np.ones(len(rows)), rows["z"]])
    D = D[:, 1:] if "0 +" in dispersion else D
    offset = rows["o"].to_numpy() if "offset" in dispersion else 0.0
    value, beta = dense(fit, rows, D, offset, w)
    assert fit.converged
    np.testing.assert_allclose(fit.criterion, value, rtol=1e-11)
    np.testing.assert_allclose(fit.coefficients, beta, atol=1e-10)


def test_weights_beside_random_effects_are_of_the_residuals(rows):
    """As everywhere: of a residual structure too, and of its modes."""
    plain = jg.lmm("y ~ x + (1 | g)", rows, weights="w")
    one = rows.assign(one=1.0)
    same = jg.lmm("y ~ x + (1 | g)", one, weights="w", dispersion="~ 0 + one")
    np.testing.assert_allclose(same.criterion, plain.criterion, atol=1e-7)
    np.testing.assert_allclose(same.ranef["g"], plain.ranef["g"], atol=1e-5)
    levels = jg.lmm("y ~ x + (1 | g)", rows, weights="w", residual="varident(f)")
    other = jg.lmm("y ~ x + (1 | g)", rows, weights="w", dispersion="~ f")
    np.testing.assert_allclose(levels.criterion, other.criterion, atol=1e-9)


# Questions --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit(rows):
    return jg.lmm("y ~ x + (1 | g)", rows, dispersion="~ z + f")


def test_tables_have_both_components(fit):
    tidy = fit.tidy(effects="all", conf_int=True)
    assert tidy["component"].tolist()[:7] == ["cond"] * 2 + ["disp"] * 4 + ["cond"]
    assert tidy["term"].tolist()[2:6] == ["(Intercept)", "z", "f[T.b]", "f[T.c]"]
    assert list(fit.fixef) == ["(Intercept)", "x", *fit.residual_parameters.index]
    text = str(fit.summary(ddf="kenward-roger"))
    for line in ("Dispersion: ~ z + f", "dispersion model:", "Kenward-Roger"):
        assert line in text
    assert fit.varcorr.sigma is None
    assert np.isnan(fit.sigma)
    assert fit.npar == 7
    assert "disp~z" in fit.confint().index
    assert repr(fit).startswith("<DispersedFit y ~ x + (1 | g), disp ~ z + f")


def test_predictions_of_the_residual_sd(fit, rows):
    new = rows.iloc[:4].assign(g=[0, 1, 99, 2])
    sd = fit.predict(new, type="disp", se=True, interval="confidence")
    own = fit.predict(type="disp")
    np.testing.assert_allclose(sd["fit"], own[:4])
    x = np.array([1.0, new["z"].iloc[0], 0, 0])
    np.testing.assert_allclose(np.log(own[0]), x @ [*fit.fixef["disp"].values()])
    error = np.sqrt(x @ fit.dispersion_covariance @ x)
    np.testing.assert_allclose(sd["se"].iloc[0], own[0] * error)
    assert (sd["lower"] < sd["fit"]).all()
    assert (sd["fit"] < sd["upper"]).all()
    options = {"re": "population", "se": True}
    mean = fit.predict(new, interval="confidence", **options)
    wide = fit.predict(new, interval="prediction", **options)
    half = (wide["upper"] - wide["lower"]) / 2 / 1.959963984540054
    np.testing.assert_allclose(half**2, mean["se"] ** 2 + sd["fit"] ** 2, rtol=1e-9)
    with pytest.raises(jg.NotApplicableError, match="new observation"):
        fit.predict(new, type="disp", interval="prediction")
    with pytest.raises(jg.NotApplicableError, match="zprob"):
        fit.predict(new, type="zprob")
    with pytest.raises(jg.DataError, match="'z'"):
        fit.predict(new.drop(columns="z"), type="disp")


def test_what_is_kept_and_fitted_again(fit, tmp_path):
    fit.save(tmp_path / "fit.zip")
    for other in (jg.load(tmp_path / "fit.zip"), pickle.loads(pickle.dumps(fit))):
        assert type(other) is type(fit)
        np.testing.assert_array_equal(
            other.predict(type="disp"), fit.predict(type="disp")
        )
        np.testing.assert_allclose(other.se, fit.se)
    again = fit.refit(fit.design.y)
    np.testing.assert_allclose(again.criterion, fit.criterion, atol=1e-8)
    Y = fit.simulate(400, seed=1, re="conditional")
    ratio = np.std(Y, axis=0) / fit.predict(type="disp")
    assert np.abs(ratio - 1).max() < 0.2
    ends = fit.confint(method="bootstrap", n=20, seed=2)
    assert (ends.loc["disp~z", "lower"] < ends.loc["disp~z", "upper"]).all()


def test_comparisons(fit, rows):
    plain = jg.lmm("y ~ x + (1 | g)", rows)
    table = jg.anova(plain, fit)
    assert table.df == 3
    assert table.p_value < 0.01
    for question in (lambda: fit.icc, fit.r2):
        with pytest.raises(jg.NotApplicableError):
            question()


def test_errors_of_parameters_where_a_variance_is_zero(rows):
    """A standard deviation at zero counts as known, and says nothing of the others."""
    data = rows.assign(y=np.exp(rows["z"]) * np.tile([1.0, -1.0, 0.5, -0.5], 18))
    with pytest.warns(jg.SingularFitWarning):
        fit = jg.lmm("y ~ x + (1 | g)", data, dispersion="~ z")
    assert fit.varcorr["g"].sd.iloc[0] == 0
    plain = jg.lmm("y ~ x", data, dispersion="~ z")
    np.testing.assert_allclose(fit.criterion, plain.criterion, atol=1e-8)
    own, other = (f.tidy()["std_error"].to_numpy(float) for f in (fit, plain))
    np.testing.assert_allclose(own, other, rtol=1e-5)


def test_a_model_without_a_residual(rows):
    data = rows.assign(row=np.arange(len(rows)))
    fit = jg.lmm("y ~ x + (1 | g) + (1 | row)", data, dispersion="~ 0")
    plain = jg.lmm("y ~ x + (1 | g)", data)
    np.testing.assert_allclose(fit.criterion, plain.criterion, atol=1e-7)
    np.testing.assert_allclose(fit.varcorr["row"].sd, plain.sigma, rtol=1e-4)
    np.testing.assert_allclose(fit.fitted_values, data["y"], atol=1e-9)
    assert (fit.predict(type="disp") == 0).all()
    assert list(fit.fixef) == ["(Intercept)", "x"]
    assert "without a residual" in str(fit.summary())
    with pytest.raises(jg.NotApplicableError, match="no residual"):
        fit.resid("pearson")
    same = jg.glmm(
        "y ~ x + (1 | g) + (1 | row)",
        data,
        family="gaussian",
        dispersion="~ 0",
        reml=True,
    )
    np.testing.assert_allclose(same.criterion, fit.criterion, rtol=1e-12)
    with pytest.raises(jg.ModelError, match=r"rows 0, 1, 2, 3, \.\.\."):
        jg.lmm("y ~ x + (1 | g)", data, dispersion="~ 0")
    with pytest.raises(jg.ModelError, match="no random effects either"):
        jg.lmm("y ~ x", data, dispersion="~ 0")


def test_doors(rows):
    formula = "y ~ x + (1 | g)"
    one = jg.lmm(formula, rows, dispersion="~ z")
    two = jg.glmm(formula, rows, family="gaussian", dispersion="~ z", reml=True)
    assert type(one) is type(two)
    np.testing.assert_allclose(one.criterion, two.criterion, rtol=1e-12)
    plain = jg.glmm(formula, rows, family="gaussian", reml=True)
    np.testing.assert_allclose(plain.criterion, jg.lmm(formula, rows).criterion)
    with pytest.raises(jg.ModelError, match="models with random effects or smooths"):
        jg.glmm("y ~ x", rows, family="t", reml=True)
    with pytest.raises(jg.ModelError, match="reml=False"):
        jg.lmm(formula, rows, dispersion="~ z + (1 | h)")
    with pytest.raises(jg.ModelError, match="two models of the residuals"):
        jg.lmm(formula, rows, dispersion="~ z", residual="varident(f)")
    with pytest.raises(jg.ModelError, match="identity link"):
        jg.glmm(formula, rows, family="t", dispersion="~ 0")
