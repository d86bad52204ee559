import datetime as dt
import enum
import json
import uuid
import zipfile
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import twin
from doors import packing_pack as pack
from doors import packing_unpack as unpack
from doors import storage as store

from jaxglmm import DataError, Fit, NewLevelsWarning


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


class Colour(enum.Enum):
    RED = 1
    BLUE = 2
    GREEN = 3


class Named:
    """A label of the user's own: hashable, and no JSON."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<{self.name}>"


NAMED = [Named("a"), Named("b"), Named("c")]
LABELS = {
    "intervals": list(pd.interval_range(0, 3)),
    "intervals of times": list(pd.interval_range(pd.Timestamp("2020"), periods=3)),
    "dates": [dt.date(2020, 1, k) for k in (1, 2, 3)],
    "times of day": [dt.time(k, 30) for k in (1, 2, 3)],
    "datetimes": list(pd.date_range("2020", periods=3, freq="7h")),
    "zoned": list(pd.date_range("2020", periods=3, tz="Europe/Berlin")),
    "timedeltas": list(pd.timedelta_range("1h", periods=3)),
    "periods": list(pd.period_range("2020-01", periods=3, freq="M")),
    "quarters": list(pd.period_range("2020-01", periods=3, freq="Q-MAR")),
    "tuples": [(1, "a"), (1, "b"), (2, dt.date(2020, 1, 1))],
    "decimals": [Decimal("0.10"), Decimal("0.2"), Decimal(3)],
    "bytes": [b"a", b"\xff", b"c"],
    "mixed": [1, "b", dt.date(2020, 1, 1)],
    "truths": [False, True, True],
    "scalars": [np.int8(1), np.float32(2.5), np.float64(7)],
    "fractions": [Fraction(1, 3), Fraction(1, 2), Fraction(2, 3)],
    "uuids": [uuid.UUID(int=k) for k in (1, 2, 3)],
    "sets": [frozenset({1}), frozenset({"a", 2}), frozenset()],
    "large integers": [2**70, 2**70 + 1, 2**71],
    "members": list(Colour),
    "objects": NAMED,
}


def labelled(labels, n=60):
    found = np.empty(n, object)
    found[:] = [labels[k % len(labels)] for k in range(n)]
    return found


@pytest.mark.parametrize("categorical", [False, True], ids=["plain", "category"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_of_every_kind(sleepstudy, tmp_path, labels, categorical):
    """As factors and groups; a file holds those itself that it can."""
    column = labelled(labels)
    if categorical:
        unique = list(dict.fromkeys(labels))
        codes = [unique.index(v) for v in column]
        column = pd.Categorical.from_codes(codes, pd.Index(unique, tupleize_cols=False))
    data = sleepstudy[:60].assign(k=pd.Series(column))
    fit = twin.make("Reaction ~ C(k) + (1 | k) + (1 | Subject:k)", data, [0.9, 0.5])
    loaded = saved(fit, tmp_path)
    as_text = isinstance(labels[0], Colour | Named)
    for one, two in zip(loaded.design.terms, fit.design.terms, strict=True):
        expected = [str(v) for v in two.levels] if as_text else two.levels.tolist()
        assert one.levels.tolist() == expected
        assert one.levels.dtype == two.levels.dtype
        np.testing.assert_array_equal(one.codes, two.codes)
    assert loaded.coefficient_names == fit.coefficient_names
    np.testing.assert_array_equal(loaded.predict(data), fit.predict(data))


def test_labels_of_rows_of_every_kind(sleepstudy, tmp_path):
    fit = twin.make("Reaction ~ Days + (1 | Subject)", sleepstudy[:60], [0.9])
    for labels in LABELS.values():
        index = pd.Index(labelled(labels), tupleize_cols=False, name=("a", 1))
        arrays = {}
        found = unpack(pack(index, arrays, "index"), arrays)
        assert found.name == ("a", 1)
        assert [str(v) for v in found] == [str(v) for v in index]
    named = replace(fit.design, index=index)
    loaded = saved(Fit(named, fit.estimates), tmp_path)
    assert loaded.augment().index.name == ("a", 1)


def test_files_of_older_fields(sleep, tmp_path):
    """Fields that records once had are left out."""
    path = tmp_path / "fit.jg"
    sleep.save(path)
    with zipfile.ZipFile(path) as file:
        names = {name: file.read(name) for name in file.namelist()}
    tree = names["fit.json"].decode()
    old = tree.replace(
        '"name": "Column", "fields": {', '"name": "Column", "fields": {"whole": false, '
    )
    assert old != tree
    with zipfile.ZipFile(path, "w") as file:
        for name, content in names.items():
            file.writestr(name, old if name == "fit.json" else content)
    assert Fit.load(path).criterion == sleep.criterion


def test_diagnostics_that_cannot_be_written_are_left_out(sleep, tmp_path):
    facts = {"seconds": {"fit": 0.1}, "steps": np.int64(5), "engine": object()}
    fit = Fit(sleep.design, sleep.estimates, diagnostics=facts)
    assert saved(fit, tmp_path).diagnostics == {"seconds": {"fit": 0.1}, "steps": 5}


def test_no_pickle_inside(sleep, tmp_path):
    sleep.save(tmp_path / "fit.jg")
    with zipfile.ZipFile(tmp_path / "fit.jg") as file:
        assert all(n == "fit.json" or n.endswith(".npy") for n in file.namelist())
        tree = json.loads(file.read("fit.json"))
    assert (tree["format"], tree["version"]) == (store.FIT.name, store.FIT.version)


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
        tree = {"format": store.FIT.name, "version": store.FIT.version + 1}
        file.writestr("fit.json", json.dumps(tree))
    with pytest.raises(DataError, match="newer jaxglmm"):
        Fit.load(tmp_path / "zip")
