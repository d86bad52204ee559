"""Data that are read in batches, for several files of ``tests/streaming``."""

import numpy as np
import pandas as pd
import pytest


def table(n=4000, J=60, seed=0):
    """Two numbers, two factors, weights, and groups with text for names."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, J, n)
    x, z = rng.normal(5.0, 2.0, n), rng.normal(100.0, 0.5, n)
    f, w = rng.choice(list("cab"), n), rng.uniform(0.5, 2.0, n)
    b = rng.normal(size=(J, 2)) @ np.array([[1.0, 0.2], [0.0, 0.5]])
    y = 3 + 0.5 * x + 0.1 * z + (f == "b") * 0.7 + b[g, 0] + b[g, 1] * x
    y = y + rng.normal(size=n) / np.sqrt(w)
    h, k = rng.integers(0, 7, n), g // 10
    y += rng.normal(size=J // 10 + 1)[k] + rng.normal(size=7)[h]
    y += (
        0.5 * x * rng.normal(size=7)[h]
        + rng.normal(size=(3, 7))[np.unique(f, return_inverse=True)[1], h]
    )
    names = np.array([f"s{i}" for i in g], object)
    columns = {"y": y, "x": x, "z": z, "f": f, "w": w, "g": names}
    return pd.DataFrame(columns | {"h": h, "k": k})


def written(data, folder, parts=1, name="part"):
    """The table as Parquet files, a folder."""
    folder.mkdir(exist_ok=True)
    for k, rows in enumerate(np.array_split(np.arange(len(data)), parts)):
        data.iloc[rows].to_parquet(
            folder / f"{name}{k:03d}.parquet", row_group_size=300
        )
    return folder


def sds(fit):
    """All standard deviations."""
    return np.concatenate([t.sd.values for t in fit.varcorr.values()] + [[fit.sigma]])


def assert_same(one, two):
    """The numbers of two fits to 1e-8."""
    assert one.criterion == pytest.approx(two.criterion, abs=1e-8, rel=1e-10)
    assert np.allclose(one.coef, two.coef, rtol=1e-8, atol=1e-10)
    assert np.allclose(one.se, two.se, rtol=1e-8)
    assert np.allclose(sds(one), sds(two), rtol=1e-8, atol=1e-10)
    assert np.allclose(one.denominator_df, two.denominator_df, rtol=1e-6)
    assert one.ranef.keys() == two.ranef.keys()
    for factor, frame in one.ranef.items():
        assert frame.index.tolist() == two.ranef[factor].index.tolist()
        assert np.allclose(frame, two.ranef[factor], rtol=1e-8, atol=1e-9)
    assert (one.nobs, one.ngroups) == (two.nobs, two.ngroups)
    assert one.coefficient_names == two.coefficient_names
