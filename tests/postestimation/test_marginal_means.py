"""Marginal means, contrasts, slopes and joint tests, beside emmeans' own numbers.

Those are compared in ``tests/agreement/test_reference_emmeans.py``.
"""

import numpy as np
import pandas as pd
import pytest
from doors import simultaneous
from emmeans_cases import SICK, back, fit
from scipy import stats

import jaxglmm as jg


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


def test_limits_of_many_are_those_of_each():
    df = np.array([2.1, 7.0, 36.5, 400.0, np.inf])
    for level in (0.5, 0.9, 0.95, 0.9999):
        single = stats.t.ppf((1 + level) / 2, df)
        for k in (3, 12):
            found = simultaneous.critical_each(
                lambda c, k=k: simultaneous.tukey(c, k, df), level, single
            )
            reached = simultaneous.tukey(found, k, df)
            np.testing.assert_allclose(reached, 1 - level, rtol=1e-8)
            one = simultaneous.critical(
                lambda c, k=k: simultaneous.tukey(np.array([c]), k, df[1:2])[0],
                level,
                single[1],
            )
            np.testing.assert_allclose(found[1], one, rtol=1e-8)


def test_a_model_without_fixed_effects_has_no_joint_tests():
    data = jg.datasets.load("sleepstudy")
    f = jg.lmm("Reaction ~ 0 + (1 | Subject)", data)
    assert len(f.joint_tests()) == 0


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
        (lambda f: f.means("Worker"), "there are Machine"),
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
