"""Data frames of real engines, each where it is installed, give the fit in memory."""

import pytest
from streaming_cases import assert_same, table, written

import jaxglmm as jg

pytest.importorskip("pyarrow")

FORMULA = "y ~ x + f + (x | g)"
pytestmark = [
    pytest.mark.extras,
    # Ray and Spark leave sockets and files to the collector, and warn of their own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def inside():
    return jg.lmm(FORMULA, table(1500, 40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(table(1500, 40), tmp_path_factory.mktemp("engines") / "d", 3)


def test_ibis(folder, inside):
    ibis = pytest.importorskip("ibis")
    rows = ibis.duckdb.connect().read_parquet(str(folder / "*.parquet"))
    fit = jg.lmm(FORMULA, rows)
    assert_same(fit, inside)
    assert "Ibis" in str(fit.plan)
    memory = ibis.memtable(table(1500, 40))
    assert_same(jg.lmm(FORMULA, memory), inside)
    others = ibis.polars.connect().create_table("rows", table(1500, 40))
    assert_same(jg.lmm(FORMULA, others), inside)
    # an expression that was not run yet
    later = rows.filter(rows.y < 1e9).mutate(x=2 * rows.x / 2)
    assert_same(jg.lmm(FORMULA, later), inside)


def test_dask(folder, inside):
    dask = pytest.importorskip("dask.dataframe")
    rows = dask.read_parquet(folder)
    fit = jg.lmm(FORMULA, rows)
    assert_same(fit, inside)
    assert "Dask" in str(fit.plan)
    assert_same(
        jg.lmm(FORMULA, dask.from_pandas(table(1500, 40), npartitions=4)), inside
    )


def test_ray(folder, inside, ray_here):
    rows = ray_here.data.read_parquet(str(folder))
    fit = jg.lmm(FORMULA, rows)
    assert_same(fit, inside)
    assert "Ray" in str(fit.plan)


def test_spark(folder, inside, spark_here):
    rows = spark_here.read.parquet(str(folder))
    fit = jg.lmm(FORMULA, rows)
    assert_same(fit, inside)
    assert "Spark" in str(fit.plan)
