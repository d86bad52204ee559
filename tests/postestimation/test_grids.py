"""The reference grid: what is a factor is decided by the design, as emmeans does."""

import numpy as np
import pandas as pd
import pytest
from doors import grids

import jaxglmm as jg


@pytest.fixture(scope="module")
def days():
    data = jg.datasets.load("sleepstudy")
    number = data.Days.to_numpy()
    late = number >= 5
    return data.assign(
        part=number % 3,
        odd=number // 3 % 2,
        late=late,
        half=np.where(late, "late", "early"),
    )


# lme4 1.1.31, lmerTest 3.1.3, emmeans 1.8.4: emmeans(m, "half") and pairs() of it
EMMEANS = {
    "Reaction ~ C(part)*half + (1|Subject)": (
        (270.5855, 324.2798),
        (9.477512, 9.477512),
        (-53.6943, 5.367201),
    ),
    "Reaction ~ factor(part)*half + factor(odd) + (1|Subject)": (
        (273.1295, 326.8238),
        (9.506494, 9.506494),
        (-53.6943, 5.259652),
    ),
    "Reaction ~ part*half + factor(part) + (1|Subject)": (
        (271.2629, 325.6346),
        (9.469337, 9.435476),
        (-54.37173, 5.367137),
    ),
}


@pytest.mark.parametrize("formula", EMMEANS)
@pytest.mark.filterwarnings("ignore::jaxglmm.RankDeficientWarning")
def test_means_and_their_contrasts_are_those_of_emmeans(days, formula):
    fit = jg.lmm(formula, days)
    means, errors, (change, error) = EMMEANS[formula]
    table = fit.predictions(by="half", grid="equal")
    assert table["half"].tolist() == ["early", "late"]
    np.testing.assert_allclose(table["estimate"], means, rtol=1e-6)
    np.testing.assert_allclose(table["std_error"], errors, rtol=2e-5)
    row = fit.contrasts("half").iloc[0]
    np.testing.assert_allclose([row.estimate, row.std_error], [change, error], 1e-5)
    assert row.estimate == pytest.approx(-np.diff(table["estimate"])[0], rel=1e-9)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("C(part)", "word"),
        ("factor(part)", "word"),
        ("C(part, Sum)", "C(word, Sum)"),
        ("C(odd)", "C(odd_word)"),
        ("C(2 * part)", "word"),
        ("C(Days)", "day_word"),
        ("I(Days > 4)", "late"),
        ("C(part) + C(odd)", "word + odd_word"),
        ("C(part):C(odd)", "word:odd_word"),
    ],
)
def test_a_number_made_a_factor_is_one(days, number, text):
    data = days.assign(
        word=days.part.astype(str),
        odd_word=days.odd.astype(str),
        day_word=days.Days.astype(str),
        group=np.tile(list("abc"), 60),
    )
    one = jg.lmm(f"Reaction ~ ({number}) * group + (1|Subject)", data)
    two = jg.lmm(f"Reaction ~ ({text}) * group + (1|Subject)", data)
    pairs = [f.contrasts("group").drop(columns="contrast") for f in (one, two)]
    np.testing.assert_allclose(pairs[0], pairs[1], rtol=1e-6)


def test_generalised_models_and_groups_with_numbers_as_names():
    data = jg.datasets.load("cbpp")
    data = data.assign(
        p=data.period.astype(int), big=np.where(data["size"] > 14, "big", "small")
    )
    left = "cbind(incidence, size - incidence)"
    fit = jg.glmm(f"{left} ~ C(p)*big + (1|herd)", data)
    # glmmTMB 1.1.5, emmeans 1.8.4: pairs(emmeans(m, "big")), then regrid(ref_grid(m))
    row = fit.contrasts("big", type="link").iloc[0]
    np.testing.assert_allclose(
        [row.estimate, row.std_error], [0.011993, 0.479451], 1e-3
    )
    means = fit.predictions(by="big", grid="equal")
    np.testing.assert_allclose(means["estimate"], [0.09899102, 0.10220447], rtol=1e-4)
    np.testing.assert_allclose(means["std_error"], [0.01921528, 0.0316885], rtol=1e-4)
    again = jg.glmm(f"{left} ~ period*big + (1|herd)", data).contrasts("big")
    pd.testing.assert_frame_equal(fit.contrasts("big"), again, rtol=1e-6)


def test_a_saved_fit_has_the_same_grid(days, tmp_path):
    fit = jg.lmm("Reaction ~ C(part)*half + (1|Subject)", days)
    fit.save(tmp_path / "a.fit")
    loaded = jg.load(tmp_path / "a.fit")
    pd.testing.assert_frame_equal(fit.contrasts("half"), loaded.contrasts("half"))


def test_the_grid_itself(days):
    fit = jg.lmm("Reaction ~ C(part)*half + Days + (1|Subject)", days)
    table = fit.predictions(grid="equal")
    assert table[["part", "half"]].drop_duplicates().shape == (6, 2)
    assert (table["Days"] == 4.5).all()
    with pytest.raises(jg.NotApplicableError, match="leave newdata out"):
        fit.predictions(days.iloc[:3], grid="equal")
    with pytest.raises(jg.NotApplicableError, match="not one of"):
        fit.predictions(grid="even")


def test_one_value_stands_for_each_level_made(days):
    fit = jg.lmm("Reaction ~ I(Days > 4) + C(part) + (1|Subject)", days)
    base = grids.reference_grid(fit, days[["Days", "part"]])
    assert sorted(base["Days"].unique()) == [2, 7]
    assert sorted(base["part"].unique()) == [0, 1, 2]
