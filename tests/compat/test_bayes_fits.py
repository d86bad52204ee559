"""Fits of the Bayesian mixed GLMs: statsmodels' optima, and what it should return."""

import warnings

import numpy as np
import pytest
from compat.bayes_cases import FITTED, case, design, joined, model
from scipy import integrate, sparse

from jaxglmm import ConvergenceWarning, PosteriorWarning
from jaxglmm.compat.statsmodels import BinomialBayesMixedGLM, PoissonBayesMixedGLM

WORKSHEETS = ["sm_glmm_poisson_ex1", "sm_glmm_poisson_ex2", "sm_glmm_binomial_ex1"]


@pytest.mark.reference
@pytest.mark.parametrize("name", FITTED + WORKSHEETS)
def test_mean_field_is_statsmodels_optimum(name):
    fit, stored = model(name).fit_vb(), case(name)["fit_vb"]
    sd = np.sqrt(fit.cov_params())
    elbo = model(name).vb_elbo(fit.params, sd)
    assert elbo >= stored["elbo"] - 1e-9 * abs(stored["elbo"])
    expected = joined(stored, "sd")
    off = (fit.params - joined(stored, "mean")) / expected
    assert np.abs(off).max() < 1e-3
    assert np.abs(sd / expected - 1).max() < 1e-3
    assert fit.optim_retvals.success
    assert np.abs(fit.optim_retvals.jac).max() < 1e-4


@pytest.mark.reference
@pytest.mark.parametrize("name", [n for n in FITTED if case(n)["map_interior"]])
def test_joint_mode_where_there_is_one(name):
    stored = case(name)["map_interior"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = model(name).fit_map(joint=True)
    found = np.concatenate([fit.fe_sd, fit.vcp_sd, fit.vc_sd])
    expected = joined(stored, "sd")
    assert np.abs((fit.params - joined(stored, "mean")) / expected).max() < 1e-3
    assert np.abs(found / expected - 1).max() < 1e-3


@pytest.mark.reference
def test_a_joint_mode_at_zero_says_what_holds_it():
    m = model("sm_binomial_cbpp")
    with pytest.warns(PosteriorWarning, match="next to zero"):
        fit = m.fit_map(joint=True)
    assert fit.facts["status"] == "at a scale of zero"
    assert fit.converged  # it is a mode: the log-normal prior bounds the density
    assert fit.vcp_mean[0] == pytest.approx(-m.k_vc * m.vcp_p**2, rel=1e-2)


@pytest.mark.reference
def test_marginal_mode_of_cbpp():
    """The table of the documentation: mode and Gaussian of the marginal posterior."""
    fit = model("sm_binomial_cbpp").fit_map()
    assert fit.fe_mean[0] == pytest.approx(-1.4063, abs=1e-4)
    assert fit.fe_sd == pytest.approx([0.2338, 0.3016, 0.3202, 0.4099], abs=1e-4)
    assert fit.vcp_mean == pytest.approx([-0.4076], abs=1e-4)
    assert fit.vcp_sd == pytest.approx([0.2648], abs=1e-4)


def one_group_a_row(rng, J=12):
    """Poisson counts, one group a row: the marginal by quadrature in one dimension."""
    y = rng.poisson(np.exp(0.5 + 0.6 * rng.normal(size=J)))
    return y, np.ones((J, 1)), sparse.eye_array(J, format="csr"), np.zeros(J, int)


def test_marginal_mode_maximises_the_marginal(rng):
    """Against quadrature group by group: Laplace's error alone is left."""
    y, X, Z, ident = one_group_a_row(rng)
    fit = PoissonBayesMixedGLM(y, X, Z, ident).fit_map()

    def log_marginal(beta, zeta):
        total = -0.5 * (beta / 2) ** 2 - 0.5 * zeta**2
        for k in y:
            top = k * beta  # keeps the integrand of order one

            def f(v, k=k, top=top):
                eta = beta + np.exp(zeta) * v
                return np.exp(k * eta - np.exp(eta) - top - v * v / 2)

            total += top + np.log(integrate.quad(f, -9, 9)[0])
        return total

    beta, zeta = fit.fe_mean[0], fit.vcp_mean[0]
    here = log_marginal(beta, zeta)
    for d in (-0.3, 0.3):
        assert log_marginal(beta + d * fit.fe_sd[0], zeta) < here + 0.02
        assert log_marginal(beta, zeta + d * fit.vcp_sd[0]) < here + 0.02
    # curvature of the true marginal along beta at fixed zeta
    h = 0.1
    second = log_marginal(beta + h, zeta) - 2 * here + log_marginal(beta - h, zeta)
    H = np.linalg.inv(fit.cov_params()[:2, :2])
    assert -second / h**2 == pytest.approx(H[0, 0], rel=0.02)


@pytest.mark.reference
@pytest.mark.parametrize("structure", ["marginal", "joint"])
def test_covariances_are_symmetric_and_agree_with_the_sds(structure):
    m = model("sm_binomial_crossed")
    fit = m.fit_map() if structure == "marginal" else m.fit_vb(structure="joint")
    C = np.asarray(fit.cov_params())
    assert C.shape == (len(fit.params),) * 2
    assert np.linalg.eigvalsh(C).min() > 0
    sd = np.concatenate([fit.fe_sd, fit.vcp_sd, fit.vc_sd])
    np.testing.assert_allclose(np.sqrt(np.diag(C)), sd, rtol=1e-9)


@pytest.mark.reference
def test_joint_structure_is_wider_than_mean_field():
    """cbpp: the intercept's sd is .2516; a mean field has 45 per cent of it."""
    m = model("sm_binomial_cbpp")
    joint, field = m.fit_vb(structure="joint"), m.fit_vb()
    assert field.fe_sd[0] < 0.5 * 0.2516
    assert joint.fe_sd == pytest.approx([0.2516, 0.3068, 0.3243, 0.4192], rel=0.03)
    assert joint.vcp_mean[0] == pytest.approx(-0.3597, abs=0.01)
    assert joint.vcp_sd[0] == pytest.approx(0.2870, rel=0.03)


@pytest.mark.reference
def test_fits_are_deterministic_and_seeds_do_not_matter():
    m = model("sm_poisson_epil2")
    one, two = m.fit_vb(), m.fit_vb()
    np.testing.assert_allclose(one.params, two.params, rtol=1e-9, atol=1e-12)
    other = m.fit_vb(rng=1)
    np.testing.assert_allclose(other.params, one.params, atol=1e-5)
    a, b = m.fit_map(), m.fit_map(rng=3)
    np.testing.assert_allclose(a.params, b.params, atol=1e-4)


@pytest.mark.reference
def test_scaling_is_undone():
    """Centred columns change the model's prior alone: with weak priors, nothing."""
    y, X, Z, ident = design("sm_poisson_crossed")
    X = X.copy()
    X[:, 1] = 10 + 3 * X[:, 1]
    m = PoissonBayesMixedGLM(y, X, Z, ident, fe_p=1e3)
    plain, scaled = m.fit_map(), m.fit_map(scale_fe=True)
    np.testing.assert_allclose(scaled.fe_mean, plain.fe_mean, atol=1e-4)
    np.testing.assert_allclose(scaled.fe_sd, plain.fe_sd, rtol=1e-3)
    np.testing.assert_allclose(
        np.asarray(scaled.cov_params()),
        np.asarray(plain.cov_params()),
        atol=1e-3 * plain.fe_sd.max() ** 2,
    )
    # a mean field over centred columns is wider for the intercept, and unbiased
    field = m.fit_vb(scale_fe=True)
    assert field.fe_mean == pytest.approx(plain.fe_mean, abs=0.3 * plain.fe_sd.max())
    assert field.fe_sd[0] > m.fit_vb().fe_sd[0]
    full = field.cov_params(full=True)
    assert full[0, 1] < 0
    np.testing.assert_allclose(np.sqrt(np.diag(full))[:2], field.fe_sd, rtol=1e-10)


@pytest.mark.reference
def test_scipy_methods_reach_the_same_bound():
    m = model("sm_glmm_poisson_ex1")
    own, other = m.fit_vb(), m.fit_vb(fit_method="L-BFGS-B")
    assert other.optim_retvals.fun == pytest.approx(own.optim_retvals.fun, abs=1e-5)
    joint = m.fit_map(method="L-BFGS-B", joint=True)
    np.testing.assert_allclose(joint.params, m.fit_map(joint=True).params, atol=1e-3)


def test_options_are_read_or_refused(capsys):
    m = model("sm_glmm_poisson_ex1")
    with pytest.raises(ValueError, match="'gnorm'"):
        m.fit_vb(minim_opts={"gnorm": 1})
    with pytest.raises(ValueError, match="no method of scipy"):
        m.fit_map(method="guess")
    own = m.fit_map().params
    for method in ("CG", "L-BFGS-B"):  # the same mode, by Newton's method
        found = m.fit(method, minim_opts={"maxiter": 200, "ftol": 1e-9})
        np.testing.assert_allclose(found.params, own)
    with pytest.warns(ConvergenceWarning, match="VB fitting did not converge"):
        short = m.fit_vb(minim_opts={"maxiter": 2})
    assert short.optim_retvals.nit == 2
    capsys.readouterr()
    m.fit_vb(verbose=True)
    assert capsys.readouterr().out.count("|G|=") > 5


def binary(rng, groups=20, size=8):
    g = np.repeat(np.arange(groups), size)
    x = rng.normal(size=len(g))
    eta = -0.3 + 0.5 * x + rng.normal(size=groups)[g]
    y = (rng.uniform(size=len(g)) < 1 / (1 + np.exp(-eta))) * 1
    return g, x, y


def test_trials_are_rows(rng):
    """Counts with n_trials are the same model as their zeros and ones."""
    g = np.arange(6)
    trials, hits = np.full(6, 5), np.array([1, 4, 2, 0, 5, 3])
    long_g = np.repeat(g, trials)
    long_y = np.concatenate([[1] * h + [0] * (5 - h) for h in hits])
    one = BinomialBayesMixedGLM(hits, np.ones((6, 1)), np.eye(6), [0] * 6, n_trials=5)
    Z = (long_g[:, None] == g) * 1.0
    two = BinomialBayesMixedGLM(long_y, np.ones((30, 1)), Z, [0] * 6)
    a, b = one.fit_map(), two.fit_map()
    np.testing.assert_allclose(a.params, b.params, atol=1e-6)
    np.testing.assert_allclose(a.fe_sd, b.fe_sd, rtol=1e-6)
    field = one.fit_vb().params, two.fit_vb().params
    np.testing.assert_allclose(*field, atol=1e-5)


def test_weights_are_copies_and_exposure_is_an_offset(rng):
    g = np.repeat(np.arange(6), 3)
    y, w = rng.poisson(2.0, 18), rng.integers(1, 4, 18)
    X, Z = np.ones((18, 1)), (g[:, None] == np.arange(6)) * 1.0
    exposure = rng.uniform(0.5, 2, 18)
    weighted = PoissonBayesMixedGLM(
        y, X, Z, [0] * 6, weights=w, exposure=exposure
    ).fit_map()
    k = np.repeat(np.arange(18), w)
    copied = PoissonBayesMixedGLM(
        y[k], X[k], Z[k], [0] * 6, offset=np.log(exposure[k])
    ).fit_map()
    np.testing.assert_allclose(weighted.params, copied.params, atol=1e-6)


def test_labels_may_be_anything():
    """Labels 0, 0, 3, 3 are two scales, not four; names work as well."""
    y, X, Z, _ = design("sm_glmm_binomial_ex1")
    Z = np.hstack([Z.toarray(), Z.toarray() * X[:, 1:]])
    numbers = BinomialBayesMixedGLM(y, X, Z, [0, 0, 0, 3, 3, 3])
    words = BinomialBayesMixedGLM(y, X, Z, ["a", "a", "a", "b", "b", "b"])
    assert numbers.k_vcp == 2
    np.testing.assert_allclose(
        numbers.fit_vb().params, words.fit_vb().params, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("dense", [True, False])
def test_any_pattern_of_columns(rng, dense):
    """Overlapping columns that are no factor: against dense algebra.

    Sparse: every row uses nine of 60 columns, as players in teams do.
    """
    n = 40
    if dense:
        Z = 0.3 * rng.normal(size=(n, 12))
    else:
        Z = np.zeros((n, 60))
        for row in Z:
            row[rng.choice(60, 9, replace=False)] = 1.0
    y = rng.poisson(1.5, n)
    m = PoissonBayesMixedGLM(y, np.ones((n, 1)), sparse.csr_array(Z), [0] * Z.shape[1])
    assert type(m.layout.rows).__name__ == "PatternRows"
    assert (m.layout.rows.dense is not None) == dense
    fit = m.fit_vb()
    gm, gs = m.vb_elbo_grad(fit.params, np.sqrt(fit.cov_params()))
    assert max(np.abs(gm).max(), np.abs(gs).max()) < 1e-4
    mode = m.fit_map()
    # u given (beta, log s) is at its own mode
    assert np.abs(m.logposterior_grad(mode.params)[2:]).max() < 1e-5
    w = np.exp(m.exog @ mode.fe_mean + m.exog_vc @ mode.vc_mean)
    M = Z.T @ (w[:, None] * Z) + np.eye(Z.shape[1]) * np.exp(-2 * mode.vcp_mean[0])
    C = np.asarray(mode.cov_params())
    outer = mode._cov_params.G @ C[:2, :2] @ mode._cov_params.G.T
    np.testing.assert_allclose(C[2:, 2:], np.linalg.inv(M) + outer, atol=1e-9)


def test_a_family_with_another_link_and_a_fixed_dispersion(rng):
    import jaxglmm as jg
    from jaxglmm.compat.statsmodels import BayesMixedGLM

    g, _, y = binary(rng, 6, 5)
    Z, X = (g[:, None] == np.arange(6)) * 1.0, np.ones((30, 1))
    probit = BayesMixedGLM(y, X, Z, [0] * 6, family=jg.Binomial(link="probit"))
    logit = BinomialBayesMixedGLM(y, X, Z, [0] * 6)
    ratio = probit.fit_map().fe_mean[0] / logit.fit_map().fe_mean[0]
    assert 0.5 < ratio < 0.75  # about 1 / 1.7
    with pytest.raises(ValueError, match="dispersion"):
        BayesMixedGLM(y + 1.0, X, Z, [0] * 6, family="gamma")
    gamma = BayesMixedGLM(y + 1.0, X, Z, [0] * 6, family="gamma", dispersion=0.3)
    field = gamma.fit_vb(quadrature="exact")
    gm, _ = gamma.vb_elbo_grad(
        field.params, np.sqrt(field.cov_params()), quadrature="exact"
    )
    assert np.abs(gm).max() < 1e-4


def test_the_model_is_not_touched_by_fitting():
    m = model("sm_poisson_crossed")
    before = m.exog.copy()
    m.fit_vb(scale_fe=True)
    m.fit_map(scale_fe=True)
    np.testing.assert_array_equal(m.exog, before)
