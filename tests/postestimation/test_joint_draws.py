"""Draws of coefficients, effects and variances together."""

import jax
import numpy as np
import pytest
from doors import (
    conditional_covariance,
    correlated_draws,
    effects_given,
    noise_of_effects,
)
from twin import dense_z

import jaxglmm as jg

N = 4000
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def sleep_fit():
    data = jg.datasets.load("sleepstudy")
    return jg.lmm("Reaction ~ Days + (Days | Subject)", data)


@pytest.fixture(scope="module")
def sleep_draws(sleep_fit):
    return sleep_fit.draws(N)


@pytest.fixture(scope="module")
def counts():
    return jg.glmm(CBPP, jg.datasets.load("cbpp"))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
        ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    ],
)
def test_given_the_variances_the_covariance_is_hendersons(name, formula):
    """The draws are linear in their normals: A A' is the inverse of Henderson's."""
    fit = jg.lmm(formula, jg.datasets.load(name))
    problem, theta = fit.working()
    shapes = [(x.shape[0], 1, x.shape[-1]) for x in problem.B]
    sizes = [problem.p, *(int(np.prod(s)) for s in shapes)]
    every = np.concatenate([np.zeros((1, sum(sizes))), np.eye(sum(sizes))])
    e, *z = np.split(every, np.cumsum(sizes)[:-1], axis=1)
    n = len(every)
    z = tuple(x.reshape(n, *s) for x, s in zip(z, shapes, strict=True))
    engine, fixed = fit.engine, fit.engine.moments.fixed
    log_s2 = np.full(n, 2 * np.log(fit.sigma / fixed.scale))
    with jax.enable_x64(True):
        beta, b = effects_given(problem, np.tile(theta, (n, 1)), log_s2, e, z)
    beta = fixed.beta(np.asarray(beta))
    own = [
        fixed.scale
        * np.einsum("nqj,kq->njk", np.asarray(x)[:, :, 0, : f.n_levels], f.T_inverse)
        for f, x in zip(engine.factors, b, strict=True)
    ]
    order = [t.factor for t in fit.design.terms]
    names = [f.name for f in engine.factors]
    own = [own[names.index(name)] for name in order]
    flat = np.concatenate([beta, *(x.reshape(n, -1) for x in own)], axis=1)
    np.testing.assert_allclose(flat[0, : fit.design.p], fit.coefficients, rtol=1e-8)
    np.testing.assert_allclose(
        flat[0, fit.design.p :],
        np.concatenate([x.ravel() for x in fit.estimates.b]),
        rtol=1e-6,
        atol=1e-6,
    )
    A = (flat[1:] - flat[0]).T
    Z, positions = dense_z(fit.design)
    W = np.concatenate([fit.design.X, Z], axis=1)
    P = W.T @ W / fit.sigma**2
    for lam, where in zip(fit.estimates.lam, positions, strict=True):
        inverse = np.linalg.inv(fit.sigma**2 * lam @ lam.T)
        for rows in where + fit.design.p:
            P[np.ix_(rows, rows)] += inverse
    want = np.linalg.inv(P)
    np.testing.assert_allclose(A @ A.T, want, atol=1e-9 * np.abs(want).max())


def test_noise_of_effects_is_the_square_root_of_their_covariance(counts):
    problem, theta = counts.working()
    (q, J) = problem.B[0].shape[0], problem.B[0].shape[-1]
    z = np.eye(J).reshape(q, J, J)
    with jax.enable_x64(True):
        (root,) = noise_of_effects(problem, theta, (z,))
    M = np.asarray(root)[0]
    herds = counts.design.terms[0].n_levels
    own = counts.engine.factors[0].T_inverse[0, 0] ** 2 * (M.T @ M)[:herds, :herds]
    given = conditional_covariance(counts)[0][:, 0, 0]
    np.testing.assert_allclose(np.diagonal(own), given, rtol=1e-8)


def test_moments_of_a_linear_model(sleep_fit, sleep_draws):
    draws, fit = sleep_draws, sleep_fit
    near = 4 / np.sqrt(N)
    error = fit.se
    assert (np.abs(draws.beta.mean(0) - fit.coefficients) < near * error).all()
    # theta is drawn as well, so that beta varies by a little more
    np.testing.assert_allclose(draws.beta.std(0), error, rtol=0.12)
    assert list(draws.frame.columns) == [
        "(Intercept)",
        "Days",
        "sd_(Intercept)|Subject",
        "sd_Days|Subject",
        "cor_Days.(Intercept)|Subject",
        "sigma",
    ]
    assert (draws.variances["sd_Days|Subject"] >= 0).all()
    # sigma: its error is sigma / sqrt(2 df), with 144 df for the residual
    np.testing.assert_allclose(draws.sigma.std(), fit.sigma / np.sqrt(288), rtol=0.06)
    se = fit.predict(se=True)["se"]
    np.testing.assert_allclose(draws.predict().std(0), se, rtol=0.15)
    np.testing.assert_allclose(
        draws.predict().mean(0), fit.fitted_values, atol=4 * se.max() / np.sqrt(N) + 1
    )


def test_moments_of_a_generalised_model(counts):
    draws = counts.draws(N)
    table = counts.tidy(effects=["fixed", "ran_pars"])
    want = table["std_error"].to_numpy()
    np.testing.assert_allclose(draws.frame.std().to_numpy(), want, rtol=0.05)
    se = counts.predict(se=True, type="link")["se"]
    np.testing.assert_allclose(draws.predict(type="link").std(0), se, rtol=0.12)
    assert draws.predict().max() < 1  # probabilities
    size = counts.design.trials
    seen = draws.observations()
    assert (seen == np.floor(seen)).all()
    assert (seen <= size).all()
    limits = draws.intervals()
    inside = (counts.design.y >= limits["lower"]) & (counts.design.y <= limits["upper"])
    assert inside.mean() > 0.9


def test_a_new_level_has_one_effect_wherever_it_stands(sleep_fit, sleep_draws):
    rows = {"Days": [0, 3, 0], "Subject": ["new", "other", "new"]}
    found = sleep_draws.predict(rows)
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 0.3
    # alone it is what it was beside others
    alone = sleep_draws.predict({"Days": [3], "Subject": ["other"]})
    np.testing.assert_allclose(alone[:, 0], found[:, 1], rtol=1e-12)
    zero = sleep_draws.predict(rows, new_levels="zero")
    more = found.std(0) ** 2 - zero.std(0) ** 2
    sd = sleep_fit.varcorr["Subject"].sd.iloc[0]
    np.testing.assert_allclose(np.sqrt(more[0]), sd, rtol=0.1)
    # of an observation that of ``predict``, variances drawn too
    with pytest.warns(jg.NewLevelsWarning):
        exact = sleep_fit.predict(rows, interval="prediction")
    own = sleep_draws.intervals(rows)
    width = (own["upper"] - own["lower"]) / (exact["upper"] - exact["lower"])
    np.testing.assert_allclose(width, 1.0, atol=0.12)
    missing = sleep_draws.predict({"Days": [0, 0], "Subject": [None, None]})
    assert not np.array_equal(missing[:, 0], missing[:, 1])


def test_parts_and_the_population(sleep_fit, sleep_draws):
    new = {"Days": [2.0], "Subject": ["308"]}
    without = sleep_draws.predict(new, re="population")
    np.testing.assert_allclose(without[:, 0], sleep_draws.beta @ [1, 2], rtol=1e-12)
    some = sleep_draws.predict(new, re="(1 | Subject)")
    b = sleep_draws.ranef("Subject")[:, 0, 0]
    np.testing.assert_allclose(some[:, 0], without[:, 0] + b, rtol=1e-10)


def test_equal_seeds_and_lengths(sleep_fit):
    a, b, c = sleep_fit.draws(300), sleep_fit.draws(300), sleep_fit.draws(300, seed=1)
    np.testing.assert_array_equal(a.beta, b.beta)
    assert (a.beta != c.beta).any()
    assert sleep_fit.draws(1).ranef().shape == (1, 18, 2)
    other = sleep_fit.draws(3, seed=None)
    rows = {"Days": [1], "Subject": ["new"]}
    np.testing.assert_array_equal(other.predict(rows), other.predict(rows))


def test_a_dispersion_and_parts():
    data = jg.datasets.load("Salamanders")
    fit = jg.glmm("count ~ mined + (1 | site)", data, family="nbinom2")
    draws = fit.draws(500)
    assert draws.variances.columns.tolist() == [
        "sd_(Intercept)|site",
        *fit.dispersions,
    ]
    middle = np.median(draws.variances.iloc[:, -1])
    np.testing.assert_allclose(middle, fit.dispersion, rtol=0.1)
    zi = jg.glmm("count ~ mined + (1 | site)", data, family="poisson", zi="~ mined")
    own = zi.draws(500)
    np.testing.assert_allclose(own.beta.std(0), zi.se, rtol=0.15)
    with pytest.raises(jg.NotApplicableError, match="one linear predictor"):
        own.predict()


def test_what_there_is_no_answer_to(sleep_fit, sleep_draws, counts):
    with pytest.raises(jg.NotApplicableError, match="whole number"):
        sleep_fit.draws(0)
    with pytest.raises(jg.NotApplicableError, match="from 1 to"):
        sleep_fit.draws(10**9)
    with pytest.raises(jg.NotApplicableError, match="'Subject'"):
        sleep_draws.ranef("Days")
    with pytest.raises(jg.NotApplicableError, match="a new level"):
        sleep_draws.predict(re="marginal")
    with pytest.raises(jg.NotApplicableError, match=r"fit\.draws"):
        sleep_fit.predict({"Days": [1], "Subject": ["x"]}, new_levels="sample")
    with pytest.raises(jg.DataError, match="not in the data"):
        sleep_draws.predict({"Days": [1], "Subject": ["x"]}, new_levels="error")
    with pytest.raises(jg.NotApplicableError, match="numbers of trials"):
        counts.draws(5).observations({"period": ["1"], "herd": ["1"]})


@pytest.mark.parametrize(
    "options",
    [
        {"residual": "varident(Sex)"},
        {"residual": "ar1(age | Subject)"},
        {"dispersion": "~ Sex"},
    ],
    ids=["strata", "ar1", "dispersion"],
)
def test_moments_where_residuals_differ(options):
    data = jg.datasets.load("Orthodont")
    fit = jg.lmm("distance ~ age * Sex + (1 | Subject)", data, **options)
    draws = fit.draws(600, seed=2)
    p = fit.design.p
    se = np.asarray(fit.se)[:p]
    assert np.abs(draws.beta.mean(0) - fit.estimates.beta).max() < 0.2 * se.max()
    np.testing.assert_allclose(draws.beta.std(0), se, rtol=0.12)
    (b,), (modes,) = draws.b, fit.estimates.b
    assert np.abs(b.mean(0) - modes).max() < 0.15 * modes.std()
    given = np.sqrt(fit.ranef_cov["Subject"][:, 0, 0])
    # given the coefficients and variances; what these add comes on top
    assert (b[:, :, 0].std(0) > 0.95 * given).all()
    assert set(fit.dispersions) < set(draws.variances)
    theirs = fit.predict(data.iloc[:6], interval="prediction")
    ours = draws.intervals(data.iloc[:6])
    half = (theirs["upper"] - theirs["lower"]).to_numpy() / 2
    assert np.abs(ours["fit"] - theirs["fit"]).max() < 0.1 * half.max()
    width = (ours["upper"] - ours["lower"]).to_numpy() / 2
    np.testing.assert_allclose(width, half, rtol=0.2)


def test_given_the_variances_effects_are_hendersons():
    """Variance parameters held: beta and b against their covariance from V."""
    data = jg.datasets.load("Orthodont").iloc[:24]
    fit = jg.lmm("distance ~ age + (1 | Subject)", data, residual="ar1(age | Subject)")
    rng, still = np.random.default_rng(1), np.zeros((len(fit.engine.problem.start), 0))
    beta, (b,), *_ = correlated_draws.correlated(fit, 4000, rng, still)
    np.testing.assert_allclose(beta.mean(0), fit.estimates.beta, rtol=0.02)
    np.testing.assert_allclose(np.cov(beta.T), fit.estimates.vcov, rtol=0.1, atol=2e-3)
    Z = np.kron(np.eye(6), np.ones((4, 1)))
    steps = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    R = fit.sigma**2 * fit.dispersions["rho|Residual"] ** (2 * steps)
    sd2 = fit.varcorr["Subject"].sd.iloc[0] ** 2
    Vi = np.linalg.inv(np.kron(np.eye(6), R) + sd2 * Z @ Z.T)
    moved = sd2 * Z.T @ Vi @ fit.design.X
    D = sd2 * np.eye(6) - sd2**2 * Z.T @ Vi @ Z + moved @ fit.estimates.vcov @ moved.T
    np.testing.assert_allclose(np.cov(b[:, :, 0].T), D, rtol=0.1, atol=0.05 * D.max())


def test_residuals_of_a_draw_are_correlated_as_the_model_has_them():
    data = jg.datasets.load("Orthodont")
    fit = jg.lmm("distance ~ age", data, residual="ar1(age | Subject)")
    draws = fit.draws(400)
    left = draws.observations() - draws.predict()
    rho = fit.dispersions["rho|Residual"]
    rows = left[:, :4]
    seen = np.corrcoef(rows, rowvar=False)  # ages are two years apart
    np.testing.assert_allclose(seen[0], rho ** (2 * np.arange(4)), atol=0.15)
    with pytest.raises(jg.NotApplicableError, match=r"intervals\(newdata\)"):
        draws.observations(data.iloc[:2])
