import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from results import twin

from jaxglmm._errors import DataError, NewLevelsWarning
from jaxglmm.results import store
from jaxglmm.results.fit import Fit


def saved(fit, folder):
    fit.save(folder / "fit.jg")
    return Fit.load(folder / "fit.jg")


def test_everything_comes_back(sleep, tmp_path):
    loaded = saved(sleep, tmp_path)
    np.testing.assert_array_equal(loaded.fitted_values, sleep.fitted_values)
    np.testing.assert_array_equal(loaded.estimates.vcov, sleep.estimates.vcov)
    assert loaded.ranef["Subject"].equals(sleep.ranef["Subject"])
    assert loaded.augment().equals(sleep.augment())
    assert loaded.design.fixed_terms == sleep.design.fixed_terms
    assert loaded.criterion == sleep.criterion
    assert loaded.ddf == sleep.ddf
    new = pd.DataFrame({"Days": [3, 4], "Subject": ["308", "999"]})
    with pytest.warns(NewLevelsWarning):
        expected = sleep.predict(new)
    with pytest.warns(NewLevelsWarning):
        np.testing.assert_array_equal(loaded.predict(new), expected)


def test_contrasts_and_labels_of_rows_come_back(sleepstudy, tmp_path):
    when = pd.date_range("2020-01-01", periods=180)
    data = sleepstudy.assign(
        half=np.where(sleepstudy.Days < 5, "é|b", "late")
    ).set_index(when)
    fit = twin.make("Reaction ~ Days + half + (1 | Subject)", data, [0.9])
    loaded = saved(fit, tmp_path)
    assert loaded.augment().equals(fit.augment())
    np.testing.assert_array_equal(
        loaded.design.recipe.sum_coded(), fit.design.recipe.sum_coded()
    )


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(5, 5 + 360, 2, name="row"),
        pd.Index([f"r{i}" for i in range(180)], name="label"),
        pd.MultiIndex.from_product([range(18), range(10)], names=["s", "d"]),
        pd.Index(np.arange(180.0)),
    ],
    ids=["range", "text", "multi", "float"],
)
def test_every_kind_of_index(sleepstudy, tmp_path, index):
    fit = twin.make(
        "Reaction ~ Days + (1 | Subject)", sleepstudy.set_index(index), [0.9]
    )
    loaded = saved(fit, tmp_path)
    assert pd.Index(loaded.design.index).equals(index)
    assert list(loaded.design.index.names) == list(index.names)


def test_diagnostics_that_cannot_be_written_are_left_out(sleep, tmp_path):
    facts = {"seconds": {"fit": 0.1}, "steps": np.int64(5), "engine": object()}
    fit = Fit(sleep.design, sleep.estimates, diagnostics=facts)
    assert saved(fit, tmp_path).diagnostics == {"seconds": {"fit": 0.1}, "steps": 5}


def test_no_pickle_inside(sleep, tmp_path):
    sleep.save(tmp_path / "fit.jg")
    with zipfile.ZipFile(tmp_path / "fit.jg") as file:
        assert all(n == "fit.json" or n.endswith(".npy") for n in file.namelist())
        tree = json.loads(file.read("fit.json"))
    assert (tree["format"], tree["version"]) == (store.FORMAT, store.VERSION)


def test_files_that_are_not_ours(tmp_path, sleep):
    with pytest.raises(DataError, match="no file"):
        Fit.load(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="not a file that"):
        Fit.load(tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("fit.json", json.dumps({"format": "another", "version": 1}))
    with pytest.raises(DataError, match="not a file that"):
        Fit.load(tmp_path / "zip")


def test_a_newer_format_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        tree = {"format": store.FORMAT, "version": store.VERSION + 1}
        file.writestr("fit.json", json.dumps(tree))
    with pytest.raises(DataError, match="newer jaxglmm"):
        Fit.load(tmp_path / "zip")
