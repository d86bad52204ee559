"""Smooths in fits: likelihoods, degrees of freedom and bands by dense algebra."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

RNG = np.random.default_rng(8)
N = 90
DATA = pd.DataFrame({"x": RNG.uniform(size=N), "z": RNG.normal(size=N)})
DATA["g"] = np.repeat([f"g{i}" for i in range(9)], 10)
DATA["y"] = (
    np.sin(6 * DATA.x) + 0.5 * RNG.normal(size=9)[np.repeat(np.arange(9), 10)]
) + 0.3 * RNG.normal(size=N)


@pytest.fixture(scope="module")
def fit():
    return jg.lmm("y ~ s(x, k=6) + (1 | g)", DATA)


def joint(fit):
    """C, the prior precision times sigma^2, and which columns are the smooth's."""
    d, sd = fit.design, fit.varcorr
    Z = {t.label: t for t in d.terms}
    G = (Z["g"].codes[:, None] == np.arange(9)).astype(float)
    S = Z["s(x)"].values
    C = np.column_stack([d.X, G, S])
    ratio = (fit.sigma / sd["g"].sd.iloc[0]) ** 2
    smooth = (fit.sigma / sd["s(x)"].sd.iloc[0]) ** 2
    P = np.concatenate([np.zeros(2), np.full(9, ratio), np.full(S.shape[1], smooth)])
    mine = np.concatenate([[1], np.arange(11, 11 + S.shape[1])])
    return C, P, mine


def test_the_dense_likelihood(fit):
    d = fit.design
    V = fit.sigma**2 * np.eye(N)
    for term in d.terms:
        sd = fit.varcorr[term.label].sd.iloc[0]
        Z = term.values
        if term.label == "g":
            Z = (term.codes[:, None] == np.arange(9)).astype(float)
        V = V + sd**2 * Z @ Z.T
    P = np.linalg.inv(V)
    XPX = d.X.T @ P @ d.X
    r = d.y - d.X @ np.linalg.solve(XPX, d.X.T @ P @ d.y)
    value = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XPX)[1] + r @ P @ r
    assert fit.criterion == pytest.approx(value + (N - 2) * np.log(2 * np.pi), abs=1e-7)


def test_degrees_of_freedom_and_bands(fit):
    C, P, mine = joint(fit)
    inverse = np.linalg.inv(C.T @ C + np.diag(P))
    F = inverse @ C.T @ C
    table = fit.smooths()
    assert table.edf["s(x)"] == pytest.approx(np.trace(F[np.ix_(mine, mine)]), rel=1e-6)
    assert table.loc["s(x)", "columns"] == 5
    here = fit.smooth("s(x)", DATA[["x"]])
    own = C[:, mine]
    coefficients = (inverse @ C.T @ fit.design.y)[mine]
    assert here.estimate.to_numpy() == pytest.approx(own @ coefficients, abs=1e-6)
    cov = fit.sigma**2 * inverse[np.ix_(mine, mine)]
    se = np.sqrt(np.einsum("ij,jk,ik->i", own, cov, own))
    assert here.std_error.to_numpy() == pytest.approx(se, rel=1e-5)
    assert "Smooths:" in str(fit.summary())


def test_predictions_and_files(fit, tmp_path):
    again = fit.predict(DATA.drop(columns="y"))
    assert np.asarray(again) == pytest.approx(fit.fitted_values, abs=1e-9)
    fit.save(tmp_path / "fit")
    loaded = jg.load(tmp_path / "fit")
    again = np.asarray(loaded.predict(DATA))
    assert again == pytest.approx(fit.fitted_values, abs=1e-8)


def test_figures(fit):
    (ax,) = np.ravel(fit.plot.smooths())
    assert ax.get_xlabel() == "x"
    with pytest.raises(jg.NotApplicableError, match="no smooth"):
        jg.lmm("y ~ x + (1 | g)", DATA).plot.smooths()


def test_a_straight_line_needs_no_bends():
    """The penalised part goes to zero, and the fit is that of the line."""
    data = DATA.assign(y=DATA.x + DATA.g.str[1:].astype(float))
    rng = np.random.default_rng(1)
    data["y"] += 0.1 * rng.normal(size=N)
    line = jg.lmm("y ~ x + (1 | g)", data)
    fit = jg.lmm("y ~ s(x, k=5) + (1 | g)", data)
    assert fit.smooths().edf["s(x)"] < 2
    gap = np.abs(fit.fitted_values - line.fitted_values).max()
    assert gap < 0.1


def test_poisson():
    group = DATA.g.str[1:].astype(float) / 5
    data = DATA.assign(n=RNG.poisson(np.exp(np.sin(6 * DATA.x) + group)))
    fit = jg.glmm("n ~ s(x, k=5) + (1 | g)", data, family="poisson")
    assert fit.converged
    assert 1 < fit.smooths().edf["s(x)"] < 4
    again = fit.predict(data)
    assert np.asarray(again) == pytest.approx(fit.fitted_values, rel=1e-6)
