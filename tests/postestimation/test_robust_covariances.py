"""Covariances of the fixed effects from residuals of clusters."""

import json
import pickle
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from cases import data as table
from doors import Empirical, empirical
from scipy.special import expit

import jaxglmm as jg

HERE = Path(__file__).parents[1]
REFERENCE = json.loads((HERE / "reference" / "robust_covariances.json").read_text())
MODELS = {
    "sleepstudy_ml": ("Reaction ~ Days + (Days | Subject)", {"reml": False}),
    "machines": ("score ~ Machine + (1 | Worker/Machine)", {}),
    "orthodont": ("distance ~ age * Sex + (age | Subject)", {}),
    "dietox": ("Weight ~ Cu + Time + (1 | Pig)", {}),
    "orthodont_gls": ("distance ~ age + Sex", {"residual": "cs(1 | Subject)"}),
    "orthodont_lme": (
        "distance ~ age * Sex + (1 | Subject)",
        {"residual": "ar1(1 | Subject)"},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_as_clubsandwich_has_them(name):
    formula, options = MODELS[name]
    word = name.split("_")[0]
    data = table(word if word in ("sleepstudy", "dietox") else word.capitalize())
    fit = jg.lmm(formula, data, **options)
    for cluster, kinds in REFERENCE["fits"][name]["clusters"].items():
        own = cluster if cluster != "Litter" else data["Litter"]
        for kind, known in kinds.items():
            robust = fit.with_vcov(kind, own)
            np.testing.assert_allclose(robust.se, known["se"], rtol=2e-6)
            np.testing.assert_allclose(robust.denominator_df, known["df"], rtol=1e-5)


def weighted():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(12), rng.integers(3, 9, 12))
    n = len(g)
    data = pd.DataFrame({"x": rng.normal(size=n), "g": g, "h": g // 3})
    slopes = 1 + rng.normal(size=12)[g]
    data["y"] = 2 + slopes * data["x"] + rng.normal(size=12)[g] + rng.normal(size=n)
    data["w"] = rng.uniform(0.5, 2, n) * (rng.random(n) > 0.1)
    return data


@pytest.mark.parametrize("residual", [None, "ar1(1 | g)"])
def test_cr2_and_its_degrees_of_freedom_against_the_dense_matrices(residual):
    data = weighted()
    given = {} if residual is None else {"residual": residual}
    fit = jg.lmm("y ~ x + (x | g)", data, weights="w", **given)
    at = np.flatnonzero(data["w"] > 0)
    X, e = fit.design.X[at], (fit.design.y - fit.fixed_part)[at]
    g, h = data["g"].to_numpy()[at], data["h"].to_numpy()[at]
    psi = fit.varcorr["g"].cov.to_numpy()
    V = X @ psi @ X.T * (g[:, None] == g)
    R = np.eye(len(at)) * fit.sigma**2
    if residual is not None:
        rho = fit.dispersions["rho|Residual"]
        k = data.groupby("g").cumcount().to_numpy()[at]
        R = fit.dispersions["sigma"] ** 2 * rho ** np.abs(k[:, None] - k)
        R = R * (g[:, None] == g)
    V = V + R / np.sqrt(np.outer(data["w"].to_numpy()[at], data["w"].to_numpy()[at]))
    W = np.linalg.inv(V)
    M = np.linalg.inv(X.T @ W @ X)
    np.testing.assert_allclose(fit.estimates.vcov, M, rtol=1e-6)
    IH = np.eye(len(at)) - X @ M @ X.T @ W
    parts, scores = [], []
    for c in np.unique(h):
        i = np.flatnonzero(h == c)
        S = (IH @ V)[np.ix_(i, i)]
        D = np.linalg.cholesky(V[np.ix_(i, i)]).T
        values, vectors = np.linalg.eigh(D @ S @ D.T)
        B = D.T @ (vectors / np.sqrt(values)) @ vectors.T @ D
        Wi = np.linalg.inv(V[np.ix_(i, i)])
        scores.append(X[i].T @ Wi @ B @ e[i])
        parts.append(IH[i].T @ B @ Wi @ X[i] @ M)
    robust = fit.with_vcov("CR2", data["h"])
    expected = M @ (np.array(scores).T @ np.array(scores)) @ M
    np.testing.assert_allclose(robust.vcov, expected, rtol=1e-5)
    df = []
    for j in range(2):
        G = np.array([[a[:, j] @ V @ b[:, j] for b in parts] for a in parts])
        df.append(np.trace(G) ** 2 / np.sum(G * G))
    np.testing.assert_allclose(robust.denominator_df, df, rtol=1e-5)


def test_scores_of_clusters_of_a_generalised_model():
    data = jg.datasets.load("cbpp")
    fit = jg.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", data)
    X, y, size = fit.design.X, data["incidence"].to_numpy(), data["size"].to_numpy()
    herd = data["herd"].astype(str).to_numpy()

    def log_likelihood(par, i):
        b, s, u = par[:-1], par[-1], 0.0
        for _ in range(40):
            p = expit(X[i] @ b + s * u)
            slope, bend = (
                s * np.sum(y[i] - size[i] * p) - u,
                s * s * size[i] @ (p - p**2),
            )
            u += slope / (1 + bend)
        eta = X[i] @ b + s * u
        bend = s * s * np.sum(size[i] * expit(eta) * expit(-eta))
        value = np.sum(y[i] * eta - size[i] * np.logaddexp(0, eta)) - u * u / 2
        return value - np.log1p(bend) / 2

    at = np.append(fit.coefficients, fit.varcorr["herd"].sd.iloc[0])
    steps = 1e-5 * np.eye(5)
    scores = [
        [(log_likelihood(at + d, i) - log_likelihood(at - d, i)) / 2e-5 for d in steps]
        for i in (np.flatnonzero(herd == name) for name in np.unique(herd))
    ]
    back = np.eye(5)
    back[:4, :4] = fit.engine.R_inverse
    model = back @ fit.parameter_covariance @ back.T
    expected = (model @ (np.transpose(scores) @ scores) @ model)[:4, :4]
    robust = fit.with_vcov("CR0")
    np.testing.assert_allclose(robust.vcov, expected, rtol=1e-4)
    ratio = fit.with_vcov("CR1").se / robust.se
    np.testing.assert_allclose(ratio, np.sqrt(15 / 14), rtol=1e-10)
    assert np.isinf(robust.denominator_df).all()


def test_without_random_effects_it_is_the_sandwich_of_a_glm():
    rng = np.random.default_rng(0)
    g = rng.integers(0, 30, 200)
    data = pd.DataFrame({"x": rng.normal(size=200), "g": g})
    data["y"] = rng.poisson(np.exp(0.3 + 0.4 * data["x"]))
    fit = jg.glmm("y ~ x", data, family="poisson")
    X, mu = fit.design.X, fit.fitted_values
    bread = np.linalg.inv(X.T @ (X * mu[:, None]))
    U = X * (data["y"].to_numpy() - mu)[:, None]
    S = np.array([U[g == k].sum(axis=0) for k in np.unique(g)])
    expected = bread @ S.T @ S @ bread
    np.testing.assert_allclose(
        fit.with_vcov("CR0", data["g"]).vcov, expected, rtol=1e-6
    )


def test_everything_goes_by_it_and_it_is_kept(tmp_path):
    data = weighted()
    fit = jg.lmm("y ~ x + (1 | g)", data)
    robust = fit.with_vcov("CR2", "g")
    assert "CR2 by g" in str(robust.summary())
    assert "CR2" not in str(fit.summary())
    assert robust.vcov_type == "CR2"
    assert robust.cluster == "g"
    assert fit.vcov_type == "asymptotic"
    assert robust.tidy().set_index("term").loc["x", "std_error"] == robust.se[1]
    test = robust.test("x")
    assert test.std_error[0] == pytest.approx(robust.se[1])
    assert test.den_df == pytest.approx(robust.denominator_df[1])
    limits = robust.confint().loc["x"].to_numpy()
    assert np.ptp(limits) != pytest.approx(np.ptp(fit.confint().loc["x"].to_numpy()))
    robust.save(tmp_path / "a.fit")
    for other in (
        jg.load(tmp_path / "a.fit"),
        pickle.loads(pickle.dumps(robust)),
        robust.with_vcov("CR0").with_vcov("CR2"),
    ):
        np.testing.assert_allclose(other.se, robust.se, rtol=1e-12)
    np.testing.assert_allclose(robust.with_vcov("asymptotic").se, fit.se, rtol=1e-12)
    generalised = jg.glmm("b ~ x + (1 | g)", data.assign(b=data["y"] > 2))
    own = generalised.with_vcov("CR1")
    own.save(tmp_path / "b.fit")
    again = jg.load(tmp_path / "b.fit")
    np.testing.assert_allclose(again.se, own.se, rtol=1e-6)
    np.testing.assert_allclose(
        again.with_vcov("asymptotic").se, generalised.se, rtol=1e-6
    )


def test_rows_that_the_fit_left_out_are_left_out_of_the_labels():
    data = weighted()
    full = jg.lmm("y ~ x + (1 | g)", data.drop(index=[3, 30])).with_vcov("CR2", "g")
    holes = data.copy()
    holes.loc[[3, 30], "x"] = np.nan
    with pytest.warns(jg.MissingRowsWarning):
        fit = jg.lmm("y ~ x + (1 | g)", holes)
    for labels in (holes["g"], holes["g"].to_numpy(), holes["g"].sample(frac=1)):
        np.testing.assert_allclose(fit.with_vcov("CR2", labels).se, full.se, rtol=1e-12)


def test_a_kind_without_roots_needs_no_matrix_of_a_cluster(monkeypatch):
    monkeypatch.setattr(empirical, "MOST_ROWS", 5)
    fit = jg.lmm("y ~ x + (1 | g)", weighted())
    with pytest.raises(jg.NotApplicableError, match="one has 8 rows"):
        _ = fit.with_vcov("CR2").se
    assert np.isfinite(fit.with_vcov("empirical-bias-reduced").se).all()
    assert isinstance(fit.with_vcov("CR3").empirical_parts, Empirical)


REFUSED = {
    "crossed": (
        lambda d: "g",
        "rows of different clusters share random effects of 'k'",
    ),
    "none contains": (lambda d: None, "None of the grouping factors g, k contains"),
    "unknown": (lambda d: "school", r"cluster=data\['school'\]"),
    "short": (lambda d: d["h"].to_numpy()[:5], "cluster has 5 labels"),
    "number": (lambda d: 3, "must be the name of a variable"),
    "one": (lambda d: [1] * len(d), "has 1 cluster"),
    "missing": (lambda d: d["h"].where(d["h"] > 0), "missing labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_clustering_is_refused(case):
    data = weighted()
    data["k"] = np.arange(len(data)) % 5
    data["y"] += data["k"]
    make, message = REFUSED[case]
    fit = jg.lmm("y ~ x + (1 | g) + (1 | k)", data)
    with pytest.raises((jg.NotApplicableError, jg.DataError), match=message):
        fit.with_vcov("CR2", make(data))


def test_what_does_not_go_with_it():
    data = weighted()
    fit = jg.lmm("y ~ x + (1 | g)", data)
    with pytest.raises(
        jg.NotApplicableError, match="adjusts the covariance of the mod"
    ):
        fit.with_vcov("CR2").summary(ddf="kenward-roger")
    with pytest.raises(
        jg.JaxGLMMError, match="is not one of 'asymptotic', 'CR0', 'CR1'"
    ):
        jg.glmm("b ~ x + (1 | g)", data.assign(b=data["y"] > 2)).with_vcov("CR2")
    posterior = jg.lmm("y ~ x + (1 | g)", data, method="map")
    with pytest.raises(jg.NotApplicableError, match="a posterior's spread"):
        posterior.with_vcov("CR0")
    assert jax.config.jax_enable_x64 is False
