"""Methods against exact answers and each other: cbpp, eight schools, sleepstudy.

cbpp under statsmodels' priors by importance sampling with 31-node quadrature, 100,000
draws: coefficients -1.4139 (.2516) and the rest below, log sd -.3597 (.2870).
"""

import jax
import numpy as np
import pytest
from posterior.conftest import FORMULA, SCHOOLS
from scipy.special import gammaln

import jaxglmm as jg

SDS = [0.2516, 0.3068, 0.3243, 0.4192]
MEAN = -1.4139
LOG_SD, LOG_SD_SD = -0.3597, 0.2870


@pytest.fixture(scope="module")
def truth(cbpp_fit):
    """The same by many draws: what is not in the table, to a thousandth of an sd."""
    return cbpp_fit(jg.NestedLaplace(draws=60_000, nodes=25)).posterior.moments


def test_the_truth_is_the_table(truth, cbpp_fit):
    draws = cbpp_fit(jg.NestedLaplace(draws=60_000, nodes=25)).posterior.draws
    assert truth.beta[0] == pytest.approx(MEAN, abs=0.003)
    assert np.sqrt(np.diag(truth.beta_cov)) == pytest.approx(SDS, rel=0.01)
    logs = np.log(draws.sd["herd"][:, 0])
    assert logs.mean() == pytest.approx(LOG_SD, abs=0.006)
    assert logs.std() == pytest.approx(LOG_SD_SD, rel=0.02)


@pytest.mark.parametrize("nodes", [None, 1])
def test_nested_laplace_on_cbpp(cbpp_fit, truth, nodes):
    """Means within .01 posterior sds, sds within 1 per cent (Laplace: near that)."""
    fit = cbpp_fit(jg.NestedLaplace(nodes=nodes))
    m = fit.posterior.moments
    sd = np.sqrt(np.diag(truth.beta_cov))
    shift = np.abs(m.beta - truth.beta) / sd
    width = np.sqrt(np.diag(m.beta_cov)) / sd
    assert shift.max() < (0.015 if nodes else 0.01)
    assert np.abs(width - 1).max() < (0.02 if nodes else 0.01)
    assert fit.khat < 0.5
    assert fit.posterior.ess > 2500
    assert fit.posterior.log_evidence_error < 0.02


def test_evidence_of_cbpp(cbpp_fit):
    """Importance sampling's, against the Gaussian's and the variational bound."""
    exact = cbpp_fit(jg.NestedLaplace()).log_evidence
    assert cbpp_fit(jg.MAP()).log_evidence == pytest.approx(exact, abs=0.15)
    bound = cbpp_fit(jg.VB(nested=True)).posterior.elbo
    assert exact - 0.3 < bound < exact + 0.02


def test_vb_on_cbpp(cbpp_fit, truth):
    """Nested: sds within 2 per cent; a point: 8 per cent; a mean field has 45."""
    sd = np.sqrt(np.diag(truth.beta_cov))
    nested = cbpp_fit(jg.VB(nested=True))
    default = cbpp_fit(jg.VB()).posterior.elbo
    assert default == pytest.approx(nested.posterior.elbo, rel=1e-9)
    width = nested.se / sd
    assert np.abs(width - 1).max() < 0.025
    assert np.abs(nested.coefficients - truth.beta).max() < 0.02
    point = cbpp_fit(jg.VB(nested=False))
    assert np.abs(point.se / sd - 1).max() < 0.08
    # -286.94492971 for the zeros and ones; counts have their coefficients as well
    d = point.design
    logs = gammaln(d.trials + 1) - gammaln(d.y + 1) - gammaln(d.trials - d.y + 1)
    bound = point.posterior.facts["point_elbo"] - logs.sum()
    assert bound == pytest.approx(-286.94492971, abs=1e-6)
    field = cbpp_fit(jg.VB(family="mean-field"))
    assert field.se[0] / sd[0] == pytest.approx(0.445, abs=0.01)
    assert cbpp_fit(jg.VB()).certificate.verdict == "trust"
    assert field.certificate.verdict == "refuse"


def test_map_on_cbpp(cbpp_fit):
    """Mode and curvature (Laplace): known numbers. Draws: near the posterior itself."""
    from doors import find_posterior_mode as find_mode

    method = jg.MAP(nodes=1, draws=4000)
    fit = cbpp_fit(method)
    with jax.enable_x64(True):
        _, mode = find_mode(fit.density, method)
    assert fit.density.beta(np.asarray(mode.x))[0] == pytest.approx(-1.4063, abs=2e-3)
    S = np.linalg.inv(mode.H)
    own = fit.density.R_inverse @ S[:4, :4] @ fit.density.R_inverse.T
    assert np.sqrt(np.diag(own)) == pytest.approx(
        [0.2338, 0.3016, 0.3202, 0.4099], rel=0.01
    )
    assert mode.x[-1] == pytest.approx(-0.4076, abs=3e-3)
    assert np.sqrt(S[-1, -1]) == pytest.approx(0.2648, rel=0.01)
    exact = cbpp_fit(jg.NestedLaplace(nodes=1)).posterior.parameters
    for name, x in fit.posterior.parameters.items():
        for q in (0.05, 0.5, 0.95):
            assert (exact[name] < np.quantile(x, q)).mean() == pytest.approx(
                q, abs=0.035
            )


def test_intervals_of_standard_deviations_hold_what_they_say():
    """Simulation-based calibration: 90 per cent intervals in 240 data sets.

    Two standard errors below 0.9 are 0.86; a Gaussian at the mode holds 0.82, the
    curvature of a variational bound 0.80.
    """
    rng = np.random.default_rng(5)
    D, J, m = 240, 12, 6
    g = np.repeat(np.arange(J), m)
    data = {"x": rng.normal(size=J * m), "g": g}
    b0, b1 = rng.normal(0, 2, D), rng.normal(size=D)
    truth = {"sd_(Intercept)|g": np.abs(rng.normal(size=D))}
    truth["sigma"] = np.abs(rng.normal(size=D))
    effects = truth["sd_(Intercept)|g"] * rng.normal(size=(J, D))
    noise = truth["sigma"] * rng.normal(size=(J * m, D))
    y = b0 + np.outer(data["x"], b1) + effects[g] + noise
    half, options = jg.HalfNormal(1), {}
    options["priors"] = jg.Priors(1.0, 2.0, half, None, half, centered=False)
    for method in (jg.MAP(draws=500), jg.VB(draws=500), jg.NestedLaplace(draws=500)):
        fits = jg.fit_many(
            "y ~ x + (1 | g)", data, responses=y, method=method, **options
        )
        for name, own in truth.items():
            rank = (fits.draws[:, :, fits.names.index(name)] < own[:, None]).mean(1)
            held = ((rank > 0.05) & (rank < 0.95)).mean()
            assert 0.86 < held < 0.95, (method, name)


def test_a_certificate_names_the_parameters_not_to_trust(cbpp):
    """What their 90 per cent intervals hold, with the number and what to do."""
    sleep = jg.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    point = jg.lmm(formula, sleep, method=jg.VB(nested=False))
    check = point.certificate["intervals"]
    assert check.level == 1
    assert 0.75 < check.value < 0.85
    assert "cor_Days.(Intercept)|Subject" in check.text
    assert any("nested-laplace" in text for text in point.certificate.advice)
    assert any("VB(nested=True)" in text for text in point.warnings)
    assert "VB(nested=True)" in point.summary()
    nested = jg.lmm(formula, sleep, method="vb")
    assert nested.certificate["intervals"].value > check.value + 0.01
    assert "nested" in nested.method
    assert not nested.warnings
    assert jg.glmm(FORMULA, cbpp, method="map").certificate["intervals"].level == 0


@pytest.mark.parametrize("method", ["map", "vb", "nested-laplace"])
def test_a_prior_bounds_a_likelihood_without_a_maximum(method):
    """Successes alone, whose log odds run off, have a posterior with proper priors."""
    data = {"y": np.ones(24), "g": np.repeat(np.arange(6), 4)}
    with pytest.raises(jg.ModelError, match=r"without a prior: method="):
        jg.glmm("y ~ 1 + (1 | g)", data)
    fit = jg.glmm("y ~ 1 + (1 | g)", data, method=method)
    assert fit.converged
    assert fit.coefficients[0] > 2
    assert 0.8 < fit.se[0] < 2.5
    flat = jg.Priors(intercept=np.inf, coefficients=np.inf)
    with pytest.raises(jg.ModelError, match="without a prior"):
        jg.glmm("y ~ 1 + (1 | g)", data, method=method, priors=flat)


@pytest.mark.parametrize("family", ["poisson", "nbinom2", "nbinom1"])
def test_a_prior_bounds_counts_that_are_all_zero(family):
    """The default prior of the level lies about half an event in all rows."""
    data = {"y": np.zeros(24), "g": np.repeat(np.arange(6), 4)}
    with pytest.raises(jg.ModelError, match=r"without a prior: method="):
        jg.glmm("y ~ 1 + (1 | g)", data, family=family)
    options = {"family": family, "method": "nested-laplace"}
    fit = jg.glmm("y ~ 1 + (1 | g)", data, **options)
    assert fit.converged
    assert -9 < fit.coefficients[0] < np.log(0.5 / 24)
    assert 1 < fit.se[0] < 2.5
    flat = jg.Priors(intercept=np.inf)
    with pytest.raises(jg.ModelError, match="without a prior"):
        jg.glmm("y ~ 1 + (1 | g)", data, priors=flat, **options)


@pytest.mark.mcmc
@pytest.mark.parametrize("density", ["marginal", "joint"])
def test_nuts_on_cbpp(cbpp_fit, truth, density):
    fit = cbpp_fit(jg.NUTS(draws=800, density=density))
    table = fit.posterior.summary()
    assert table["rhat"].max() < 1.015
    assert int(fit.posterior.sample_stats["diverging"].sum()) == 0
    coefficients = table.iloc[:4]
    ess = coefficients["ess_bulk"].to_numpy()
    sd = np.sqrt(np.diag(truth.beta_cov))
    error = sd / np.sqrt(ess)
    assert (np.abs(coefficients["mean"] - truth.beta) < 4.5 * error).all()
    assert np.abs(coefficients["sd"] / sd - 1).max() < 5 / np.sqrt(2 * ess.min())
    ess = table.iloc[4:]["ess_bulk"].to_numpy().item()
    logs = np.log(fit.posterior.draws.sd["herd"][:, 0])
    assert abs(logs.mean() - LOG_SD) < 4.5 * LOG_SD_SD / np.sqrt(ess)
    assert abs(logs.std() / LOG_SD_SD - 1) < 5 / np.sqrt(ess)
    # the random effects too
    own = fit.posterior.moments.effects["herd"][:, 0]
    spread = truth.effects_sd["herd"][:, 0]
    assert np.abs((own - truth.effects["herd"][:, 0]) / spread).max() < 0.12


@pytest.mark.mcmc
def test_eight_schools(schools):
    """Exact moments by quadrature in one dimension (tau, then closed forms)."""
    nested = jg.lmm(
        "y ~ 1 + (1 | school)",
        schools,
        weights="w",
        method=jg.NestedLaplace(draws=20_000),
        priors=SCHOOLS,
    )
    sampled = jg.lmm(
        "y ~ 1 + (1 | school)",
        schools,
        weights="w",
        method=jg.NUTS(draws=1000),
        priors=SCHOOLS,
    )
    for fit, allowed in ((nested, 0.02), (sampled, 0.12)):
        p = fit.posterior
        mu, tau = p.draws.beta[:, 0], p.draws.sd["school"][:, 0]
        theta = p.effects("school")[:, 0, 0] + mu
        assert p.moments.beta[0] == pytest.approx(4.39682, abs=allowed * 3.32)
        assert mu.std() == pytest.approx(3.31770, rel=2 * allowed)
        assert tau.mean() == pytest.approx(3.59771, abs=allowed * 3.22)
        assert tau.std() == pytest.approx(3.21996, rel=2.5 * allowed)
        assert np.log(tau).mean() == pytest.approx(0.80214, abs=1.5 * allowed)
        assert theta.mean() == pytest.approx(6.21188, abs=allowed * 5.6)
        assert theta.std() == pytest.approx(5.59313, rel=2 * allowed)
        assert p.draws.dispersion["sigma"].std() == 0


@pytest.mark.mcmc
@pytest.mark.filterwarnings("ignore:.*transitions of NUTS diverged")
def test_correlated_slopes_of_sleepstudy():
    """Importance sampling and NUTS on the joint density agree, correlation and all."""
    sleep = jg.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    one = jg.lmm(formula, sleep, method="nested-laplace")
    two = jg.lmm(formula, sleep, method=jg.NUTS(draws=1500, density="joint"))
    # none or one of 6,000, as the last digits of a processor's arithmetic have it
    assert two.posterior.sample_stats["diverging"].sum() <= 3
    a, b = one.posterior.summary(), two.posterior.summary()
    ess = b["ess_bulk"].clip(upper=one.posterior.ess)
    error = a["sd"] * np.sqrt(1 / ess + 1 / one.posterior.ess)
    assert (np.abs(a["mean"] - b["mean"]) < 4.5 * error).all()
    assert np.abs(np.log(a["sd"] / b["sd"])).max() < 0.15
    # posterior means of the effects shrink towards lme4's modes
    modes = jg.lmm(formula, sleep).ranef["Subject"].to_numpy()
    means = one.ranef["Subject"].to_numpy()
    assert np.corrcoef(modes[:, 0], means[:, 0])[0, 1] > 0.99
    assert one.certificate.verdict == "trust"


@pytest.mark.mcmc
def test_crossed_factors(rng):
    """Several factors go draw by draw: against NUTS on the joint density."""
    n = 240
    a, b = rng.integers(0, 12, n), rng.integers(0, 10, n)
    x = rng.normal(size=n)
    eta = 0.2 + 0.4 * x + 0.6 * rng.normal(size=12)[a]
    eta = eta + 0.4 * rng.normal(size=10)[b]
    data = {
        "y": rng.poisson(np.exp(eta)),
        "x": x,
        "a": a.astype(str),
        "b": b.astype(str),
    }
    options = {"family": "poisson", "priors": jg.Priors(sd=jg.HalfNormal(1))}
    formula = "y ~ x + (1 | a) + (1 | b)"
    one = jg.glmm(formula, data, method=jg.NestedLaplace(draws=2000), **options)
    two = jg.glmm(formula, data, method=jg.NUTS(draws=500, density="joint"), **options)
    s, t = one.posterior.summary(), two.posterior.summary()
    error = s["sd"] * np.sqrt(1 / t["ess_bulk"] + 1 / one.posterior.ess)
    assert (np.abs(s["mean"] - t["mean"]) < 4.5 * error + 0.02 * s["sd"]).all()
    assert one.khat < 0.7
    vb = jg.glmm(formula, data, method=jg.VB(nested=True), **options)
    assert np.abs(vb.se / one.se - 1).max() < 0.1


def test_quadrature_is_chosen_for_small_binary_groups():
    """Four rows a group, a large sd: Laplace is far off, 25 nodes not."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(60), 4)
    p = 1 / (1 + np.exp(-(-1.5 + 3.0 * rng.normal(size=60)[g])))
    data = {"y": (rng.uniform(size=240) < p) * 1, "g": g.astype(str)}
    priors = jg.Priors.statsmodels()
    fits = {
        nodes: jg.glmm(
            "y ~ 1 + (1 | g)",
            data,
            method=jg.NestedLaplace(draws=1000, nodes=nodes),
            priors=priors,
        )
        for nodes in (None, 1)
    }
    assert fits[None].posterior.facts["nodes"] == 25
    logs = {k: np.log(f.posterior.draws.sd["g"][:, 0]) for k, f in fits.items()}
    assert logs[None].mean() - logs[1].mean() > 0.2 * logs[None].std()
    assert fits[None].certificate["integrator"].level == 0
    assert fits[1].certificate["integrator"].level > 0
    assert any("quadrature" in text for text in fits[1].certificate.advice)


def test_a_ridge_is_no_mode():
    """Directions that do not curve up get a curvature, and the status says so."""
    from doors import Mode, curved

    H = np.array([[4.0, 0, 0], [0, -2.0, 0.1], [0, 0.1, 1e-3]])
    zero = np.zeros(3)
    mode = curved(Mode(zero, 0.0, 0.0, H, (), (), 0.0, 3, np.asarray(0)))
    assert np.linalg.eigvalsh(mode.H).min() > 0
    assert int(mode.status) == 3
    np.testing.assert_allclose(mode.H[0], [4, 0, 0], atol=1e-12)
    kept = curved(Mode(zero, 0.0, 0.0, np.eye(3), (), (), 0.0, 3, np.asarray(0)))
    np.testing.assert_array_equal(kept.H, np.eye(3))
    with pytest.raises(jg.ModelError, match="not finite"):
        curved(Mode(zero, 0.0, 0.0, np.nan * H, (), (), 0.0, 3, np.asarray(0)))


def test_flat_priors_and_no_random_effects(cbpp):
    """A logistic regression with flat priors: the posterior is the likelihood."""
    formula = "cbind(incidence, size - incidence) ~ period"
    flat = jg.Priors(coefficients=np.inf, intercept=np.inf)
    ml = jg.glmm(formula, cbpp)
    fit = jg.glmm(formula, cbpp, method="nested-laplace", priors=flat)
    assert fit.coefficients == pytest.approx(ml.coefficients, abs=0.35 * ml.se.max())
    assert fit.se == pytest.approx(ml.se, rel=0.1)
    assert fit.khat < 0.7
    with pytest.raises(jg.NotApplicableError, match="proper priors"):
        jg.glmm(formula, cbpp, method="vb", priors=flat)


def test_equal_seeds_give_equal_draws(cbpp):
    """And other seeds others, by every method."""
    for method in (jg.NestedLaplace, jg.MAP, jg.VB):
        one, two, other = (
            jg.glmm(FORMULA, cbpp, method=method(draws=4000, seed=seed))
            for seed in (0, 0, 1)
        )
        np.testing.assert_allclose(
            one.posterior.draws.x, two.posterior.draws.x, rtol=1e-9, atol=1e-9
        )
        assert (one.posterior.draws.x != other.posterior.draws.x).any()
        assert other.coefficients == pytest.approx(one.coefficients, abs=0.02)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: jg.NestedLaplace(draws=0), "draws=0"),
        (lambda: jg.NestedLaplace(nodes=101), "from 1 to 100"),
        (lambda: jg.VB(family="full"), "'structured', 'stochastic', 'mean-field'"),
        (lambda: jg.VB(nodes=5), "VB does not"),
        (lambda: jg.NUTS(density="conditional"), "'marginal', 'joint'"),
        (lambda: jg.NUTS(target_accept=1.2), "between 0 and 1"),
        (lambda: jg.NUTS(density="joint", nodes=9), "nodes= belongs"),
    ],
)
def test_options_are_checked(make, text):
    with pytest.raises(jg.ModelError, match=text):
        make()


@pytest.mark.parametrize(
    "typed",
    [
        "jg.ML()",
        "jg.REML()",
        "jg.Laplace()",
        "jg.Laplace(hessian='expected')",
        "jg.Laplace(order=2)",
        "jg.AGQ(25)",
        "jg.AGQ('auto')",
        "jg.MAP(draws=4000)",
        "jg.NestedLaplace(draws=500, nodes=9)",
        "jg.VB(draws=4000, nested=True, family='structured')",
        "jg.NUTS(draws=1000, seed=3, chains=2, density='joint')",
    ],
)
def test_methods_print_as_they_are_typed(typed):
    """What is printed makes the same method; defaults are left out."""
    method = eval(typed, {"jg": jg})
    assert eval(repr(method), {"jg": jg}) == method
    assert repr(method) == typed


def test_what_does_not_go_together(cbpp):
    with pytest.raises(jg.ModelError, match="needs a Bayesian method"):
        jg.glmm(FORMULA, cbpp, priors=jg.Priors())
    with pytest.raises(jg.ModelError, match="needs a Bayesian method"):
        jg.lmm(FORMULA, cbpp, priors=jg.Priors())
    sleep = jg.datasets.load("sleepstudy")
    with pytest.raises(jg.NotApplicableError, match="correlated effects"):
        jg.lmm(
            "Reaction ~ Days + (Days | Subject)",
            sleep,
            method=jg.VB(family="mean-field"),
        )
    with pytest.raises(jg.NotApplicableError, match="one grouping factor"):
        jg.lmm(
            "Reaction ~ Days + (1 | Subject) + (1 | Days)",
            sleep,
            method=jg.NestedLaplace(nodes=5),
        )


def test_proposals_are_multivariate_t(rng):
    """Where both sides are alike: draws and density against SciPy's."""
    from doors import SplitT, log_mixture
    from scipy import stats

    x = rng.normal(size=(50, 2)) * [1.0, 3.0]
    H = np.array([[2.0, 0.3], [0.3, 0.5]])
    one = SplitT.around(np.array([0.5, -1.0]), H, 1.3)
    two = SplitT.around(np.array([1.5, 1.0]), 2 * H)
    logs = [
        stats.multivariate_t(own.centre, scale**2 * np.linalg.inv(P), df=7).logpdf(x)
        for own, P, scale in ((one, H, 1.3), (two, 2 * H, 1.1))
    ]
    for own, expected in zip((one, two), logs, strict=True):
        np.testing.assert_allclose(own.log_density(x), expected, atol=1e-10)
    both = np.log((np.exp(logs[0]) + np.exp(logs[1])) / 2)
    np.testing.assert_allclose(log_mixture([one, two], x), both, atol=1e-10)
    draws = one.draws(20_000, 0)
    np.testing.assert_allclose(draws.mean(axis=0), one.centre, atol=0.02)
    V = 7 / 5 * 1.3**2 * np.linalg.inv(H)
    np.testing.assert_allclose(np.cov(draws.T), V, rtol=0.05, atol=0.05)


def test_proposals_have_two_sides():
    """Two scales an axis: the density integrates to one and is that of the draws."""
    from doors import SplitT

    L = np.linalg.cholesky(np.array([[2.0, 0.3], [0.3, 0.5]]))
    own = SplitT(np.array([0.5, -1.0]), L, np.array([0.7, 2.0]), np.array([1.5, 1.0]))
    z = np.stack(np.meshgrid(*[np.linspace(-60, 60, 1601)] * 2), -1).reshape(-1, 2)
    grid = own.centre + np.linalg.solve(L.T, z.T).T
    mass = np.exp(own.log_density(grid)) * 0.075**2 / np.prod(np.diag(L))
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    x = own.draws(2**14, 3)
    inside = (x - own.centre) @ L
    for f in (lambda v: v, lambda v: v**2, lambda v: v < 0):
        exact = mass @ f(z)
        np.testing.assert_allclose(f(inside).mean(axis=0), exact, atol=0.02, rtol=0.02)
    # no jump where the sides meet
    near = own.centre + np.linalg.solve(L.T, np.array([[-1e-9, 1e-9], [1e-9, -1e-9]])).T
    assert np.ptp(own.log_density(near)) < 1e-6


def test_proposals_follow_draws(rng):
    """Sides are found again; one draw that has all the weight is not believed."""
    from doors import SplitT, tempered

    x = np.column_stack([rng.normal(size=4000), np.log(rng.gamma(1.0, size=4000))])
    own = SplitT.fitted(x, np.full(4000, 1 / 4000))
    assert own.left[1] > 1.4 * own.right[1]  # a long left tail
    assert own.left[0] == pytest.approx(own.right[0], rel=0.1)
    np.testing.assert_allclose(own.centre, [0, -0.577], atol=0.06)
    one = np.full(1000, 1e-9)
    one[3] = 1.0
    w = tempered(one / one.sum(), 40)
    assert 1 / np.sum(w**2) == pytest.approx(40, rel=0.01)
    even = tempered(np.full(100, 0.01), 40)
    np.testing.assert_allclose(even, 0.01)


def test_a_variance_that_may_be_zero_has_a_long_tail(rng):
    """The posterior of its log sd: further proposals, against the exact one on a grid.

    y_g ~ N(mu, s_g^2 + tau^2) with tau's prior flat enough at zero: one-way, known
    errors, so that mu and tau have their posterior in closed form up to a constant.
    """
    from scipy import stats

    J, tau0 = 12, 0.15
    s = rng.uniform(0.5, 1.0, J)
    y = tau0 * rng.normal(size=J) + s * rng.normal(size=J)
    data = {"y": y, "g": [f"g{i}" for i in range(J)], "w": 1 / s**2}
    priors = jg.Priors(
        intercept=jg.Normal(0, 2), sd=jg.HalfT(3, 2), dispersion=jg.Fixed(1)
    )
    fit = jg.lmm(
        "y ~ 1 + (1 | g)",
        data,
        weights="w",
        method=jg.NestedLaplace(draws=8000),
        priors=priors,
    )
    tau = np.exp(np.linspace(-9, 3, 4001))[:, None]
    mu = np.linspace(-3, 3, 401)
    logs = sum(
        stats.norm.logpdf(a, mu, np.sqrt(b**2 + tau**2))
        for a, b in zip(y, s, strict=True)
    )
    logs = logs + stats.norm.logpdf(mu, 0, 2) + stats.t.logpdf(tau / 2, 3)
    mass = np.exp(logs - logs.max()) * tau  # even steps in log tau
    mass /= mass.sum()
    sd = fit.posterior.draws.sd["g"][:, 0]
    exact = (mass * tau).sum()
    spread = np.sqrt((mass * tau**2).sum() - exact**2)
    assert fit.khat < 0.7
    assert sd.mean() == pytest.approx(exact, abs=0.06 * spread)
    small = mass[tau[:, 0] < 0.05].sum()
    assert (sd < 0.05).mean() == pytest.approx(small, abs=0.035)
    low = np.interp(0.01, np.cumsum(mass.sum(axis=1)), tau[:, 0])
    assert (sd < low).mean() == pytest.approx(0.01, abs=0.006)
