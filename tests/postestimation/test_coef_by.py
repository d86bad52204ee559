"""Coefficients of every level: fixed and random effects together, as lme4's coef."""

import numpy as np
import pytest
import twin

import jaxglmm as jg

# lme4 1.1.31: head(coef(lmer(...))$Subject), coef(...)$plate, coef(...)$sample
SLEEP = {"308": (253.663656, 19.66626173), "310": (212.444696, 5.01842949)}


def test_levels_of_one_factor(sleep):
    table = sleep.coef_by("Subject")
    assert table.columns.tolist() == ["(Intercept)", "Days"]
    assert table.index.name == "Subject"
    for level, row in SLEEP.items():
        np.testing.assert_allclose(table.loc[level], row, rtol=1e-5)  # its optimiser
    assert table.equals(sleep.coef_by())
    assert isinstance(sleep.coef, np.ndarray)


def test_crossed_factors(penicillin):
    plate, sample = penicillin.coef_by("plate"), penicillin.coef_by("sample")
    np.testing.assert_allclose(plate.loc["a"], 23.7767691, rtol=1e-6)
    found = sample.loc[["A", "B"], "(Intercept)"]
    np.testing.assert_allclose(found, [25.1592806, 21.9617459], rtol=1e-6)
    for factor in (None, "day"):
        with pytest.raises(jg.NotApplicableError, match="'plate', 'sample'"):
            penicillin.coef_by(factor)


def test_slopes_without_a_fixed_effect_and_fixed_effects_that_do_not_vary(sleepstudy):
    data = sleepstudy.assign(half=np.where(sleepstudy.Days < 5, "early", "late"))
    lam = np.array([[0.9, 0], [0.1, 0.2]])
    one = twin.make("Reaction ~ half + (Days | Subject)", data, [lam])
    table = one.coef_by()
    assert table.columns.tolist() == ["(Intercept)", "half[T.late]", "Days"]
    assert (table["half[T.late]"] == one.fixef["half[T.late]"]).all()
    assert table["Days"].equals(one.ranef["Subject"]["Days"])


def test_generalised_and_bayesian_fits():
    cbpp = jg.datasets.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    for method in ({}, {"method": "map"}):
        fit = jg.glmm(formula, cbpp, **method)
        expected = fit.ranef["herd"]["(Intercept)"] + fit.fixef["(Intercept)"]
        np.testing.assert_allclose(fit.coef_by("herd")["(Intercept)"], expected)
    with pytest.raises(jg.NotApplicableError, match="no random effects"):
        jg.glmm("cbind(incidence, size - incidence) ~ period", cbpp).coef_by()
