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


# What differs between files ----------------------------------------------------------


def two_files(folder, first, second):
    folder.mkdir(exist_ok=True)
    first.to_parquet(folder / "a.parquet", index=False)
    second.to_parquet(folder / "b.parquet", index=False)
    return folder


def every_way(data, formula="y ~ x + (1 | g)"):
    """The log-likelihoods of ``lmm``, ``glmm`` and ``fit_many`` of data."""
    one = jg.lmm(formula, data).log_likelihood
    two = jg.glmm(f"u{formula[1:]}", data, family="binomial").log_likelihood
    many = jg.fit_many(formula, data, by="k").log_likelihood
    return np.array([one, two, *many])


def rows_of_two():
    data = table(600, 20)
    data["k"] = data["g"].str[1:].astype(int) // 10
    data["g"] = data["g"].str[1:].astype(int)
    data["u"] = (data["y"] > data["y"].median()).astype(int)
    data["x"] = np.round(data["x"])
    return data.sort_values("k", ignore_index=True)


CHANGES = {
    "whole numbers, then doubles": lambda d: d.assign(x=d["x"].astype(int)),
    "short, then long": lambda d: d.assign(g=d["g"].astype("int16")),
    "names as doubles": lambda d: d.assign(g=d["g"].astype(float)),
    "categories": lambda d: d.assign(g=d["g"].astype(str).astype("category")),
    "text": lambda d: d.assign(g=d["g"].astype(str)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("first", [True, False])
def test_types_of_two_files(tmp_path, change, first):
    data = rows_of_two()
    data.loc[400:, "x"] += 0.5
    one, two = data.iloc[:300], data.iloc[300:]
    if first or "doubles, then" in change or "whole numbers" in change:
        one = CHANGES[change](one)
    else:
        two = CHANGES[change](two)
    folder = two_files(tmp_path / "d", one, two)
    if first and change == "categories":  # text and numbers
        with pytest.raises(jg.DataError, match=r"b\.parquet.*'g' is int64 here"):
            every_way(folder)
        return
    found = every_way(folder)
    np.testing.assert_allclose(found, every_way(data), rtol=1e-8)


@pytest.mark.parametrize(("turned", "text"), [(0, 0), (1, 0), (0, 1)])
def test_dictionaries_of_other_lengths(tmp_path, turned, text):
    data = table(3000, 400).assign(k=lambda d: d["g"].str[1:].astype(int) % 2)
    data["u"] = (data["y"] > data["y"].median()).astype(int)
    few = data["g"].isin([f"s{i}" for i in range(90)])
    parts = [
        rows.assign(g=rows["g"].astype("category")) for rows in (data[few], data[~few])
    ]
    if text:
        parts[1] = data[~few]
    found = every_way(two_files(tmp_path / "d", *parts[:: -1 if turned else 1]))
    np.testing.assert_allclose(found, every_way(data), rtol=1e-8)


def test_names_stay_whole_numbers(tmp_path):
    data = rows_of_two()
    data["g"] += 2**53
    two = data.iloc[300:].assign(g=lambda d: (d["g"] // 2 * 2).astype(float))
    exact = data.assign(g=np.r_[data["g"][:300], data["g"][300:] // 2 * 2])
    fit = jg.lmm("y ~ x + (1 | g)", two_files(tmp_path / "d", data.iloc[:300], two))
    assert fit.ngroups == jg.lmm("y ~ x + (1 | g)", exact).ngroups
    assert fit.ranef["g"].index.dtype.kind == "i"


@pytest.mark.parametrize("column", ["x", "g", "k"])
def test_a_type_that_changes_is_named(tmp_path, column):
    data = rows_of_two()
    two = data.iloc[300:].assign(**{column: "many"})
    folder = two_files(tmp_path / "d", data.iloc[:300], two)
    said = rf"b\.parquet.*'{column}' is (large_)?string here and (double|int64)"
    with pytest.raises(jg.DataError, match=said):
        jg.fit_many("y ~ x + (1 | g)", folder, by="k")
    if column != "k":
        with pytest.raises(jg.DataError, match=said):
            jg.lmm("y ~ x + (1 | g)", folder)
        with pytest.raises(jg.DataError, match=said):
            jg.glmm("u ~ x + (1 | g)", folder, family="binomial")


@pytest.mark.parametrize("damage", ["cut", "middle", "empty"])
def test_a_file_that_is_damaged_is_named(tmp_path, damage):
    data = rows_of_two()
    folder = two_files(tmp_path / "d", data.iloc[:300], data.iloc[300:])
    path = folder / "b.parquet"
    whole = path.read_bytes()
    kept = {"cut": whole[:2000], "empty": b""}
    kept["middle"] = whole[:100] + bytes(3000) + whole[3100:]
    path.write_bytes(kept[damage])
    with pytest.raises(jg.DataError, match=r"b\.parquet"):
        jg.lmm("y ~ x + (1 | g)", folder)
    with pytest.raises(jg.DataError, match=r"b\.parquet"):
        jg.glmm("u ~ x + (1 | g)", folder, family="binomial")
    with pytest.raises(jg.DataError, match=r"b\.parquet"):
        jg.fit_many("y ~ x + (1 | g)", folder, by="k")


def test_no_complete_row_names_the_source(tmp_path):
    data = rows_of_two().assign(x=np.nan)
    folder = two_files(tmp_path / "d", data.iloc[:300], data.iloc[300:])
    said = r"d, 2 files: no row is complete; missing values: x \(600\)"
    with pytest.raises(jg.DataError, match=said):
        jg.lmm("y ~ x + (1 | g)", folder)
    with pytest.raises(jg.DataError, match=said):
        jg.glmm("u ~ x + (1 | g)", folder, family="binomial")
    with pytest.raises(jg.DataError, match=said):
        jg.fit_many("y ~ x + (1 | g)", folder, by="k")
    # a first file without a complete row is none of many
    whole = rows_of_two()
    two_files(tmp_path / "d", data.iloc[:300], whole.iloc[300:])
    both = pd.concat([data.iloc[:300], whole.iloc[300:]])
    with pytest.warns(jg.ConvergenceWarning):
        outside = jg.fit_many("y ~ x + (1 | g)", folder, by="k")
    with pytest.warns((jg.ConvergenceWarning, jg.MissingRowsWarning)):
        inside = jg.fit_many("y ~ x + (1 | g)", both, by="k")
    assert len(outside) == 2  # nothing is left of the first
    np.testing.assert_array_equal(outside.status, inside.status)


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = rows_of_two()
    folder = two_files(tmp_path / "d", data.iloc[:300], data.iloc[300:])
    fit = jg.lmm("y ~ x + (1 | g)", folder)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(jg.DataError, match=r"out\.parquet cannot.*No space left"):
            fit.predict(folder, to=tmp_path / "out.parquet")
        with pytest.raises(jg.DataError, match=r"ranef\.parquet cannot.*No space"):
            fit.ranef_to(tmp_path / "ranef.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(jg.DataError, match=r"run.*No space left"):
            jg.lmm("y ~ x + (1 | g)", folder, checkpoint=tmp_path / "run")
    again = jg.lmm("y ~ x + (1 | g)", folder, checkpoint=tmp_path / "run")
    assert again.log_likelihood == pytest.approx(fit.log_likelihood, rel=1e-12)

    class Full:
        def __init__(self, *args):
            pass

        write_batch = write_table = full

        def close(self):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(pa.ipc, "new_stream", Full)
        with pytest.raises(jg.DataError, match=r"No space left.*TMPDIR"):
            jg.glmm("u ~ x + (1 | g)", folder, family="binomial")
