"""Methods that hand over to the engine: each reached through ``Fit``, on a real fit."""

import pickle

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def fit(sleepstudy):
    return jg.lmm(SLEEP, sleepstudy)


def test_a_test_of_one_row_is_the_t_test(fit):
    one = fit.test("Days")
    assert one.t == pytest.approx(fit.t_values[1])
    assert one.p == pytest.approx(fit.p_values[1])
    assert pytest.approx(one.t**2) == one.F


def test_right_hand_sides_move_the_hypothesis(fit):
    low, high = fit.conf_int[1]
    for edge in (low, high):
        assert fit.test("Days", rhs=edge).p == pytest.approx(0.05, abs=1e-6)
    both = fit.test(np.eye(2), rhs=fit.coefficients)
    assert pytest.approx(0.0, abs=1e-12) == both.F


def test_kenward_roger_summary(fit):
    text = fit.summary("kenward-roger")
    assert "Kenward-Roger" in text
    df = text.coefficients["df"]
    np.testing.assert_allclose(df, [17.0, 17.0], rtol=1e-4)


def test_bootstrap_and_its_intervals(fit):
    table = fit.confint(method="bootstrap", n=200, seed=3)
    assert table.index.tolist()[:2] == ["(Intercept)", "Days"]
    assert table.loc["sigma", "lower"] < fit.sigma < table.loc["sigma", "upper"]
    basic = fit.confint(method="bootstrap", n=200, seed=3, kind="basic")
    width = table["upper"] - table["lower"]
    np.testing.assert_allclose(basic["upper"] - basic["lower"], width)


def test_profile_limits_reach_the_tidy_table(fit):
    limits = fit.confint(method="profile")
    table = fit.tidy(["fixed", "ran_pars"], conf_int=True, conf_method="profile")
    assert table[["conf_low", "conf_high"]].notna().all(axis=None)
    assert len(table) == len(limits)
    assert table["conf_high"].iloc[-1] == limits.loc["sigma", "upper"]
    inside = (table["conf_low"] < table["estimate"]) & (
        table["estimate"] < table["conf_high"]
    )
    assert inside.all()


def test_refit_of_the_same_response_is_the_same_fit(fit):
    again = fit.refit(fit.design.y)
    np.testing.assert_allclose(again.coefficients, fit.coefficients, rtol=1e-6)
    assert again.criterion == pytest.approx(fit.criterion, abs=1e-6)


def test_fits_from_files_and_pickles_can_go_on(fit, tmp_path):
    fit.save(tmp_path / "fit.jg")
    for other in (jg.load(tmp_path / "fit.jg"), pickle.loads(pickle.dumps(fit))):
        np.testing.assert_allclose(other.df_satterthwaite, fit.df_satterthwaite)
        pd.testing.assert_frame_equal(other.anova(), fit.anova(), rtol=1e-9)
        np.testing.assert_allclose(
            other.refit(fit.design.y + 1).sigma, fit.sigma, rtol=1e-5
        )


def test_profile_figure_of_a_fit(fit):
    axes = fit.plot.profile(which=["sigma", "Days"])
    assert [ax.get_title(loc="left") for ax in axes] == ["sigma", "Days"]
