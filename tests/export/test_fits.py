"""Many fits in ArviZ: a model dimension, draws of a bootstrap."""

import warnings

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("arviz")

pytestmark = [pytest.mark.filterwarnings("ignore")]


def setting():
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 6), "x": rng.normal(size=60)})
    Y = rng.normal(size=(10, 3))[data["g"]] + rng.normal(size=(60, 3))
    return data, pd.DataFrame(Y, columns=["a", "b", "c"])


def test_models_are_a_dimension(tmp_path):
    data, Y = setting()
    Y["b"] = 1.0  # a bad one keeps its place
    fits = jg.fit_many("y ~ x + (1 | g)", data, responses=Y)
    tree = fits.to_arviz()
    beta = tree["posterior"]["beta"]
    assert beta.dims == ("chain", "draw", "model", "term")
    found = beta.sel(model="c", term="x").to_numpy().item()
    assert found == fits.coefficients[2, 1]
    sd = tree["posterior"]["sd"].sel(sd_term="sd_(Intercept)|g", model="a")
    assert sd.to_numpy().item() == fits.sd[0, 0]
    assert tree["posterior"]["sigma"].sizes["model"] == 3
    stats = tree["sample_stats"]
    se = stats["se"].sel(model="a", term="x")
    assert se.to_numpy().item() == fits.se[0, 1]
    assert stats["converged"].to_numpy().ravel().tolist() == [True, False, True]
    assert np.isnan(beta.sel(model="b").to_numpy()).all()
    tree.to_netcdf(tmp_path / "fits.nc")


def test_data_sets_named_by_several_columns():
    data, Y = setting()
    table = data.assign(y=Y["a"], h=np.tile(["u", "v"], 30), k="w")
    tree = jg.fit_many("y ~ x + (1 | g)", table, by=["h", "k"]).to_arviz()
    assert tree["posterior"]["model"].to_numpy().tolist() == ["u w", "v w"]


def test_bootstrap_draws_are_draws():
    data, Y = setting()
    fits = jg.lmm("y ~ x + (1 | g)", data.assign(y=Y["a"])).bootstrap(20, seed=1)
    beta = fits.to_arviz()["posterior"]["beta"]
    assert beta.dims == ("chain", "draw", "term")
    np.testing.assert_array_equal(beta.to_numpy()[0], fits.coefficients)
