"""Predictions with some of the random effects, against Henderson's equations."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import DataError, NewLevelsWarning, NotApplicableError


@pytest.fixture(scope="module")
def crossed():
    return jg.lmm(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", jg.datasets.load("Penicillin")
    )


@pytest.fixture(scope="module")
def sleep():
    return jg.lmm("Reaction ~ Days + (Days | Subject)", jg.datasets.load("sleepstudy"))


def dense(fit, kept):
    """Mean and standard error of X beta and the columns of Z that are kept."""
    d, parts = fit.design, []
    for term, some in zip(d.terms, kept, strict=True):
        Z = np.zeros((d.n, term.n_levels, len(term.names)))
        Z[np.arange(d.n), term.codes] = term.values
        parts.append((Z, np.where(some, 1.0, 0.0)))
    X = d.X
    Z = np.concatenate([z.reshape(d.n, -1) for z, _ in parts], axis=1)
    own = np.concatenate([(z * on).reshape(d.n, -1) for z, on in parts], axis=1)
    blocks = [
        np.kron(np.eye(t.n_levels), np.linalg.inv(fit.varcorr[t.label].cov.to_numpy()))
        for t in d.terms
    ]
    G = np.zeros((Z.shape[1],) * 2)
    at = 0
    for block in blocks:
        G[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    W = np.hstack([X, Z])
    C = W.T @ W / fit.sigma**2
    C[X.shape[1] :, X.shape[1] :] += G
    inverse = np.linalg.inv(C)
    solution = inverse @ W.T @ d.y / fit.sigma**2
    rows = np.hstack([X, own])
    variance = np.einsum("ij,jk,ik->i", rows, inverse, rows)
    return rows @ solution, np.sqrt(variance)


@pytest.mark.parametrize(
    ("re", "kept"),
    [
        ("(1 | plate)", [[True], [False]]),
        ("~ (1 | sample)", [[False], [True]]),
        ("(1 | sample) + (1 | plate)", [[True], [True]]),
    ],
)
def test_one_of_two_factors(crossed, re, kept):
    value, error = dense(crossed, kept)
    found = crossed.predict(re=re, se=True)
    np.testing.assert_allclose(found["fit"], value, rtol=1e-9)
    np.testing.assert_allclose(found["se"], error, rtol=1e-6)
    limits = crossed.predict(re=re, interval="prediction")
    half = 1.959963984540054 * np.sqrt(error**2 + crossed.sigma**2)
    np.testing.assert_allclose(limits["upper"] - limits["fit"], half, rtol=1e-6)


@pytest.mark.parametrize(
    ("re", "kept"),
    [
        ("(1 | Subject)", [[True, False]]),
        ("(0 + Days | Subject)", [[False, True]]),
        ("(Days | Subject)", [[True, True]]),
    ],
)
def test_columns_of_a_term(sleep, re, kept):
    value, error = dense(sleep, kept)
    found = sleep.predict(re=re, se=True)
    np.testing.assert_allclose(found["fit"], value, rtol=1e-9)
    np.testing.assert_allclose(found["se"], error, rtol=1e-6)


def test_new_rows_need_the_factors_that_count_alone(crossed):
    new = pd.DataFrame({"sample": ["A", "F"]})
    expected = (
        crossed.coefficients[0] + crossed.ranef["sample"].loc[["A", "F"]].iloc[:, 0]
    )
    np.testing.assert_allclose(crossed.predict(new, re="(1 | sample)"), expected)
    with pytest.raises(DataError, match="plate"):
        crossed.predict(new, re="(1 | plate)")
    unseen = pd.DataFrame({"sample": ["A", "Z"]})
    with pytest.warns(NewLevelsWarning, match="Z"):
        found = crossed.predict(unseen, re="(1 | sample)")
    assert found[1] == pytest.approx(crossed.coefficients[0])
    with pytest.raises(DataError, match="'zero'"):
        crossed.predict(unseen, re="(1 | sample)", new_levels="error")
    plates = pd.DataFrame({"sample": ["Z"], "plate": ["a"]})
    crossed.predict(plates, re="(1 | plate)", new_levels="error")  # Z does not count


@pytest.mark.filterwarnings("ignore::jaxglmm.SingularFitWarning")
def test_generalised_models_and_levels_of_factors(rng):
    g, f = np.repeat(np.arange(15), 12), np.tile(list("abc"), 60)
    h = rng.integers(0, 8, 180)
    eta = rng.normal(size=15)[g] * (1 + 0.5 * (f == "b")) + rng.normal(size=8)[h] * 0.4
    data = pd.DataFrame({"y": rng.poisson(np.exp(eta)), "f": f, "g": g, "h": h})
    data = data.astype({"g": str, "h": str})
    fit = jg.glmm("y ~ f + (f | g) + (1 | h)", data, family="poisson")
    eta = fit.fixed_part + fit.ranef["h"].loc[data["h"]].to_numpy()[:, 0]
    found = fit.predict(re="(1 | h)", se=True)
    np.testing.assert_allclose(found["fit"], np.exp(eta), rtol=1e-9)
    assert (found["se"] > 0).all()
    own = fit.ranef["g"].loc[data["g"]].to_numpy()
    slopes = own[:, 1] * (f == "b") + own[:, 2] * (f == "c")
    np.testing.assert_allclose(
        fit.predict(re="(0 + f | g)", type="link"), fit.fixed_part + slopes, rtol=1e-8
    )


def test_refusals(crossed, sleep):
    with pytest.raises(NotApplicableError, match=r"no \(1 \| herd\).*\| plate\)"):
        crossed.predict(re="(1 | herd)")
    with pytest.raises(NotApplicableError, match="no"):
        crossed.predict(re="(x | plate)".replace("x", "0 + x"))
    with pytest.raises(NotApplicableError, match="fixed effects"):
        sleep.predict(re="Days + (1 | Subject)")
    with pytest.raises(NotApplicableError, match="response"):
        sleep.predict(re="y ~ (1 | Subject)")
    with pytest.raises(NotApplicableError, match="'conditional'"):
        sleep.predict(re="Subject")
    data = jg.datasets.load("Salamanders")
    zero = jg.glmm("count ~ mined + (1 | site)", data, family="poisson", zi="~ 1")
    with pytest.raises(NotApplicableError, match="one predictor"):
        zero.predict(re="(1 | site)")
