"""Worksheet functions of zeros, thresholds and visits against the fits behind them."""

import numpy as np
import pandas as pd
import pytest
from doors import arguments_of, call, hosted

import jaxglmm as jg
from jaxglmm.spreadsheet import clmm, glmm_zinb, mmrm
from jaxglmm.spreadsheet.server import columns

N, J = 48, 8
RNG = np.random.default_rng(7)
GROUP, VISIT = np.repeat(np.arange(J), N // J), np.tile(np.arange(1, 4), N // 3)
SUBJECT = np.repeat(np.arange(N // 3), 3)
DOSE = RNG.normal(size=N).round(2)
COUNT = np.where(RNG.random(N) < 0.3, 0, RNG.poisson(3, N))
LATENT = DOSE + RNG.normal(size=J)[GROUP] + RNG.logistic(size=N)
GRADE = np.digitize(LATENT, [-1, 1]) + 1
SCORE = DOSE + RNG.normal(size=N // 3)[SUBJECT] + RNG.normal(size=N)
WORDS = np.array(["low", "mid", "high"])
VISITS = np.array(["week 2", "week 4", "week 12"])


def column(values):
    return [[v] for v in np.asarray(values).tolist()]


def section(table, name):
    return [row for row in table if row[0] == name and row[1] != "parameter"]


def facts(table):
    return {row[0]: row[1] for row in table}


@pytest.fixture(scope="module")
def ordinal():
    data = {"y": GRADE, "x": DOSE, "g": GROUP}
    return jg.clmm("y ~ x + (1 | g)", data)


def test_thresholds_are_those_of_clmm(ordinal):
    table = clmm(column(GRADE), column(DOSE), column(GROUP), extended=True)
    assert table[0][8] == "odds_ratio"
    assert table[1][:3] == [
        "fixed_effects",
        "0",
        pytest.approx(ordinal.coefficients[0]),
    ]
    rows = section(table, "thresholds")
    found = ordinal.threshold_coefficients
    assert [row[1] for row in rows] == ["1|2", "2|3"]
    np.testing.assert_allclose([r[2] for r in rows], found["estimate"], rtol=1e-6)
    np.testing.assert_allclose([r[3] for r in rows], found["std_error"], rtol=1e-5)
    assert [row[8] for row in rows] == [None, None]  # no odds ratio of a threshold
    assert facts(table)["log_likelihood"] == pytest.approx(ordinal.log_likelihood)
    assert table[5][3] == pytest.approx(ordinal.varcorr["g"].sd.iloc[0], rel=1e-5)
    assert len([row for row in table if row[2] == "Group Var"]) == J


def test_categories_of_text_take_their_order(ordinal):
    arguments = [column(WORDS[GRADE - 1]), [["dose"], *column(DOSE)], column(GROUP)]
    levels = [["low", "mid", "high", "never seen"]]
    table = call("CLMM", [*arguments, None, None, None, None, None, None, levels])
    assert table[1][1] == "dose"
    assert [row[1] for row in section(table, "thresholds")] == ["low|mid", "mid|high"]
    assert facts(table)["aic"] == pytest.approx(ordinal.aic)


MMRM = {"y": column(SCORE), "x": column(DOSE), "groups": column(SUBJECT)}


@pytest.mark.parametrize("method", [None, "kenward-roger"])
def test_visits_are_those_of_mmrm(method):
    table = mmrm(**MMRM, visits=column(VISITS[VISIT - 1]), method=method, extended=True)
    visit = pd.Categorical(VISITS[VISIT - 1], VISITS)
    data = {"y": SCORE, "x": DOSE, "id": SUBJECT, "visit": visit}
    fit = jg.mmrm("y ~ x + us(visit | id)", data, ddf=method or "satterthwaite")
    tests = fit.summary().coefficients
    rows = section(table, "fixed_effects")
    found = np.array([[*row[2:6], row[8]] for row in rows], float)
    expected = tests.iloc[:, [0, 1, 3, 4, 2]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert table[0][8] == "df"
    sds = fit.residual_covariance["Residual"].sd
    shown = [row for row in table if row[0] == "" and row[1] in VISITS]
    assert [row[1] for row in shown] == list(VISITS)  # not in the order of letters
    np.testing.assert_allclose([row[3] for row in shown], sds, rtol=1e-6)
    limits = {row[1]: row[2:5] for row in table if row[0] in ("std_dev", "covariance")}
    own = fit.residual_parameters
    assert len(limits) == len(own) == 6
    for name, row in own.iterrows():
        word = str(name).partition("|")[0].removeprefix("sd_")
        assert limits[word] == pytest.approx(
            [row.estimate, row.lower, row.upper], rel=1e-5
        )
    assert facts(table)["log_likelihood"] == pytest.approx(fit.log_likelihood)


def test_one_standard_deviation_for_all_visits():
    arguments = [*MMRM.values(), column(VISIT), True, 0.1, "", True, None, "AR1"]
    table = call("MMRM", arguments)
    data = {"y": SCORE, "x": DOSE, "id": SUBJECT, "visit": VISIT}
    fit = jg.mmrm("y ~ x + ar1(visit | id)", data, conf_level=0.9)
    sigma = fit.residual_parameters.loc["sigma"]
    shown = [row[2:5] for row in table if row[0] == "std_dev"]
    assert shown == 3 * [pytest.approx([sigma.estimate, sigma.lower, sigma.upper])]


def test_zeros_are_those_of_glmm(monkeypatch):
    for name in ("LONGEST", "PAYS", "READS"):  # one fit: no program for it
        monkeypatch.setattr(hosted, name, 120.0)
    made, original = [], jg.glmm
    monkeypatch.setattr(
        jg, "glmm", lambda *a, **k: made.append(original(*a, **k)) or made[0]
    )
    given = dict.fromkeys(arguments_of("GLMM_ZINB"))
    given |= {"y": column(COUNT), "x": column(DOSE), "groups": column(GROUP)}
    given["x_zero"] = [["far"], *column(DOSE)]
    table = call("GLMM_ZINB", list(given.values()))
    assert isinstance(table, list), table
    (fit,) = made
    assert fit.family.name == "nbinom2"
    assert list(fit.fixef) == ["(Intercept)", "x1", "zi~(Intercept)", "zi~w0"]
    both = section(table, "fixed_effects") + section(table, "zero_inflation")
    assert [row[1] for row in both] == ["Intercept", "0", "Intercept", "far"]
    np.testing.assert_array_equal([row[2] for row in both], fit.coefficients)
    np.testing.assert_array_equal([row[3] for row in both], fit.se)
    assert facts(table)["dispersion"] == fit.dispersion
    assert facts(table)["log_likelihood"] == fit.log_likelihood


TEXTS = [
    (clmm, {"y": column(WORDS[GRADE - 1])}, "Invalid input: y is text; give levels, t"),
    (
        clmm,
        {"y": column(WORDS[GRADE - 1]), "levels": ["low", "mid"]},
        "is 'high', which is not among levels.",
    ),
    (clmm, {"y": column(GRADE), "levels": [1, 2]}, "is 3, which is not among levels."),
    (clmm, {"x_random": False}, "Invalid input: fit_intercept must be TRUE"),
    (clmm, {"y": column(np.ones(N))}, "the category 1 alone; two are needed"),
    (clmm, {"x": column(np.ones(N))}, "columns of x depend on each other: 0"),
    (clmm, {"method": "vb"}, "method 'vb' is not one of 'laplace'"),
    (glmm_zinb, {"x_zero": column([1, 2])}, "y and x_zero must have the same number"),
    (glmm_zinb, {"x_zero": column(np.ones(N))}, "or are constant: 0. Leave them out"),
    (glmm_zinb, {"y": column(-COUNT)}, "must be non-negative (count data)."),
    (mmrm, {}, "Invalid input: visits is missing."),
    (mmrm, {"visits": 0.1}, "Invalid input: visits is missing."),
    (mmrm, {"visits": [[1, 2]] * N}, "visits must be a column vector"),
    (mmrm, {"visits": column(np.ones(N))}, "rows share a subject and a visit"),
    (
        mmrm,
        {"visits": column(VISIT), "covariance": "print(1) + us"},
        "covariance 'print(1) + us' is not one of us, toep",
    ),
    (mmrm, {"visits": column(VISIT), "method": "ml"}, "not one of 'satterthwaite'"),
]


@pytest.mark.parametrize(("function", "change", "text"), TEXTS)
def test_what_is_wrong_is_a_text(function, change, text):
    good = {"y": column(COUNT), "x": column(DOSE), "groups": column(GROUP)}
    assert text in function(**{**good, **change})


def test_arguments_are_a_functions_own():
    with pytest.raises(TypeError, match="clmm\\(\\) has no argument 'x_zero'"):
        clmm([[1]], [[1]], [[1]], x_zero=[[1]])
    assert call("CLMM", {"x_zero": 1}) == "Invalid input: there is no argument x_zero."
    assert call("LMM", [None] * 10) == "Invalid input: at most 9 arguments."
    flat = columns("MMRM", [[1.5], [2], ["a"], ["week 1"]])
    assert flat == [[[1.5]], [[2]], [["a"]], [["week 1"]]]
    assert columns("GLMM_ZINB", {"x_zero": [1, 2]}) == {"x_zero": [[1], [2]]}
