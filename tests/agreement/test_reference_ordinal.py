"""Cumulative link models against R's ordinal, and its likelihood written out."""

import warnings

import numpy as np
import pytest
from ordinal_cases import data, fitted, reference, values

import jaxglmm as jg

MIXED = (
    "wine_clmm",
    "wine_clmm_cauchit",
    "wine_clmm_cloglog",
    "wine_clmm_crossed",
    "wine_clmm_probit",
    "wine_clmm_symmetric2",
    "sim_ord_binary",
    "sim_ord_slope",
    "sim_ordcross_probit",
)
QUADRATURE = ("wine_clmm_agq10", "wine_clmm_loglog")
FIXED = ("wine_clm", "sim_ord_clm_equidistant")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in QUADRATURE]


@pytest.mark.parametrize("name", [*MIXED, *FIXED, *SLOW])
def test_estimates_errors_and_probabilities(name):
    r = reference(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        fit = fitted(name)
    assert fit.converged
    assert fit.log_likelihood > r.get("loglik_best", r["loglik"]) - 1e-5
    assert fit.npar == r["npar"]
    # ordinal's optimiser stops early: the likelihood written out is the precise one
    exact = r | {k: v for k, v in r.get("dense_check", {}).items() if k in r}
    se = values(exact["se"])
    assert np.abs(fit.coefficients - values(exact["fixef"])).max() < 1e-3 * se.max()
    np.testing.assert_allclose(fit.se, se, rtol=2e-3)
    own = fit.threshold_coefficients
    error = values(exact["se_alpha"])
    assert (np.abs(own["estimate"] - values(exact["alpha"])) < 1e-3 * error).all()
    np.testing.assert_allclose(own["std_error"], error, rtol=2e-3)
    if "thresholds" in r:
        np.testing.assert_allclose(fit.thresholds, r["thresholds"], atol=2e-2)
    close = 1e-5 if r["threshold"] == "flexible" else 2e-4  # ordinal stopped early
    for key, eta in (
        ("class_prob_population_first10", fit.fixed_part),
        ("class_prob_conditional_first10", fit.linear_predictor),
    ):
        if key in r:
            found = fit.probabilities(eta)[:10]
            np.testing.assert_allclose(found, r[key], atol=close)
    for term, record in r.get("varcorr", {}).items():
        sd = fit.varcorr[term].sd.to_numpy()
        np.testing.assert_allclose(sd, record["sd"], atol=2e-3)


def test_two_categories_are_a_binomial_model():
    d = data("sim_ord")
    formula = "bin ~ x + trt + (1 | g)"
    for link, other in (
        ("logit", "logit"),
        ("probit", "probit"),
        ("cauchit", "cauchit"),
    ):
        one = jg.glmm(formula, d, family=jg.Cumulative(link))
        two = jg.glmm(formula, d, family=jg.Binomial(other))
        assert one.criterion == pytest.approx(two.criterion, abs=1e-8)
        np.testing.assert_allclose(one.coefficients, two.coefficients[1:], atol=1e-8)
        np.testing.assert_allclose(one.se, two.se[1:], rtol=1e-7)
        assert one.thresholds.iloc[0] == pytest.approx(-two.coefficients[0], abs=1e-8)
        np.testing.assert_allclose(one.ranef["g"], two.ranef["g"], atol=1e-7)
