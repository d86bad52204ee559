"""What is asked of fits with correlated residuals."""

import functools
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

VISITS, SUBJECTS = 4, 30
DATA = Path(__file__).parents[1] / "data"


@functools.cache
def trial(seed=0):
    """Thirty subjects, four visits, some missing."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(SUBJECTS), VISITS)
    visit = np.tile(np.arange(VISITS), SUBJECTS)
    arm = subject % 2
    site = subject % 5
    x = rng.normal(size=len(subject))
    L = np.linalg.cholesky(
        0.5 ** np.abs(np.subtract.outer(range(VISITS), range(VISITS)))
    )
    e = (rng.normal(size=(SUBJECTS, VISITS)) @ L.T * [1, 1.2, 1.5, 2]).ravel()
    y = 1 + x + 0.5 * arm * visit + e + rng.normal(size=5)[site]
    data = pd.DataFrame(
        {
            "y": y,
            "x": x,
            "subject": [f"S{s:02d}" for s in subject],
            "visit": pd.Categorical([f"V{v}" for v in visit]),
            "time": visit,
            "arm": pd.Categorical(np.where(arm, "drug", "placebo")),
            "site": site,
            "w": rng.uniform(0.5, 2, len(subject)),
        }
    )
    return data[rng.random(len(data)) > 0.1].reset_index(drop=True)


@functools.cache
def us():
    return jg.mmrm("y ~ x + arm * visit + us(visit | subject)", trial())


@functools.cache
def ar1():
    return jg.lmm("y ~ x + (1 | site)", trial(), residual="ar1(time | subject)")


# Special cases ------------------------------------------------------------------------


def test_compound_symmetry_is_a_random_intercept():
    data = trial()
    mixed = jg.lmm("y ~ x + (1 | subject)", data)
    fit = jg.lmm("y ~ x", data, residual="cs(1 | subject)")
    rho = fit.residual_parameters["estimate"]["rho|Residual"]
    assert rho > 0
    assert abs(fit.criterion - mixed.criterion) < 1e-8 * abs(mixed.criterion)
    np.testing.assert_allclose(fit.coefficients, mixed.coefficients, rtol=1e-6)
    np.testing.assert_allclose(fit.denominator_df, mixed.denominator_df, rtol=1e-3)
    total = mixed.sigma**2 + mixed.varcorr["subject"].sd.iloc[0] ** 2
    assert abs(fit.sigma**2 / total - 1) < 1e-5


def test_no_correlation_is_the_plain_model():
    """Of responses without one: the criterion at rho = 0 is that of the plain model."""
    data = trial()
    plain = jg.lmm("y ~ x + (1 | site)", data)
    fit = ar1()
    theta = fit.engine.theta(fit.estimates).copy()
    scale = fit.engine.fixed.scale
    theta[:2] = np.log(plain.sigma / scale), 0.0
    theta[2] = plain.varcorr["site"].sd.iloc[0] / scale
    assert abs(fit.engine.criterion_at(theta) - plain.criterion) < 1e-8
    assert fit.criterion < plain.criterion


def test_a_standard_deviation_a_visit_alone_is_varident():
    data = trial()
    by_stratum = jg.lmm("y ~ x", data, residual="varident(visit)")
    sds = by_stratum.residual_parameters["estimate"].to_numpy()
    rest = data.assign(r=by_stratum.residuals)
    assert by_stratum.converged
    rough = rest.groupby("visit", observed=True)["r"].std().to_numpy()
    np.testing.assert_allclose(sds[0] * np.r_[1, sds[1:]], rough, rtol=0.1)


@pytest.mark.parametrize("reml", [True, False])
def test_groups_of_one_covariance_each(reml):
    """Groups that share no coefficient are fits of their own."""
    data = trial()
    formula = "y ~ 0 + arm + us(visit | arm / subject)"
    both = jg.mmrm(formula, data, reml=reml)
    ours = 0.0
    for arm in ("drug", "placebo"):
        part = data[data["arm"] == arm]
        one = jg.mmrm("y ~ 1 + us(visit | subject)", part, reml=reml)
        ours += one.criterion
        label = f"Residual.{arm}"
        np.testing.assert_allclose(
            both.residual_covariance[label].cov,
            one.residual_covariance["Residual"].cov,
            rtol=1e-4,
        )
    assert abs(both.criterion - ours) < 1e-7 * abs(ours)


def test_order_units_and_labels_do_not_matter():
    data = trial()
    shuffled = data.sample(frac=1, random_state=1)
    shuffled["y"] = 1e4 * shuffled["y"] + 1e6
    fit = jg.mmrm("y ~ x + arm * visit + us(visit | subject)", shuffled)
    np.testing.assert_allclose(
        fit.coefficients[1:], 1e4 * us().coefficients[1:], rtol=1e-5
    )
    np.testing.assert_allclose(fit.denominator_df, us().denominator_df, rtol=1e-4)


def test_equal_weights_are_a_unit():
    data = trial().assign(four=4.0)
    fit = jg.mmrm("y ~ x + arm * visit + us(visit | subject)", data, weights="four")
    np.testing.assert_allclose(fit.se, us().se, rtol=1e-6)
    sd = fit.residual_covariance["Residual"].sd
    np.testing.assert_allclose(
        sd, 2 * us().residual_covariance["Residual"].sd, rtol=1e-5
    )


def test_rows_of_weight_zero_are_no_observations():
    data = trial().assign(w=1.0)
    data.loc[::7, "w"] = 0.0
    fit = jg.mmrm("y ~ x + us(visit | subject)", data, weights="w")
    part = jg.mmrm("y ~ x + us(visit | subject)", data[data["w"] > 0])
    assert abs(fit.criterion - part.criterion) < 1e-8 * abs(part.criterion)
    assert fit.nobs == part.nobs
    assert len(fit.residuals) == len(data)


# Questions ----------------------------------------------------------------------------


def test_summary_names_the_structure():
    text = str(us().summary())
    assert "us(visit | subject) (unstructured, 10 variance parameters)" in text
    assert "V3" in text.split("Fixed effects")[0]
    text = str(ar1().summary("kenward-roger-linear"))
    assert "rho|Residual" in text
    assert "Linear mixed model with correlated residuals" in text
    assert "site" in text


def test_parameters_have_errors_and_limits():
    table = us().residual_parameters
    assert list(table.index[:5]) == [
        *[f"sd_V{k}|Residual" for k in range(4)],
        "cor_V1.V0|Residual",
    ]
    assert (table["lower"] < table["estimate"]).all()
    assert (table["estimate"] < table["upper"]).all()
    limits = us().confint()
    assert (
        limits.loc["sd_V0|Residual"].tolist()
        == table.loc["sd_V0|Residual", ["lower", "upper"]].tolist()
    )
    tidy = ar1().tidy("ran_pars", conf_int=True).set_index("term")
    assert tidy.loc["rho|Residual", "std_error"] > 0
    held = jg.lmm("y ~ x", trial(), residual="ar1(time | subject)", fixed={"x": 1.0})
    with pytest.raises(jg.NotApplicableError, match="Wald limits"):
        held.profile()


@pytest.mark.parametrize("name", ["us", "toeph", "ar1", "csh"])
def test_errors_of_parameters_are_of_the_hessian(name):
    """By the delta method through numerical derivatives of the covariance."""
    fit = jg.mmrm(f"y ~ x + {name}(visit | subject)", trial())
    from doors import residual_parameters as parameters

    engine, theta = fit.engine, fit.engine.theta(fit.estimates)
    h = 1e-6
    for a in range(len(theta)):
        moved = []
        for sign in (1, -1):
            phi = fit.estimates.phi.copy()
            phi[a] += sign * h
            there = pickle.loads(pickle.dumps(fit))
            object.__setattr__(there.estimates, "phi", phi)
            moved.append([x.value for x in parameters(there)])
        slope = (np.array(moved[0]) - moved[1]) / (2 * h)
        ours = [x.slope[a] for x in parameters(fit)]
        np.testing.assert_allclose(ours, slope, atol=1e-7)
    assert engine.problem.m == len(theta)


def test_simulated_rows_have_the_covariance():
    fit = us()
    y = fit.simulate(4000, seed=1) - fit.fitted_values
    rows = trial().assign(at=np.arange(len(trial())))
    both = rows.pivot(index="subject", columns="visit", values="at")[
        ["V1", "V2"]
    ].dropna()
    a, b = both.to_numpy(int).T
    cov = fit.residual_covariance["Residual"].cov
    assert abs(np.mean(y[:, a] * y[:, b]) / cov.loc["V1", "V2"] - 1) < 0.05
    assert abs(np.mean(y[:, b] ** 2) / cov.loc["V2", "V2"] - 1) < 0.05
    marginal = ar1().simulate(4000, seed=2) - ar1().population_predictor
    total = ar1().sigma ** 2 + ar1().varcorr["site"].sd.iloc[0] ** 2
    assert abs(np.mean(marginal**2) / total - 1) < 0.05


def test_another_response_and_the_other_criterion():
    y = us().simulate(1, seed=3)[0]
    again = us().refit(y)
    direct = jg.mmrm(us().formula, trial().assign(y=y))
    np.testing.assert_allclose(again.coefficients, direct.coefficients, rtol=1e-6)
    table = jg.anova(
        us(), jg.mmrm("y ~ x + arm * visit + cs(visit | subject)", trial())
    )
    assert table.df == 8


def test_bootstrap_has_every_parameter():
    found = ar1().bootstrap(5, seed=1)
    assert "rho|Residual" in found.frame().columns
    limits = ar1().confint(method="bootstrap", n=5)
    assert np.isfinite(limits.loc["rho|Residual"]).all()


@pytest.mark.parametrize("make", [us, ar1])
def test_files_and_copies(make, tmp_path):
    fit = make()
    fit.save(tmp_path / "fit")
    for other in (jg.load(tmp_path / "fit"), pickle.loads(pickle.dumps(fit))):
        assert type(other) is type(fit)
        np.testing.assert_allclose(other.denominator_df, fit.denominator_df, rtol=1e-6)
        assert str(other.summary()) == str(fit.summary())


def test_predictions():
    fit = us()
    data = trial()
    frame = fit.predict(interval="prediction")
    half = (frame["upper"] - frame["lower"]) / 2 / 1.959964
    sd = fit.residual_covariance["Residual"].sd
    var = data["visit"].astype(str).map(sd**2).to_numpy(float)
    mean_var = np.einsum("ij,jk,ik->i", fit.design.X, fit.vcov, fit.design.X)
    np.testing.assert_allclose(half**2, var + mean_var, rtol=1e-5)
    new = fit.predict(data.iloc[:5], interval="prediction")
    np.testing.assert_allclose(new["upper"], frame["upper"][:5])
    with pytest.raises(jg.DataError, match="V9"):
        fit.predict(
            pd.DataFrame({"x": [0], "arm": ["drug"], "visit": ["V9"]}),
            interval="prediction",
        )


def test_conditional_variances_against_the_dense_ones():
    fit = ar1()
    data = trial()
    subject = data["subject"].to_numpy()
    same = subject[:, None] == subject
    rho = fit.residual_parameters["estimate"]["rho|Residual"]
    lag = np.abs(np.subtract.outer(data["time"].to_numpy(), data["time"].to_numpy()))
    R = fit.sigma**2 * rho**lag * same
    Z = np.eye(5)[data["site"]]
    tau2 = fit.varcorr["site"].sd.iloc[0] ** 2
    W = np.linalg.inv(tau2 * Z @ Z.T + R)
    D = tau2 * np.eye(5) - tau2**2 * Z.T @ W @ Z
    np.testing.assert_allclose(
        fit.ranef_cov["site"][:, 0, 0], np.diagonal(D), rtol=1e-6
    )
    X = fit.design.X
    b = tau2 * Z.T @ W @ (fit.design.y - X @ fit.coefficients)
    np.testing.assert_allclose(fit.ranef["site"].iloc[:, 0], b, rtol=1e-5, atol=1e-8)
    A = X - Z @ (tau2 * Z.T @ W @ X)
    expected = np.diagonal(Z @ D @ Z.T) + np.einsum("ij,jk,ik->i", A, fit.vcov, A)
    np.testing.assert_allclose(fit.predict(se=True)["se"] ** 2, expected, rtol=1e-6)


def test_means_of_arms_by_visit():
    means = us().predictions(by=["arm", "visit"], grid="equal")
    assert len(means) == 8
    difference = us().contrasts("arm")
    assert difference["df"].iloc[0] < SUBJECTS
    adjusted = jg.mmrm(us().formula, trial(), ddf="kenward-roger")
    np.testing.assert_allclose(
        adjusted.contrasts("arm")["df"], difference["df"], rtol=1e-6
    )


def test_between_and_within():
    fit = jg.mmrm(
        "y ~ x + arm * visit + us(visit | subject)", trial(), ddf="between-within"
    )
    table = fit.coefficient_table()["df"]
    assert table["arm[T.placebo]"] == SUBJECTS - 2
    inside = fit.nobs - SUBJECTS - 7
    assert table["x"] == table["visit[T.V1]"] == inside
    assert fit.test("x").den_df == inside


@pytest.mark.parametrize(
    "kind", ["empirical", "empirical-jackknife", "empirical-bias-reduced"]
)
def test_empirical_covariances_against_the_dense_ones(kind):
    fit = jg.mmrm("y ~ x + us(visit | subject)", trial(), vcov=kind)
    cov = fit.residual_covariance["Residual"].cov.to_numpy()
    data, X = trial(), fit.design.X
    A = np.asarray(fit.estimates.vcov)
    middle = 0.0
    for _, rows in data.groupby("subject"):
        at = rows.index.to_numpy()
        v = rows["visit"].cat.codes.to_numpy()
        V, x = cov[np.ix_(v, v)], X[at]
        e = fit.residuals[at]
        W = np.linalg.inv(V)
        if kind == "empirical-jackknife":
            e = np.linalg.solve(np.eye(len(at)) - x @ A @ x.T @ W, e)
        if kind == "empirical-bias-reduced":
            values, vectors = np.linalg.eigh(V)
            half = (vectors * np.sqrt(values)) @ vectors.T
            back = np.linalg.inv(half)
            values, vectors = np.linalg.eigh(
                np.eye(len(at)) - back @ x @ A @ x.T @ back
            )
            e = half @ (vectors / np.sqrt(values)) @ vectors.T @ back @ e
        score = x.T @ W @ e
        middle = middle + np.outer(score, score)
    np.testing.assert_allclose(fit.vcov, A @ middle @ A, rtol=1e-6)
    assert (fit.denominator_df > 2).all()
    assert (fit.denominator_df < fit.nobs).all()


def test_the_better_of_two_maxima_is_found():
    """A correlation that goes to one is a random intercept; nlme: -656.04254."""
    data = pd.read_csv(DATA / "arma_two_maxima.csv")
    fit = jg.lmm(
        "y ~ x + f + (1 | g)",
        data,
        reml=False,
        residual="arma11(t | g) + varident(f)",
    )
    assert fit.log_likelihood == pytest.approx(-656.0425428, abs=1e-5)
    assert fit.dispersions["phi|Residual"] == pytest.approx(0.94197, abs=1e-4)
    assert not fit.is_singular


# Trouble ------------------------------------------------------------------------------

REFUSED = {
    "twice": ("us(visit | subject)", "first visit 'V0' of subject 'S00'"),
    "unknown": ("tridiagonal(visit | subject)", "is not a residual covariance"),
    "no column": ("ar1(weeks | subject)", "no column 'weeks'"),
    "two": ("ar1(time | subject) + cs(visit | subject)", "two correlations"),
    "no bar": ("ar1(time)", "within what"),
    "no visit": ("us(1 | subject)", "needs one column"),
    "split": ("us(visit | time / subject)", "more than one level of 'time'"),
    "steps": ("ar1(x | subject)", "car1"),
    "zero power": ("varpower(time)", "'time' is zero in"),
    "one level": ("varident(one)", "one level"),
    "same twice": ("ar1h(visit | subject) + varident(visit)", "cannot be told"),
    "text time": ("car1(visit | subject)", "must be numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_to_change(case):
    text, words = REFUSED[case]
    data = trial().assign(one="a")
    if case == "twice":
        data = pd.concat([data, data.iloc[:1]])
    with pytest.raises((jg.FormulaError, jg.ModelError, jg.DataError), match=words):
        jg.lmm("y ~ x", data, residual=text)


def test_structures_as_large_as_the_data():
    few = trial().iloc[:9]
    with pytest.raises(jg.ModelError, match="Take a structure with fewer"):
        jg.mmrm("y ~ x + us(visit | subject)", few)
    one = trial()[lambda d: d["subject"] == "S00"]
    with pytest.raises(jg.ModelError, match="one subject"):
        jg.mmrm("y ~ 1 + us(visit | subject)", one)
    with pytest.raises(jg.ModelError, match="adds nothing"):
        jg.mmrm("y ~ x + (1 | subject) + us(visit | subject)", trial())
    each = trial()[lambda d: d["visit"] == "V0"]
    each = each.assign(visit=each["visit"].cat.remove_unused_categories())
    with pytest.raises(jg.ModelError, match="every subject has one row"):
        jg.mmrm("y ~ x + us(visit | subject)", each)


def test_words_of_mmrm():
    with pytest.raises(jg.FormulaError, match="no covariance of the visits"):
        jg.mmrm("y ~ x", trial())
    with pytest.raises(jg.ModelError, match="use ddf='satterthwaite'"):
        jg.mmrm(us().formula, trial(), ddf="Kenward-Roger", vcov="Empirical")
    with pytest.raises(jg.NotApplicableError, match="REML"):
        jg.mmrm(us().formula, trial(), reml=False).summary("kenward-roger")
    with pytest.raises(jg.ModelError, match="posteriors"):
        jg.lmm("y ~ x", trial(), residual="ar1(time | subject)", method="nuts")


def test_visits_that_nobody_has_and_orders_of_text():
    data = trial().assign(visit=lambda d: d["visit"].cat.add_categories(["V4"]))
    with pytest.warns(jg.ScaleWarning, match="no row has visit 'V4'"):
        fit = jg.mmrm("y ~ x + arm * visit + us(visit | subject)", data)
    np.testing.assert_allclose(fit.coefficients, us().coefficients, rtol=1e-6)
    text = trial().assign(week=lambda d: "week " + (9 + d["time"]).astype(str))
    with pytest.warns(jg.ScaleWarning, match="order of texts"):
        jg.lmm("y ~ x", text, residual="ar1(week | subject)")
    twice = pd.concat([text, text], ignore_index=True)
    twice["y"] += np.random.default_rng(2).normal(size=len(twice))
    with pytest.warns(jg.ScaleWarning, match="order of texts; toep takes them"):
        jg.lmm("y ~ x + toep(0 + week | subject)", twice)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (lambda t: t.astype(str), "not labels"),
        (lambda t: pd.Timestamp("2020-01-01") + pd.to_timedelta(t, "D"), "not dates"),
        (lambda t: t.where(t != t.max(), np.inf), "remove or correct"),
    ],
)
def test_times_that_are_no_numbers(values, what):
    data = trial()
    data["when"] = values(data["time"].astype(float))
    with pytest.raises(jg.DataError, match=what):
        jg.lmm("y ~ x", data, residual="car1(when | subject)")


def test_other_packages_spelling():
    data = trial()
    ours = jg.lmm("y ~ x", data, residual="ar1(time | subject) + varident(visit)")
    nlme = "corAR1(form = ~ time | subject) + varIdent(form = ~ 1 | visit)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = jg.lmm("y ~ x", data, residual=nlme)
    assert ours.criterion == pytest.approx(theirs.criterion, rel=1e-10)


def test_correlations_at_an_end_of_their_range_are_said():
    """A random intercept and noise: an ARMA(1, 1) whose phi runs to one."""
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(40), 5)
    y = 2 * rng.normal(size=40)[subject] + rng.normal(size=200)
    data = pd.DataFrame({"y": y, "t": np.tile(np.arange(5), 40), "s": subject})
    with pytest.warns(jg.SingularFitWarning, match="at an end of its range"):
        fit = jg.lmm("y ~ 1", data, residual="arma11(t | s)")
    assert fit.converged
    assert fit.is_singular
    plain = jg.lmm("y ~ 1 + (1 | s)", data)
    assert fit.criterion < plain.criterion + 0.01


def test_structured_random_effects_beside():
    """Compound symmetry of two levels of a factor is two correlated effects."""
    data = trial()
    residual = "ar1(time | subject)"
    us_effects = jg.lmm("y ~ x + (0 + arm | site)", data, residual=residual)
    cs = jg.lmm("y ~ x + cs(0 + arm | site)", data, residual=residual)
    assert cs.converged
    assert abs(cs.criterion - us_effects.criterion) < 1e-6


@pytest.mark.parametrize("structure", ["cs", "ar1"])
def test_rows_that_are_the_same(structure):
    """A correlation of one is the end of the range, and not a search that failed."""
    rng = np.random.default_rng(2)
    y = np.repeat(rng.normal(size=12), 3) + 1e-9 * rng.normal(size=36)
    data = {"g": np.repeat(np.arange(12), 3), "t": np.tile(np.arange(3.0), 12), "y": y}
    with pytest.warns(jg.SingularFitWarning, match="end of its range"):
        fit = jg.lmm("y ~ 1", data, residual=f"{structure}(t | g)")
    assert fit.converged
    assert fit.is_singular
