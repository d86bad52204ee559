import numpy as np
import pytest

from jaxglmm import Fits, NotApplicableError


def make(D=400, failed=()):
    rng = np.random.default_rng(3)
    coefficients = 2 + rng.standard_normal((D, 2)) * [0.1, 0.2]
    sd = np.abs(1 + 0.1 * rng.standard_normal((D, 1)))
    status = np.zeros(D, int)
    for row in failed:
        coefficients[row], status[row] = np.nan, 2
    return Fits(
        coefficients=coefficients,
        coefficient_names=("(Intercept)", "x"),
        sd=sd,
        sd_names=("sd_(Intercept)|g",),
        sigma=np.full(D, 0.5) + 0.01 * rng.standard_normal(D),
        theta=2 * sd,
        log_likelihood=np.zeros(D),
        status=status,
        converged=status == 0,
        singular=np.zeros(D, bool),
        original={"(Intercept)": 2.0, "x": 2.1, "sd_(Intercept)|g": 1.0, "sigma": 0.5},
    )


def test_intervals():
    fits = make()
    table = fits.confint(0.9)
    assert table.index.tolist() == ["(Intercept)", "x", "sd_(Intercept)|g", "sigma"]
    np.testing.assert_allclose(
        table.loc["x"], np.quantile(fits.coefficients[:, 1], [0.05, 0.95])
    )
    basic = fits.confint(0.9, method="basic")
    np.testing.assert_allclose(basic.loc["x"], 4.2 - table.loc["x"].to_numpy()[::-1])
    with pytest.raises(NotApplicableError, match="'basic'"):
        fits.confint(method="bca")


def test_failed_data_sets_are_counted_and_left_out():
    fits, clean = make(failed=[0, 7]), make()
    text = fits.summary()
    assert "400 fits, 398 converged" in text
    assert "2 not finite" in text
    assert np.isfinite(fits.confint()).all(axis=None)
    assert text.table.loc["sigma", "original"] == 0.5
    assert (
        abs(text.table.loc["x", "mean"] - clean.summary().table.loc["x", "mean"]) < 0.01
    )


def test_tidy_and_len():
    fits = make(D=3)
    table = fits.tidy()
    assert len(fits) == 3
    assert len(table) == 12
    assert table["estimate"].iloc[5] == fits.coefficients[1, 1]
    assert "3 fits" in repr(fits)


def test_too_few_to_say_anything():
    with pytest.raises(NotApplicableError, match=r"see \.status"):
        make(D=2, failed=[0, 1]).confint()
