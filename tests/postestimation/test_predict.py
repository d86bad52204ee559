"""Predictions and their variances against Henderson's equations."""

import warnings

import numpy as np
import pandas as pd
import pytest
import twin

from jaxglmm import DataError, NewLevelsWarning, NotApplicableError

NEW = pd.DataFrame({"Days": [0.0, 5.0], "Subject": ["308", "999"]}, index=["a", "b"])


def test_conditional_population_marginal(sleep):
    b = sleep.ranef["Subject"].loc["308"].to_numpy()
    mean = sleep.coefficients @ [1.0, 0.0], sleep.coefficients @ [1.0, 5.0]
    with pytest.warns(NewLevelsWarning, match="Subject 999 in 1 rows"):
        found = sleep.predict(NEW)
    np.testing.assert_allclose(found, [mean[0] + b[0], mean[1]])
    for re in ("population", "marginal"):
        np.testing.assert_allclose(sleep.predict(NEW, re=re), mean)
    np.testing.assert_array_equal(sleep.predict(), sleep.fitted_values)
    np.testing.assert_array_equal(sleep.predict(type="link"), sleep.linear_predictor)


def test_population_needs_no_grouping_factor(sleep):
    np.testing.assert_allclose(
        sleep.predict({"Days": [0.0]}, re="population"), sleep.coefficients[:1]
    )
    with pytest.raises(DataError, match="Subject"):
        sleep.predict({"Days": [0.0]})


def test_unseen_levels_can_be_refused(sleep):
    with pytest.raises(DataError, match="999"):
        sleep.predict(NEW, new_levels="error")


def test_standard_errors_and_intervals_of_the_population(sleep):
    table = sleep.predict(
        NEW, re="population", se=True, interval="confidence", level=0.9
    )
    assert table.columns.tolist() == ["fit", "se", "lower", "upper"]
    assert table.index.tolist() == ["a", "b"]
    x = np.array([1.0, 5.0])
    se = np.sqrt(x @ sleep.estimates.vcov @ x)
    assert table.loc["b", "se"] == pytest.approx(se)
    assert table.loc["b", "upper"] - table.loc["b", "fit"] == pytest.approx(
        1.644854 * se
    )


def test_prediction_intervals_hold_a_new_observation(sleep):
    def half(re):
        table = sleep.predict(NEW, re=re, interval="prediction")
        return (table["upper"] - table["fit"]).to_numpy() / 1.959964

    x = np.array([1.0, 5.0])
    mean = x @ sleep.estimates.vcov @ x
    between = x @ sleep.varcorr["Subject"].cov.to_numpy() @ x
    noise = sleep.sigma**2
    assert half("population")[1] ** 2 == pytest.approx(mean + noise, rel=1e-5)
    assert half("marginal")[1] ** 2 == pytest.approx(mean + between + noise, rel=1e-5)


def test_weights_of_the_rows_are_in_their_prediction_intervals(sleepstudy):
    w = np.linspace(0.5, 2, 180)
    fit = twin.make("Reaction ~ Days + (1 | Subject)", sleepstudy, [0.9], weights=w)
    table = fit.predict(re="population", se=True, interval="prediction")
    half = (table["upper"] - table["fit"]) / 1.959964
    np.testing.assert_allclose(half**2 - table["se"] ** 2, fit.sigma**2 / w, rtol=1e-4)


def test_conditional_standard_errors_are_hendersons(sleep):
    joint, (where,) = twin.joint_covariance(
        sleep.design, sleep.estimates.lam, sleep.sigma
    )
    T = np.zeros((2, len(joint)))
    T[:, :2] = [[1, 0], [1, 5]]
    T[0, where[0]] = [1, 0]
    variances = np.einsum("ij,jk,ik->i", T, joint, T)
    x = np.array([1.0, 5.0])
    variances[1] += x @ sleep.varcorr["Subject"].cov.to_numpy() @ x
    with pytest.warns(NewLevelsWarning):
        table = sleep.predict(NEW, se=True)
    np.testing.assert_allclose(table["se"] ** 2, variances, rtol=1e-8)


def test_conditional_covariances_are_hendersons(sleep):
    p, (lam,) = sleep.design.p, sleep.estimates.lam
    Z, (where,) = twin.dense_z(sleep.design)
    G = twin.relative_covariance(sleep.design, [lam])
    expected = sleep.sigma**2 * np.linalg.inv(Z.T @ Z + np.linalg.inv(G))
    found = sleep.ranef_cov["Subject"]
    assert found.shape == (18, 2, 2)
    for rows, block in zip(where, found, strict=True):
        np.testing.assert_allclose(block, expected[np.ix_(rows, rows)], rtol=1e-8)
    assert p == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"re": "fixed"}, "'population'"),
        ({"interval": "credible"}, "'prediction'"),
        ({"type": "mu"}, "'response'"),
        ({"new_levels": "nan"}, "'zero'"),
        ({"level": 95, "se": True}, "0.95 for 95 per cent"),
    ],
)
def test_words_that_are_not_known(sleep, options, message):
    with pytest.raises(NotApplicableError, match=message):
        sleep.predict(NEW, **options)


def test_predictions_of_the_data_never_warn(sleep):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sleep.predict(re="marginal", interval="prediction")


def test_simulations(sleep):
    y = sleep.simulate(4000, seed=1)
    assert y.shape == (4000, 180)
    np.testing.assert_array_equal(y, sleep.simulate(4000, seed=1))
    Z, _ = twin.dense_z(sleep.design)
    G = twin.relative_covariance(sleep.design, sleep.estimates.lam)
    V = sleep.sigma**2 * (Z @ G @ Z.T + np.eye(180))
    rows = [0, 9, 10]
    se = np.sqrt(np.diag(V)[rows] / 4000)
    assert (np.abs(y.mean(0) - sleep.fixed_part)[rows] < 5 * se).all()
    found = np.cov(y[:, rows].T)
    scale = np.sqrt(np.outer(np.diag(V)[rows], np.diag(V)[rows]))
    np.testing.assert_allclose(found / scale, V[np.ix_(rows, rows)] / scale, atol=0.08)


def test_conditional_simulations_keep_the_modes(sleep):
    y = sleep.simulate(2000, seed=2, re="conditional")
    error = y - sleep.fitted_values
    assert np.abs(error.mean(0)).max() < 5 * sleep.sigma / np.sqrt(2000)
    assert error.std() == pytest.approx(sleep.sigma, rel=0.01)
    with pytest.raises(NotApplicableError, match="keeps the modes"):
        sleep.simulate(1, re="new")
