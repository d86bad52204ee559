"""Smooths in fits: likelihoods, degrees of freedom and bands by dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from doors import double_precision
from jax.scipy.special import gammaln

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


def test_a_posterior_has_the_bands_of_reml(fit):
    """Within Monte Carlo error; wider by what the variances are uncertain."""
    posterior = jg.lmm("y ~ s(x, k=6) + (1 | g)", DATA, method="nested-laplace")
    new = pd.DataFrame({"x": np.linspace(0.05, 0.95, 12), "g": "g3"})
    mine, theirs = (m.predict(new, interval="confidence") for m in (posterior, fit))
    half = ((theirs.upper - theirs.lower) / 2).to_numpy()
    assert np.abs(mine.fit - theirs.fit).max() < 0.15 * half.min()
    ratio = ((mine.upper - mine.lower) / 2).to_numpy() / half
    assert (ratio > 0.95).all()
    assert (ratio < 1.25).all()
    here = posterior.smooth("s(x)", new[["x"]])
    there = fit.smooth("s(x)", new[["x"]])
    assert np.abs(here.estimate - there.estimate).max() < 0.2 * half.min()


def counts():
    rng = np.random.default_rng(12)
    d = DATA.assign(u=rng.uniform(size=N))
    zero = rng.uniform(size=N) < 1 / (1 + np.exp(1 - 2 * np.sin(5 * d.u)))
    return d.assign(c=np.where(zero, 0, rng.poisson(np.exp(1 + np.sin(6 * d.x)))))


@double_precision
def laplace(fit, sds):
    """-log L of zero-inflated counts by dense matrices, at the fit's parameters."""
    parts = list(fit.design.parts.values())
    Z = [np.asarray(p.terms[0].values) for p in parts]
    sizes = [z.shape[1] for z in Z]
    beta = np.split(fit.coefficients, [parts[0].p])
    fixed = [p.X @ b for p, b in zip(parts, beta, strict=True)]
    y = fit.design.y

    def minus_log_joint(b):
        own = jnp.split(b, [sizes[0]])
        eta, zeta = (f + z @ x for f, z, x in zip(fixed, Z, own, strict=True))
        pi = jax.nn.sigmoid(zeta)
        poisson = jnp.exp(-jnp.exp(eta) + y * eta - gammaln(y + 1))
        density = (1 - pi) * poisson + jnp.where(y == 0, pi, 0.0)
        prior = sum(
            jnp.sum(x**2) / (2 * s**2) + q * jnp.log(s * jnp.sqrt(2 * jnp.pi))
            for x, s, q in zip(own, sds, sizes, strict=True)
        )
        return prior - jnp.sum(jnp.log(density))

    b = jnp.concatenate([jnp.asarray(x).ravel() for x in fit.estimates.b])
    score, hessian = jax.grad(minus_log_joint), jax.hessian(minus_log_joint)
    for _ in range(10):
        b = b - jnp.linalg.solve(hessian(b), score(b))
    assert np.abs(score(b)).max() < 1e-8
    half = jnp.linalg.slogdet(hessian(b))[1] / 2
    return float(minus_log_joint(b) + half - len(b) / 2 * jnp.log(2 * jnp.pi))


def test_smooths_of_two_predictors(tmp_path):
    """The likelihood is that of a dense Laplace approximation, and it is highest."""
    d = counts()
    fit = jg.glmm("c ~ s(x, k=5)", d, family="poisson", zi="~ s(u, k=5)")
    sds = np.array([float(v.sd.iloc[0]) for v in fit.varcorr.values()])
    best = laplace(fit, sds)
    assert -fit.log_likelihood == pytest.approx(best, abs=1e-5)
    for k in range(2):
        for factor in (0.9, 1.1):
            moved = sds * np.where(np.arange(2) == k, factor, 1.0)
            assert laplace(fit, moved) > best - 1e-4
    assert [*fit.smooths().index] == ["s(x)", "zi~s(u)"]
    assert fit.smooths().edf.between(1, 4).all()
    curve = fit.smooth("zi~s(u)", d[["u"]])
    intercept = fit.coefficients[list(fit.design.x_names).index("zi~(Intercept)")]
    p = 1 / (1 + np.exp(-intercept - curve.estimate.to_numpy()))
    np.testing.assert_allclose(fit.predict(d, type="zprob"), p, rtol=1e-9)
    assert len(fit.plot.smooths()) == 2
    fit.save(tmp_path / "fit")
    again = jg.load(tmp_path / "fit")
    np.testing.assert_allclose(again.predict(d), fit.predict(d))


def test_the_same_smooth_in_two_predictors():
    """One of each, with a spread of its own."""
    with pytest.warns(jg.SingularFitWarning, match=r"zi~s\(x\)"):
        fit = jg.glmm("c ~ s(x, k=4)", counts(), family="poisson", zi="~ s(x, k=4)")
    edf = fit.smooths().edf
    assert edf["s(x)"] > 2
    assert edf["zi~s(x)"] == pytest.approx(1.0)  # straight: zeros are by u


def test_what_smooths_of_other_predictors_lack():
    with pytest.raises(jg.FormulaError, match=r"s\(w\): no column 'w'"):
        jg.glmm("c ~ x", counts(), family="poisson", zi="~ s(w)")
    with pytest.raises(jg.ModelError, match="random effects, whose integral"):
        jg.lmm("y ~ x", DATA, dispersion="~ s(x, k=4)")


def test_ordered_categories():
    """The thresholds stand for the intercept, beside a smooth as well."""
    d = DATA.assign(r=pd.Categorical(np.digitize(DATA.y, [-0.5, 0.5]), ordered=True))
    fit = jg.clmm("r ~ s(x, k=4) + (1 | g)", d)
    assert fit.converged
    assert fit.smooths().edf["s(x)"] > 2
    p = fit.predict(d, type="probs")
    np.testing.assert_allclose(p, fit.predict(type="probs"), atol=1e-12)
    with pytest.warns(jg.SingularFitWarning, match="disp~s"):
        scaled = jg.clmm("r ~ x + (1 | g)", d, dispersion="~ s(z, k=4)")
    assert len(scaled.smooth("disp~s(z)", d[["z"]])) == N
