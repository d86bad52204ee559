"""The shipped data are what SOURCES says, and factors come back as factors."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg
from jaxglmm.datasets import SOURCES, load, names

FOLDER = Path(jg.datasets.__file__).parent
SHAPES = {
    "Arabidopsis": (625, 9),
    "Dyestuff": (30, 2),
    "Dyestuff2": (30, 2),
    "Machines": (54, 3),
    "Orthodont": (108, 4),
    "Owls": (599, 8),
    "Pastes": (60, 4),
    "Penicillin": (144, 3),
    "Salamanders": (644, 9),
    "VerbAgg": (7584, 10),
    "cbpp": (56, 5),
    "dietox": (861, 8),
    "epil2": (236, 12),
    "grouseticks": (403, 7),
    "ohio": (2148, 4),
    "sleepstudy": (180, 3),
}


def test_one_source_for_every_file():
    assert [s.name for s in SOURCES] == names() == sorted(SHAPES)
    assert sorted(f.name[: -len(".csv.gz")] for f in FOLDER.glob("*.csv.gz")) == names()


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_source(source):
    data = (FOLDER / f"{source.name}.csv.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == source.sha256
    assert source.citation.endswith(".")
    assert source.name in str(source)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shape_and_types(name):
    frame = load(name)
    assert frame.shape == SHAPES[name]
    for column, values in frame.items():
        if isinstance(values.dtype, pd.CategoricalDtype):
            assert values.notna().all(), column
            assert set(values) == set(values.cat.categories), column
            assert all(isinstance(level, str) for level in values.cat.categories)
        else:
            assert values.dtype in (np.dtype("int64"), np.dtype("float64")), column


def test_levels_keep_their_order():
    assert list(load("Owls").FoodTreatment.cat.categories) == ["Deprived", "Satiated"]
    assert list(load("cbpp").period.cat.categories) == ["1", "2", "3", "4"]
    assert load("sleepstudy").Subject.cat.categories[0] == "308"
    assert list(load("VerbAgg").btype.cat.categories) == ["curse", "scold", "shout"]


def test_missing_values_are_nan():
    assert load("dietox").Feed.isna().sum() == 72
    for name in set(SHAPES) - {"dietox"}:
        assert not load(name).isna().any().any(), name


def test_every_call_gives_a_fresh_frame():
    first = load("sleepstudy")
    first["Days"] = 0
    assert load("sleepstudy").Days.max() == 9


def test_known_numbers():
    assert load("sleepstudy").Reaction.mean() == pytest.approx(298.507892, abs=1e-6)
    assert load("Dyestuff").Yield.mean() == 1527.5


def test_unknown_name_suggests():
    with pytest.raises(jg.DataError, match="Did you mean sleepstudy"):
        load("sleep_study")
