"""Precision weights of counts: limma's numbers, and what is no count."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from doors import lowess

import jaxglmm as jg
from jaxglmm import DataError

matplotlib.use("Agg")
LIMMA = json.loads((Path(__file__).parents[1] / "reference" / "voom.json").read_text())
TABLE = {"dose": LIMMA["dose"], "group": LIMMA["group"]}


def counts():
    return np.array(LIMMA["counts"], float).T


@pytest.mark.parametrize(
    "found", LIMMA["lowess"]["found"], ids=lambda f: str(f["span"])
)
def test_lowess_is_rs(found):
    x, y = (np.array(LIMMA["lowess"][name], float) for name in "xy")
    turned = np.random.default_rng(0).permutation(len(x))
    at, curve = lowess(x[turned], y[turned], found["span"], found["iter"])
    np.testing.assert_allclose(at, found["x"], rtol=1e-12)
    if found["iter"] == 0:  # ties keep their order, and with it their residuals
        np.testing.assert_allclose(curve, found["y"], rtol=1e-12)
    at, curve = lowess(x, y, found["span"], found["iter"])
    np.testing.assert_allclose(curve, found["y"], rtol=1e-12)


def test_lowess_of_little():
    one = np.array([1.0])
    assert lowess(one, one)[1].tolist() == [1.0]
    same = np.ones(5)
    curve = lowess(same, np.arange(5.0))[1]
    np.testing.assert_allclose(curve, 2.0)


@pytest.mark.parametrize("kind", ["array", "sparse", "frame"])
def test_weights_are_limmas(kind):
    given = counts()
    if kind == "sparse":
        given = pytest.importorskip("scipy.sparse").csr_matrix(given)
    if kind == "frame":
        given = pd.DataFrame(given, columns=[f"g{j}" for j in range(80)])
    found = jg.voom("y ~ dose + group", given, TABLE)
    np.testing.assert_allclose(found.log_cpm, np.array(LIMMA["E"]).T, rtol=1e-12)
    np.testing.assert_allclose(found.weights, np.array(LIMMA["weights"]).T, rtol=1e-10)
    assert (found.labels is None) == (kind != "frame")
    random = jg.voom("y ~ dose + group + (1 | dose)", given, TABLE)
    np.testing.assert_array_equal(random.weights, found.weights)
    sized = jg.voom("y ~ dose + group", given, TABLE, size=counts().sum(axis=1))
    np.testing.assert_array_equal(sized.weights, found.weights)


def test_a_mixed_model_after_it():
    rng = np.random.default_rng(1)
    donor = np.repeat(np.arange(6), 3)
    table = {"dose": np.tile([0.0, 1.0, 2.0], 6), "donor": donor}
    mean = np.exp(rng.normal(4, 1, 40) + rng.normal(0, 0.3, (6, 40))[donor])
    found = jg.voom("y ~ dose + (1 | donor)", rng.poisson(mean), table)
    formula = "y ~ dose + (1 | donor)"
    fits = jg.fit_many(formula, table, responses=found.log_cpm, weights=found.weights)
    one = jg.lmm(
        formula, table | {"y": found.log_cpm[:, 4]}, weights=found.weights[:, 4]
    )
    np.testing.assert_allclose(fits.coefficients[4], one.coefficients, rtol=1e-6)
    np.testing.assert_allclose(fits.df[4], one.df_satterthwaite, rtol=1e-4)
    assert found.plot().get_xlabel() == "mean log2 count"


def test_what_is_no_count():
    bad = counts()
    bad[2, 3] = -1
    with pytest.raises(DataError, match="row 2, column 3 has -1"):
        jg.voom("y ~ dose", bad, TABLE)
    bad[2] = 0
    with pytest.raises(DataError, match="sample 2 has no counts"):
        jg.voom("y ~ dose", bad, TABLE)
    with pytest.raises(DataError, match="leave no residuals"):
        jg.voom("y ~ dose + group", counts()[:3], {k: v[:3] for k, v in TABLE.items()})
    with pytest.raises(DataError, match="shape"):
        jg.voom("y ~ dose", counts(), TABLE, size=[1.0])
    lost = TABLE | {"dose": [np.nan, *TABLE["dose"][1:]]}
    with pytest.warns(jg.MissingRowsWarning), pytest.raises(DataError, match="1 of 10"):
        jg.voom("y ~ dose", counts(), lost)
    with pytest.raises(DataError, match="genes have counts"):
        jg.voom("y ~ dose", np.eye(10, 10)[:, :1] + np.ones((10, 1)), TABLE)
