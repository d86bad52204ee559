"""New rows of known subjects, predicted from the residuals of the others."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm import DataError, NotApplicableError

J, T = 30, 5


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    g, t = np.repeat(np.arange(J), T), np.tile(np.arange(T), J)
    R = 0.75 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    e = (rng.normal(size=(J, T)) @ np.linalg.cholesky(R).T).ravel()
    x = rng.normal(size=J * T)
    frame = pd.DataFrame({"g": g, "t": t, "x": x, "arm": np.where(g % 2, "a", "b")})
    frame["visit"] = pd.Categorical([f"v{i}" for i in t])
    frame["h"], frame["w"] = g // 5, rng.uniform(0.5, 2, J * T)
    u = rng.normal(size=J // 5)
    frame["y"] = 1 + 0.4 * x + u[frame["h"]] + e
    return frame.drop(index=[3, 11, 19, 27, 42]).reset_index(drop=True)


def dense(fit, data, new, weights=None):
    """Conditional mean and variance from the whole covariance, by hand."""
    both = pd.concat([data, new], ignore_index=True)
    n, k = len(data), len(new)
    sd = fit.residual_parameters["estimate"]
    V = np.zeros((n + k, n + k))
    own = fit.residual_covariance
    for i in range(n + k):
        for j in range(n + k):
            a, b = both.iloc[i], both.iloc[j]
            if a["g"] == b["g"]:
                if fit.structure == "us":
                    arm = f"Residual.{a['arm']}" if len(own) > 1 else "Residual"
                    V[i, j] = own[arm].cov.loc[a["visit"], b["visit"]]
                else:
                    lag = abs(a["t"] - b["t"])
                    V[i, j] = sd["sigma"] ** 2 * sd["rho|Residual"] ** lag
    w = np.ones(n + k)
    if weights is not None:
        w[:n] = weights
    V = V / np.sqrt(np.outer(w, w))
    if fit.design.terms:
        same = both["h"].to_numpy()[:, None] == both["h"].to_numpy()
        V = V + same * float(fit.varcorr["h"].sd.iloc[0]) ** 2
    X = np.column_stack([np.ones(n + k), both["x"]])
    P = np.linalg.inv(V[:n, :n])
    beta = np.linalg.solve(X[:n].T @ P @ X[:n], X[:n].T @ P @ data["y"])
    C = V[:n, n:]
    mean = X[n:] @ beta + C.T @ P @ (data["y"] - X[:n] @ beta)
    a = X[n:] - C.T @ P @ X[:n]
    Phi = np.linalg.inv(X[:n].T @ P @ X[:n])
    left = np.diag(V[n:, n:]) - np.einsum("im,ij,jm->m", C, P, C)
    return np.asarray(mean), left + np.einsum("mi,ij,mj->m", a, Phi, a)


NEW = pd.DataFrame(
    {
        "g": [0, 0, 2, 7, 5, 99],
        "t": [3, 6, 1, 9, 0, 2],
        "x": [0.3, -0.2, 1.0, 0.0, 0.5, 0.1],
        "arm": list("baaaaa"),
        "visit": ["v3", "v4", "v1", "v2", "v0", "v2"],
        "h": [0, 0, 0, 1, 1, 50],
    }
)
NEW.loc[1, "arm"] = "b"
NEW.loc[2, "arm"] = "b"
NEW.loc[3, "arm"] = "a"


@pytest.mark.parametrize(
    ("formula", "residual", "weighted"),
    [
        ("y ~ x", "ar1(t | g)", False),
        ("y ~ x", "ar1(t | g)", True),
        ("y ~ x", "us(visit | g)", False),
        ("y ~ x", "us(visit | arm / g)", False),
        ("y ~ x + (1 | h)", "ar1(t | g)", False),
    ],
)
@pytest.mark.filterwarnings("ignore:Levels that were not")
def test_the_best_linear_predictor(data, formula, residual, weighted):
    w = data["w"] if weighted else None
    given = {} if w is None else {"weights": w.to_numpy()}
    fit = jg.lmm(formula, data, residual=residual, **given)
    found = fit.predict(NEW, residual=True, se=True, interval="prediction")
    mean, variance = dense(fit, data, NEW, w)
    np.testing.assert_allclose(found["fit"], mean, rtol=1e-7)
    np.testing.assert_allclose(found["se"] ** 2, variance, rtol=1e-6, atol=1e-9)
    half = 1.959963984540054 * found["se"]
    np.testing.assert_allclose(found["upper"] - found["fit"], half, rtol=1e-9)
    # a subject that is new has its mean
    population = fit.predict(NEW, re="population")
    assert found["fit"].iloc[-1] == pytest.approx(population[-1], rel=1e-12)


def test_a_row_that_is_there_is_itself(data):
    fit = jg.lmm("y ~ x", data, residual="ar1(t | g)")
    seen = data.iloc[[4, 30]]
    found = fit.predict(seen, residual=True, se=True)
    np.testing.assert_allclose(found["fit"], seen["y"], rtol=1e-9)
    np.testing.assert_allclose(found["se"], 0, atol=1e-5)
    # with a nugget a second measurement is another one
    nugget = jg.lmm("y ~ x", data, residual="car1(t | g, nugget=True)")
    assert nugget.predict(seen, residual=True, se=True)["se"].min() > 0


def test_rows_in_order_come_after_the_last(data):
    """Without times a new row is one step behind the last of its subject."""
    fit = jg.lmm("y ~ x", data, residual="ar1(1 | g)")
    new = pd.DataFrame({"x": [0.0, 0.0], "g": [1, 1]})
    found = fit.predict(new, residual=True)
    own = data[data["g"] == 1].iloc[-1]
    beta, rho = fit.fixef, fit.dispersions["rho|Residual"]
    error = own["y"] - beta["(Intercept)"] - beta["x"] * own["x"]
    expected = beta["(Intercept)"] + error * rho ** np.array([1, 2])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_what_is_not_known_is_said(data):
    fit = jg.lmm("y ~ x", data, residual="us(visit | g)")
    new = {"x": [0.0], "g": [1], "visit": ["v9"]}
    with pytest.raises(DataError, match=r"'visit' has .*v9"):
        fit.predict(new, residual=True)
    with pytest.raises(NotApplicableError, match="re='conditional'"):
        fit.predict(NEW, residual=True, re="population")
    with pytest.raises(NotApplicableError, match="interval='prediction'"):
        fit.predict(NEW, residual=True, interval="confidence")
    with pytest.raises(NotApplicableError, match="give newdata"):
        fit.predict(residual=True)
    chain = jg.lmm("y ~ x", data, residual="ar1(t | g)")
    with pytest.raises(DataError, match=r"'t' is 1\.5, between the whole steps.*car1"):
        chain.predict({"x": [0.0], "g": [1], "t": [1.5]}, residual=True)
