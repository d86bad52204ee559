"""clubSandwich's covariances, lme4's and lmerTest's answers of terms and rows."""

import warnings

import numpy as np
import pytest
from cases import data, r_name, reference

import jaxglmm as jg

pytestmark = pytest.mark.reference

ROBUST = {
    "dietox": ("Weight ~ Cu + Time + (1 | Pig)", {}),
    "machines": ("score ~ Machine + (1 | Worker/Machine)", {}),
    "orthodont": ("distance ~ age * Sex + (age | Subject)", {}),
    "orthodont_gls": ("distance ~ age + Sex", {"residual": "cs(1 | Subject)"}),
    "orthodont_lme": (
        "distance ~ age * Sex + (1 | Subject)",
        {"residual": "ar1(1 | Subject)"},
    ),
    "sleepstudy_ml": ("Reaction ~ Days + (Days | Subject)", {"reml": False}),
}
HELPED = {
    "cbpp": (jg.glmm, "herd", {}),
    "machines": (jg.lmm, "Worker", {"reml": False}),
    "orthodont": (jg.lmm, "Subject", {}),
    "pastes": (jg.lmm, "batch", {}),
    "penicillin": (jg.lmm, "sample", {}),
    "sleepstudy": (jg.lmm, "Subject", {}),
}
LINEAR = [name for name in HELPED if name != "cbpp"]
TABLES = {
    "drop1_satterthwaite": lambda f: f.drop1(ddf="satterthwaite"),
    "drop1_kenward_roger": lambda f: f.drop1(ddf="kenward-roger"),
    "anova_type1": lambda f: f.anova(type=1),
    "anova_type2": lambda f: f.anova(type=2),
    "anova_type3": lambda f: f.anova(type=3),
}
F = ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]
MADE = {}


def quiet(question, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        return question(*args, **options)


def helped(name):
    if name not in MADE:
        how, _, options = HELPED[name]
        known = reference(f"help_{name}")
        MADE[name] = how(known["formula"], data(known["dataset"]), **options)
    return MADE[name]


@pytest.mark.parametrize("name", ROBUST)
def test_covariances_are_those_of_clubsandwich(name):
    formula, options = ROBUST[name]
    known = reference(f"cr_{name}")
    table = data(known["dataset"])
    fit = jg.lmm(formula, table, **options)
    for asked in known["robust"]:
        for kind, answer in asked["types"].items():
            robust = fit.with_vcov(kind, table[asked["cluster"]])
            names = [r_name(n) for n in robust.fixef]
            order = [names.index(n) for n in answer["vcov"]["names"]]
            vcov = np.asarray(robust.vcov)[np.ix_(order, order)]
            matrix = np.array(answer["vcov"]["matrix"])
            scale = np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
            assert np.abs((vcov - matrix) / scale).max() < 1e-5
            for key, ours in (
                ("se", robust.se),
                ("df_satterthwaite", robust.denominator_df),
                ("t", robust.tidy()["statistic"]),
                ("p_satterthwaite", robust.tidy()["p_value"]),
            ):
                theirs = np.array([answer[key][n] for n in answer["vcov"]["names"]])
                ours = np.asarray(ours)[: len(names)][order]
                limit = 1e-4 if key != "p_satterthwaite" else 3e-4
                np.testing.assert_allclose(ours, theirs, rtol=limit, err_msg=key)
            if answer["wald"] is not None:  # all coefficients but the first are zero
                L = np.eye(len(names))[[names.index(n) for n in list(answer["se"])[1:]]]
                found, wald = robust.test(L), answer["wald"]
                for ours, key in (
                    (found.F, "F"),
                    (found.den_df, "den_df"),
                    (found.p_value, "p"),
                ):
                    assert ours == pytest.approx(wald[key], rel=1e-4), key


@pytest.mark.parametrize("key", TABLES)
@pytest.mark.parametrize("name", LINEAR)
def test_f_tests_are_those_of_lmertest(name, key):
    known = reference(f"help_{name}")
    if key not in known:
        pytest.skip("lmerTest was not asked")
    if not known[key]:
        assert not len(TABLES[key](helped(name)).dropna())
        return
    table = TABLES[key](helped(name))
    assert [str(t) for t in table.index] == [row["term"] for row in known[key]]
    for row in known[key]:
        ours = table.loc[row["term"]].to_numpy(float)
        np.testing.assert_allclose(ours, [row[c] for c in F], rtol=1e-4)


@pytest.mark.parametrize("name", LINEAR)
def test_random_terms_and_criteria(name):
    known, fit = reference(f"help_{name}"), helped(name)
    table = quiet(fit.ranova)
    assert len(table) == len(known["ranova"])
    for (_, ours), row in zip(table.iterrows(), known["ranova"], strict=True):
        assert ours["npar"] == row["npar"]
        assert ours["log_likelihood"] == pytest.approx(row["logLik"], rel=1e-7)
        assert ours["aic"] == pytest.approx(row["AIC"], rel=1e-7)
        if row["LRT"] is not None:
            assert ours["statistic"] == pytest.approx(row["LRT"], rel=1e-4)
            assert ours["p_value"] == pytest.approx(row["Pr(>Chisq)"], rel=1e-4)


@pytest.mark.parametrize("name", HELPED)
def test_likelihood_ratios_criteria_and_inflation(name):
    known, fit = reference(f"help_{name}"), helped(name)
    table = quiet(fit.drop1, "chisq")
    for row in known["drop1_chisq"]:
        if row["term"] not in table.index:
            continue  # R's "1" where no term can go
        ours = table.loc[row["term"]]
        assert ours["aic"] == pytest.approx(row["AIC"], rel=1e-6)
        if row["LRT"] is not None:
            assert ours["statistic"] == pytest.approx(row["LRT"], rel=1e-4)
            assert ours["p_value"] == pytest.approx(row["Pr(Chi)"], rel=1e-4)
    for ours, key in ((fit.aicc, "AICc"), (fit.aic, "AIC"), (fit.bic, "BIC")):
        assert ours == pytest.approx(known[key], rel=1e-7)
    if known.get("vif"):
        found = dict(zip(fit.fixef, np.append(np.nan, inflation(fit)), strict=True))
        for ours, value in found.items():
            if r_name(ours) in known["vif"]:
                assert value == pytest.approx(known["vif"][r_name(ours)], rel=1e-4)


def inflation(fit):
    """By coefficient, as the reference has it; ``fit.vif()`` is by term."""
    V = np.asarray(fit.vcov)[1:, 1:]
    d = np.sqrt(np.diag(V))
    return np.diag(np.linalg.inv(V / np.outer(d, d)))


@pytest.mark.parametrize("name", LINEAR)
def test_rows(name):
    known, fit = reference(f"help_{name}"), helped(name)
    for key, ours in (
        ("hatvalues_first20", fit.hat_values),
        ("cooks_first20", fit.cooks_distance),
        ("rstudent_first20", fit.studentised_residuals),
    ):
        theirs = np.array(known[key], float)
        found = np.asarray(ours())[: len(theirs)]
        np.testing.assert_allclose(found, theirs, rtol=1e-4, err_msg=key)
    total = float(np.sum(fit.hat_values()))
    assert total == pytest.approx(known["hatvalues_sum"], rel=1e-4)


def test_hat_values_of_a_generalised_model_are_leverages():
    """lme4's leave out the weights of the link, add up to 164 of 56 rows, and warn."""
    fit, table = helped("cbpp"), data("cbpp")
    X, size = fit.design.X, table["size"].to_numpy()
    herd = table["herd"].astype(str).to_numpy()
    p = fit.fitted_values
    w = size * p * (1 - p)
    Z = fit.varcorr["herd"].sd.iloc[0] * (herd[:, None] == np.unique(herd))
    both = np.column_stack([X, Z]) * np.sqrt(w)[:, None]
    penalty = np.diag(np.repeat([0.0, 1.0], [X.shape[1], Z.shape[1]]))
    H = both @ np.linalg.solve(both.T @ both + penalty, both.T)
    np.testing.assert_allclose(fit.hat_values(), np.diag(H), rtol=1e-6)


@pytest.mark.parametrize("name", HELPED)
def test_levels_left_out(name):
    known, by = reference(f"help_{name}"), HELPED[name][1]
    answer, found = known[f"influence_{by}"], quiet(helped(name).influence, by)
    labels = [str(x) for x in found.labels]
    order = [labels.index(x) for x in answer["levels"]]
    cook = np.array(answer["cooks_distance"], float)
    loose = name == "cbpp"  # glmer's refits have its default inner tolerance
    near = 0.03 if loose else 1e-4
    np.testing.assert_allclose(found.cook[order], cook, rtol=near, atol=1e-8)
    names = [r_name(n) for n in helped(name).fixef]
    se = np.asarray(helped(name).se)
    for key, ours in (
        ("dfbeta", found.coefficients - found.estimates),
        ("dfbetas", found.dfbetas),
    ):
        if answer.get(key):
            columns = [names.index(n) for n in answer[key]["names"]]
            theirs = np.array(answer[key]["rows"], float).reshape(len(order), -1)
            ours = np.asarray(ours)[order][:, columns]
            scale = se[columns] if key == "dfbeta" else 1 + np.abs(theirs)
            assert np.abs((ours - theirs) / scale).max() < (6e-3 if loose else 1e-4), (
                key
            )


def test_levels_left_out_of_a_generalised_model_exactly():
    known, found = reference("influence_cbpp"), helped("cbpp").influence("herd")
    order = [[str(x) for x in found.labels].index(x) for x in known["levels"]]
    np.testing.assert_allclose(found.cook[order], known["cook"], rtol=1e-4)
    change = -(found.coefficients - found.estimates)[order]
    np.testing.assert_allclose(change, known["dfbeta"], atol=1e-4 * found.se.min())


@pytest.mark.parametrize("name", LINEAR)
def test_rows_left_out(name):
    known, fit = reference(f"help_{name}"), helped(name)
    answer = known["influence_rows"]
    found = quiet(fit.influence, "row", refit=True)
    cook = np.array(answer["cooks_distance_first20"], float)
    np.testing.assert_allclose(found.cook[:20], cook, rtol=1e-3, atol=1e-8)
    if answer.get("dfbetas_first20"):
        names = [r_name(n) for n in fit.fixef]
        columns = [names.index(n) for n in answer["dfbetas_first20"]["names"]]
        theirs = np.array(answer["dfbetas_first20"]["rows"], float)
        ours = np.asarray(found.dfbetas)[:20][:, columns]
        assert np.abs(ours - theirs).max() < 1e-4


def test_leverage_is_the_model_s_whatever_the_covariance_of_tests():
    fit = helped("machines")
    np.testing.assert_allclose(fit.with_vcov("CR2").hat_values(), fit.hat_values())
