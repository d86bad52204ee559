"""Marginal means, contrasts, slopes and joint tests: those of R's emmeans 1.8.4.

``tests/reference/emmeans.json`` has its answers, Kenward and Roger's degrees of freedom
where nothing else is said, 633 of the zero-inflated model (rows minus parameters).
"""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from doors import simultaneous
from scipy import stats

import jaxglmm as jg

HERE = Path(__file__).parents[1]
ANSWERS = json.loads((HERE / "reference" / "emmeans.json").read_text())
KR = {"ddf": "kenward-roger"}
SATT = {"ddf": "satterthwaite"}
CUSTOM = {"C vs A, B": [-0.5, -0.5, 1], "B - A": [-1, 1, 0]}
SICK = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@functools.cache
def fit(case):
    load = jg.datasets.load
    if case == "cbpp":
        return jg.glmm(SICK, load("cbpp"))
    if case == "machines":
        return jg.lmm("score ~ Machine + (1 | Worker/Machine)", load("Machines"))
    if case == "dietox":
        return jg.lmm("Weight ~ Evit * Cu + Time + (1 | Pig)", load("dietox"))
    if case == "orthodont":
        return jg.lmm("distance ~ age * Sex + (age | Subject)", load("Orthodont"))
    if case == "nested":
        data = pd.read_csv(HERE / "data" / "sim_nested.csv.gz")
        with pytest.warns(jg.RankDeficientWarning, match="14 columns"):
            return jg.lmm("y ~ class/variety + x + (1 | block)", data)
    return jg.glmm(
        "count ~ spp + mined + (1 | site)",
        load("Salamanders"),
        family="poisson",
        zi="~ mined",
    )


def back(means):
    return means.showing(type="response")


QUESTIONS = {
    "cbpp": {
        "link": lambda f: f.means("period"),
        "response": lambda f: f.means("period", type="response"),
        "pairs_response": lambda f: back(f.means("period")).pairs(),
        "pairs_regrid": lambda f: f.means("period").regrid().pairs(),
        "ctrl": lambda f: back(f.means("period")).contrast("trt.vs.ctrl"),
        "ctrl_last": lambda f: f.means("period").contrast("trt.vs.ctrlk"),
        "consec": lambda f: f.means("period").contrast("consec"),
        "poly": lambda f: f.means("period").contrast("poly"),
        "eff": lambda f: f.means("period").contrast("eff"),
        "pairs_holm": lambda f: f.means("period").pairs("holm"),
        "pairs_sidak": lambda f: f.means("period").pairs("sidak"),
        "joint": lambda f: f.joint_tests(),
    },
    "machines": {
        "means_kr": lambda f: f.means("Machine", **KR),
        "means_satt": lambda f: f.means("~ Machine"),
        "pairs_tukey": lambda f: f.means("Machine", **KR).pairs(),
        "del_eff": lambda f: f.means("Machine", **KR).contrast("del.eff"),
        "custom": lambda f: f.means("Machine", **KR).contrast(CUSTOM),
        "joint": lambda f: f.joint_tests(**KR),
    },
    "dietox": {
        "evit_equal": lambda f: f.means("Evit"),
        "evit_proportional": lambda f: f.means("Evit", weights="proportional"),
        "evit_cells": lambda f: f.means("Evit", weights="cells"),
        "by": lambda f: f.means("Evit", by="Cu").pairs(),
        "by_flat": lambda f: f.means("~ Evit | Cu").contrast("trt.vs.ctrl1"),
        "interaction": lambda f: f.means("Evit * Cu").contrast(
            interaction=["consec", "poly"]
        ),
        "joint_by": lambda f: f.joint_tests(by="Cu"),
    },
    "nested": {
        "class": lambda f: f.means("class", **KR),
        "variety": lambda f: f.means("variety", **KR),
        "variety_at": lambda f: f.means("variety", at={"x": 4}, **KR),
        "class_pairs": lambda f: f.means("class", **KR).pairs(),
        "variety_pairs": lambda f: f.means("variety", **KR).pairs(),
        "joint": lambda f: f.joint_tests(**KR),
    },
    "orthodont": {
        "sex_at_mean": lambda f: f.means("Sex", **KR),
        "sex_by_age_pairs": lambda f: f.means(
            "Sex", "age", at={"age": [8, 11, 14]}, **KR
        ).pairs(),
        "trends": lambda f: f.trends("age", "Sex", **KR),
        "trends_pairs": lambda f: f.trends("age", "Sex", **KR).pairs(),
        "interaction": lambda f: f.means(
            ["Sex", "age"], at={"age": [8, 14]}, **KR
        ).contrast(interaction=True),
        "joint": lambda f: f.joint_tests(**KR),
        "joint_by": lambda f: f.joint_tests(by="age", at={"age": [8, 14]}, **KR),
    },
    "salamanders_zi": {
        "cond": lambda f: f.means("mined", type="response", df=633),
        "zi": lambda f: f.means("mined", component="zi", df=633),
        "zi_response": lambda f: f.means(
            "mined", component="zi", type="response", df=633
        ),
        "zi_pairs": lambda f: f.means("mined", component="zi", df=633).pairs(),
    },
}


@pytest.mark.parametrize(
    ("case", "question"), [(c, q) for c, some in QUESTIONS.items() for q in some]
)
def test_answers_are_those_of_emmeans(case, question):
    found = QUESTIONS[case][question](fit(case))
    table = found if isinstance(found, pd.DataFrame) else found.table
    answer = ANSWERS[case][question]
    if "contrast" in answer:
        assert table["contrast"].tolist() == answer["contrast"]
    if "statistic" in answer:  # F to three decimals
        np.testing.assert_allclose(table["statistic"], answer["statistic"], atol=6e-4)
    else:
        np.testing.assert_allclose(table["estimate"], answer["estimate"], rtol=1e-6)
        error = np.array(answer["std_error"])
        np.testing.assert_allclose(table["std_error"], error, rtol=1e-5)
        near = 3e-3 if question == "consec" else 1e-4  # R integrates by sampling
        for end in ("conf_low", "conf_high"):
            np.testing.assert_allclose(
                (table[end] - answer[end]) / error, 0.0, atol=near
            )
    p = np.array(answer["p_value"])
    near = 3e-3 if question == "consec" else 1e-6
    np.testing.assert_allclose(table["p_value"], p, atol=near)
    precise = (p > 1e-6) & (question != "consec")
    np.testing.assert_allclose(table["p_value"][precise], p[precise], rtol=6e-4)


def test_ranges_and_largest_statistics_have_their_distributions():
    t = np.array([0.3, 1.5, 3.2, 5.0])
    for k, df in ((2, 1.0), (3, 5.0), (7, 22.3), (12, np.inf)):
        found = simultaneous.tukey(t, k, np.full(4, df))
        exact = stats.studentized_range.sf(np.sqrt(2) * t, k, df)
        np.testing.assert_allclose(found, exact, atol=1e-7)
    # all pairs of equally precise means: Tukey's, from correlations of rank two
    pairs = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1]]) / np.sqrt(2)
    for df in (np.inf, 8.0):
        found = simultaneous.multivariate_t(t, pairs @ pairs.T, df)
        exact = simultaneous.tukey(t, 3, np.full(4, df))
        np.testing.assert_allclose(found, exact, rtol=6e-3)
    # far out every event is alone, and the sum of the probabilities is right
    far = simultaneous.multivariate_t(np.array([9.0]), np.eye(3), np.inf)
    np.testing.assert_allclose(far, 6 * stats.norm.sf(9.0), rtol=1e-9)


def test_scheffe_is_the_f_test_of_the_largest_contrast():
    means = fit("machines").means("Machine")
    joint = means.pairs().test()
    table = means.pairs("scheffe").table
    r, df = int(joint["num_df"][0]), float(joint["den_df"][0])
    p = stats.f.sf(table["statistic"] ** 2 / r, r, df)
    np.testing.assert_allclose(table["p_value"], p, rtol=1e-7)
    np.testing.assert_allclose(
        (table["conf_high"] - table["estimate"]) / table["std_error"],
        np.sqrt(r * stats.f.ppf(0.95, r, df)),
        rtol=1e-7,
    )


def test_letters_are_shared_by_what_does_not_differ():
    means = fit("dietox").means("Evit", by="Cu")
    assert set(means.letters()["letters"]) == {"a"}
    table = fit("machines").means("Machine").letters()
    assert table["letters"].tolist() == ["a", "b", "b"]
    from doors import letters_of

    # 1 < 2 < 3, only the ends differ
    assert letters_of(np.array([2.0, 1.0, 3.0]), np.array([False, False, True])) == [
        "ab",
        "a",
        "b",
    ]


def test_effects_are_in_units_of_the_residual_deviation():
    f = fit("machines")
    found = f.means("Machine").effect_sizes(edf=36)
    table = f.means("Machine").pairs().table
    d = table["estimate"] / f.sigma
    np.testing.assert_allclose(found["effect_size"], d)
    error = np.sqrt((table["std_error"] / f.sigma) ** 2 + d**2 / 72)
    np.testing.assert_allclose(found["std_error"], error)


def test_a_grid_keeps_both_of_two_numbers_and_weighs_cells_as_asked():
    rng = np.random.default_rng(5)
    data = pd.DataFrame(
        {
            "g": np.repeat(np.arange(10), 6).astype(str),
            "f": np.tile(list("aabbbc"), 10),
            "two": np.repeat([0.0, 1.0, 1.0, 1.0, 0.0], 12),
            "y": rng.normal(size=60) + np.repeat(rng.normal(size=10), 6),
        }
    )
    f = jg.lmm("y ~ f * two + (1 | g)", data)
    beta = f.fixef
    low, high = beta["(Intercept)"], beta["(Intercept)"] + beta["two"]
    for weights, share in (
        ("equal", 0.5),
        ("proportional", 0.6),
        ("flat", 0.5),
        ([1, 3], 0.75),
    ):
        found = f.means("f", weights=weights, at={"f": ["a"]}).table["estimate"]
        np.testing.assert_allclose(found, [(1 - share) * low + share * high])
    assert f.means("f", by="two").table.shape[0] == 6
    assert "with which there are interactions" in repr(f.means("f"))


def test_means_of_a_posterior_are_of_its_draws():
    posterior = jg.glmm(SICK, jg.datasets.load("cbpp"), method=jg.MAP(draws=400))
    means = posterior.means("period")
    pairs = back(means).pairs().table
    beta = posterior.posterior.draws.beta
    odds = np.exp(-beta[:, 1])
    np.testing.assert_allclose(pairs["estimate"][0], odds.mean())
    np.testing.assert_allclose(pairs["conf_low"][0], np.quantile(odds, 0.025))
    probability = 1 / (1 + np.exp(-beta[:, 0]))
    regrid = means.regrid().table
    np.testing.assert_allclose(regrid["estimate"][0], probability.mean())
    with pytest.raises(jg.NotApplicableError, match="posterior has none"):
        means.letters()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda f: f.means("Worker"), "the grid is of Machine"),
        (lambda f: f.means("Machine", at={"Machine": ["Z"]}), "no level 'Z'"),
        (lambda f: f.means("Machine", at={"Worker": "1"}), "no such variable"),
        (lambda f: f.means("Machine").contrast("foo"), "'pairwise'"),
        (lambda f: f.means("Machine").contrast([1, 2]), "3 weights"),
        (lambda f: f.means("Machine").pairs("foo"), "'tukey'"),
        (lambda f: f.means("Machine", weights=[1]), "nothing is averaged"),
        (lambda f: f.trends("Machine"), "is a factor"),
        (lambda f: f.means("Machine", component="zi"), "has cond"),
        (lambda f: f.means("Machine", df=-1), "positive"),
        (lambda f: f.means("Machine").contrast(adjust="tukey").table, "use pairs"),
        (lambda f: f.means("Machine").pairs(by="Machine"), "nothing to compare"),
        (lambda f: f.means("Machine").contrast(interaction=["eff"] * 2), "2 methods"),
        (lambda f: f.means("Machine").letters(alpha=2), "between 0 and 1"),
        (lambda f: f.means("Machine", ddf="foo"), "satterthwaite"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(ask, words):
    with pytest.raises(jg.JaxGLMMError, match=words):
        ask(fit("machines"))
