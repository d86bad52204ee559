"""Models of random effects alone: nothing divides by the number of coefficients."""

import numpy as np
import pytest

import jaxglmm as jg


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    g = rng.integers(0, 5, 100)
    y = rng.normal(size=5)[g] + rng.normal(size=100)
    return {"y": y, "b": (y > 0) * 1, "g": g}


@pytest.fixture(scope="module")
def yes_or_no(data):
    return jg.glmm("b ~ 0 + (1|g)", data)


def test_profile(yes_or_no):
    table = yes_or_no.confint(method="profile")
    assert table.index.tolist() == ["sd_(Intercept)|g"]
    low, high = table.to_numpy()[0]
    sd = float(yes_or_no.varcorr["g"].sd.iloc[0])
    assert 0 <= low < sd < high < 10


def test_tables(yes_or_no):
    assert yes_or_no.confint().shape == (0, 2)
    assert len(yes_or_no.tidy()) == 0
    assert "nan" not in str(yes_or_no.summary()).lower()
    means = yes_or_no.contrasts("g")
    assert len(means) == 10
    np.testing.assert_allclose(means["estimate"], 0.0)


def test_many(data, yes_or_no):
    Y = np.c_[data["b"], data["b"][::-1]]
    fits = jg.fit_many("b ~ 0 + (1|g)", data, responses=Y, family="binomial")
    assert fits.converged.all()
    np.testing.assert_allclose(fits.log_likelihood[0], yes_or_no.log_likelihood)
    assert fits.coefficients.shape == (2, 0)
    assert "sd_(Intercept)|g" in fits.frame()


def test_many_rows():
    """Products of matrices without columns are those of X'WX, too."""
    rng = np.random.default_rng(1)
    g = np.arange(5000) % 50
    k = rng.poisson(np.exp(rng.normal(0, 0.5, 50))[g])
    fit = jg.glmm("k ~ 0 + (1|g)", {"k": k, "g": g}, family="poisson")
    assert fit.converged
    assert 0.3 < fit.varcorr["g"].sd.iloc[0] < 0.7
