"""Data sets with structured random effects that get a fit of their own."""

import warnings

import numpy as np
import pandas as pd
import pytest
from doors import KeptColumns, covariances, row_of, terms_of
from doors import components_parameters as parameters

import jaxglmm as jg


@pytest.mark.parametrize("term", ["ar1(0 + t | g)", "cs(0 + f | g)", "(1 + t | g)"])
def test_a_row_has_the_standard_deviations_of_its_structure(term):
    rng = np.random.default_rng(3)
    g, t = np.repeat(np.arange(15), 3), np.tile(np.arange(3), 15)
    own = (
        rng.normal(size=(15, 3)) @ [[1, 0.6, 0.4], [0, 0.8, 0.5], [0, 0, 0.7]]
    ).ravel()
    y = 1 + own + 0.4 * rng.normal(size=45)
    data = pd.DataFrame({"y": y, "g": g, "t": t, "f": t.astype(str)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = jg.lmm(f"y ~ 1 + {term}", data)
    terms = fit.design.terms
    names = covariances.sd_names(terms)
    columns = KeptColumns(("(Intercept)",), names, len(fit.theta), (), terms_of(terms))
    row = row_of(fit, columns)[columns.slices()["sd"]]
    found = parameters(fit.design, fit.estimates, residual=False)
    expected = [x.value for x in found if x.kind == "sd"]
    np.testing.assert_allclose(row, expected, rtol=1e-8, atol=1e-12)
    assert len(row) == len(names)
