"""Abilities and difficulties of a crossed Rasch model, and their map."""

import numpy as np
import pandas as pd
import pytest
from scipy import special

import jaxglmm as jg
from jaxglmm import NotApplicableError


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(3)
    person, item = (x.ravel() for x in np.indices((60, 8)))
    theta, delta = rng.normal(size=60), np.linspace(-2, 2, 8)
    p = special.expit(theta[person] - delta[item])
    return pd.DataFrame(
        {
            "right": (rng.uniform(size=480) < p).astype(int),
            "person": [f"p{k:02d}" for k in person],
            "item": [f"i{k}" for k in item],
            "old": np.where(person % 2, 1.0, 0.0),
            "long": np.where(item % 2, 1.0, 0.0),
            "trial": rng.normal(size=480),
        }
    )


@pytest.fixture(scope="module")
def rasch(answers):
    formula = "right ~ 1 + (1 | person) + (1 | item)"
    return jg.glmm(formula, answers, family="binomial")


def test_half_are_right_where_they_are_equal(answers, rasch):
    found = rasch.persons_items()
    assert (found.person_factor, found.item_factor) == ("person", "item")
    theta = found.persons.loc[answers["person"], "ability"].to_numpy()
    delta = found.items.loc[answers["item"], "difficulty"].to_numpy()
    np.testing.assert_allclose(special.expit(theta - delta), rasch.fitted_values)
    assert found.items["difficulty"].is_monotonic_increasing
    assert found.items["n"].tolist() == [60] * 8
    np.testing.assert_allclose(
        found.items["mean"], answers.groupby("item")["right"].mean()
    )
    sd = np.sqrt(rasch.ranef_cov["person"][:, 0, 0])
    np.testing.assert_allclose(found.persons["std_error"], sd)
    spread = found.persons["ability"].var()
    assert found.reliability == pytest.approx(spread / (spread + np.mean(sd**2)))


def test_mean_squares_find_the_item_that_others_do_not_explain(answers):
    guessed = answers.copy()
    rng = np.random.default_rng(5)
    rows = guessed["item"] == "i1"
    guessed.loc[rows, "right"] = rng.integers(0, 2, 60)
    fit = jg.glmm("right ~ 1 + (1 | person) + (1 | item)", guessed, family="binomial")
    items = fit.persons_items().items
    assert items["infit"].idxmax() == items["outfit"].idxmax() == "i1"
    y, p = fit.design.y[rows], fit.fitted_values[rows]
    z2 = (y - p) ** 2 / (p * (1 - p))
    assert items.loc["i1", "outfit"] == pytest.approx(z2.mean())
    infit = np.sum((y - p) ** 2) / np.sum(p * (1 - p))
    assert items.loc["i1", "infit"] == pytest.approx(infit)


def test_fixed_effects_go_to_whom_they_describe(answers):
    formula = "right ~ old + long + trial + (1 | person) + (1 | item)"
    fit = jg.glmm(formula, answers, family="binomial")
    found = fit.persons_items("person")
    theta = found.persons.loc[answers["person"], "ability"].to_numpy()
    delta = found.items.loc[answers["item"], "difficulty"].to_numpy()
    trial = fit.fixef["trial"] * (answers["trial"] - answers["trial"].mean())
    np.testing.assert_allclose(theta - delta + trial, fit.linear_predictor, atol=1e-10)
    modes = fit.ranef["person"]["(Intercept)"]
    apart = found.persons["ability"] - modes
    assert np.ptp(apart) == pytest.approx(abs(fit.fixef["old"]))
    assert apart.mean() == pytest.approx(0, abs=1e-12)


def test_counts_of_answers_are_their_rows(answers):
    rng = np.random.default_rng(8)
    again = answers.assign(
        right=np.where(rng.uniform(size=480) < 0.3, 1, answers["right"])
    )
    both = pd.concat([answers, again])
    long = jg.glmm("right ~ 1 + (1 | person) + (1 | item)", both, family="binomial")
    counts = answers.assign(right=answers["right"] + again["right"], all=2)
    formula = "cbind(right, all - right) ~ 1 + (1 | person) + (1 | item)"
    short, long = jg.glmm(formula, counts).persons_items(), long.persons_items()
    assert short.items["n"].tolist() == [120] * 8
    assert long.items["n"].tolist() == [120] * 8
    for name in ("difficulty", "std_error", "mean"):
        np.testing.assert_allclose(short.items[name], long.items[name], rtol=1e-4)


def test_the_map(rasch):
    above, below = rasch.plot.wright_map()
    names = [t.get_text() for t in below.get_yticklabels()]
    assert (
        names == rasch.persons_items().items["difficulty"].sort_values().index.tolist()
    )
    assert sum(bar.get_height() for bar in above.patches) == 60
    assert above.get_xlim() == below.get_xlim()
    rasch.plot.wright_map(rasch.persons_items(), max_labels=3, axes=[above, below])
    assert below.get_ylabel() == "items, by difficulty"


def test_curves_of_items(rasch):
    found = rasch.persons_items()
    ax = rasch.plot.item_curves(most=3)
    curves = [line for line in ax.lines if len(line.get_xdata()) > 100]
    assert len(curves) == 3
    order = found.items["difficulty"].sort_values()
    hardest = curves[-1]
    at = np.interp(0.5, hardest.get_ydata(), hardest.get_xdata())
    assert at == pytest.approx(order.iloc[-1], abs=1e-3)
    one = rasch.plot.item_curves(order.index[2], found)
    assert [t.get_text() for t in one.get_legend().get_texts()] == [order.index[2]]
    with pytest.raises(NotApplicableError, match="none of the 8 items"):
        rasch.plot.item_curves(["nope"])


def test_what_is_no_rasch_model(answers, rasch):
    with pytest.raises(NotApplicableError, match="two grouping factors"):
        jg.glmm("right ~ 1 + (1 | person)", answers, family="binomial").persons_items()
    with pytest.raises(NotApplicableError, match="persons='old'"):
        rasch.persons_items("old")
    with pytest.raises(NotApplicableError, match="two grouping factors"):
        rasch.persons_items("item", "item")
    ticks = jg.datasets.load("grouseticks")
    fit = jg.glmm("TICKS ~ 1 + (1 | BROOD)", ticks, family="poisson")
    with pytest.raises(NotApplicableError, match="right and wrong"):
        fit.persons_items()
    sleep = jg.lmm("Reaction ~ Days + (1 | Subject)", jg.datasets.load("sleepstudy"))
    with pytest.raises(NotApplicableError, match="Wright map"):
        sleep.plot.wright_map()
