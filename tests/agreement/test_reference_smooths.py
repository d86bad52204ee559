"""Penalised splines against mgcv (``reference/smooths.R``)."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

HERE = Path(__file__).parent.parent
CASES = json.loads((HERE / "reference" / "smooths.json").read_text())


@functools.cache
def fitted(name):
    case, data = CASES[name], pd.read_csv(HERE / "data" / "sim_smooth.csv.gz")
    if case["family"] == "gaussian":
        return jg.lmm(case["formula"], data, reml=case["method"] == "REML")
    reml = case["method"] == "REML"
    return jg.glmm(case["formula"], data, family=case["family"], reml=reml)


@pytest.mark.parametrize("name", ["gam_s", "gam_by", "gam_te_ml"])
def test_linear_models(name):
    case, fit = CASES[name], fitted(name)
    assert fit.log_likelihood == pytest.approx(case["loglik"], abs=1e-7)
    edf = fit.smooths()["edf"]
    np.testing.assert_allclose(edf, case["edf"][: len(edf)], rtol=2e-6)
    np.testing.assert_allclose(fit.fitted_values[:20], case["eta"], atol=1e-5)
    if name != "gam_te_ml":  # whose first columns are other ones
        np.testing.assert_allclose(fit.se[:3], case["se"], rtol=1e-5)


def test_a_generalised_model_by_reml():
    case, fit = CASES["gam_poisson_reml"], fitted("gam_poisson_reml")
    assert fit.log_likelihood == pytest.approx(case["loglik"], abs=1e-7)
    np.testing.assert_allclose(fit.smooths()["edf"], case["edf"][:1], rtol=1e-4)
    eta = fit.predict(type="link")[:20]
    np.testing.assert_allclose(eta, case["eta"], atol=1e-5)
    assert fit.varcorr["g"].sd.iloc[0] == pytest.approx(case["sd"][1], rel=1e-5)
    # mgcv's are given the variances, ours have their uncertainty in them
    np.testing.assert_allclose(fit.se[:3], case["se"], rtol=5e-3)
    assert (fit.se[:3] > case["se"]).all()


def test_a_generalised_model_by_maximum_likelihood():
    """Fixed effects at the maximum, where mgcv's are at the joint mode."""
    case, fit = CASES["gam_poisson_ml"], fitted("gam_poisson_ml")
    assert 0 < fit.log_likelihood - case["loglik"] < 0.01
    np.testing.assert_allclose(fit.smooths()["edf"], case["edf"][:1], rtol=1e-3)
    eta = fit.predict(type="link")[:20]
    np.testing.assert_allclose(eta, case["eta"], atol=5e-3)
    sd = fit.varcorr["g"].sd.iloc[0]
    assert sd == pytest.approx(case["sd"][1], rel=1e-3)
    restricted = CASES["gam_poisson_reml"]["sd"][1]
    assert sd == pytest.approx(0.961 * restricted, rel=2e-3)
