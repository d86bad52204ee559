"""Residual structures against nlme's gls and lme, and the R package mmrm's figures.

``reference/residual_structures.json``: log-likelihoods, coefficients, standard errors
and degrees of freedom of R 4.2.2 with nlme 3.1-162; the cases of fev_data by a dense
likelihood that agrees with mmrm and SAS to the digits that these print. Normalized
residuals of compound symmetry are left out: nlme takes another root there.
"""

import functools
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

HERE = Path(__file__).parent.parent
CASES = json.loads((HERE / "reference" / "residual_structures.json").read_text())
FACTORS = {
    "AVISIT": ["VIS1", "VIS2", "VIS3", "VIS4"],
    "ARMCD": ["PBO", "TRT"],
    "RACE": ["Asian", "Black or African American", "White"],
    "SEX": ["Male", "Female"],
    "QB": ["200", "300"],
    "Sex": ["Male", "Female"],
}
GLS_ML = [name for name in CASES if "_gls_" in name and CASES[name]["method"] == "ML"]


@functools.cache
def table(name):
    file = HERE / "data" / f"{name}.csv.gz"
    data = pd.read_csv(file) if file.exists() else jg.datasets.load(name)
    for factor in FACTORS.keys() & set(data.columns):
        texts = data[factor].astype(str)
        data[factor] = pd.Categorical(texts, categories=FACTORS[factor])
    return data


@functools.cache
def fitted(name):
    case = CASES[name]
    data = table(case["data"])
    if name == "orth_gls_ar1h":  # ages 8, 10, 12, 14: their order, not their years
        data = data.assign(age_=data["age"].astype(str).str.zfill(4))
        case = {**case, "residual": "ar1h(age_ | Subject)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jg.lmm(
            case["formula"],
            data,
            residual=case["residual"],
            reml=case["method"] == "REML",
            weights=case["weights"],
        )


@pytest.mark.parametrize("name", CASES)
def test_likelihood_and_coefficients(name):
    case, fit = CASES[name], fitted(name)
    assert fit.converged
    assert abs(fit.log_likelihood - case["loglik"]) < 1e-6 * abs(case["loglik"])
    se = np.array(case["se"])
    if name in GLS_ML:  # nlme's gls multiplies by n / (n - p) where it is by ML
        se = se * np.sqrt((fit.nobs - fit.design.p) / fit.nobs)
    np.testing.assert_allclose(
        fit.coefficients, case["coef"], rtol=0, atol=1e-4 * se.max()
    )
    np.testing.assert_allclose(fit.se, se, rtol=2e-5)


@pytest.mark.parametrize("name", [n for n in CASES if "satterthwaite" in CASES[n]])
@pytest.mark.parametrize(
    "ddf", ["satterthwaite", "kenward-roger", "kenward-roger-linear"]
)
def test_degrees_of_freedom(name, ddf):
    expected = CASES[name][ddf.replace("-", "_")]
    found = fitted(name).coefficient_table(ddf)
    np.testing.assert_allclose(found["df"], expected["df"], rtol=1e-5)
    np.testing.assert_allclose(found["std_error"], expected["se"], rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in CASES if "normalized" in CASES[n]])
def test_normalized_residuals(name):
    found = fitted(name).resid("normalized")[:20]
    np.testing.assert_allclose(found, CASES[name]["normalized"], atol=2e-4)


def test_mmrm_prints_what_mmrm_does():
    """The package's own example, as its documentation prints it."""
    formula = "FEV1 ~ RACE + SEX + ARMCD * AVISIT + us(AVISIT | USUBJID)"
    with pytest.warns(jg.MissingRowsWarning, match="263 of 800"):
        fit = jg.mmrm(formula, table("fev_data"))
    assert round(fit.criterion, 1) == 3386.4
    printed = fit.summary().coefficients.round({"estimate": 5, "std_error": 5, "df": 2})
    assert printed.loc["SEX[T.Female]", ["estimate", "std_error", "df"]].tolist() == [
        0.32603,
        0.53194,
        166.14,
    ]
    sd = fit.residual_covariance["Residual"].cov.to_numpy()
    np.testing.assert_allclose(
        np.diagonal(sd).round(4), [40.5544, 26.5714, 14.898, 95.5565]
    )


def test_empirical_covariances_as_mmrm_prints_them():
    """Of FEV1 ~ ARMCD with ar1, from the figures in mmrm's own tests."""
    printed = {
        "empirical": 0.276669200825678,
        "empirical-jackknife": 0.282126502688394,
        "empirical-bias-reduced": 0.27938383855849,
    }
    data = table("fev_data").dropna()
    for kind, variance in printed.items():
        fit = jg.mmrm("FEV1 ~ ARMCD + ar1(AVISIT | USUBJID)", data, vcov=kind)
        assert abs(fit.vcov.iloc[0, 0] / variance - 1) < 1e-6


def test_parameters_of_correlations_and_variances():
    ovary = fitted("ovary_gls_arma11").residual_parameters["estimate"]
    reference = CASES["ovary_gls_arma11"]["cor_struct"]
    np.testing.assert_allclose(
        ovary[["phi|Residual", "theta|Residual"]], reference, atol=1e-4
    )
    car1 = fitted("ovary_gls_car1").residual_parameters["estimate"]
    reference = CASES["ovary_gls_car1"]["cor_struct"]
    np.testing.assert_allclose(car1["rho|Residual"], reference, atol=1e-4)
    field = fitted("field_gls_exp_nugget").residual_parameters["estimate"]
    reference = CASES["field_gls_exp_nugget"]["cor_struct"]
    np.testing.assert_allclose(
        field[["range|Residual", "nugget|Residual"]], reference, rtol=1e-3
    )
    power = fitted("dialyzer_gls_power").residual_parameters["estimate"]
    reference = CASES["dialyzer_gls_power"]["var_struct"]["power"]
    assert abs(power["varpower(pressure)|Residual"] - reference) < 1e-4
    assert abs(power["sigma"] / CASES["dialyzer_gls_power"]["sigma"] - 1) < 1e-4


def test_random_effects_beside():
    fit = fitted("ovary_lme_arma11")
    sds = [sd for record in fit.varcorr.values() for sd in record.sd]
    np.testing.assert_allclose(sds, CASES["ovary_lme_arma11"]["varcorr"][0], rtol=1e-3)
    assert fitted("times_lme_exp").is_singular
