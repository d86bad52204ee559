"""``python -m benchmarks --device``: the prepared command, at small sizes and here."""

import json
import math

import jax
import pytest

from benchmarks import device
from benchmarks.__main__ import arguments, main
from benchmarks.device_lines import LINES

HAS_GPU = any(d.platform == "gpu" for d in jax.devices())


def asked(*argv):
    return arguments(["--device", *argv])


@pytest.mark.skipif(HAS_GPU, reason="there is one")
def test_without_a_gpu_nothing_is_done_and_it_says_so(tmp_path, capsys):
    path = tmp_path / "found.json"
    assert main(["--device", "gpu", "--output", str(path)]) == 2
    out, err = capsys.readouterr()
    assert "JAX sees no GPU here" in err
    assert "Nothing was measured" in err
    assert out == ""
    assert not path.exists()


def test_a_quick_run_measures_and_writes(tmp_path, capsys):
    path = tmp_path / "found.json"
    names = ["transfer", "genes", "crossed-probes"]
    argv = ["--device", "cpu", "--quick", "--output", str(path), "--only", *names]
    assert main(argv) == 0
    report = json.loads(path.read_text())
    assert [x["problem"] for x in report["lines"]] == names
    assert [x["engine"] for x in report["lines"]] == ["cpu", "cpu", "host"]
    assert report["machine"]["packages"]["jax"] == jax.__version__
    for line in report["lines"]:
        assert line["error"] is line["skipped"] is None
        assert 0 < line["warm"] <= line["first"]
        assert math.isfinite(line["value"])
        assert line["memory"]["host_peak"] > line["data"] > 0
    out = capsys.readouterr().out
    assert "fits/s" in out
    assert str(path) in out


def test_what_the_time_does_not_allow_is_skipped(tmp_path, capsys):
    path = tmp_path / "found.json"
    argv = ["--device", "cpu", "--seconds", "1", "--output", str(path)]
    assert main(argv) == 0
    report = json.loads(path.read_text())
    assert len(report["lines"]) == len(LINES)
    assert all("left, about" in x["skipped"] for x in report["lines"])
    assert f"{len(LINES)} lines skipped" in capsys.readouterr().out


def test_a_line_that_fails_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(device.BY_NAME, "gone", device.BY_NAME["genes"])
    gone = device.Line("gone", "", device.BY_NAME["genes"].make, (1, 1), (1, 1))
    monkeypatch.setattr(device, "LINES", (gone,))
    assert device.main(asked("cpu", "--quick")) == 1
    assert "KeyError: 'gone'" in capsys.readouterr().out


def test_the_device_comes_first_then_its_cpu_then_the_host():
    asked_for = asked("gpu", "--only", "crossed-exact", "genes", "crossed", "slopes")
    found = [(line.name, where) for line, where in device.order(asked_for)]
    assert found == [
        ("genes", "gpu"),
        ("slopes", "gpu"),
        ("crossed", "gpu"),
        ("genes", "cpu"),
        ("slopes", "cpu"),
        ("crossed-exact", "gpu"),
    ]


def test_the_guesses_of_the_lines_on_a_gpu_fit_in():
    sure = [line.seconds[0] for line in LINES if not line.host]
    assert sum(sure) < 600


def test_numbers_that_hang_on_the_device_are_named():
    def line(engine, value, name="genes"):
        return {"problem": name, "engine": engine, "value": value}

    same = [line("gpu", -1234.5), line("cpu", -1234.5 * (1 + 1e-10))]
    assert device.differences(same) == {}
    other = [line("gpu", -1234.5), line("cpu", -1234.6)]
    assert device.differences(other) == {"genes": (-1234.5, -1234.6)}
    absent = [line("gpu", float("nan")), line("cpu", -1234.6)]
    assert "genes" in device.differences(absent)


@pytest.mark.parametrize("argv", [["--only", "nobody"], ["--device", "tpu"]])
def test_what_there_is_not_is_refused(argv, capsys):
    with pytest.raises(SystemExit):
        arguments(argv)
    assert argv[-1] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_every_line_runs_at_small_size(line):
    found = device.measured(line, "cpu", True, 300.0)
    assert found["error"] is found["skipped"] is None
    assert math.isfinite(found["value"])
