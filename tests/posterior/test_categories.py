"""Posteriors of ordered and unordered categories."""

import numpy as np
import pandas as pd
import pytest
from doors import thresholds as _thresholds
from scipy import stats

import jaxglmm as jg
from jaxglmm import ModelError, NotApplicableError
from jaxglmm.model.families import Cumulative

J, ROWS = 15, 8
MODEL = "y ~ x + (1 | g)"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    g, x = np.repeat(np.arange(J), ROWS), rng.normal(size=J * ROWS) + 2
    latent = 0.8 * x + 0.7 * rng.normal(size=J)[g] + rng.logistic(size=J * ROWS)
    y = np.searchsorted([0.5, 1.6, 2.8], latent)
    return pd.DataFrame({"y": y, "x": x, "g": g, "two": 1 * (y > 1)})


@pytest.fixture(scope="module")
def fit(data):
    return jg.clmm(MODEL, data, method=jg.NestedLaplace(draws=1000, nodes=1))


def test_a_threshold_and_a_slope_by_quadrature():
    """Two parameters and no random effects: the posterior on a grid."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=30) + 1
    y = 1 * (0.7 * x + rng.logistic(size=30) > 0.5)
    priors = jg.Priors(coefficients=1.0, thresholds=2.0, centered=False)
    fit = jg.clm("y ~ x", {"y": y, "x": x}, method="nested-laplace", priors=priors)
    t, b = np.meshgrid(np.linspace(-6, 8, 401), np.linspace(-4, 5, 301), indexing="ij")
    ends = t[..., None] - b[..., None] * x
    logs = np.where(y == 0, stats.logistic.logcdf(ends), stats.logistic.logsf(ends))
    logs = logs.sum(axis=-1) + stats.norm.logpdf(t, 0, 2) + stats.norm.logpdf(b)
    cell = (t[1, 0] - t[0, 0]) * (b[0, 1] - b[0, 0])
    evidence = np.log(np.exp(logs).sum() * cell)
    share = np.exp(logs) * cell / np.exp(evidence)
    assert fit.posterior.log_evidence == pytest.approx(evidence, abs=0.02)
    for found, values in ((fit.thresholds, t), (fit.posterior.summary(), b)):
        row = found.iloc[0]
        mean = (share * values).sum()
        sd = np.sqrt((share * (values - mean) ** 2).sum())
        assert row["mean"] == pytest.approx(mean, abs=0.06 * sd)
        assert row["sd"] == pytest.approx(sd, rel=0.06)


def test_two_categories_are_a_binomial_response(data):
    """A threshold is minus an intercept, priors and all."""
    method = jg.NestedLaplace(draws=2000)
    one = jg.clm("two ~ x", data, method=method)
    other = jg.glmm("two ~ x", data, family="binomial", method=method)
    evidence = other.posterior.log_evidence
    assert one.posterior.log_evidence == pytest.approx(evidence, abs=0.02)
    found = np.array([-one.thresholds["mean"].iloc[0], *one.coefficients])
    sd = other.posterior.summary()["sd"].to_numpy()
    assert (np.abs(found - other.coefficients) < 0.08 * sd).all()


@pytest.mark.slow
def test_nested_laplace_and_nuts(fit, data):
    draws = jg.clmm(MODEL, data, method=jg.NUTS(draws=500, warmup=300, chains=2))
    a, b = fit.posterior.summary(), draws.posterior.summary()
    assert (np.abs(a["mean"] - b["mean"]) < 0.2 * b["sd"]).all()
    np.testing.assert_allclose(a["sd"], b["sd"], rtol=0.15)


@pytest.mark.slow
def test_variational_bayes_moves_thresholds_together(fit, data):
    vb = jg.clmm(MODEL, data, method=jg.VB(draws=1000))
    assert vb.converged
    assert vb.posterior.facts["steps"] < 40
    a, b = fit.posterior.summary(), vb.posterior.summary()
    assert (np.abs(a["mean"] - b["mean"]) < 0.2 * a["sd"]).all()


def test_probabilities_of_rows_are_those_of_the_draws(fit):
    new = {"x": [1.0, 3.0], "g": [3, 3]}
    theta, beta = fit.threshold_draws, fit.posterior.draws.beta[:, 0]
    b = fit.posterior.effects("g")[:, 3, 0]

    def written_out(effect):
        eta = beta[:, None] * np.array(new["x"]) + effect[:, None]
        F = stats.logistic.cdf(theta[:, None] - eta[..., None])
        edge = np.ones((*eta.shape, 1))
        return np.diff(np.concatenate([0 * edge, F, edge], axis=-1), axis=-1)

    P = written_out(b)
    found = fit.predict(new, type="probs", se=True, interval="confidence")
    np.testing.assert_allclose(found["fit"], P.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["se"], P.std(axis=0), rtol=1e-12)
    upper = np.quantile(P, 0.975, axis=0)
    np.testing.assert_allclose(found["upper"], upper, rtol=1e-12)
    cumulative = fit.predict(new, type="cum_probs")
    expected = np.cumsum(P, axis=-1)[..., :-1].mean(axis=0)
    np.testing.assert_allclose(cumulative, expected, rtol=1e-12)
    means = P @ np.arange(1, 5)
    np.testing.assert_allclose(fit.predict(new), means.mean(axis=0), rtol=1e-12)
    label = fit.levels[P.mean(axis=0).argmax(axis=1)]
    assert (fit.predict(new, type="class") == label).all()
    population = fit.predictions(new, type="probs")
    P = written_out(0 * b)
    first = population[population["category"] == 0]
    np.testing.assert_allclose(first["estimate"], P[..., 0].mean(axis=0), rtol=1e-12)
    # over new levels, by quadrature of our own
    z, w = np.polynomial.hermite_e.hermegauss(40)
    sd = fit.posterior.draws.sd["g"][:, 0]
    over = sum(wk * written_out(zk * sd) for zk, wk in zip(z, w / w.sum(), strict=True))
    found = fit.predict(new, re="marginal", type="probs")
    np.testing.assert_allclose(found, over.mean(axis=0), rtol=1e-5)


def test_questions_of_a_posterior(fit, data, tmp_path):
    assert "Categories: 0 < 1 < 2 < 3" in str(fit.summary())
    assert "Thresholds:" in str(fit.summary())
    table = fit.tidy("ran_pars").set_index("term")
    assert (table.loc[["0|1", "1|2", "2|3"], "group"] == "Thresholds").all()
    assert fit.resid("quantile", seed=1).std() == pytest.approx(1, abs=0.15)
    drawn = fit.simulate(50, seed=1)
    assert set(np.unique(drawn)) == {0, 1, 2, 3}
    assert abs((drawn == 0).mean() - (data["y"] == 0).mean()) < 0.05
    assert fit.loo().elpd < 0
    assert fit.check().ok
    fit.save(tmp_path / "fit")
    back = jg.load(tmp_path / "fit")
    pd.testing.assert_frame_equal(back.predict(type="probs"), fit.predict(type="probs"))
    pd.testing.assert_frame_equal(back.thresholds, fit.thresholds)
    with pytest.raises(NotApplicableError, match="type='probs'"):
        fit.predict(type="class", se=True)
    with pytest.raises(NotApplicableError, match="its probabilities"):
        fit.predict(interval="prediction")


def test_arviz_has_the_thresholds(fit):
    tree = fit.to_arviz(draws=20)
    for group in ("posterior", "prior"):
        theta = np.asarray(tree[group]["thresholds"])
        assert theta.shape[-1] == 3
        assert (np.diff(theta, axis=-1) > 0).all()
    assert list(np.asarray(tree["posterior"]["threshold"])) == ["0|1", "1|2", "2|3"]
    assert set(np.unique(tree["posterior_predictive"]["y"])) <= {0, 1, 2, 3}


def test_priors_of_thresholds_are_in_order():
    family = Cumulative(levels=["a", "b", "c", "d"])
    alike = (jg.Normal(0, 2),) * 3
    assert _thresholds.log_ordered(family, alike) == pytest.approx(np.log(6))
    apart = tuple(jg.Normal(mean, 0.5) for mean in (-1, 0, 1))
    rng = np.random.default_rng(0)
    for priors in (alike, apart):
        drawn = _thresholds.drawn(family, priors, rng, 500)
        assert (np.diff(drawn, axis=0) > 0).all()
    # differences of three normals: P(both > 0), by the bivariate distribution
    cov = 0.25 * np.array([[2.0, -1], [-1, 2]])
    p = stats.multivariate_normal([-1.0, -1.0], cov).cdf([0, 0])
    assert _thresholds.log_ordered(family, apart) == pytest.approx(-np.log(p), abs=0.01)
    falling = tuple(jg.Normal(mean, 0.1) for mean in (1, 0, -1))
    with pytest.raises(ModelError, match="contradict their order"):
        _thresholds.log_ordered(family, falling)


def test_what_priors_say_by_name(data):
    priors = jg.Priors(thresholds={"0|1": jg.Normal(-1, 0.3), "others": 4})
    fit = jg.clm("y ~ x", data, method=jg.MAP(draws=200), priors=priors)
    rows = {name: (text, given) for _, name, text, given in fit.priors.table()}
    assert rows["0|1"] == ("Normal(mean=-1, sd=0.3)", "given")
    assert rows["2|3"] == ("Normal(mean=0, sd=4)", "given")
    for wrong, words in (
        ({"dispersion": jg.HalfNormal(1)}, "thresholds take"),
        ({"intercept": 2.0}, "thresholds in its place"),
        ({"thresholds": {"9|10": 1.0}}, "'9|10'"),
        ({"thresholds": np.inf}, "sd=inf"),
        ({"thresholds": jg.HalfNormal(1)}, "Normal.mean, sd."),
    ):
        with pytest.raises(ModelError, match=words):
            jg.clm("y ~ x", data, method="map", priors=jg.Priors(**wrong))
    with pytest.raises(ModelError, match="has none"):
        jg.glmm("two ~ x", data, method="map", priors=jg.Priors(thresholds=1.0))


@pytest.mark.parametrize("structure", ["symmetric", "symmetric2", "equidistant"])
def test_structured_thresholds(data, structure):
    fit = jg.clm("y ~ x", data, threshold=structure, method=jg.MAP(draws=200))
    most = jg.clm("y ~ x", data, threshold=structure)
    away = fit.thresholds["mean"].to_numpy() - most.thresholds.to_numpy()
    sd = fit.thresholds["sd"].to_numpy()  # of the middle one of symmetric2 it is zero
    assert (np.abs(away) <= 0.6 * sd + 1e-9).all()


def test_thresholds_by_row_and_unordered_categories(data):
    """Several predictors, without random effects."""
    fit = jg.clm("y ~ 1", data, nominal="~ x", method=jg.MAP(draws=400))
    assert fit.thresholds.shape == (3, 4)
    most = jg.clm("y ~ 1", data, nominal="~ x")
    away = fit.coefficients - most.coefficients
    assert (np.abs(away) < 0.5 * most.se).all()
    other = jg.glmm("y ~ x", data, family="multinomial", method=jg.MAP(draws=400))
    most = jg.glmm("y ~ x", data, family="multinomial")
    np.testing.assert_allclose(
        other.predict(type="probs"), most.predict(type="probs"), atol=0.04
    )
    eta = other.predict({"x": [2.0]}, type="link")
    B = other.posterior.draws.beta.reshape(-1, 3, 2).mean(axis=0)
    np.testing.assert_allclose(eta.iloc[0], B @ [1, 2], rtol=1e-9)
    with pytest.raises(NotApplicableError, match="no order"):
        _ = other.thresholds
    with pytest.raises(NotApplicableError, match="no mean"):
        other.predictions()


@pytest.mark.slow
def test_many_posteriors_one_by_one(data):
    """Thresholds by name; a data set without a category has one of its own."""
    Y = np.column_stack([data["y"], np.minimum(data["y"], 2), data["y"][::-1]])
    options = {"family": jg.Cumulative(), "method": jg.MAP(draws=100, nodes=1)}
    many = jg.fit_many(MODEL, data, responses=Y, **options)
    assert many.converged.all()
    one = many[0]
    assert list(one.thresholds.index) == ["0|1", "1|2", "2|3"]
    means = many.frame()
    assert np.isnan(means.loc[1, "2|3"])
    np.testing.assert_allclose(means.loc[0, "1|2"], one.thresholds["mean"].iloc[1])
