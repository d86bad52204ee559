"""A run that was killed goes on where it was, and never with sums of other data."""

import numpy as np
import pytest
from doors import streaming_checkpoint, streaming_passes, streaming_sources
from streaming_cases import assert_same, table, written

import jaxglmm as jg

pytest.importorskip("pyarrow")

FORMULA = "y ~ x + f + (x | g) + (1 | h)"


class Killed(BaseException):
    """What ends a run from outside."""


@pytest.fixture
def eager(monkeypatch):
    """Small batches, and a checkpoint after each."""
    monkeypatch.setattr(streaming_checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(streaming_checkpoint, "SHARE", 0.0)
    monkeypatch.setattr(streaming_passes, "ROWS", 500)
    monkeypatch.setattr(streaming_passes, "PER_LEVEL", 1)
    monkeypatch.setattr(streaming_sources, "ROWS", 500)


def killed_after(monkeypatch, n):
    """Ends the run at the n-th batch of the cross-products; rows of those before."""
    sums = streaming_passes.RowSums
    add, rows = sums.add, []

    def counted(self, columns, w, codes):
        if len(rows) == n - 1:
            raise Killed
        rows.append(len(codes[0]))
        add(self, columns, w, codes)

    monkeypatch.setattr(sums, "add", counted)
    return rows


@pytest.mark.usefixtures("eager")
def test_goes_on_in_the_middle(tmp_path, monkeypatch):
    data = table(3000)
    source = written(data, tmp_path / "d", 4)
    with monkeypatch.context() as patch:
        before = killed_after(patch, 4)
        with pytest.raises(Killed):
            jg.lmm(FORMULA, source, checkpoint=tmp_path / "run")
    files = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert files == ["pass1.npz", "survey.npz"]
    with monkeypatch.context() as patch:
        after = killed_after(patch, 99)
        fit = jg.lmm(FORMULA, source, checkpoint=tmp_path / "run")
    assert len(before) == 3
    assert sum(before) + sum(after) == len(data)
    assert "checkpoint" in fit.plan.method
    assert_same(fit, jg.lmm(FORMULA, data))


@pytest.mark.usefixtures("eager")
def test_a_finished_run_reads_nothing(tmp_path, monkeypatch):
    data = table(2000)
    source = written(data, tmp_path / "d", 3)
    first = jg.lmm(FORMULA, source, checkpoint=tmp_path / "run")
    rows = killed_after(monkeypatch, 1)
    again = jg.lmm(FORMULA, source, checkpoint=tmp_path / "run")
    assert rows == []
    assert again.criterion == first.criterion
    assert again.coef.tolist() == first.coef.tolist()


def test_other_data_and_other_models_are_refused(tmp_path):
    data = table(1000)
    source = written(data, tmp_path / "d", 2)
    jg.lmm(FORMULA, source, checkpoint=tmp_path / "run")
    with pytest.raises(jg.DataError, match="formula differ"):
        jg.lmm("y ~ x + (1 | g)", source, checkpoint=tmp_path / "run")
    written(data.assign(x=np.sqrt(data["x"] ** 2 + 1)), tmp_path / "d", 2)
    with pytest.raises(jg.DataError, match="files differ"):
        jg.lmm(FORMULA, source, checkpoint=tmp_path / "run")


def test_a_damaged_file_is_named(tmp_path):
    source = written(table(1000), tmp_path / "d", 2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "survey.npz").write_bytes(b"half of it")
    with pytest.raises(jg.DataError, match=r"survey\.npz is no checkpoint"):
        jg.lmm(FORMULA, source, checkpoint=tmp_path / "run")


def test_what_has_no_order_has_no_checkpoint(tmp_path):
    polars = pytest.importorskip("polars")
    lazy = polars.from_pandas(table(500)).lazy()
    with pytest.raises(jg.ModelError, match="files on this machine"):
        jg.lmm(FORMULA, lazy, checkpoint=tmp_path / "run")
    with pytest.raises(jg.ModelError, match="in batches"):
        jg.lmm(FORMULA, table(500), checkpoint=tmp_path / "run")
