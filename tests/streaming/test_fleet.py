"""Data sets in a table that is read in parts: the fits of the table in memory."""

import multiprocessing
import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from doors import streaming_fleet

import jaxglmm as jg

pa = pytest.importorskip("pyarrow")

FORMULA = "y ~ x + f + (1 | g)"
J, ROWS, D = 8, 5, 60
REAL = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def real(test):
    """A test with an engine itself."""
    for mark in REAL:
        test = mark(test)
    return test


def long_table():
    """Shuffled rows of D data sets; one has a constant response, one an infinity."""
    rng = np.random.default_rng(3)
    g = np.tile(np.repeat(np.arange(J), ROWS), D)
    x = np.tile(np.arange(float(ROWS)), J * D)
    own = np.repeat(np.arange(D), J * ROWS)
    y = 1 + x + rng.normal(size=(D, J))[own, g] + rng.normal(size=len(g))
    y[own == 7] = 3.0
    y[np.flatnonzero(own == 9)[2]] = np.inf
    f = rng.choice(list("cab"), len(g))
    rows = pd.DataFrame({"y": y, "x": x, "g": g, "f": f, "id": own, "other": "z"})
    rows.loc[np.flatnonzero(own == 3)[:2], "x"] = np.nan
    return rows.sample(frac=1, random_state=1, ignore_index=True)


@pytest.fixture(scope="module")
def rows():
    return long_table()


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("fleet") / "d"
    out.mkdir()
    for k, some in enumerate(np.array_split(np.arange(len(rows)), 3)):
        rows.iloc[some].to_parquet(out / f"part{k}.parquet")
    return out


@pytest.fixture
def parted(monkeypatch):
    """Several parts."""
    monkeypatch.setattr(streaming_fleet, "ROWS", 500)


@pytest.fixture(scope="module")
def here(rows):
    with pytest.warns():
        return jg.fit_many(FORMULA, rows, by="id", devices="cpu")


def fitted(data, formula=FORMULA, **more):
    with pytest.warns(jg.ConvergenceWarning, match="1 constant"):
        return jg.fit_many(formula, data, by="id", devices="cpu", **more)


def same(one, two):
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.status, two.status)
    assert one.names == two.names
    np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-8)
    np.testing.assert_allclose(one.se, two.se, rtol=1e-7)
    np.testing.assert_allclose(one.df, two.df, rtol=1e-5)
    np.testing.assert_allclose(one.log_likelihood, two.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(one.sd, two.sd, rtol=1e-6, atol=1e-7)


def answers(folder):
    return sorted(p.name for p in folder.glob("*.parquet"))


# Sources -----------------------------------------------------------------------------


@pytest.mark.usefixtures("parted")
def test_files(folder, here):
    same(fitted(folder), here)
    same(fitted(str(folder / "*.parquet")), here)


@pytest.mark.usefixtures("parted")
def test_duckdb_and_polars(folder, here):
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    same(fitted(duckdb.read_parquet(str(folder / "*.parquet"))), here)
    same(fitted(polars.scan_parquet(folder / "*.parquet")), here)


@real
def test_dask(folder, here, dask_here, tmp_path):
    dask = pytest.importorskip("dask.dataframe")
    frame = dask.read_parquet(folder)
    (tmp_path / "run").mkdir()
    same(fitted(frame, file=tmp_path / "run"), here)
    before = answers(tmp_path / "run")
    same(
        fitted(frame, executor=jg.executors.dask(dask_here), file=tmp_path / "run"),
        here,
    )
    assert answers(tmp_path / "run") == before != []


@real
def test_ray(folder, here, ray_here, tmp_path):
    data = ray_here.data.read_parquet(str(folder))
    same(fitted(data, file=tmp_path / "run"), here)
    assert len(answers(tmp_path / "run")) == 1


@real
def test_spark(folder, here, spark_here, tmp_path):
    frame = spark_here.read.parquet(str(folder))
    same(fitted(frame, file=tmp_path / "run"), here)
    assert len(answers(tmp_path / "run")) == 1


@real
@pytest.mark.usefixtures("parted")
def test_files_through_engines(folder, here, dask_here, ray_here, spark_here):
    assert ray_here.is_initialized()
    same(fitted(folder, executor=jg.executors.dask(dask_here)), here)
    same(fitted(folder, executor=jg.executors.ray()), here)
    with jg.executors.spark(spark_here) as pool:
        same(fitted(folder, executor=pool), here)


# Columns and models ------------------------------------------------------------------


def test_several_names_and_text(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming_fleet, "ROWS", 3000)
    data = rows.assign(a="s" + (rows["id"] % 4).astype(str), b=rows["id"] // 4)
    data.to_parquet(tmp_path / "a.parquet")
    given = {"by": ["a", "b"], "devices": "cpu"}
    with pytest.warns():
        inside = jg.fit_many(FORMULA, data, **given)
    with pytest.warns(jg.ConvergenceWarning):
        outside = jg.fit_many(FORMULA, tmp_path / "a.parquet", **given)
    assert list(outside.labels) == list(inside.labels)
    np.testing.assert_array_equal(outside.status, inside.status)
    np.testing.assert_allclose(outside.coefficients, inside.coefficients, rtol=1e-8)


@pytest.mark.usefixtures("parted")
def test_categories_with_an_order(rows, tmp_path):
    data = rows.assign(f=pd.Categorical(rows["f"], ["b", "a", "c"]))
    data.to_parquet(tmp_path / "a.parquet")
    with pytest.warns():
        inside = jg.fit_many(FORMULA, data, by="id", devices="cpu")
    outside = fitted(tmp_path / "a.parquet")
    assert outside.coefficient_names[2:] == ("f[T.a]", "f[T.c]")
    same(outside, inside)


def test_a_generalised_model(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming_fleet, "ROWS", 1000)
    data = rows[rows["id"] < 20].dropna().assign(n=lambda d: d["x"].astype(int) % 3)
    data.to_parquet(tmp_path / "a.parquet")
    given = {"by": "id", "family": "poisson", "devices": "cpu"}
    inside = jg.fit_many("n ~ f + (1 | g)", data, **given)
    outside = jg.fit_many("n ~ f + (1 | g)", tmp_path / "a.parquet", **given)
    np.testing.assert_array_equal(outside.status, inside.status)
    np.testing.assert_allclose(outside.coefficients, inside.coefficients, atol=1e-7)
    assert outside.facts["family"] == "poisson"


@pytest.mark.parametrize("term", ["scale(x)", "poly(x, 2)", "I(x - x.mean())"])
def test_formulas_that_look_at_other_rows(term, folder):
    with pytest.raises(jg.FormulaError, match="depends on other rows"):
        jg.fit_many(f"y ~ {term} + (1 | g)", folder, by="id")


def test_what_needs_a_table_in_memory(folder):
    with pytest.raises(jg.NotApplicableError, match="in memory"):
        jg.fit_many(FORMULA, folder, by="id", method="map")
    with pytest.raises(jg.ModelError, match="name of a column"):
        jg.fit_many(FORMULA, folder, by="id", weights=np.ones(3))
    with pytest.raises(jg.DataError, match="no column of that name"):
        jg.fit_many(FORMULA, folder, by="nobody")
    with pytest.raises(jg.FormulaError, match="'nothing'"):
        jg.fit_many("y ~ nothing + (1 | g)", folder, by="id")


# Failures ----------------------------------------------------------------------------


@pytest.mark.usefixtures("parted")
def test_a_restart_takes_what_is_done(folder, here, tmp_path, monkeypatch):
    run = tmp_path / "run"
    fit, fitted_parts = streaming_fleet.fit_part, []

    def dies(*args):
        if len(fitted_parts) == 2:
            raise KeyboardInterrupt
        fitted_parts.append(1)
        return fit(*args)

    monkeypatch.setattr(streaming_fleet, "fit_part", dies)
    with pytest.raises(KeyboardInterrupt):
        jg.fit_many(FORMULA, folder, by="id", devices="cpu", file=run)
    before = {p.name: p.stat().st_mtime_ns for p in run.glob("*.parquet")}
    assert len(before) == 2
    monkeypatch.setattr(streaming_fleet, "fit_part", lambda *a: fit(*a))
    same(fitted(folder, file=run), here)
    after = {p.name: p.stat().st_mtime_ns for p in run.glob("*.parquet")}
    assert len(after) > 2
    assert before.items() <= after.items()
    # another model is another name
    fitted(folder, "y ~ x + (1 | g)", file=run)
    assert len(answers(run)) == 2 * len(after)


@pytest.mark.usefixtures("parted")
def test_a_disk_that_is_full(folder, here, tmp_path, monkeypatch):
    run, write, written = tmp_path / "run", pd.DataFrame.to_parquet, []

    def full(self, path, **options):
        if len(written) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written.append(path)
        write(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        with pytest.raises(jg.DataError, match=r"run.*No space left"):
            jg.fit_many(FORMULA, folder, by="id", devices="cpu", file=run)
    assert len(os.listdir(run)) == 2  # no half a file
    same(fitted(folder, file=run), here)


class Dying(Executor):
    """Every second worker has gone."""

    def __init__(self):
        self.asked = 0

    def submit(self, fn, /, *args, **kwargs):
        self.asked += 1
        out: Future = Future()
        if self.asked % 2:
            out.set_exception(OSError("the worker has gone"))
        else:
            out.set_result(fn(*args, **kwargs))
        return out


@pytest.mark.usefixtures("parted")
def test_workers_that_die(folder, here):
    pool = Dying()
    same(fitted(folder, executor=pool), here)
    assert pool.asked > 2


@pytest.mark.usefixtures("parted")
def test_threads_and_a_pool_that_is_shut(folder, here):
    with ThreadPoolExecutor(2) as pool:
        same(fitted(folder, executor=pool), here)
    same(fitted(folder, executor=pool), here)


@pytest.mark.slow
@pytest.mark.usefixtures("parted")
def test_a_process_that_is_killed(folder, here):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(os._exit, 9)
        same(fitted(folder, executor=pool), here)


@pytest.mark.usefixtures("parted")
def test_a_file_that_vanishes_or_changes(rows, tmp_path):
    source = tmp_path / "d"
    source.mkdir()
    rows.iloc[:1000].to_parquet(source / "a.parquet")
    rows.iloc[1000:].assign(x="many").to_parquet(source / "b.parquet")
    with pytest.raises(jg.DataError, match=r"b\.parquet"):
        jg.fit_many(FORMULA, source, by="id")
    import pyarrow.dataset as ds

    rows.iloc[1000:].to_parquet(source / "b.parquet")
    dataset = ds.dataset(source, format="parquet")
    (source / "b.parquet").unlink()
    with pytest.raises(jg.DataError, match=r"b\.parquet"):
        jg.fit_many(FORMULA, dataset, by="id")


@pytest.mark.usefixtures("parted")
def test_parts_without_rows_and_rows_of_nobody(rows, here, tmp_path):
    source = tmp_path / "d"
    source.mkdir()
    rows.iloc[:0].to_parquet(source / "a.parquet")
    rows.to_parquet(source / "b.parquet")
    rows.iloc[:9].assign(id=None).astype({"id": "Int64"}).to_parquet(
        source / "c.parquet"
    )
    same(fitted(sorted(source.glob("[ab].parquet"))), here)
    same(fitted(source), here)
    nobody = tmp_path / "nobody.parquet"
    rows.assign(id=pd.array([pd.NA] * len(rows), "Int64")).to_parquet(nobody)
    with pytest.raises(jg.DataError, match="by= is missing everywhere"):
        jg.fit_many(FORMULA, nobody, by="id")
    rows.iloc[:0].to_parquet(tmp_path / "none.parquet")
    with pytest.raises(jg.DataError, match="has no rows"):
        jg.fit_many(FORMULA, tmp_path / "none.parquet", by="id")
