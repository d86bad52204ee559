"""Methods against exact answers and each other: cbpp, eight schools, sleepstudy.

cbpp under statsmodels' priors by importance sampling with 31-node quadrature, 100,000
draws: coefficients -1.4139 (.2516) and the rest below, log sd -.3597 (.2870).
"""

import numpy as np
import pytest
from bayes.conftest import FORMULA, SCHOOLS
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
    assert cbpp_fit(jg.VB()).posterior.elbo == nested.posterior.elbo
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
    """Mode and Gaussian of the marginal posterior (Laplace), known numbers."""
    m = cbpp_fit(jg.MAP(nodes=1, draws=20_000)).posterior
    assert m.moments.beta[0] == pytest.approx(-1.4063, abs=2e-3)
    sd = np.sqrt(np.diag(m.moments.beta_cov))
    assert sd == pytest.approx([0.2338, 0.3016, 0.3202, 0.4099], rel=0.01)
    logs = np.log(m.draws.sd["herd"][:, 0])
    assert logs.mean() == pytest.approx(-0.4076, abs=3e-3)
    assert logs.std() == pytest.approx(0.2648, rel=0.01)


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
def test_correlated_slopes_of_sleepstudy():
    """Importance sampling and NUTS on the joint density agree, correlation and all."""
    sleep = jg.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    one = jg.lmm(formula, sleep, method="nested-laplace")
    two = jg.lmm(formula, sleep, method=jg.NUTS(draws=1500, density="joint"))
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
    from jaxglmm.estimate.map import Mode
    from jaxglmm.results.posterior.run import curved

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
        np.testing.assert_array_equal(one.posterior.draws.x, two.posterior.draws.x)
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
    """Draws and density of a proposal, and of a mixture of two, against SciPy's."""
    from scipy import stats

    from jaxglmm.results.posterior import run

    x = rng.normal(size=(50, 2)) * [1.0, 3.0]
    H = np.array([[2.0, 0.3], [0.3, 0.5]])
    one = run._Proposal(np.array([0.5, -1.0]), H, 1.3)
    two = run._Proposal.of(x, np.full(50, 1 / 50))
    logs = []
    for own in (one, two):
        shape = own.scale**2 * np.linalg.inv(own.H)
        expected = stats.multivariate_t(own.centre, shape, df=7).logpdf(x)
        np.testing.assert_allclose(own.log_density(x), expected, atol=1e-10)
        logs.append(expected)
    both = np.log((np.exp(logs[0]) + np.exp(logs[1])) / 2)
    np.testing.assert_allclose(run._log_mixture([one, two], x), both, atol=1e-10)
    draws = run._mixed([one, two], 20_000, 0)
    middle = (one.centre + two.centre) / 2
    np.testing.assert_allclose(draws.mean(axis=0), middle, atol=0.1)
