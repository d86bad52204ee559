"""Meta-analysis against metafor's answers and dense likelihoods."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import DataError, ModelError

# 13 trials of BCG against tuberculosis (Colditz et al. 1994): log relative risks
COUNTS = np.array(
    [
        *([4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209]),
        *([62, 13536, 248, 12619], [33, 5036, 47, 5761], [180, 1361, 372, 1079]),
        *([8, 2537, 10, 619], [505, 87886, 499, 87892], [29, 7470, 45, 7232]),
        *([17, 1699, 65, 1600], [186, 50448, 141, 27197], [5, 2493, 3, 2338]),
        [27, 16886, 29, 17825],
    ]
)
BCG = pd.DataFrame(COUNTS, columns=["tpos", "tneg", "cpos", "cneg"])
BCG["ablat"] = [44, 55, 42, 52, 13, 44, 19, 13, 27, 42, 18, 33, 33]
BCG["trial"] = range(1, 14)
BCG["yi"] = np.log(BCG.tpos / (BCG.tpos + BCG.tneg)) - np.log(
    BCG.cpos / (BCG.cpos + BCG.cneg)
)
BCG["vi"] = (
    1 / BCG.tpos - 1 / (BCG.tpos + BCG.tneg) + 1 / BCG.cpos - 1 / (BCG.cpos + BCG.cneg)
)


@pytest.mark.parametrize(
    ("method", "tau2", "se_tau2", "log_likelihood"),
    [
        ("REML", 0.313243258136486, 0.166425752836973, -12.2023714154936),
        ("DL", 0.308760262862377, 0.229869992511026, -12.6823357814279),
    ],
)
def test_metafors_answers(method, tau2, se_tau2, log_likelihood):
    fit = jg.meta("yi ~ 1", BCG, "vi", method=method)
    assert fit.tau2 == pytest.approx(tau2, rel=1e-8)
    assert fit.se_tau2 == pytest.approx(se_tau2, rel=1e-8)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=1e-9)
    assert pytest.approx(152.233008082373, rel=1e-9) == fit.Q


def test_knapp_and_hartung():
    fit = jg.meta("yi ~ 1 + (1 | trial)", BCG, "vi", test="knha")
    (row,) = fit.table.itertuples()
    assert row.std_error == pytest.approx(0.180791744092848, rel=1e-8)
    assert row.conf_low == pytest.approx(-1.10844371368555, rel=1e-8)
    assert row.p_value == pytest.approx(0.00192001509605729, rel=1e-7)
    assert pytest.approx((92.2213845212691, 12.8557582353093)) == (fit.I2, fit.H2)
    assert fit.predict().pred_upper[0] == pytest.approx(0.566952149879932, rel=1e-7)
    assert fit.blup()[0] == pytest.approx(-0.80023356197035, rel=1e-7)
    assert fit.bic == pytest.approx(29.3745561305631, rel=1e-8)
    assert "13 studies" in repr(fit)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_the_dense_likelihood(method):
    from scipy.optimize import minimize_scalar

    fit = jg.meta("yi ~ ablat", BCG, "vi", method=method)
    X, y, v = np.column_stack([np.ones(13), BCG.ablat]), BCG.yi, BCG.vi

    def criterion(tau2):
        W = np.diag(1 / (v + tau2))
        beta = np.linalg.solve(X.T @ W @ X, X.T @ W @ y)
        r = y - X @ beta
        out = np.sum(np.log(v + tau2)) + r @ W @ r
        if method == "REML":
            out += np.linalg.slogdet(X.T @ W @ X)[1] - np.linalg.slogdet(X.T @ X)[1]
            return out + 11 * np.log(2 * np.pi)
        return out + 13 * np.log(2 * np.pi)

    best = minimize_scalar(criterion, bounds=(0, 2), options={"xatol": 1e-12})
    assert -2 * fit.log_likelihood == pytest.approx(best.fun, abs=1e-9)
    assert fit.tau2 == pytest.approx(best.x, rel=1e-5)
    test = fit.moderators()
    assert test["QM"] == pytest.approx(fit.table.statistic["ablat"] ** 2)
    row = fit.predict([[1.0, 30.0]])
    assert row.fit[0] == pytest.approx(fit.coefficients @ [1.0, 30.0])


def test_moments():
    """Paule and Mandel's Q is its expectation; equal effects are weighted means."""
    fit = jg.meta("yi ~ 1", BCG, "vi", method="PM")
    w = 1 / (BCG.vi + fit.tau2)
    mean = np.sum(w * BCG.yi) / np.sum(w)
    assert np.sum(w * (BCG.yi - mean) ** 2) == pytest.approx(12, abs=1e-9)
    equal = jg.meta("yi ~ 1", BCG, "vi", method="EE")
    w = 1 / BCG.vi
    assert equal.coefficients.iloc[0] == pytest.approx(np.sum(w * BCG.yi) / w.sum())
    assert equal.tau2 == 0
    for method in ("HE", "SJ"):
        assert jg.meta("yi ~ 1", BCG, "vi", method=method).tau2 > 0


def test_no_heterogeneity():
    same = pd.DataFrame({"y": [0.1, 0.1, 0.11, 0.09], "v": [0.2, 0.1, 0.3, 0.2]})
    for method in ("REML", "ML", "DL", "HE", "PM"):
        assert jg.meta("y ~ 1", same, "v", method=method).tau2 == 0


def test_what_is_refused():
    for options, error, message in [
        ({"variance": None}, ModelError, "variance= is missing"),
        ({"method": "EB"}, ModelError, "is not one of REML"),
        ({"test": "x"}, ModelError, "is not one of z"),
        ({"variance": BCG.vi * (BCG.trial != 2)}, DataError, "are not positive"),
        ({"formula": "yi ~ 1 + (1 | ablat)"}, ModelError, "has 9 levels in 13 rows"),
    ]:
        given = {"formula": "yi ~ 1", "data": BCG, "variance": "vi"} | options
        with pytest.raises(error) as caught:
            jg.meta(**given)
        assert message in str(caught.value)
    with pytest.raises(ModelError, match="given moderators"):
        jg.meta("yi ~ ablat", BCG, "vi").predict()


@pytest.mark.parametrize("method", [["REML"], {}, 3, None])
def test_an_unknown_method(method):
    with pytest.raises(jg.ModelError, match="is not one of REML"):
        jg.meta(
            "y ~ 1", {"y": [0.1, 0.4, 0.2], "v": [1.0, 2.0, 1.0]}, "v", method=method
        )
