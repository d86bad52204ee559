"""Every kind of source gives the same fit, and what is wrong with one is told."""

import numpy as np
import pandas as pd
import pytest
from doors import StreamSource
from streaming_cases import assert_same, table, written

import jaxglmm as jg

pa = pytest.importorskip("pyarrow")
import pyarrow.dataset as ds  # noqa: E402
import pyarrow.feather as feather  # noqa: E402

FORMULA = "y ~ x + f + (x | g)"


@pytest.fixture(scope="module")
def inside():
    return jg.lmm(FORMULA, table(1500, 40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(table(1500, 40), tmp_path_factory.mktemp("source") / "d", 3)


def duck(folder):
    return pytest.importorskip("duckdb").read_parquet(str(folder / "*.parquet"))


def lazy(folder):
    return pytest.importorskip("polars").scan_parquet(folder / "*.parquet")


SOURCES = {
    "folder": lambda d: d,
    "text": str,
    "glob": lambda d: str(d / "*.parquet"),
    "list": lambda d: sorted(d.glob("*.parquet")),
    "dataset": lambda d: ds.dataset(d, format="parquet"),
    "in memory": lambda d: ds.dataset(ds.dataset(d, format="parquet").to_table()),
    "duckdb": duck,
    "polars": lazy,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_fit(kind, folder, inside):
    assert_same(jg.lmm(FORMULA, SOURCES[kind](folder)), inside)


def test_other_formats(tmp_path, inside):
    data = table(1500, 40)
    feather.write_feather(pa.Table.from_pandas(data), tmp_path / "a.arrow")
    data.to_csv(tmp_path / "a.csv", index=False)
    assert_same(jg.lmm(FORMULA, tmp_path / "a.arrow"), inside)
    assert_same(jg.lmm(FORMULA, tmp_path / "a.csv"), inside)


def test_folders_that_name_a_column(tmp_path):
    data = table(1500, 40)
    for value, rows in data.groupby("h"):
        part = tmp_path / "d" / f"h={value}"
        part.mkdir(parents=True)
        rows.drop(columns="h").to_parquet(part / "a.parquet")
    formula = "y ~ x + h + (1 | g)"
    assert_same(jg.lmm(formula, tmp_path / "d"), jg.lmm(formula, data))


def test_types_that_differ_between_files(tmp_path):
    """Integers here and doubles there, text here and a dictionary there."""
    data = table(1500, 40)
    source = written(data.iloc[:700], tmp_path / "d", 1, "a")
    rest = data.iloc[700:].assign(h=lambda d: d["h"].astype(float))
    rest["f"] = rest["f"].astype("category")
    written(rest, source, 1, "b")
    formula = "y ~ h + f + (1 | g)"
    outside = jg.lmm(formula, sorted(source.glob("*.parquet")))
    assert_same(outside, jg.lmm(formula, data))


def test_integer_levels_dates_and_truths(tmp_path):
    data = table(1500, 40)
    data["g"] = data["g"].str[1:].astype(int) * 10_000_000_019
    data["t"] = data["h"] > 3
    source = written(data, tmp_path / "d", 2)
    formula = "y ~ t + (1 | g)"
    assert_same(jg.lmm(formula, source), jg.lmm(formula, data))
    data["g"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(data["k"], unit="D")
    source = written(data, tmp_path / "e", 2)
    assert_same(jg.lmm(formula, source), jg.lmm(formula, data))


def test_the_order_of_a_categorical_is_kept(tmp_path):
    data = table(1500, 40)
    data["f"] = pd.Categorical(data["f"], ["c", "a", "b"])
    formula = "y ~ f + (1 | g)"
    source = written(data, tmp_path / "d", 3)
    assert_same(jg.lmm(formula, source), jg.lmm(formula, data))


# What goes wrong ---------------------------------------------------------------------


def test_a_gaussian_generalised_model_is_the_linear_one(folder):
    for source in (folder, ds.dataset(folder, format="parquet")):
        one = jg.glmm("y ~ x + (1 | g)", source, family="gaussian")
        two = jg.lmm("y ~ x + (1 | g)", source, reml=False)
        assert one.criterion == two.criterion


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(jg.DataError, match="no file or folder"):
        jg.lmm(FORMULA, tmp_path / "nothing.parquet")
    with pytest.raises(jg.DataError, match="no file matches"):
        jg.lmm(FORMULA, str(tmp_path / "*.parquet"))
    with pytest.raises(jg.DataError, match="no file of a format"):
        jg.lmm(FORMULA, __file__)
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(jg.DataError, match=r"broken\.parquet"):
        jg.lmm(FORMULA, tmp_path / "broken.parquet")


def test_a_file_that_vanishes(tmp_path):
    source = written(table(900, 30), tmp_path / "d", 3)
    dataset = ds.dataset(source, format="parquet")
    (source / "part001.parquet").unlink()
    with pytest.raises(jg.DataError, match=r"part001\.parquet"):
        jg.lmm(FORMULA, dataset)


def test_a_file_without_a_column(tmp_path):
    data = table(900, 30)
    source = written(data.iloc[:500], tmp_path / "d", 1, "a")
    written(data.iloc[500:].drop(columns="x"), source, 1, "b")
    with pytest.raises(jg.DataError, match=r"b000.parquet: no column 'x'"):
        jg.lmm(FORMULA, source)


def test_a_column_that_changes_its_type(tmp_path):
    data = table(900, 30)
    source = written(data.iloc[:500], tmp_path / "d", 1, "a")
    written(data.iloc[500:].assign(x="many"), source, 1, "b")
    with pytest.raises(jg.DataError, match=r"b000\.parquet"):
        jg.lmm(FORMULA, source)


def test_values_that_are_not_finite_name_the_file(tmp_path):
    data = table(900, 30)
    source = written(data.iloc[:500], tmp_path / "d", 1, "a")
    bad = data.iloc[500:].copy()
    bad.loc[bad.index[3], "x"] = np.inf
    written(bad, source, 1, "b")
    with pytest.raises(jg.DataError, match=r"b000.parquet.*'x' is infinite"):
        jg.lmm(FORMULA, source)


def test_empty_parts_and_a_null_where_none_was(tmp_path):
    data = table(900, 30)
    source = written(data.iloc[:500], tmp_path / "d", 1, "a")
    written(data.iloc[:0], source, 1, "b")
    last = data.iloc[500:].copy()
    last.loc[last.index[::50], ["x", "g"]] = None
    written(last, source, 1, "c")
    whole = pd.concat([data.iloc[:500], last])
    with pytest.warns(jg.MissingRowsWarning):
        outside = jg.lmm(FORMULA, source)
    with pytest.warns(jg.MissingRowsWarning):
        inside = jg.lmm(FORMULA, whole)
    assert_same(outside, inside)


def test_a_column_that_is_null_in_one_file(tmp_path):
    data = table(900, 30)
    source = written(data.iloc[:800], tmp_path / "d", 1, "a")
    schema = pa.Schema.from_pandas(data)
    rest = data.iloc[800:].assign(f=None)
    pa.parquet.write_table(
        pa.Table.from_pandas(rest, schema=schema, preserve_index=False),
        source / "b.parquet",
    )
    with pytest.warns(jg.MissingRowsWarning, match=r"f \(100\)"):
        outside = jg.lmm(FORMULA, source)
    assert_same(outside, jg.lmm(FORMULA, data.iloc[:800]))


def test_a_source_without_rows(tmp_path):
    source = written(table(900, 30).iloc[:0], tmp_path / "d", 1)
    with pytest.raises(jg.DataError, match="no rows"):
        jg.lmm(FORMULA, source)


def test_readers_that_can_be_read_once(folder):
    reader = ds.dataset(folder, format="parquet").scanner().to_reader()
    with pytest.raises(jg.DataError, match="once only"):
        jg.lmm(FORMULA, reader)


def test_data_that_change_while_they_are_read(tmp_path):
    """A level that appears in the second pass only."""
    data = table(900, 30)
    turns = []

    def read(columns):
        turns.append(1)
        found = data if len(turns) == 1 else data.assign(g="new")
        return [pa.Table.from_pandas(found[columns])]

    with pytest.raises(jg.DataError, match=r"batch 0 of a test.*'new'"):
        jg.lmm(FORMULA, StreamSource(data.columns, read, "a test"))
