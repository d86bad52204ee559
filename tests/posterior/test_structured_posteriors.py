"""Posteriors of structured and of known covariances."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from doors import (
    Autoregressive,
    Exchangeable,
    Toeplitz,
    design_from_formula,
    double_precision,
)
from doors import engine as engines
from scipy import integrate, stats

import jaxglmm as jg
from jaxglmm import ModelError, NotApplicableError
from jaxglmm.model.families import family_from

J, T = 25, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    g, t = np.repeat(np.arange(J), T), np.tile(np.arange(T), J)
    R = 0.7 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    b = (rng.normal(size=(J, T)) @ np.linalg.cholesky(R).T).ravel() * 0.8
    x = rng.normal(size=J * T)
    y = rng.poisson(np.exp(1.0 + 0.3 * x + b))
    return pd.DataFrame({"y": y, "x": x, "g": g, "t": t, "f": t.astype(str)})


@pytest.fixture(scope="module")
def chain(data):
    method = jg.NestedLaplace(draws=500)
    formula = "y ~ x + ar1(0 + t | g)"
    return jg.glmm(formula, data, family="poisson", method=method)


@double_precision
@pytest.mark.parametrize("eta", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("law", [Autoregressive(4), Exchangeable(4)])
def test_a_prior_of_one_correlation_is_a_density(law, eta):
    total, _ = integrate.quad(
        lambda y: float(jnp.exp(law.log_lkj(jnp.array([y]), eta))), -40, 40, limit=200
    )
    assert total == pytest.approx(1, abs=1e-7)
    drawn = law.drawn_lkj(np.random.default_rng(0), 20_000, eta)[:, 0]
    low = getattr(law, "lowest", -1.0)
    expected = stats.beta(eta, eta, loc=low, scale=1 - low)
    assert stats.kstest(drawn, expected.cdf).pvalue > 1e-3
    y = law.to_even(np.asarray(law.free([drawn])[0]))
    half = float(jnp.exp(law.log_lkj(y[:1], eta)))
    step = 1e-5
    near = [law.natural([law.from_even(y[0] + s)])[0] for s in (-step, step)]
    density = expected.pdf(drawn[0]) * float(near[1] - near[0]) / (2 * step)
    assert half == pytest.approx(density, rel=1e-6)


@double_precision
def test_toeplitz_correlations_are_uniform_where_eta_is_one():
    law = Toeplitz(3)
    rng = np.random.default_rng(1)
    drawn = law.drawn_lkj(rng, 4000, 1.0)
    assert (np.linalg.eigvalsh(law.matrix(list(drawn.T))) > 0).all()
    # by rejection from the square
    square = rng.uniform(-1, 1, (60_000, 2))
    inside = np.linalg.eigvalsh(law.matrix(list(square.T)))[:, 0] > 0
    for k in range(2):
        assert stats.ks_2samp(drawn[:, k], square[inside, k]).pvalue > 1e-3
    # one density everywhere: its Jacobian undone
    volume = 4 * inside.mean()
    y = np.array([0.4, -0.3])
    J = np.array(
        [
            np.subtract(
                law.natural(list(law.from_even(y + h))),
                law.natural(list(law.from_even(y - h))),
            )
            / 2e-6
            for h in 1e-6 * np.eye(2)
        ]
    )
    found = float(jnp.exp(law.log_lkj(jnp.asarray(y), 1.0)))
    assert found / abs(np.linalg.det(J)) == pytest.approx(1 / volume, rel=0.03)


@double_precision
@pytest.mark.parametrize(
    "term",
    [
        "ar1(0 + t | g)",
        "hetar1(0 + f | g)",
        "cs(0 + f | g)",
        "toep(0 + f | g)",
        "ou(0 + t | g)",
        "mat(0 + t | g)",
        "homdiag(0 + f | g)",
        "(1 | x2) + ar1(0 + t | g) + (x | g)",
    ],
)
def test_coordinates_are_those_of_the_covariance(data, term):
    """Lambda of the problem, the factor that draws have, and what starts a search."""
    data = data.assign(x2=np.arange(len(data)) % 5)
    design = design_from_formula(f"y ~ x + {term}", data)
    engine = engines.build(design, family_from("poisson"), None)
    belief = engine.belief
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, belief.size)) * 0.4
    draws = engine.draws(x, None)
    lams = engine.posterior.parameters(jnp.asarray(x[1]))[1]
    for factor, lam in zip(engine.factors, lams, strict=True):
        user = factor.T_inverse @ np.asarray(lam)
        for k, a, b in factor.spans:
            root = engines.roots_of(draws, design.terms[k])[1]
            np.testing.assert_allclose(user[a:b, a:b], root, rtol=1e-9, atol=1e-12)
    theta = belief.rest(jnp.asarray(x[0, design.p :]))
    back = belief.coordinates(theta, theta[:0])
    parts, _ = engine.split(x)
    ours, _ = engine.split(np.concatenate([x[0, : design.p], back])[None])
    for block, y, z in zip(belief.blocks, parts, ours, strict=True):
        if block.correlations is None or block.covariance.has_own:
            np.testing.assert_allclose(z, y[:1], rtol=1e-7)
    assert np.isfinite(float(belief.log_prior(jnp.asarray(x[0]))))


def test_the_posterior_is_around_the_maximum(chain, data):
    most = jg.glmm("y ~ x + ar1(0 + t | g)", data, family="poisson")
    table = chain.posterior.summary()
    assert list(table.index) == ["(Intercept)", "x", "sd_ar1|g", "cor_ar1|g"]
    away = np.abs(table["mean"].iloc[:2] - most.estimates.beta)
    assert (away < 0.3 * np.asarray(most.se)).all()
    most_sd = float(most.varcorr["g"].sd.iloc[0])
    assert abs(table["mean"]["sd_ar1|g"] - most_sd) < 0.6 * table["sd"]["sd_ar1|g"]
    assert table["upper"]["cor_ar1|g"] < 1
    assert chain.khat < 0.7


def test_questions(chain, data, tmp_path):
    draws = chain.posterior.draws
    assert draws.effects["g"].shape == (500, J, T)
    # a known level at a known time, and one at a time without data
    new = {"x": [0.0, 0.0], "t": [1, 4], "g": [3, 3]}
    found = chain.predict(new, type="link", se=True)
    own = draws.beta[:, 0] + draws.effects["g"][:, 3, 1]
    assert found["fit"][0] == pytest.approx(own.mean(), rel=1e-9)
    rho, sd = (chain.posterior.summary()["mean"][k] for k in ("cor_ar1|g", "sd_ar1|g"))
    far = draws.beta[:, 0] + rho**2 * draws.effects["g"][:, 3, 2]
    assert found["fit"][1] == pytest.approx(far.mean(), abs=0.15)
    more = sd**2 * (1 - rho**4)
    assert found["se"][1] ** 2 == pytest.approx(far.var() + more, rel=0.25)
    # a new level: E exp(b) = exp(sd^2 / 2)
    found = chain.predict({"x": [0.0], "t": [1], "g": [99]}, re="marginal")
    expected = np.exp(draws.beta[:, 0] + draws.sd["g"][:, 0] ** 2 / 2).mean()
    assert found[0] == pytest.approx(expected, rel=1e-6)
    assert chain.simulate(3, seed=1).shape == (3, len(data))
    assert np.isfinite(chain.simulate(3, seed=1, re="conditional")).all()
    assert chain.loo().elpd < 0
    tree = chain.to_arviz(draws=20)
    assert tree["posterior"]["cor_g"].dims[-1] == "g_pair"
    assert list(tree["posterior"]["sd_g"].coords["g_sd"].values) == ["ar1"]
    assert np.abs(tree["prior"]["cor_g"]).max() < 1
    chain.save(tmp_path / "fit")
    again = jg.load(tmp_path / "fit")
    pd.testing.assert_frame_equal(again.posterior.summary(), chain.posterior.summary())


def test_levels_that_are_unrelated_are_the_plain_model(data):
    """K = I: the same posterior, effects by level."""
    method = jg.NestedLaplace(draws=400)
    formula = "y ~ x + (1 | g)"
    few = data[data["g"] < 6]
    K = pd.DataFrame(np.eye(6), index=range(6), columns=range(6))
    ask = {"family": "poisson", "method": method}
    plain = jg.glmm(formula, few, **ask)
    known = jg.glmm(formula, few, known={"g": K}, **ask)
    a, b = plain.posterior.summary(), known.posterior.summary()
    assert list(a.index) == list(b.index)
    assert (np.abs(a["mean"] - b["mean"]) < 0.2 * a["sd"]).all()
    assert plain.posterior.log_evidence == pytest.approx(
        known.posterior.log_evidence, abs=0.1
    )
    assert known.posterior.effects("g").shape == (400, 6, 1)
    ours, theirs = known.ranef["g"], plain.ranef["g"]
    own, sd = known.ranef_sd["g"].to_numpy(), plain.ranef_sd["g"].to_numpy()
    assert (np.abs(ours.to_numpy() - theirs.to_numpy()) < 0.5 * sd).all()
    sds = own / sd
    assert (np.abs(np.log(sds)) < 0.35).all()
    assert list(known.tidy("ran_vals")["level"]) == list(range(6))
    assert known.to_arviz(draws=20)["posterior"]["r_g"].shape[-2:] == (6, 1)


def test_priors_by_name(data):
    design = design_from_formula("y ~ x + mat(0 + t | g)", data)
    own = jg.Priors(
        sd={"g:mat": jg.HalfNormal(1)},
        correlation={"g": jg.LogNormal(0, 1), "g:nu": jg.LogNormal(0, 0.1)},
    )
    engine = engines.build(design, family_from("poisson"), own)
    rows = {(a, b): (c, d) for a, b, c, d in engine.resolved.table()}
    assert rows["sd", "g:mat"] == ("HalfNormal(sd=1)", "given")
    assert rows["range", "g"] == ("LogNormal(mean=0, sd=1)", "given")
    assert rows["nu", "g"] == ("LogNormal(mean=0, sd=0.1)", "given")
    own = jg.Priors(correlation={"g": jg.LKJ(2)})
    with pytest.raises(ModelError, match=r"the range of g is .*jg\.LogNormal"):
        engines.build(design, family_from("poisson"), own)


def test_what_has_no_posterior_says_so(data):
    with pytest.raises(ModelError, match=r"rr.*loadings"):
        jg.glmm("y ~ x + rr(0 + f | g)", data, family="poisson", method="map")
    with pytest.raises(NotApplicableError, match=r"ar1.*family='structured'"):
        jg.glmm(
            "y ~ x + ar1(0 + t | g)",
            data,
            family="poisson",
            method=jg.VB(family="mean-field"),
            priors=jg.Priors.statsmodels(),
        )
