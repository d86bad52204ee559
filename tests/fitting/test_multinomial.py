"""Multinomial models against the binomial one and a dense likelihood."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import jaxglmm as jg
from jaxglmm import ModelError, NotApplicableError

LEVELS = ["car", "bus", "train"]


def table(n=480, J=40, seed=3):
    rng = np.random.default_rng(seed)
    g, x = rng.permutation(n) % J, rng.normal(size=n)
    b = rng.multivariate_normal([0, 0], [[1.0, 0.5], [0.5, 0.8]], J)
    eta = np.stack([np.zeros(n), 0.3 + 0.5 * x + b[g, 0], -0.7 * x + b[g, 1]], axis=1)
    y = (eta + rng.gumbel(size=(n, 3))).argmax(axis=1)
    return pd.DataFrame({"y": np.array(LEVELS)[y], "x": x, "g": g.astype(str)})


@pytest.fixture(scope="module")
def travel():
    return table()


@pytest.fixture(scope="module")
def mixed(travel):
    return jg.glmm("y ~ x + (1 | g)", travel, family=jg.Multinomial(levels=LEVELS))


def dense_laplace(psi, y, X, g, J):
    """-2 log-likelihood by Laplace, effects of all categories correlated."""
    K, p = 2, X.shape[1]
    beta = psi[: K * p].reshape(K, p)
    L = np.array([[psi[K * p], 0], [psi[K * p + 1], psi[K * p + 2]]])
    hot = (y[:, None] == np.arange(1, K + 1)).astype(float)
    total = 0.0
    for j in range(J):
        rows = g == j
        fixed = X[rows] @ beta.T
        u = np.zeros(K)
        for _ in range(60):
            eta = fixed + L @ u
            e = np.exp(eta)
            P = e / (1 + e.sum(axis=1, keepdims=True))
            score = L.T @ (hot[rows] - P).sum(axis=0) - u
            W = np.diag(P.sum(axis=0)) - P.T @ P
            M = L.T @ W @ L + np.eye(K)
            step = np.linalg.solve(M, score)
            u = u + step
            if np.abs(step).max() < 1e-13:
                break
        l = np.sum(hot[rows] * eta) - np.log1p(e.sum(axis=1)).sum()
        total += -2 * l + u @ u + np.linalg.slogdet(M)[1]
    return total


def test_the_likelihood_written_out(travel, mixed):
    y = np.array([LEVELS.index(v) for v in travel["y"]])
    codes, levels = pd.factorize(travel["g"])
    X = np.column_stack([np.ones(len(y)), travel["x"]])
    cov = mixed.varcorr["g"].cov.to_numpy()
    L = np.linalg.cholesky(cov)
    psi = np.concatenate([mixed.coefficients, L[np.tril_indices(2)]])

    def loss(at):
        return dense_laplace(at, y, X, codes, len(levels))

    assert loss(psi) == pytest.approx(mixed.criterion, abs=1e-6)
    found = optimize.minimize(loss, psi + 0.1, method="BFGS")
    assert mixed.criterion < found.fun + 1e-6
    # standard errors by the curvature of that likelihood
    k, h = len(psi), 1e-4
    eye = h * np.eye(k)
    H = np.array(
        [
            [
                loss(psi + a + b)
                - loss(psi + a - b)
                - loss(psi - a + b)
                + loss(psi - a - b)
                for b in eye
            ]
            for a in eye
        ]
    ) / (4 * h * h)
    error = np.sqrt(np.diag(2 * np.linalg.inv(H)))
    np.testing.assert_allclose(mixed.se, error[:4], rtol=1e-4)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (1 | g)", "y ~ x + (x | g)"])
def test_two_categories_are_a_binomial_model(travel, formula):
    two = travel[travel["y"] != "train"]
    one = jg.glmm(formula, two, family=jg.Multinomial(levels=["car", "bus"]))
    other = jg.glmm(f"(y == 'bus'){formula[1:]}", two, family="binomial")
    assert one.criterion == pytest.approx(other.criterion, abs=1e-8)
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-8)
    np.testing.assert_allclose(one.se, other.se, rtol=1e-7)
    np.testing.assert_allclose(
        one.predict(two, type="probs")["bus"], other.predict(two), atol=1e-8
    )


def test_questions(travel, mixed, tmp_path):
    assert list(mixed.fixef["train"]) == ["(Intercept)", "x"]
    P = mixed.predict(travel.head(4))
    np.testing.assert_allclose(P.sum(axis=1), 1.0)
    assert list(P.columns) == LEVELS
    assert (
        mixed.predict(travel.head(4), type="class").tolist()
        == P.idxmax(axis=1).tolist()
    )
    link = mixed.predict(travel.head(4), type="link").to_numpy()
    np.testing.assert_allclose(link, np.log(P.to_numpy()[:, 1:] / P.to_numpy()[:, :1]))
    wide = mixed.predict(
        travel.head(4), re="population", se=True, interval="confidence"
    )
    assert (wide["lower"] < wide["fit"]).all().all()
    assert (wide["fit"] < wide["upper"]).all().all()
    drawn = mixed.simulate(1, seed=1)[0]
    assert set(drawn) == set(LEVELS)
    assert mixed.refit(drawn).converged
    for type in ("deviance", "response", "quantile"):
        assert np.isfinite(mixed.resid(type)).all()
    assert "each against 'car'" in str(mixed.summary())
    assert mixed.check(50).table.shape[0] == 3
    mixed.save(tmp_path / "fit")
    for other in (jg.load(tmp_path / "fit"), pickle.loads(pickle.dumps(mixed))):
        np.testing.assert_allclose(other.predict(travel.head(4)), P)


def test_refusals(travel, mixed):
    with pytest.raises(NotApplicableError, match="have no distance"):
        mixed.resid("pearson")
    for question in (lambda: mixed.icc, mixed.r2, mixed.overdispersion):
        with pytest.raises(NotApplicableError):
            question()
    with pytest.raises(NotApplicableError, match="tables of means"):
        mixed.predictions()
    with pytest.raises(NotApplicableError, match="those of probabilities"):
        mixed.predict(type="class", se=True)
    with pytest.raises(ModelError, match="one category only"):
        jg.glmm("y ~ x", travel.assign(y="car"), family="multinomial")


def test_rows_of_tidy_say_their_category_and_no_mark_twice():
    rng = np.random.default_rng(4)
    n = 240
    g = np.repeat(np.arange(12), 20)
    x = rng.normal(size=n)
    y = rng.choice(["1", "11", "2", "21"], size=n)  # names that end as others do
    fit = jg.glmm("y ~ x", pd.DataFrame({"y": y, "x": x, "g": g}), family="multinomial")
    table = fit.tidy()
    assert list(table["component"]) == ["11", "11", "2", "2", "21", "21"]
    assert list(table["term"]) == ["(Intercept)", "x"] * 3
    for row in table.itertuples():
        assert fit.fixef[row.component][row.term] == row.estimate


def test_categories_have_no_dispersion():
    rng = np.random.default_rng(5)
    y, x = rng.integers(1, 4, 60), rng.normal(size=60)
    data = pd.DataFrame({"y": y, "x": x})
    for fit in (jg.clm("y ~ x", data), jg.glmm("y ~ x", data, family="multinomial")):
        assert fit.dispersion == 1
        assert fit.glance().loc[0, "dispersion"] == 1


def test_the_formula_is_that_of_all_categories(mixed, tmp_path):
    assert mixed.formula == "y ~ x + (1 | g)"
    assert "Model found:\ny ~ x + (1 | g)" in str(mixed.step())
    mixed.save(tmp_path / "fit.npz")
    assert jg.load(tmp_path / "fit.npz").formula == mixed.formula
