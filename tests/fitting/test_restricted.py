"""Generalised models by REML: Laplace's approximation over the fixed effects too."""

import functools
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln

import jaxglmm as jg

HERE = Path(__file__).parent.parent
CASES = json.loads((HERE / "reference" / "reml_glmm.json").read_text())
ONE = "count ~ f + x + (1 | g)"


@functools.cache
def data():
    return pd.read_csv(HERE / "data" / "sim_smooth.csv.gz")


@functools.cache
def fitted(family, formula=ONE, reml=True):
    return jg.glmm(formula, data(), family=family, reml=reml)


@pytest.mark.parametrize("family", ["poisson", "nbinom2"])
def test_glmmTMB(family):
    case, fit = CASES[family], fitted(family)
    assert fit.reml
    assert fit.converged
    assert fit.log_likelihood == pytest.approx(case["loglik"], abs=1e-7)
    np.testing.assert_allclose(fit.coefficients, case["beta"], atol=1e-5)
    np.testing.assert_allclose(fit.se, case["se"], rtol=1e-4)
    assert fit.varcorr["g"].sd.iloc[0] == pytest.approx(case["sd"], rel=1e-4)
    if family == "nbinom2":
        assert fit.dispersion == pytest.approx(case["sigma"], rel=1e-4)


def dense(fit, sd):
    """The criterion from its definition, and the fixed effects of the joint mode."""
    design = fit.design
    J, p, codes = design.terms[0].n_levels, design.p, design.terms[0].codes
    C = np.hstack([np.eye(J)[codes], design.X])
    P = np.diag(np.r_[np.full(J, sd**-2), np.zeros(p)])
    v = np.zeros(J + p)
    for _ in range(50):
        mu = np.exp(C @ v)
        H = C.T @ (mu[:, None] * C) + P
        v = v - np.linalg.solve(H, C.T @ (mu - design.y) + P @ v)
    l = design.y @ (C @ v) - np.sum(np.exp(C @ v) + gammaln(design.y + 1))
    d = -2 * l + v @ P @ v + 2 * J * np.log(sd) + np.linalg.slogdet(H)[1]
    return d - p * np.log(2 * np.pi), v[J:]


def test_dense_twin():
    fit = fitted("poisson")
    sd = float(fit.varcorr["g"].sd.iloc[0])
    value, beta = dense(fit, sd)
    assert fit.criterion == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(fit.coefficients, beta, atol=1e-9)
    step = 1e-3
    above, below = dense(fit, sd + step)[0], dense(fit, sd - step)[0]
    assert abs(above - below) / (2 * step) < 1e-3  # a minimum
    assert above + below > 2 * value


def test_units_of_columns_change_the_criterion_by_their_logarithm():
    moved = jg.glmm(ONE, data().assign(x=data().x * 1e6), family="poisson", reml=True)
    change = moved.log_likelihood - fitted("poisson").log_likelihood
    assert change == pytest.approx(-np.log(1e6), abs=1e-6)


def test_comparisons():
    fit, small = fitted("poisson"), fitted("poisson", "count ~ x + (1 | g)")
    ml = fitted("poisson", reml=False)
    smaller = fitted("poisson", "count ~ x + (1 | g)", False)
    assert jg.anova(fit, small).statistic == pytest.approx(
        jg.anova(ml, smaller).statistic, abs=1e-6
    )
    with pytest.raises(jg.ComparisonError, match="different fixed effects"):
        jg.anova(fit, small, refit=False)
    pd.testing.assert_frame_equal(fit.drop1(), ml.drop1(), rtol=1e-5)
    pd.testing.assert_frame_equal(fit.ranova(), ml.ranova(), rtol=1e-5)


def test_questions(tmp_path):
    fit = fitted("poisson")
    assert "fit by REML, Laplace" in str(fit.summary())
    assert "REML criterion" in str(fit.summary())
    copy = pickle.loads(pickle.dumps(fit))
    np.testing.assert_allclose(copy.se, fit.se, rtol=1e-8)
    fit.save(tmp_path / "fit.jaxglmm")
    again = jg.load(tmp_path / "fit.jaxglmm")
    assert again.reml
    assert again.criterion == fit.criterion
    np.testing.assert_allclose(again.confint(), fit.confint(), rtol=1e-8)
    other = fit.refit(np.asarray(fit.design.y))
    assert other.criterion == pytest.approx(fit.criterion, abs=1e-8)
    starts = fit.multistart(2)
    assert starts.agree
    assert starts.table["converged"].all()
    draws = fit.bootstrap(2, seed=1)
    assert np.isfinite(draws.frame()["sd_(Intercept)|g"]).all()


def test_a_smooth_beside_groups():
    """Beta beside a factor of many levels and one of one level with many columns."""
    rng = np.random.default_rng(11)
    x, g = rng.uniform(0, 10, 200), np.repeat(np.arange(10), 20)
    mean = np.exp(1 + np.sin(x) + 0.4 * rng.standard_normal(10)[g])
    table = {"x": x, "g": g.astype(str), "y": rng.poisson(mean)}
    formula = "y ~ s(x, k=14) + (1 | g)"
    fit = jg.glmm(formula, table, family="poisson", method=jg.REML())
    assert fit.converged
    assert fit.reml
    sds = [float(fit.varcorr[t.label].sd.iloc[0]) for t in fit.design.terms]
    least = restricted_at(fit, sds)
    assert least == pytest.approx(fit.criterion, abs=1e-6)
    for k in range(2):
        for by in (0.9, 1.1):
            moved = [s * (by if i == k else 1) for i, s in enumerate(sds)]
            assert restricted_at(fit, moved) > least


def restricted_at(fit, sds):
    """The criterion at standard deviations, by Newton's method on dense matrices."""
    terms = fit.design.terms
    Z = np.concatenate([dense_columns(t) for t in terms], axis=1)
    widths = [t.n_levels * len(t.names) for t in terms]
    prior = np.concatenate(
        [np.full(w, s**-2.0) for w, s in zip(widths, sds, strict=True)]
    )
    X, y = fit.design.X, fit.design.y
    T, P = np.hstack([X, Z]), np.diag(np.r_[np.zeros(X.shape[1]), prior])
    at = np.r_[fit.estimates.beta, np.zeros(Z.shape[1])]
    for _ in range(60):
        mu = np.exp(T @ at)
        H = (T.T * mu) @ T + P
        at = at + np.linalg.solve(H, T.T @ (y - mu) - P @ at)
    eta = T @ at
    rows = 2 * np.sum(gammaln(y + 1) + np.exp(eta) - y * eta)
    log_det = np.linalg.slogdet((T.T * np.exp(eta)) @ T + P)[1] - np.log(prior).sum()
    return rows + at @ P @ at + log_det - X.shape[1] * np.log(2 * np.pi)


def dense_columns(term):
    """(n, J q) of a term."""
    n, q = term.values.shape
    out = np.zeros((n, term.n_levels, q))
    out[np.arange(n), term.codes] = term.values
    return out.reshape(n, -1)


def test_refusals():
    rows = data()
    poisson = {"family": "poisson", "reml": True}
    one = "count ~ x + (1 | g)"
    with pytest.raises(jg.ModelError, match="with random effects or smooths"):
        jg.glmm("count ~ x", rows, **poisson)
    with pytest.raises(jg.ModelError, match="this model has none"):
        jg.glmm("count ~ 0 + (1 | g)", rows, **poisson)
    with pytest.raises(jg.ModelError, match="does not go with it"):
        jg.glmm(one, rows, method="agq", **poisson)
    with pytest.raises(jg.ModelError, match="one linear predictor"):
        jg.glmm(one, rows, zi="~ 1", **poisson)
    ordered = rows.assign(o=pd.cut(rows.y, 3, labels=False))
    with pytest.raises(jg.ModelError, match="one linear predictor"):
        jg.glmm("o ~ x + (1 | g)", ordered, family=jg.Cumulative(), reml=True)
    with pytest.raises(jg.ModelError, match="maximum likelihood"):
        jg.glmm(one, rows, fixed={"x": 0.0}, **poisson)
    with pytest.raises(jg.NotApplicableError, match="reml=False"):
        fitted("poisson").with_vcov("CR0")


@pytest.mark.filterwarnings("ignore::jaxglmm.SingularFitWarning")
def test_a_variance_that_is_zero_by_likelihood_alone():
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(6), 3), rng.random((18, 4))
    mean = np.exp(0.5 + 0.3 * rng.standard_normal(6)[g] + x[:, 0])
    table = {"y": rng.poisson(mean), "g": g.astype(str)}
    table |= {f"x{j}": x[:, j] for j in range(4)}
    formula = "y ~ x0 + x1 + x2 + x3 + (1 | g)"
    assert jg.glmm(formula, table, family="poisson").is_singular
    found = jg.glmm(formula, table, family="poisson", reml=True)
    sd = float(found.varcorr["g"].sd.iloc[0])
    assert sd == pytest.approx(0.1854, abs=1e-3)
    values = [dense(found, s)[0] for s in (0.02, 0.9 * sd, 1.1 * sd, 1.0)]
    assert found.criterion < min(values)
