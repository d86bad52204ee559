"""Random models of all families against lme4's and glmmTMB's maxima.

``reference/random_models.py`` makes them. Every seventh is fitted; all that have an
answer where the environment variable ``JAXGLMM_ALL_RANDOM_MODELS`` is set.
"""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference import random_models

import jaxglmm as jg

FILE = Path(__file__).parent.parent / "reference" / "random_models.json"
ANSWERS = {int(i): answer for i, answer in json.loads(FILE.read_text()).items()}
EVERY = 1 if os.environ.get("JAXGLMM_ALL_RANDOM_MODELS") else 7
CLOSE = 1e-5  # of 1 + |log-likelihood|: less than theirs by that is a fault
SHORT = 5e-5  # the same: glmmTMB stops before maxima where a correlation is one
NEAR = 1e-2  # of a standard error: their coefficients, for the same reason
FAMILIES = {
    "binomial": jg.Binomial,
    "bernoulli": jg.Binomial,
    "poisson": jg.Poisson,
    "nbinom2": jg.NegativeBinomial,
    "nbinom1": lambda link: jg.NegativeBinomial(link, kind=1),
    "gamma": jg.Gamma,
    "gaussian": jg.Gaussian,
    "invgauss": jg.InverseGaussian,
    "beta": jg.Beta,
}


def fitted(model):
    weights = "w" if model.weights else None
    data = pd.DataFrame(model.columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.SingularFitWarning)
        if model.linear:
            reml = model.kind == "reml"
            return jg.lmm(model.formula, data, reml=reml, weights=weights)
        family = FAMILIES[model.kind](link=model.link)
        return jg.glmm(model.formula, data, family=family, weights=weights)


def own_unit(model, names):
    """(p, p): level at the mean of x, slope of x by its own unit, the rest."""
    A, names = np.eye(len(names)), list(names)
    if "x" in names:
        x, at = model.columns["x"], names.index("x")
        A[names.index("(Intercept)"), at] = x.mean()
        A[at, at] = x.std()
    return A


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("number", [i for i in ANSWERS if i % EVERY == 0])
def test_maximum(number):
    """As high as theirs, at the same place; no warning but that of singular fits."""
    model = random_models.model(number)
    fit, answer = fitted(model), ANSWERS[number]
    assert fit.converged, fit.status
    expected = answer["loglik"]
    higher = (fit.log_likelihood - expected) / (1 + abs(expected))
    assert -CLOSE < higher < SHORT
    if "fixef" in answer:  # not of the dense search
        A = own_unit(model, fit.fixef)
        theirs = A @ [answer["fixef"][name] for name in fit.fixef]
        se = np.sqrt(np.diagonal(A @ fit.vcov.to_numpy() @ A.T))
        assert (np.abs(A @ fit.coef - theirs) < NEAR * se).all()
