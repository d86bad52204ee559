import numpy as np
import pandas as pd
import pytest
import twin

from jaxglmm import NotApplicableError

FIXED = [
    "effect",
    "group",
    "term",
    "estimate",
    "std_error",
    "statistic",
    "df",
    "p_value",
]


def test_fixed_effects(sleep):
    table = sleep.tidy()
    assert table.columns.tolist() == FIXED
    assert table["term"].tolist() == ["(Intercept)", "Days"]
    assert (table["effect"] == "fixed").all()
    np.testing.assert_array_equal(table["statistic"], sleep.t_values)


def test_random_parameters_have_broom_mixeds_names(sleep):
    table = sleep.tidy("ran_pars")
    assert table["term"].tolist() == [
        "sd_(Intercept)|Subject",
        "sd_Days|Subject",
        "cor_Days.(Intercept)|Subject",
        "sigma",
    ]
    assert table["group"].tolist() == ["Subject"] * 3 + ["Residual"]
    assert table["estimate"].iloc[-1] == sleep.sigma


def test_wald_limits(sleep):
    table = sleep.tidy(["fixed", "ran_pars"], conf_int=True, conf_level=0.9)
    assert table.columns.tolist() == [*FIXED, "conf_low", "conf_high"]
    limits = sleep.confint(0.9)
    np.testing.assert_array_equal(table["conf_low"][:2], limits["lower"])
    assert table["conf_high"][2:].isna().all()


def test_random_values(sleep):
    sleep.__dict__["ranef_cov"] = {"Subject": np.tile(np.diag([4.0, 1.0]), (18, 1, 1))}
    try:
        table = sleep.tidy("ran_vals", conf_int=True)
    finally:
        del sleep.__dict__["ranef_cov"]
    assert len(table) == 36
    first = table.iloc[0]
    assert (first["level"], first["term"], first["std_error"]) == (
        "308",
        "(Intercept)",
        2,
    )
    assert first["conf_high"] - first["estimate"] == pytest.approx(2 * 1.959964)
    assert table["estimate"].iloc[1] == sleep.ranef["Subject"].loc["308", "Days"]


def test_unknown_effects(sleep):
    with pytest.raises(NotApplicableError, match="'ran_pars'"):
        sleep.tidy("random")


def test_glance_is_one_row(sleep):
    row = sleep.glance()
    assert len(row) == 1
    assert row.loc[0, "aic"] == sleep.aic
    assert row.loc[0, "method"] == "REML"


def test_augment_keeps_the_data_and_its_labels(sleepstudy):
    data = sleepstudy.assign(fixed=np.arange(180) % 7)
    data.index = [f"r{i}" for i in range(180)]
    data.loc["r3", "Reaction"] = np.nan
    with pytest.warns(UserWarning, match="missing"):
        fit = twin.make("Reaction ~ Days + fixed + (1 | Subject)", data, [0.9])
    out = fit.augment()
    assert len(out) == 179
    assert "r3" not in out.index
    assert out.loc["r4", "Reaction"] == data.loc["r4", "Reaction"]
    assert isinstance(out["Subject"].dtype, pd.CategoricalDtype)
    np.testing.assert_allclose(out["fitted"] + out["resid"], out["Reaction"])
    assert (out["fixed"] == data.loc[out.index, "fixed"]).all()
    np.testing.assert_array_equal(out["fixed_"], fit.fixed_part)


def test_augment_names_a_transformed_response(sleepstudy):
    fit = twin.make(
        "np.log(Reaction) ~ Days + (1 | Subject)", sleepstudy, [0.9], context={"np": np}
    )
    out = fit.augment()
    np.testing.assert_allclose(out[fit.design.response], np.log(sleepstudy["Reaction"]))
