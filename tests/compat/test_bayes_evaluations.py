"""Evaluations are statsmodels' own numbers, to 1e-8 and better."""

import jax
import numpy as np
import pytest
from compat.bayes_cases import NAMES, case, design, model
from scipy.special import gammaln

import jaxglmm as jg
from jaxglmm.compat.statsmodels import BayesMixedGLM, PoissonBayesMixedGLM

TIGHT = {"rel": 1e-10}


def close(value, expected):
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-10 * scale)


@pytest.mark.reference
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name):
    m = model(name)
    for point in case(name)["points"]:
        params, mean, sd = point["params"], point["vb_mean"], point["vb_sd"]
        assert m.logposterior(params) == pytest.approx(point["logposterior"], **TIGHT)
        close(m.logposterior_grad(params), point["logposterior_grad"])
        assert m.vb_elbo(mean, sd) == pytest.approx(point["vb_elbo"], **TIGHT)
        g_mean, g_sd = m.vb_elbo_grad(mean, sd)
        close(g_mean, point["vb_elbo_grad_mean"])
        close(g_sd, point["vb_elbo_grad_sd"])


@pytest.mark.reference
@pytest.mark.parametrize("name", ["sm_binomial_crossed", "sm_poisson_crossed"])
def test_base_forms(name):
    """``vb_elbo_base`` and its gradient from a user's h."""
    m, point = model(name), case(name)["points"][1]
    mean, sd = np.array(point["vb_mean"]), np.array(point["vb_sd"])
    b, z, u = m._unpack(mean)
    sb, sz, su = m._unpack(sd)
    tm = m.exog @ b + m.exog_vc @ u
    tv = m.exog**2 @ sb**2 + m.exog_vc2 @ su**2
    binomial = "binomial" in name

    def h(x):
        eta = tm + np.sqrt(tv) * x
        return -np.logaddexp(0, eta) if binomial else -np.exp(eta)

    def slope(x):
        eta = tm + np.sqrt(tv) * x
        return -1 / (1 + np.exp(-eta)) if binomial else -np.exp(eta)

    parts = (b, z, u, sb, sz, su)
    assert m.vb_elbo_base(h, tm, *parts) == pytest.approx(point["vb_elbo"], **TIGHT)
    g_mean, g_sd = m.vb_elbo_grad_base(slope, tm, tv, *parts)
    close(g_mean, point["vb_elbo_grad_mean"])
    close(g_sd, point["vb_elbo_grad_sd"])


def test_no_variance_no_nan():
    """Rows whose predictor has no variance: the limit, where statsmodels has NaN."""
    m = model("sm_glmm_poisson_ex1")
    k = m.k_fep + m.k_vcp + m.k_vc
    b, z, u = m._unpack(np.zeros(k))
    sb, sz, su = m._unpack(np.full(k, 1e-300))
    tm = m.exog @ b
    _, g_sd = m.vb_elbo_grad_base(
        lambda x: -np.exp(tm), tm, np.zeros(m.nobs), b, z, u, sb, sz, su
    )
    assert np.isfinite(g_sd).all()


def numerical(f, x, h=1e-5):
    out = np.empty(len(x))
    for j in range(len(x)):
        e = np.zeros(len(x))
        e[j] = h
        out[j] = (f(x + e) - f(x - e)) / (2 * h)
    return out


def small_model(**options):
    """Every option at once: offset, exposure, weights, trials; slopes; two scales."""
    rng = np.random.default_rng(0)
    n, g = 30, np.arange(30) % 5
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    one = (g[:, None] == np.arange(5)) * 1.0
    Z = np.column_stack([one, one * X[:, 1:]])
    trials = rng.integers(1, 6, n)
    y = rng.binomial(trials, 0.4)
    given = {
        "offset": rng.normal(size=n) * 0.1,
        "weights": rng.uniform(0.5, 2, n),
        "n_trials": trials,
        **options,
    }
    ident = ["a"] * 5 + ["b"] * 5
    return BayesMixedGLM(y, X, Z, ident, vcp_p=[0.7, 1.3], fe_p=[3.0, 1.0], **given)


def test_gradients_are_derivatives():
    """With offset, weights, trials, priors one each: against central differences."""
    m = small_model()
    rng = np.random.default_rng(1)
    k = m.k_fep + m.k_vcp + m.k_vc
    x, s = rng.normal(size=k) * 0.3, rng.uniform(0.2, 0.6, k)
    np.testing.assert_allclose(
        m.logposterior_grad(x), numerical(m.logposterior, x), rtol=1e-6, atol=1e-7
    )
    g_mean, g_sd = m.vb_elbo_grad(x, s, quadrature="exact")
    np.testing.assert_allclose(
        g_mean,
        numerical(lambda v: m.vb_elbo(v, s, quadrature="exact"), x),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        g_sd,
        numerical(lambda v: m.vb_elbo(x, v, quadrature="exact"), s),
        rtol=1e-6,
        atol=1e-6,
    )


def test_a_noncanonical_family_has_the_exact_rule_alone():
    m = small_model(family="binomial", n_trials=6, weights=None)
    probit = BayesMixedGLM(
        m.endog,
        m.exog,
        m.exog_vc,
        m.ident,
        family=jg.Binomial(link="probit"),
        n_trials=6,
    )
    k = probit.k_fep + probit.k_vcp + probit.k_vc
    assert np.isfinite(probit.vb_elbo(np.zeros(k), np.ones(k), quadrature="exact"))
    with pytest.raises(ValueError, match="quadrature='exact'"):
        probit.vb_elbo(np.zeros(k), np.ones(k))


def test_constants_make_the_joint_density():
    """log p(y, beta, log s, u) written out, for the Poisson with its factorials."""
    m = model("sm_poisson_crossed")
    x = np.array(case("sm_poisson_crossed")["points"][1]["params"])
    b, z, u = m._unpack(x)
    eta = m.exog @ b + m.exog_vc @ u

    def normal(v, sd):
        return np.sum(-0.5 * (v / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi))

    y = m.endog
    expected = np.sum(y * eta - np.exp(eta) - gammaln(y + 1))
    expected += normal(b, 2.0) + normal(z, 1.0) + normal(u, np.exp(z)[m.ident])
    assert m.logposterior(x, constants=True) == pytest.approx(expected, rel=1e-12)


def test_the_bound_with_constants_is_a_bound():
    """Below log p(y), by quadrature over two numbers (one group, beta and s)."""
    y = np.array([2.0, 3, 1, 4])
    m = PoissonBayesMixedGLM(y, np.ones((4, 1)), np.ones((4, 1)), [0])
    # u and beta enter by their sum v ~ N(0, 4 + s^2); log s and v on grids
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    total = 0.0
    for zk, wk in zip(z, w, strict=True):
        sd = np.sqrt(4 + np.exp(2 * zk))
        v = sd * z
        terms = y.sum() * v - 4 * np.exp(np.minimum(v, 300)) - gammaln(y + 1).sum()
        total += wk * np.sum(w * np.exp(terms))
    fit = m.fit_vb(quadrature="exact")
    sd = np.sqrt(fit.cov_params())
    bound = m.vb_elbo(fit.params, sd, quadrature="exact", constants=True)
    assert bound < np.log(total)
    assert bound > np.log(total) - 1.0
    assert fit.facts["elbo"] == pytest.approx(bound, abs=1e-9)


def test_precision_is_double_whatever_the_flag():
    assert not jax.config.jax_enable_x64
    m = model("sm_binomial_crossed")
    point = case("sm_binomial_crossed")["points"][2]
    assert m.vb_elbo(point["vb_mean"], point["vb_sd"]) == pytest.approx(
        point["vb_elbo"], rel=1e-12
    )


def test_dense_and_sparse_designs_are_one():
    y, X, Z, ident = design("sm_binomial_crossed")
    point = case("sm_binomial_crossed")["points"][2]
    dense = model("sm_binomial_crossed").__class__(y, X, Z.toarray(), ident)
    assert dense.logposterior(point["params"]) == pytest.approx(
        point["logposterior"], rel=1e-12
    )
