"""Fits that several tests look at, made once."""

import warnings

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

FORMULA = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="session")
def cbpp():
    return jg.datasets.load("cbpp")


@pytest.fixture(scope="session")
def cbpp_fit(cbpp):
    """Fits of cbpp under statsmodels' priors, by method."""
    made = {}

    def fit(method):
        key = repr(method)
        if key not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[key] = jg.glmm(
                    FORMULA, cbpp, method=method, priors=jg.Priors.statsmodels()
                )
        return made[key]

    return fit


@pytest.fixture(scope="session")
def schools():
    """Eight schools (Rubin 1981): effects with known standard errors."""
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    se = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    return pd.DataFrame({"y": y, "school": list("ABCDEFGH"), "w": 1 / se**2})


SCHOOLS = jg.Priors(
    intercept=jg.Normal(0, 5), sd=jg.HalfT(1, 5), dispersion=jg.Fixed(1)
)
