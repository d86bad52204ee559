"""Terms left out, criteria, cross-validation, other starts and imputations."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from choice_cases import FITS, KNOWN, LINEAR, made, quiet, sleep
from doors import contrasts
from ordinal_cases import data as ordinal_data
from scipy import stats

import jaxglmm as jg

F = ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]


# Terms left out ----------------------------------------------------------------------


@pytest.mark.parametrize("name", LINEAR)
def test_F_tests_are_those_of_lmertest(name):
    fit = made(name)
    methods = {"drop1": "satterthwaite"}
    methods |= {"drop1_kr": "kenward-roger"} if fit.reml else {}
    for key, ddf in methods.items():
        table, rows = fit.drop1(ddf=ddf), KNOWN[name][key]
        assert table.index.tolist() == [row["term"] for row in rows]
        for row in rows:
            found = table.loc[row["term"]].to_numpy(float)
            np.testing.assert_allclose(found, [row[c] for c in F], rtol=1e-4)


@pytest.mark.parametrize("name", list(FITS))
def test_likelihood_ratios_are_those_of_lme4(name):
    table, rows = quiet(made(name).drop1, "chisq"), KNOWN[name]["drop1_chisq"]
    rows = [row for row in rows if row["term"] != "1"]  # R's name where nothing goes
    for row in rows:
        found = table.loc[row["term"]]
        assert found["aic"] == pytest.approx(row["AIC"], rel=1e-7)
        if row["term"] != "<none>":
            assert found["df"] == row["npar"]
            assert found["statistic"] == pytest.approx(row["LRT"], rel=1e-4, abs=1e-5)
            assert found["p_value"] == pytest.approx(row["Pr(Chi)"], rel=1e-4)
    assert quiet(made(name).drop1, "none").columns.tolist() == ["df", "aic"]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_random_terms_are_tested_as_in_lmertest(name, whole):
    table = quiet(made(name).ranova, reduce_terms=not whole)
    rows = KNOWN[name]["ranova_whole" if whole else "ranova"]
    by_place = table.reset_index(drop=True)
    assert len(table) == len(rows)
    for k, row in enumerate(rows):
        found = by_place.loc[k]
        assert found["npar"] == row["npar"]
        assert found["log_likelihood"] == pytest.approx(row["logLik"], rel=1e-7)
        if k:
            assert found["statistic"] == pytest.approx(row["LRT"], rel=1e-4, abs=1e-5)
            p = row["Pr(>Chisq)"]
            assert found["p_value"] == pytest.approx(p, rel=1e-4, abs=2e-3 * (p > 0.99))


def test_names_of_random_terms_are_those_of_lmertest():
    names = made("machines_slopes").ranova().index.tolist()
    assert names == ["<none>", "Machine in (Machine | Worker)"]
    names = quiet(made("sleepstudy").ranova, False).index.tolist()
    assert names == ["<none>", "(Days | Subject)"]


def test_a_variance_at_zero_has_half_the_p_value():
    row = made("pastes").ranova().loc["(1 | batch)"]
    assert row["p_boundary"] == pytest.approx(row["p_value"] / 2)


def test_random_terms_of_a_generalised_model():
    table = made("cbpp").ranova()
    data = jg.datasets.load("cbpp")
    small = jg.glmm("cbind(incidence, size - incidence) ~ period", data)
    assert table["log_likelihood"].iloc[1] == pytest.approx(small.log_likelihood)
    assert table["df"].iloc[1] == 1


@pytest.mark.parametrize("name", LINEAR)
def test_steps_are_those_of_lmertest(name):
    found = quiet(made(name).step)
    rows, gone = KNOWN[name]["step_random"], found.random["eliminated"].tolist()
    assert gone == [row["Eliminated"] or 0 for row in rows]
    rows = KNOWN[name]["step_fixed"]
    assert found.fixed["eliminated"].tolist() == [r["Eliminated"] for r in rows]
    if rows and name != "dyestuff2":
        p = [row["Pr(>F)"] for row in rows]
        np.testing.assert_allclose(found.fixed["p_value"], p, rtol=2e-4)
    assert "Model found" in found


def test_the_model_that_is_left_can_be_asked_on():
    model = quiet(made("sleep_extra").step).model
    assert model.formula == "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)"
    again = jg.lmm(model.formula, sleep())
    assert model.criterion == pytest.approx(again.criterion, abs=1e-6)
    new = {"Days": [3.0, 12.0], "Subject": ["308", "309"]}
    np.testing.assert_allclose(model.predict(new), again.predict(new), rtol=1e-6)
    assert "Days" in str(model.summary())


def test_terms_can_be_kept():
    found = quiet(made("sleep_extra").step, keep=["part"], reduce_random=False)
    assert "part" in found.model.formula
    assert len(found.model.design.terms) == 3
    with pytest.raises(jg.NotApplicableError, match="no fixed term"):
        made("sleepstudy").step(keep="Dyas")
    with pytest.raises(jg.NotApplicableError, match="alpha_fixed"):
        made("sleepstudy").step(alpha_fixed=2.0)


def test_without_an_intercept_the_others_are_coded_anew():
    data = jg.datasets.load("Machines")
    data = data.assign(half=np.tile(["u", "v"], 27))
    fit = jg.lmm("score ~ 0 + Machine + half + (1 | Worker)", data)
    L = contrasts(fit.design, "Machine")
    assert len(L) == 2  # without Machine, half still has a constant
    equal = fit.test(["Machine[B] - Machine[A]", "Machine[C] - Machine[A]"][:0] or L)
    assert fit.drop1().loc["Machine", "statistic"] == pytest.approx(equal.F)
    ratio = fit.drop1("chisq").loc["Machine"]
    small = jg.lmm("score ~ half + (1 | Worker)", data, reml=False)
    assert ratio["df"] == 2
    assert ratio["aic"] == pytest.approx(small.aic)


def test_columns_that_depended_on_a_term_come_back():
    data = sleep()
    data["same"] = 2 * data["extra"] + 1
    with pytest.warns(jg.RankDeficientWarning):
        fit = jg.lmm("Reaction ~ extra + same + (1 | Subject)", data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.RankDeficientWarning)
        table = fit.drop1("chisq")
        tests = fit.drop1()
    assert table.loc["extra", "df"] == 0
    assert np.isnan(table.loc["extra", "p_value"])
    assert tests.loc["extra", "num_df"] == 0


def test_weights_offsets_and_gaps_stay():
    data = sleep()
    data.loc[[3, 77], "Reaction"] = np.nan
    w, o = 1.0 + np.arange(180) % 3, np.linspace(0, 5, 180)
    given = {"weights": w, "offset": o}
    with pytest.warns(jg.MissingRowsWarning):
        fit = jg.lmm("Reaction ~ Days + extra + (1 | Subject)", data, **given)
    given["reml"] = False
    with pytest.warns(jg.MissingRowsWarning):
        small = jg.lmm("Reaction ~ Days + (1 | Subject)", data, **given)
    found = fit.drop1("chisq").loc["extra", "aic"]
    assert found == pytest.approx(small.aic, abs=1e-6)


def test_designs_of_arrays_have_columns_for_terms():
    data = sleep()
    X = np.column_stack([np.ones(180), data["Days"], data["extra"]])
    y = data["Reaction"].to_numpy()
    fit = jg.lmm(y, X, {"Subject": data["Subject"]})
    named = jg.lmm("Reaction ~ Days + extra + (1 | Subject)", data)
    ours = fit.drop1("chisq")["aic"].to_numpy()
    theirs = named.drop1("chisq")["aic"].to_numpy()
    assert set(np.round(theirs, 5)) <= set(np.round(ours, 5))
    assert len(quiet(fit.ranova)) == 2


def test_zero_inflation_has_terms_of_its_own():
    data = jg.datasets.load("Salamanders")
    fit = jg.glmm("count ~ mined + (1 | site)", data, family="poisson", zi="~ mined")
    table = fit.drop1()
    small = jg.glmm("count ~ mined + (1 | site)", data, family="poisson", zi="~ 1")
    assert table.loc["zi~mined", "aic"] == pytest.approx(small.aic, abs=1e-5)


def test_ordered_categories():
    data = ordinal_data("wine_rating")
    fit = jg.clmm("rating ~ temp + contact + (1 | judge)", data)
    table = fit.drop1()
    small = jg.clmm("rating ~ temp + (1 | judge)", data)
    assert table.loc["contact", "aic"] == pytest.approx(small.aic, abs=1e-5)
    none = jg.clm("rating ~ temp + contact", data)
    found = fit.ranova().loc["(1 | judge)", "log_likelihood"]
    assert found == pytest.approx(none.log_likelihood, abs=1e-6)


def test_what_cannot_be_dropped_says_so():
    with pytest.raises(jg.NotApplicableError, match="chisq"):
        made("cbpp").drop1("F")
    with pytest.raises(jg.JaxGLMMError, match="test="):
        made("cbpp").drop1("wald")
    alone = jg.glmm("Reaction ~ Days", sleep(), family="gaussian")
    with pytest.raises(jg.NotApplicableError, match="there are none"):
        alone.ranova()
    posterior = jg.glmm(
        "cbind(incidence, size - incidence) ~ 1 + (1 | herd)",
        jg.datasets.load("cbpp"),
        method="map",
    )
    for question in ("drop1", "ranova", "step", "conditional_aic", "multistart"):
        with pytest.raises(jg.NotApplicableError):
            getattr(posterior, question)()


# Criteria ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FITS))
def test_aicc(name):
    assert made(name).aicc == pytest.approx(KNOWN[name]["AICc"], rel=1e-8)


@pytest.mark.parametrize(
    ("formula", "data", "options"),
    [
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
        ("Reaction ~ Days + (1 | Subject)", "sleepstudy", {"reml": False}),
        ("Reaction ~ Days + (1 | Subject)", "sleepstudy", {"weights": True}),
        ("strength ~ 1 + (1 | batch) + (1 | sample)", "Pastes", {}),
    ],
)
def test_the_conditional_AIC_counts_how_fitted_values_follow(formula, data, options):
    data = jg.datasets.load(data)
    if "weights" in options:
        options = {"weights": np.arange(len(data)) % 4 + 1.0}
    fit = jg.lmm(formula, data, **options)
    y, step, total = fit.design.y, 1e-3 * fit.sigma, 0.0
    for i in range(len(y)):
        e = np.zeros(len(y))
        e[i] = step
        above, below = fit.refit(y + e), fit.refit(y - e)
        total += (above.fitted_values[i] - below.fitted_values[i]) / (2 * step)
    found = fit.conditional_aic()
    assert found.df == pytest.approx(total + 1, abs=2e-4)
    sd = fit.sigma / np.sqrt(options.get("weights", np.ones(len(y))))
    log = stats.norm.logpdf(y, fit.fitted_values, sd).sum()
    assert found.value == pytest.approx(-2 * log + 2 * found.df)
    assert float(found) == found.value


def test_without_variance_the_conditional_AIC_is_that_of_least_squares():
    found = made("dyestuff2").conditional_aic()
    assert found.df == pytest.approx(2.0)
    with pytest.raises(jg.NotApplicableError, match="cross_validate"):
        made("cbpp").conditional_aic()


def test_models_side_by_side():
    one = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep())
    two, three = made("sleepstudy"), jg.lmm("Reaction ~ 1 + (1 | Subject)", sleep())
    table = jg.compare_models(one, two, three)
    assert table.index.tolist() == ["model2", "model1", "model3"]
    assert table["weight"].sum() == pytest.approx(1.0)
    ml = jg.lmm("Reaction ~ Days + (1 | Subject)", sleep(), reml=False)
    assert table.loc["model1", "aic"] == pytest.approx(ml.aic)  # refitted
    gap = table["aic"] - table["aic"].min()
    expected = np.exp(-gap / 2) / np.exp(-gap / 2).sum()
    np.testing.assert_allclose(table["weight"], expected)
    named = jg.compare_models({"flat": three, "steep": two}, criterion="bic")
    assert named.index.tolist() == ["steep", "flat"]
    with pytest.raises(jg.ComparisonError, match="two"):
        jg.compare_models(one)
    with pytest.raises(jg.ComparisonError, match="different"):
        jg.compare_models(one, made("pastes"))


# Cross-validation --------------------------------------------------------------------


def test_levels_are_left_out_whole():
    fit = made("sleepstudy")
    found = fit.cross_validate(by="Subject", k="all")
    data, density, errors = sleep(), 0.0, []
    for subject in data["Subject"].unique()[:3]:
        rest = data[data["Subject"] != subject]
        own = data[data["Subject"] == subject]
        one = jg.lmm("Reaction ~ Days + (Days | Subject)", rest)
        X = np.column_stack([np.ones(10), own["Days"]])
        cov = one.varcorr["Subject"].cov + one.vcov.to_numpy()
        sd = np.sqrt(np.sum(X @ np.asarray(cov) * X, axis=1) + one.sigma**2)
        mean = X @ one.coefficients
        density += stats.norm.logpdf(own["Reaction"], mean, sd).sum()
        errors.append(own["Reaction"] - mean)
    mine = found.rows[found.rows["level"] < 3]
    assert mine["log_density"].sum() == pytest.approx(density, rel=1e-5)
    gap = (mine["response"] - mine["mean"]).to_numpy()
    np.testing.assert_allclose(gap, np.concatenate(errors), rtol=1e-4, atol=1e-3)
    assert len(found.folds) == 18
    assert found.elpd == pytest.approx(found.folds["elpd"].sum())
    assert "18 folds" in repr(found)


def test_rows_are_predicted_by_levels_that_are_known():
    fit = made("sleepstudy")
    rows, levels = fit.cross_validate(), fit.cross_validate(by="Subject")
    assert rows.rmse < 0.8 * levels.rmse
    assert rows.elpd > levels.elpd
    again = fit.cross_validate(seed=0)
    assert again.elpd == rows.elpd
    assert fit.cross_validate(seed=5).elpd != rows.elpd
    labels = np.repeat(np.arange(9), 20)
    assert len(fit.cross_validate(by=labels, k=3).folds) == 3


def test_generalised_models_are_judged_by_their_own_density():
    found = made("cbpp").cross_validate(by="herd", k="all")
    data = jg.datasets.load("cbpp")
    rest, own = data[data["herd"] != "1"], data[data["herd"] == "1"]
    one = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", rest)
    X = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1.0]])
    spread = np.sum(X @ one.vcov.to_numpy() * X, axis=1)
    spread += one.varcorr["herd"].sd.iloc[0] ** 2
    grid = np.linspace(-8, 8, 4001)
    eta = (X @ one.coefficients)[:, None] + np.sqrt(spread)[:, None] * grid
    p = 1 / (1 + np.exp(-eta))
    y, m = own["incidence"].to_numpy(), own["size"].to_numpy()
    each = stats.binom.pmf(y[:, None], m[:, None], p) * stats.norm.pdf(grid)
    expected = np.log(np.trapezoid(each, grid, axis=1))
    here = found.rows[found.rows["level"] == 0]["log_density"]
    np.testing.assert_allclose(here, expected, rtol=1e-4)


def test_smooths_are_left_out_with_their_rows():
    data = sleep()
    fit = quiet(jg.lmm, "Reaction ~ s(Days, k=5) + (1 | Subject)", data)
    found = fit.cross_validate(by="Subject", k=3)
    plain = jg.lmm("Reaction ~ Days + (1 | Subject)", data)
    near = plain.cross_validate(by="Subject", k=3).rmse
    assert found.rmse == pytest.approx(near, rel=0.1)
    assert not found.rows["mean"].isna().any()
    with pytest.raises(jg.NotApplicableError, match="smooths"):
        fit.drop1()


def test_a_mean_that_the_rest_cannot_tell_is_missing():
    found = made("cbpp").cross_validate(by="period", k="all")
    assert found.rows["mean"].isna().all()
    assert np.isnan(found.elpd)
    assert len(made("cbpp").cross_validate(by="period").folds) == 4
    with pytest.raises(jg.NotApplicableError, match="none of the model"):
        made("cbpp").cross_validate(by="farm")
    with pytest.raises(jg.NotApplicableError, match="k=1"):
        made("cbpp").cross_validate(by="herd", k=1)
    with pytest.raises(
        jg.NotApplicableError, match=r"15 levels of herd: .* 15 at most"
    ):
        made("cbpp").cross_validate(by="herd", k=16)
    with pytest.raises(jg.NotApplicableError, match="56 rows"):
        made("cbpp").cross_validate(k=99)
    with pytest.raises(jg.DataError, match="shape"):
        made("cbpp").cross_validate(by=np.zeros(3))


# Other starts ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sleepstudy", "pastes", "cbpp"])
def test_other_starts_end_at_the_same_place(name):
    found = made(name).multistart(6, seed=3)
    assert found.agree
    assert found.better == 0.0
    assert found.table["converged"].all()
    assert found.table["furthest"].max() < 1e-2
    assert "6 of 6" in repr(found)


def test_a_fit_that_stopped_short_is_found_out():
    fit = made("penicillin").copy()
    fit._estimates = replace(fit.estimates, criterion=fit.criterion + 1.0)
    found = fit.multistart(3)
    assert found.better == pytest.approx(1.0, abs=1e-4)
    assert not found.agree
    assert "the best is 1 below" in repr(found)


# Imputations -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imputed():
    data, rng = sleep(), np.random.default_rng(4)
    days = [data["Days"] + rng.normal(0, 0.7, 180) for _ in range(4)]
    return [data.assign(Days=x) for x in days]


def test_rubins_rules_by_hand(imputed):
    fits = [jg.lmm("Reaction ~ Days + part + (1 | Subject)", d) for d in imputed]
    found, m = jg.pool(fits), 4
    Q = np.stack([f.coefficients for f in fits])
    U = np.mean([f.vcov.to_numpy() for f in fits], axis=0)
    B = np.cov(Q.T)
    T = U + (1 + 1 / m) * B
    np.testing.assert_allclose(found.coefficients, Q.mean(axis=0))
    np.testing.assert_allclose(found.covariance, T)
    table, j = found.table, 1
    share = (1 + 1 / m) * B[j, j] / T[j, j]
    nu = np.mean([f.denominator_df[j] for f in fits])
    seen = (nu + 1) / (nu + 3) * nu * (1 - share)
    df = 1 / (share**2 / (m - 1) + 1 / seen)
    row = table.iloc[j]
    assert row["df"] == pytest.approx(df)
    t = Q.mean(axis=0)[j] / np.sqrt(T[j, j])
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), df))
    assert row["lambda"] == pytest.approx(share)
    at = [2, 3]
    r = (1 + 1 / m) * np.trace(np.linalg.solve(U[2:, 2:], B[2:, 2:])) / 2
    q = Q.mean(axis=0)[at]
    F = q @ np.linalg.solve(U[2:, 2:], q) / (2 * (1 + r))
    t = 2 * (m - 1)
    den = 4 + (t - 4) * (1 + (1 - 2 / t) / r) ** 2
    joint = found.test(["part[T.b]", "part[T.c]"])
    assert pytest.approx(F) == joint["F"]
    assert joint["den_df"] == pytest.approx(den)
    sd = found.variances.loc["sigma", "estimate"]
    assert sd == pytest.approx(np.mean([f.sigma for f in fits]))
    assert "4 imputed" in repr(found)


def test_many_at_once_pool_as_one_by_one(imputed):
    formula = "Reaction ~ Days + (1 | Subject)"
    many = jg.fit_many(formula, imputed)
    one = jg.pool([jg.lmm(formula, d) for d in imputed])
    found = jg.pool(many)
    columns = ["estimate", "std_error", "df"]
    ours, theirs = found.table[columns], one.table[columns]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    with pytest.raises(jg.NotApplicableError, match="list"):
        found.test()


def test_equal_data_sets_cost_nothing():
    fit = made("cbpp")
    table = jg.pool([fit, fit, fit]).table
    np.testing.assert_allclose(table["std_error"], fit.se)
    assert (table["df"] > 1e20).all()
    assert (table["riv"] < 1e-20).all()
    known = jg.pool([fit, fit], df=10).table
    np.testing.assert_allclose(known["df"], 10 * 11 / 13)


def test_what_cannot_be_pooled_says_so():
    with pytest.raises(jg.ComparisonError, match="two or more"):
        jg.pool([made("pastes")])
    with pytest.raises(jg.ComparisonError, match="different coefficients"):
        jg.pool([made("pastes"), made("sleepstudy")])
    with pytest.raises(jg.NotApplicableError, match="positive"):
        jg.pool([made("pastes")] * 2, df=-1)
    assert isinstance(jg.pool([made("pastes")] * 2).tidy(0.9), pd.DataFrame)
