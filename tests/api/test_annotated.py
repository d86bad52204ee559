"""AnnData, by its parts: the package itself where it is installed."""

import types

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import jaxglmm as jg
from jaxglmm import ArgumentError, DataError

N, D = 60, 6


def parts():
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(10), 6)
    obs = pd.DataFrame(
        {"dose": rng.normal(size=N), "donor": [f"d{k}" for k in donor]},
        index=[f"cell{i}" for i in range(N)],
    )
    size = rng.uniform(0.5, 2, size=N)
    b = rng.normal(size=(10, D))[donor] * 0.4
    mean = size[:, None] * np.exp(2 + 0.3 * obs["dose"].to_numpy()[:, None] + b)
    counts = rng.poisson(mean).astype(float)
    var = pd.DataFrame(index=[f"gene{j}" for j in range(D)])
    return obs, var, counts


def stand_in(obs, var, X, **layers):
    return types.SimpleNamespace(
        obs=obs, var=var, X=X, layers=layers, var_names=var.index
    )


def made(kind):
    obs, var, counts = parts()
    if kind == "anndata":
        anndata = pytest.importorskip("anndata")
        whole = anndata.AnnData(np.log1p(counts), obs=obs, var=var)
        whole.layers["counts"] = sparse.csr_matrix(counts)
        return whole, counts
    own = sparse.csr_matrix(counts) if kind == "sparse" else counts
    return stand_in(obs, var, np.log1p(counts), counts=own), counts


FORMULA = "y ~ dose + (1 | donor)"


@pytest.mark.parametrize("kind", ["dense", "sparse", "anndata"])
def test_a_layer_with_log_sizes(kind):
    adata, counts = made(kind)
    found = jg.fit_many(
        FORMULA, adata, layer="counts", family="poisson", offset="log_size"
    )
    assert found.labels.tolist() == [f"gene{j}" for j in range(D)]
    same = jg.fit_many(
        FORMULA,
        adata.obs,
        responses=counts,
        family="poisson",
        offset=np.log(counts.sum(axis=1)),
    )
    np.testing.assert_allclose(found.coefficients, same.coefficients, rtol=1e-12)
    found.annotate(adata, prefix="m_")
    assert adata.var["m_dose"].tolist() == found.coefficients[:, 1].tolist()
    assert adata.var["m_dose_se"].tolist() == found.se[:, 1].tolist()
    top = found.top("dose", 2)
    own = adata.var["m_dose_p_adjusted"].nsmallest(2)
    np.testing.assert_allclose(own.to_numpy(), top["p_adjusted"].to_numpy())
    assert set(adata.var["m_status"]) == {"converged"}


def test_x_and_a_column_of_that_name():
    adata, counts = made("dense")
    found = jg.fit_many(FORMULA, adata)
    same = jg.fit_many(FORMULA, adata.obs, responses=np.log1p(counts))
    np.testing.assert_array_equal(found.coefficients, same.coefficients)
    found.annotate(adata)
    assert "sigma" in adata.var
    assert "sd_(Intercept)|donor" in adata.var
    adata.obs["log_size"] = 1.5
    shifted = jg.fit_many(FORMULA, adata, offset="log_size")
    np.testing.assert_allclose(
        shifted.coefficients[:, 0], found.coefficients[:, 0] - 1.5, rtol=1e-8
    )


def test_rows_that_are_left_out_go_from_all():
    adata, counts = made("dense")
    adata.obs.loc["cell3", "dose"] = np.nan
    with pytest.warns(jg.MissingRowsWarning):
        found = jg.fit_many(
            FORMULA, adata, layer="counts", family="poisson", offset="log_size"
        )
    keep = np.arange(N) != 3
    same = jg.fit_many(
        FORMULA,
        adata.obs[keep],
        responses=counts[keep],
        family="poisson",
        offset=np.log(counts.sum(axis=1))[keep],
    )
    np.testing.assert_allclose(found.coefficients, same.coefficients, rtol=1e-8)


def test_what_is_none():
    adata, counts = made("dense")
    with pytest.raises(ArgumentError, match="'counts'"):
        jg.fit_many(FORMULA, adata, layer="raw")
    with pytest.raises(ArgumentError, match="AnnData"):
        jg.fit_many(FORMULA, adata.obs, responses=counts, layer="counts")
    counts[7] = 0
    with pytest.raises(DataError, match="first row 7"):
        jg.fit_many(FORMULA, adata, layer="counts", offset="log_size")
    adata.X = None
    with pytest.raises(DataError, match="say which by layer="):
        jg.fit_many(FORMULA, adata)
    fits = jg.fit_many(FORMULA, adata, layer="counts")
    other = stand_in(adata.obs, adata.var.iloc[::-1], adata.X)
    with pytest.raises(DataError, match="but for their order"):
        fits.annotate(other)
    with pytest.raises(DataError, match="not those of these"):
        fits[:2].annotate(other)
