"""Data sets that lie together in files are fitted where they lie."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from doors import (
    RowGroups,
    RowsNotHereError,
    names_in,
    row_groups,
    streaming_fleet,
    streaming_source_of,
    together,
)

import jaxglmm as jg

pytest.importorskip("pyarrow")

FORMULA = "y ~ x + (1 | g)"
EACH = 40


def some(start, stop, seed=1):
    """Shuffled rows of data sets ``start`` to ``stop``."""
    rng = np.random.default_rng([seed, start])
    own = np.repeat(np.arange(start, stop), EACH)
    g = np.tile(np.repeat(np.arange(8), 5), stop - start)
    x = rng.normal(size=len(own))
    y = x + rng.normal(size=(stop - start, 8))[own - start, g] + rng.normal(size=len(x))
    rows = pd.DataFrame({"id": own, "g": g, "x": x, "y": y})
    return rows.sample(frac=1, random_state=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three files; the second has two row groups that share a data set."""
    monkeypatch.setattr(streaming_fleet, "ROWS", 300)
    out = tmp_path / "d"
    out.mkdir()
    some(0, 6).to_parquet(out / "a.parquet")
    some(6, 12).sort_values("id").to_parquet(out / "b.parquet", row_group_size=100)
    some(12, 20).to_parquet(out / "c.parquet")
    return out


def in_memory(folder):
    return jg.fit_many(FORMULA, pd.read_parquet(folder), by="id")


def same(one, two):
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.status, two.status)
    np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-9)
    np.testing.assert_allclose(one.sd, two.sd, rtol=1e-6, atol=1e-7)


def parts_of(data, rows, by=("id",)):
    return row_groups(streaming_source_of(data), ["id", "y"], list(by), rows)


def test_row_groups_hold_whole_data_sets(folder):
    parts = parts_of(folder, 300)
    assert [p.rows for p in parts] == [240, 240, 320]
    found = [set(p.read().to_pandas()["id"]) for p in parts]
    assert found == [set(range(6)), set(range(6, 12)), set(range(12, 20))]
    # neighbours together, and no more than they hold
    assert [p.rows for p in parts_of(folder, 700)] == [480, 320]


def test_row_groups_that_share_data_sets(folder):
    some(3, 15, seed=2).to_parquet(folder / "d.parquet")
    assert parts_of(folder, 50) is None  # one part of all rows
    assert [p.rows for p in parts_of(folder, 2000)] == [1280]


def test_files_that_do_not_say(folder, tmp_path):
    some(0, 6).to_parquet(tmp_path / "n.parquet", write_statistics=False)
    assert parts_of(tmp_path / "n.parquet", 300) is None
    some(0, 6).assign(id=lambda d: d["id"].where(d["id"] > 2)).to_parquet(
        tmp_path / "m.parquet"
    )
    assert [p.rows for p in parts_of(tmp_path / "m.parquet", 300)] == [240]
    assert parts_of(sorted(folder.glob("[ab].parquet")), 300) is not None
    some(0, 6).to_feather(tmp_path / "f.arrow")
    assert parts_of(tmp_path / "f.arrow", 300) is None


def test_names_in_the_path(tmp_path):
    for k in range(3):
        (tmp_path / f"id={k}").mkdir()
        some(k, k + 1).drop(columns="id").to_parquet(tmp_path / f"id={k}" / "a.parquet")
    parts = row_groups(streaming_source_of(tmp_path), ["id", "y"], ["id"], 50)
    assert [p.read().to_pandas()["id"].unique().tolist() for p in parts] == [
        [0],
        [1],
        [2],
    ]


def test_fits_of_whole_data_sets(folder, tmp_path):
    here = in_memory(folder)
    same(jg.fit_many(FORMULA, folder, by="id"), here)
    with ThreadPoolExecutor(2) as pool:
        run = tmp_path / "run"
        same(jg.fit_many(FORMULA, folder, by="id", executor=pool, file=run), here)
        names = {p.name: p.stat().st_mtime_ns for p in run.glob("*.parquet")}
        assert len(names) == 3
        same(jg.fit_many(FORMULA, folder, by="id", executor=pool, file=run), here)
    assert names == {p.name: p.stat().st_mtime_ns for p in run.glob("*.parquet")}


class FarAway(Executor):
    """Its workers do not see the files of this machine."""

    def __init__(self, refused):
        self.refused, self.asked = refused, []

    def submit(self, fn, /, *args, **kwargs):
        out: Future = Future()
        self.asked.append(type(args[1]).__name__)
        if isinstance(args[1], self.refused):
            out.set_exception(RowsNotHereError("a.parquet"))
        else:
            out.set_result(fn(*args, **kwargs))
        return out


def test_workers_that_do_not_see_the_files(folder):
    pool = FarAway(RowGroups)
    same(jg.fit_many(FORMULA, folder, by="id", executor=pool), in_memory(folder))
    assert pool.asked.count("ArrowBytes") == 3


def test_a_file_that_goes_after_its_row_groups_were_read(folder):
    gone = folder / "c.parquet"

    class Removing(FarAway):
        def submit(self, fn, /, *args, **kwargs):
            gone.unlink(missing_ok=True)
            out: Future = Future()
            try:
                out.set_result(fn(*args, **kwargs))
            except Exception as error:
                out.set_exception(error)
            return out

    with pytest.raises(jg.DataError, match=r"c\.parquet"):
        jg.fit_many(FORMULA, folder, by="id", executor=Removing(()))


def test_pieces_that_share_data_sets():
    rows = pd.DataFrame({"a": ["x", "x", "y", None], "b": [1, 2, 1, 1]})
    names = names_in(rows, ["a", "b"])
    assert len(np.unique(names)) == 3  # a missing name is nobody's
    text = rows.assign(a=rows["a"].astype("category"))
    np.testing.assert_array_equal(names_in(text, ["a", "b"]), names)
    parts = [names[:1], names[1:2], names[2:], names[1:2]]
    nobody = [np.zeros(0, np.uint64)] * 8
    assert together([*parts, *nobody])[:3] == [[0], [1, 3], [2]]
    assert together([names, names]) is None
    assert together([names]) == [[0]]
